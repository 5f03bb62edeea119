# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""The accounts as a whole: when they look."""

from unittest import mock

import fixtures

from nova_k8s.accounting import accounts
from nova_k8s.accounting import overhead
from tests.unit import base


class MeasureTest(base.TestCase):

    def test_looks_again_soon_while_it_moves(self):
        clock = self.useFixture(fixtures.MockPatch(
            'nova_k8s.accounting.accounts.time.monotonic')).mock
        reserve, overhead = mock.Mock(mb=256), mock.Mock()
        found = accounts.Accounts(
            mock.Mock(), overhead, reserve, lambda: None, mock.Mock())
        for now, moves, expected, of_guests in (
                (100, False, 60, 1), (160, True, 5, 2), (165, True, 5, 2),
                (170, False, 60, 2), (230, False, 60, 3)):
            clock.return_value = now
            reserve.measure.return_value = moves
            self.assertEqual(expected, found.measure())
            self.assertEqual(of_guests, overhead.measure.call_count, now)


class ClosedTest(base.TestCase):

    def test_no_new_guests_and_those_that_are_here_start(self):
        closed = [False]
        found = accounts.Accounts(
            mock.Mock(update_resources_interval=60), mock.Mock(
                return_value=overhead.Need(512, 60, 512)),
            mock.Mock(mb=0), lambda: 8192, mock.Mock(), lambda: closed[0])
        here, coming = mock.Mock(uuid='a'), mock.Mock(uuid='b')
        self.assertIsNone(found.hold(coming))
        found._overhead.of_claim.return_value = (
            overhead.Need(512, 60, 512), 'b')
        self.assertIsNone(found.admit(None))
        closed[0] = True
        for reason in (found.hold(coming), found.admit(None)):
            self.assertIn('is being deleted', reason)
        self.assertIsNone(found.start(here, []))


class HeldTest(base.TestCase):

    def test_all_guests_of_one_moment(self):
        found = accounts.Accounts(
            mock.Mock(), mock.Mock(), mock.Mock(mb=128), lambda: None,
            mock.Mock())
        found._ledger.add('a', overhead.Need(512, 60, 512))
        self.assertIsNone(found.guests(lambda: 1 / 0))
        found._ledger.complete = True
        self.assertEqual(([overhead.Need(512, 60, 512)], 3),
                         found.guests(lambda: 3))

    def test_what_a_shrink_must_not_take(self):
        found = accounts.Accounts(
            mock.Mock(), mock.Mock(), mock.Mock(mb=128), lambda: None,
            mock.Mock())
        # A restart knows nothing of its guests before the first audit.
        self.assertIsNone(found.held_bytes())
        found._ledger.complete = True
        self.assertEqual(0, found.held_bytes())
        found._ledger.add('a', overhead.Need(512, 60, 512))
        self.assertEqual((512 + 60 + 128) << 20, found.held_bytes())
