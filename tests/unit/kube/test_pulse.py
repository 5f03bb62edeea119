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


"""Who asks the API server whether it answers, and when."""

import threading
from unittest import mock

import fixtures
import hypothesis
from hypothesis import strategies
from kubernetes import client
import urllib3

from nova_k8s.kube import pulse
from tests.unit import base
from tests import waiting

TIMEOUT = 10
HANGS = urllib3.exceptions.ReadTimeoutError(None, '', 'Read timed out.')


class Clock:

    now = 1000.0

    def monotonic(self):
        return self.now


class PulseTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.clock = Clock()
        self.useFixture(fixtures.MockPatchObject(pulse, 'time', self.clock))
        self.connect, self.get = mock.Mock(), mock.Mock()
        self.pulse = pulse.Pulse(TIMEOUT)

    def ask(self, after=0.0):
        self.clock.now += after
        return self.pulse.ask(self.connect, self.get)

    def test_once_a_timeout(self):
        self.assertIsNone(self.ask())
        self.assertEqual(TIMEOUT, self.pulse.due())
        self.assertIsNone(self.ask(TIMEOUT - 1))
        self.assertEqual(1, self.get.call_count)
        self.assertIsNone(self.ask(1))
        self.assertEqual(2, self.get.call_count)
        self.assertEqual(1, self.connect.call_count)

    def test_what_comes_by_itself_is_an_answer(self):
        self.ask()
        self.clock.now += TIMEOUT - 1
        self.pulse.heard()
        self.ask(1)
        self.assertEqual(1, self.get.call_count)
        self.assertEqual(TIMEOUT - 1, self.pulse.due())

    def test_hangs(self):
        self.get.side_effect = HANGS
        self.assertIs(HANGS, self.ask())
        self.assertTrue(self.pulse.hangs)
        self.assertEqual(pulse.HANGING * TIMEOUT, self.pulse.due())
        self.assertIs(HANGS, self.ask(TIMEOUT))
        self.assertEqual(1, self.get.call_count)
        self.get.side_effect = None
        self.assertIsNone(self.ask((pulse.HANGING - 1) * TIMEOUT))
        self.assertFalse(self.pulse.hangs)
        # Its client was good.
        self.assertEqual(1, self.connect.call_count)

    def test_something_else_than_a_hang(self):
        self.get.side_effect = client.ApiException(status=403)
        self.assertIsNone(self.ask())
        self.get.side_effect = ConnectionRefusedError()
        self.assertIsNone(self.ask(TIMEOUT))
        self.assertIsNone(self.ask(TIMEOUT))
        # As tokens and CAs rotate.
        self.assertEqual(2, self.connect.call_count)

    def test_an_outage_does_not_end_a_hang(self):
        self.get.side_effect = HANGS
        self.ask()
        self.get.side_effect = ConnectionRefusedError()
        self.assertIs(HANGS, self.ask(pulse.HANGING * TIMEOUT))

    def test_who_comes_meanwhile_waits_for_the_answer(self):
        asked, go_on = threading.Event(), threading.Event()

        def get(_api):
            asked.set()
            go_on.wait(10)
            raise HANGS
        self.get.side_effect = get
        found = []
        threads = [threading.Thread(target=lambda: found.append(self.ask()))
                   for _ in range(3)]
        for each in threads:
            each.start()
        self.assertTrue(asked.wait(waiting.PATIENCE))
        self.assertEqual([], found)
        go_on.set()
        for each in threads:
            each.join(10)
        self.assertEqual([HANGS] * 3, found)
        self.assertEqual(1, self.get.call_count)

    @hypothesis.given(strategies.lists(strategies.tuples(
        strategies.floats(0, 3 * TIMEOUT), strategies.booleans())),
        strategies.floats(0, 5 * TIMEOUT))
    def test_a_hang_is_known_within_two_timeouts(self, heard, hangs):
        """Whatever came before, for whoever sleeps as long as due() says."""
        clock, found = Clock(), pulse.Pulse(TIMEOUT)
        begin = clock.now
        events = sorted(begin + at for at, real in heard if
                        real and at < hangs)

        def get(_api):
            if clock.now >= begin + hangs:
                clock.now += TIMEOUT
                raise HANGS

        with mock.patch.object(pulse, 'time', clock):
            while not found.ask(mock.Mock(), get):
                until = clock.now + found.due()
                while events and events[0] <= until:
                    clock.now = max(clock.now, events.pop(0))
                    found.heard()
                    # Whoever sleeps is not woken by it.
                clock.now = max(clock.now, until) + 0.001
        self.assertLess(clock.now - begin - hangs, 2 * TIMEOUT + 0.1)


class OfTest(base.TestCase):

    def test_one_for_each_server(self):
        found = pulse.of('https://a', 10)
        self.assertIs(found, pulse.of('https://a', 10))
        self.assertIsNot(found, pulse.of('https://b', 10))
        self.assertIsNot(found, pulse.of('https://a', 5))
