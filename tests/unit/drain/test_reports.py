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

from nova_k8s.drain import engine
from nova_k8s.drain import guests
from nova_k8s.drain import plan
from nova_k8s.drain import reports
from tests.unit import base

G = guests.Guest


def state(*verdicts, moved=()):
    return engine.State(verdicts, tuple(moved))


class ReportsTest(base.TestCase):

    def test_each(self):
        stays = plan.Verdict(G('1', 'db'), plan.STAYS, 'it is suspended')
        off = plan.Verdict(G('2', 'off'), plan.STAYS, 'it is shut off',
                           counts=False)
        failed = plan.Verdict(G('3', 'web'), plan.FAILED, 'No valid host')
        gone = engine.Moved(G('4', 'mail'), 'b', 12.3)
        table = (
            (reports.begun('a', 'the pod is being deleted'),
             'Normal DrainStarted The guests of a are moved away, because '
             'the pod is being deleted.'),
            (reports.ended('a', state(moved=[gone]), None),
             'Normal Drained a is empty: 1 guests have left.'),
            (reports.ended('a', state(off), None),
             'Normal Drained a is empty: 0 guests have left; 1 left: off '
             '(stays: it is shut off).'),
            (reports.ended('a', state(stays, failed), None),
             'Warning DrainIncomplete Guests are left on a, and nothing more '
             'can be done about them until something changes: 2 left: db '
             '(stays: it is suspended), web (failed: No valid host).'),
            (reports.ended('a', state(stays), 'the node was uncordoned'),
             'Normal DrainCalledOff No further guests of a are moved away, '
             'because the node was uncordoned. 0 have left, 1 left: db '
             '(stays: it is suspended).'),
            (reports.moved(gone), 'Normal GuestLeft Server 4 (mail) is on b '
             'now, after 12 s.'),
            (reports.moved(engine.Moved(G('4', 'mail'))),
             'Normal GuestLeft Server 4 (mail) is gone.'),
            (reports.not_moved(failed), 'Warning GuestNotMoved Server 3 '
             '(web) could not be moved: No valid host'),
            (reports.not_moved(stays), 'Warning GuestStays Server 1 (db) '
             'stays: it is suspended'))
        for line, expected in table:
            self.assertEqual(expected, ' '.join(line))
        for verdict in (off, plan.Verdict(G('5'), plan.MOVES)):
            self.assertIsNone(reports.not_moved(verdict))

    def test_many(self):
        found = reports.describe(state(*(
            plan.Verdict(G(str(each)), plan.STAYS) for each in range(12))))
        self.assertTrue(found.startswith('12 left: 0 (stays), '))
        self.assertTrue(found.endswith(' and 2 more'))

    def test_those_that_hold_it_up_come_first(self):
        found = reports.describe(state(
            plan.Verdict(G('1'), plan.STAYS, counts=False),
            plan.Verdict(G('2'), plan.MOVES),
            plan.Verdict(G('3'), plan.FAILED)))
        self.assertEqual('3 left: 3 (failed), 2 (moves), 1 (stays)', found)
