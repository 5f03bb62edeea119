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

"""What people are told, and that it is told once."""

import dataclasses

import testscenarios

from nova_k8s.limits import budget
from nova_k8s.limits import messages
from nova_k8s.limits import watcher
from tests.unit import base

load_tests = testscenarios.load_tests_apply_scenarios

GI = 2 ** 30
A = budget.Budget('Pod a/b', 4000, 8 * GI)
B = budget.Budget('Pod a/b', 8500, 8 * GI)
NO_CPU = budget.Budget('Pod a/b', None, 8 * GI, missing=('spec.cpu',))
SMALL = budget.Budget('Pod a/b', 500, 8 * GI)
STALE = watcher.State(A, 'API server: refused')
LOST = watcher.State(None, 'Pod a/b: not found')


def pending(reason, present=A):
    return watcher.State(dataclasses.replace(present, resize_pending=reason))


ADOPTED = 'LimitsAdopted'
FOLLOWED = 'LimitsFollowed'
READ = 'LimitsRead'
IS_STALE = 'LimitsStale'
IS_LOST = 'LimitsLost'
MISSING = 'LimitMissing'
PENDING = 'ResizePending'


class TableTest(base.TestCase):

    scenarios = [(name, {'before': before, 'after': after,
                         'reasons': reasons})
                 for name, before, after, reasons in (
        ('start', None, watcher.State(A), [ADOPTED]),
        ('start with what was kept', None, STALE, [IS_STALE]),
        ('start with a pending resize', None, pending('Deferred: x'),
         [ADOPTED, PENDING]),
        ('start without a limit', None, watcher.State(NO_CPU),
         [MISSING, ADOPTED]),
        ('nothing', watcher.State(A), watcher.State(A), []),
        ('growth', watcher.State(A), watcher.State(B), [FOLLOWED]),
        ('shrink', watcher.State(B), watcher.State(A), [FOLLOWED]),
        ('what is no limit', watcher.State(A), watcher.State(
            dataclasses.replace(A, memory_request_bytes=1)), []),
        ('less than a MiB', watcher.State(A), watcher.State(
            dataclasses.replace(A, memory_bytes=8 * GI + 1)), []),
        ('below one core', watcher.State(A), watcher.State(SMALL),
         [MISSING, FOLLOWED]),
        ('still below one core', watcher.State(SMALL), watcher.State(
            dataclasses.replace(SMALL, cpu_millicores=600)), [FOLLOWED]),
        ('limit gone', watcher.State(A), watcher.State(NO_CPU),
         [MISSING, FOLLOWED]),
        ('limit back', watcher.State(NO_CPU), watcher.State(A), [FOLLOWED]),
        ('outage', watcher.State(A), STALE, [IS_STALE]),
        ('outage with another cause', STALE,
         watcher.State(A, 'API server: timed out'), []),
        ('outage over', STALE, watcher.State(A), [READ]),
        ('outage over, changed', STALE, watcher.State(B), [READ]),
        ('outage over, limit gone', STALE, watcher.State(NO_CPU),
         [MISSING, READ]),
        ('outage over, pod gone', STALE, LOST, [IS_LOST]),
        ('lost', watcher.State(A), LOST, [IS_LOST]),
        ('lost otherwise', LOST, watcher.State(None, 'several match'),
         [IS_LOST]),
        ('found', LOST, watcher.State(A), [READ]),
        ('found, too small', LOST, watcher.State(SMALL), [MISSING, READ]),
        ('pending', watcher.State(A), pending('Deferred: x'), [PENDING]),
        ('pending, other numbers', pending('Deferred: x'),
         pending('Deferred: y'), []),
        ('pending, for good', pending('Deferred: x'),
         pending('Infeasible: x'), [PENDING]),
        ('pending no longer', pending('Deferred: x'), watcher.State(A), []),
        ('resized', pending('Deferred: x'), watcher.State(B), [FOLLOWED]))]

    def test_reasons(self):
        lines = messages.for_change(self.before, self.after, 'error')
        self.assertEqual(self.reasons, [each.reason for each in lines])
        for each in lines:
            self.assertEqual(
                messages.NORMAL if each.reason in (ADOPTED, FOLLOWED, READ)
                else messages.WARNING, each.type)
            self.assertEqual(1, len(each.text.splitlines()))
            self.assertTrue(each.text.endswith('.'), each.text)
            self.assertNotIn('None', each.text)
            # The API server cuts events there.
            self.assertLess(len(each.text), 1024)

    def test_once(self):
        self.assertEqual(
            [], messages.for_change(self.after, self.after, 'error'))


class TextTest(base.TestCase):

    def _text(self, before, after, unlimited='error'):
        return '\n'.join(
            each.text
            for each in messages.for_change(before, after, unlimited))

    def test_both_amounts(self):
        text = self._text(watcher.State(A), watcher.State(B))
        for name in ('8500 millicores', '8192 MiB', '4000 millicores',
                     'Pod a/b'):
            self.assertIn(name, text)

    def test_stale_says_what_is_in_force(self):
        text = self._text(watcher.State(A), STALE)
        for name in ('refused', '4000 millicores', '8192 MiB'):
            self.assertIn(name, text)

    def test_lost_says_why(self):
        self.assertIn('not found', self._text(watcher.State(A), LOST))

    def test_missing_says_where(self):
        self.assertIn('spec.cpu', self._text(None, watcher.State(NO_CPU)))

    def test_unlimited(self):
        lines = messages.for_change(None, watcher.State(NO_CPU), 'host')
        self.assertEqual([ADOPTED], [each.reason for each in lines])
        self.assertIn('no CPU limit', lines[0].text)

    def test_pending_says_why(self):
        self.assertIn('Deferred: no room', self._text(
            watcher.State(A), pending('Deferred: no room')))


class OutageTest(base.TestCase):
    """What a whole outage says, whatever it looks like from moment to moment.

    """

    def test_once_while_the_limits_were_lost(self):
        source = _Source(['not found'])
        states = [watcher.State(A)]
        for problem in ('refused', 'timed out', 'refused'):
            states.append(watcher.look_again(source, states[-1]))
            source.problems = [problem]
            source.kind = watcher.errors.Unreadable
        told = [line.reason for before, after in zip(states, states[1:])
                for line in messages.for_change(before, after, 'error')]
        self.assertEqual([IS_LOST], told)


class _Source:

    kind = watcher.errors.Refused

    def __init__(self, problems):
        self.problems = problems

    def read(self):
        raise self.kind(self.problems[-1])
