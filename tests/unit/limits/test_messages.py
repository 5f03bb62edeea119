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
DELETED = watcher.State(dataclasses.replace(
    A, deletion_time='2026-11-24T20:30:00Z'))


def pending(reason, present=A):
    return watcher.State(dataclasses.replace(present, resize_pending=reason))


ADOPTED = 'LimitsAdopted'
FOLLOWED = 'LimitsFollowed'
READ = 'LimitsRead'
IS_STALE = 'LimitsStale'
IS_LOST = 'LimitsLost'
MISSING = 'LimitMissing'
PENDING = 'ResizePending'
TERMINATING = 'PodTerminating'
REFUSED = 'ResizeRefused'
WITHHELD = 'GrowthWithheld'


class TableTest(base.TestCase):

    scenarios = [(name, {'before': before, 'after': after,
                         'reasons': reasons})
                 for name, before, after, reasons in (
        ('start', None, watcher.State(A), [ADOPTED]),
        ('start with what was kept', None, STALE, [IS_STALE]),
        ('start with a pending resize', None, pending('Deferred: x'),
         [ADOPTED, PENDING]),
        ('start without a limit', None, watcher.State(NO_CPU), [MISSING]),
        ('nothing', watcher.State(A), watcher.State(A), []),
        ('growth', watcher.State(A), watcher.State(B), [FOLLOWED]),
        ('shrink', watcher.State(B), watcher.State(A), [FOLLOWED]),
        ('what is no limit', watcher.State(A), watcher.State(
            dataclasses.replace(A, memory_request_bytes=1)), []),
        ('less than a MiB', watcher.State(A), watcher.State(
            dataclasses.replace(A, memory_bytes=8 * GI + 1)), []),
        ('below one core', watcher.State(A), watcher.State(SMALL),
         [MISSING]),
        ('still below one core', watcher.State(SMALL), watcher.State(
            dataclasses.replace(SMALL, cpu_millicores=600)), []),
        ('limit gone', watcher.State(A), watcher.State(NO_CPU), [MISSING]),
        ('limit back', watcher.State(NO_CPU), watcher.State(A), [FOLLOWED]),
        ('outage', watcher.State(A), STALE, [IS_STALE]),
        ('outage with another cause', STALE,
         watcher.State(A, 'API server: timed out'), []),
        ('outage over', STALE, watcher.State(A), [READ]),
        ('outage over, changed', STALE, watcher.State(B), [READ]),
        ('outage over, limit gone', STALE, watcher.State(NO_CPU),
         [MISSING]),
        ('outage over, pod gone', STALE, LOST, [IS_LOST]),
        ('lost', watcher.State(A), LOST, [IS_LOST]),
        ('lost otherwise', LOST, watcher.State(None, 'several match'),
         [IS_LOST]),
        ('found', LOST, watcher.State(A), [READ]),
        ('found, too small', LOST, watcher.State(SMALL), [MISSING]),
        ('pending', watcher.State(A), pending('Deferred: x'), [PENDING]),
        ('pending, other numbers', pending('Deferred: x'),
         pending('Deferred: y'), []),
        ('pending, for good', pending('Deferred: x'),
         pending('Infeasible: x'), [PENDING]),
        ('pending no longer', pending('Deferred: x'), watcher.State(A), []),
        ('resized', pending('Deferred: x'), watcher.State(B), [FOLLOWED]),
        ('deleted', watcher.State(A), DELETED, [TERMINATING]),
        ('still being deleted', DELETED, watcher.State(dataclasses.replace(
            A, deletion_time='later', cpu_millicores=1000)), []),
        ('start in a pod that is deleted', None, DELETED, [TERMINATING]),
        ('outage over, deleted', STALE, DELETED, [TERMINATING]),
        ('gone after that', DELETED, LOST, [IS_LOST]),
        ('another in its place', DELETED, watcher.State(A), [FOLLOWED]),
        ('deleted during an outage', DELETED, watcher.State(
            DELETED.budget, 'API server: refused'), [IS_STALE]),
        ('shrink that is refused', watcher.State(B), watcher.State(
            dataclasses.replace(A, resize_error='in use')),
         [FOLLOWED, REFUSED]),
        ('shrink that is refused still', watcher.State(
            dataclasses.replace(A, resize_error='in use')), watcher.State(
            dataclasses.replace(A, resize_error='by others')), []),
        ('growth that nothing confirms', watcher.State(A), watcher.State(
            dataclasses.replace(A, withheld='8 cores')), [WITHHELD]),
        ('another growth', watcher.State(
            dataclasses.replace(A, withheld='8 cores')), watcher.State(
            dataclasses.replace(A, withheld='9 cores')), [WITHHELD]))]

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
        self.assertIn('Guests may use all CPUs and 8192 MiB', lines[0].text)

    def test_lost_limit_is_not_told_as_freedom(self):
        for before in (None, watcher.State(A), STALE, LOST):
            text = self._text(before, watcher.State(NO_CPU))
            self.assertIn('nothing new is placed', text)
            self.assertNotIn('Guests may use', text)
            self.assertNotIn('no CPU limit and', text)

    def test_deleted_says_by_when(self):
        text = self._text(watcher.State(A), DELETED)
        for name in ('Pod a/b', '2026-11-24T20:30:00Z', 'Guests stay'):
            self.assertIn(name, text)

    def test_refused_resize_says_why_and_what_counts(self):
        text = self._text(watcher.State(B), watcher.State(dataclasses.replace(
            A, resize_error='cannot decrease memory limits')))
        for name in ('cannot decrease memory limits', '4000 millicores'):
            self.assertIn(name, text.splitlines()[-1])

    def test_withheld_says_what_and_why(self):
        text = self._text(watcher.State(A), watcher.State(dataclasses.replace(
            A, withheld='8 cores are wished, and nobody knows')))
        for name in ('8 cores are wished, and nobody knows',
                     '4000 millicores'):
            self.assertIn(name, text)

    def test_pending_says_why(self):
        self.assertIn('Deferred: no room', self._text(
            watcher.State(A), pending('Deferred: no room')))


class UseTest(base.TestCase):
    """A limit that falls below what guests may use."""

    def _line(self, memory_mb, before=A, **use):
        after = dataclasses.replace(A, memory_bytes=memory_mb * 2 ** 20)
        line, = messages.for_change(
            watcher.State(before), watcher.State(after), 'error',
            messages.Use(**use))
        self.assertIn(f'{memory_mb} MiB', line.text)
        return line

    def _below(self, *args, **use):
        line = self._line(*args, **use)
        self.assertEqual((messages.WARNING, 'LimitsBelowUse'), line[:2])
        self.assertLess(len(line.text), 1024)
        return line.text

    def test_below_what_runs(self):
        text = self._below(2048, used_mb=3000)
        for name in ('3000 MiB in use', '0 MiB of stopped',
                     'a limit of 2048 MiB', 'before 4000 millicores'):
            self.assertIn(name, text)

    def test_below_what_may_be_started(self):
        text = self._below(2048, used_mb=2000, stopped_mb=512)
        for name in ('2000 MiB in use', '512 MiB of stopped guests',
                     'without any claim', 'a limit of 2048 MiB'):
            self.assertIn(name, text)

    def test_enough(self):
        for use in (dict(used_mb=2048), dict(used_mb=2000, stopped_mb=48),
                    dict(used_mb=0)):
            line = self._line(2048, **use)
            self.assertEqual((messages.NORMAL, 'LimitsFollowed'), line[:2])

    def test_growth_that_is_not_enough(self):
        self._below(4096, before=dataclasses.replace(A, memory_bytes=GI),
                    used_mb=5000)

    def test_without_a_limit(self):
        line, = messages.for_change(
            watcher.State(A), watcher.State(budget.Budget('Pod a/b', 4000)),
            'host', messages.Use(5000))
        self.assertEqual(FOLLOWED, line.reason)


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
