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

"""The worker that keeps the budget up to date."""

import dataclasses
import threading
import time
from unittest import mock

import fixtures

from nova_k8s.confinement import cgroup
from nova_k8s import errors
from nova_k8s.limits import budget
from nova_k8s.limits import watcher
from nova_k8s.util import worker
from tests.unit import base
from tests import waiting


def some(cpu=4000):
    return budget.Budget('Pod a/b', cpu, 2 ** 33)


UNREADABLE = errors.Unreadable('Pod a/b: cannot be read')
REFUSED = errors.Refused('Pod a/b: is not there')


class Source:
    """Says one thing after the other, and the last one for ever."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.reads = 0
        self.changed = None
        self.watching = threading.Event()

    def read(self):
        self.reads += 1
        answer = (self.answers.pop(0) if len(self.answers) > 1
                  else self.answers[0])
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def watch(self, changed, stop):
        self.changed = changed
        self.watching.set()
        stop.wait()


class FirstTest(base.TestCase):

    def test_at_once(self):
        source = Source(some())
        self.assertEqual(some(), watcher.read_first(source, 0))
        self.assertEqual(1, source.reads)

    def test_again_while_it_cannot_be_read(self):
        source = Source(UNREADABLE, UNREADABLE, some())
        self.assertEqual(some(), watcher.read_first(source, 0.5))
        self.assertEqual(3, source.reads)

    def test_until_the_time_is_over(self):
        source = Source(UNREADABLE)
        began = time.monotonic()
        exc = self.assertRaises(
            errors.Unreadable, watcher.read_first, source, 0.2)
        self.assertIs(UNREADABLE, exc)
        self.assertGreaterEqual(time.monotonic() - began, 0.2)
        self.assertGreater(source.reads, 2)

    def test_once_without_a_timeout(self):
        source = Source(UNREADABLE, some())
        self.assertRaises(errors.Unreadable, watcher.read_first, source, 0)
        self.assertEqual(1, source.reads)

    def test_refused_is_refused_at_once(self):
        source = Source(REFUSED, some())
        self.assertRaises(errors.Refused, watcher.read_first, source, 10)
        self.assertEqual(1, source.reads)

    def test_waits_for_what_does_not_hold_guests_yet(self):
        not_yet = errors.NotYet('Pod a/b: does not run')
        source = Source(not_yet, not_yet, some())
        self.assertEqual(some(), watcher.read_first(source, 0, 0.5))
        source = Source(not_yet)
        self.assertRaises(errors.NotYet, watcher.read_first, source, 0, 0.1)
        self.assertGreater(source.reads, 1)

    def test_what_was_known_bounds_what_is_said(self):
        said = dataclasses.replace(some(8000), generation=2, resizing='x')
        known = dataclasses.replace(some(), generation=1)
        self.assertEqual(some(), watcher.read_first(
            Source(said), 0, known=known))
        self.assertRaises(errors.NotYet, watcher.read_first, Source(said), 0)


class RefreshTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.source = Source(some())
        self.told = []
        self.follower = watcher.Watcher(
            self.source, watcher.State(some()),
            lambda *states: self.told.append(states), self.fail)

    def _refresh(self, answer, expected, changed):
        self.source.answers = [answer]
        before = self.follower.state
        # The source said something, if only the same again.
        self.follower._heard = True
        self.assertEqual(changed, self.follower.refresh())
        self.assertEqual(expected, self.follower.state)
        self.assertEqual((before, expected), self.told[-1])
        # A look of its own at the same is told to nobody.
        self.source.answers = [answer]
        told = len(self.told)
        self.follower.refresh()
        self.assertEqual(told, len(self.told))

    def test_same(self):
        self._refresh(some(), watcher.State(some()), False)

    def test_changed(self):
        self._refresh(some(8000), watcher.State(some(8000)), True)

    def test_unreadable_keeps(self):
        stale = watcher.State(some(), str(UNREADABLE))
        for _ in range(3):
            self._refresh(UNREADABLE, stale, False)
        self.assertTrue(stale.stale)
        self._refresh(some(), watcher.State(some()), False)
        self.assertFalse(self.follower.state.stale)

    def test_refused_loses(self):
        lost = watcher.State(None, str(REFUSED))
        self._refresh(REFUSED, lost, True)
        self._refresh(REFUSED, lost, False)
        self.assertFalse(lost.stale)
        self._refresh(some(), watcher.State(some()), True)

    def test_unreadable_does_not_bring_back_what_was_lost(self):
        self._refresh(REFUSED, watcher.State(None, str(REFUSED)), True)
        self._refresh(UNREADABLE, watcher.State(None, str(REFUSED)), False)

    def test_comes_back_as_another(self):
        self._refresh(UNREADABLE, watcher.State(some(), str(UNREADABLE)),
                      False)
        self._refresh(some(2000), watcher.State(some(2000)), True)
        self._refresh(UNREADABLE, watcher.State(some(2000), str(UNREADABLE)),
                      False)


class WorkerTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.useFixture(fixtures.MockPatchObject(watcher, 'SETTLE', 0.02))
        self.useFixture(fixtures.MockPatchObject(worker, 'RETRY', 0.05))
        self.log = self.useFixture(fixtures.FakeLogger('nova_k8s'))
        self.speechless = []
        self.pushed = []
        self.push_done = threading.Semaphore(0)

    def _tell(self, before, after):
        if self.speechless:
            raise self.speechless.pop()

    def _push(self):
        self.pushed.append(self.follower.state.budget)
        self.push_done.release()

    def _start(self, *answers):
        self.source = Source(*answers)
        self.follower = watcher.Watcher(
            self.source, watcher.State(some()), self._tell, self._push)
        self.follower.start()
        self.addCleanup(self.follower.stop)
        self.assertTrue(self.source.watching.wait(waiting.PATIENCE))

    def _await_push(self):
        self.assertTrue(self.push_done.acquire(
            timeout=waiting.PATIENCE))

    def _no_push(self):
        self.assertFalse(self.push_done.acquire(timeout=0.2))

    def _await(self, condition):
        waiting.until(condition, interval=0.005)

    def test_a_change_is_pushed(self):
        self._start(some(8000))
        self.source.changed()
        self._await_push()
        self.assertEqual([some(8000)], self.pushed)

    def test_no_change_is_not(self):
        self._start(some())
        self.source.changed()
        self._await(lambda: self.source.reads)
        self._no_push()

    def test_a_storm_ends_in_few(self):
        self._start(*(some(cpu) for cpu in range(1, 1000)))
        for _ in range(500):
            self.source.changed()
        self._await_push()
        # It looks each time, and tells once.
        self._no_push()
        self.assertGreaterEqual(self.source.reads, 500)

    def test_the_last_one_counts(self):
        self._start(some(1000))
        for cpu in range(2000, 9000, 1000):
            self.source.answers = [some(cpu)]
            self.source.changed()
            time.sleep(0.01)
        self._await(lambda: self.pushed and self.pushed[-1] == some(8000))

    def test_lost_and_found(self):
        self._start(REFUSED)
        self.source.changed()
        self._await_push()
        self.source.answers = [some()]
        self.source.changed()
        self._await_push()
        self.assertEqual([None, some()], self.pushed)

    def test_unreadable_is_not_pushed(self):
        self._start(UNREADABLE)
        self.source.changed()
        self._await(lambda: self.source.reads)
        self._no_push()

    def test_survives_what_nobody_foresaw(self):
        self._start(AttributeError('a bug'), AttributeError('a bug'),
                    some(8000))
        self.source.changed()
        self._await(lambda: 'a bug' in self.log.output)
        self.assertEqual(some(), self.follower.state.budget)
        self.source.changed()
        self._await(lambda: self.pushed and self.pushed[-1] == some(8000))

    def test_no_wish_is_missed(self):
        # A shrink that lasts for less than a step, and may be what the kernel
        # has. Whoever looks at the last one only has 8 cores here.
        def wished(cpu, generation):
            return budget.Budget(
                'Pod a/b', cpu, 2 ** 33, generation=generation,
                resizing='status.observedGeneration is 1')

        self._start(dataclasses.replace(some(), generation=1))
        self.source.changed()
        self._await(lambda: self.follower._seen.budget.generation == 1)
        for present in (wished(1000, 2), wished(4000, 3)):
            self.source.answers = [present]
            self.source.changed()
        self._await_push()
        self._no_push()
        self.assertEqual([1000], [each.cpu_millicores for each
                                  in self.pushed])
        self.source.answers = [some()]
        self.source.changed()
        self._await_push()
        self.assertEqual(some(), self.pushed[-1])

    def test_looks_at_the_kernel_by_itself(self):
        # Nobody tells when a cgroup changes.
        self.useFixture(fixtures.MockPatchObject(watcher, 'LOOK_AGAIN', 0.05))
        allowed = [None]
        self.source = Source(some())
        self.follower = watcher.Watcher(
            self.source, watcher.State(some()), self._tell, self._push,
            lambda: allowed[0])
        self.follower.start()
        self.addCleanup(self.follower.stop)
        self.assertTrue(self.source.watching.wait(waiting.PATIENCE))
        self.source.changed()
        self._no_push()
        for millicores, expected in ((1000, 1000), (3000, 3000),
                                     (None, 4000)):
            allowed[0] = cgroup.Enforced('x', millicores, None, True)
            self._await_push()
            self.assertEqual(expected, self.pushed[-1].cpu_millicores)
        # While that stays, the pod is not read again and again.
        reads = self.source.reads
        time.sleep(0.5)
        self.assertLessEqual(self.source.reads, reads + 1)

    def test_looks_again_while_it_cannot_be_read(self):
        self.useFixture(fixtures.MockPatchObject(watcher, 'LOOK_AGAIN', 0.05))
        self.source = Source(UNREADABLE)
        self.follower = watcher.Watcher(
            self.source, watcher.State(some()), self._tell, self._push,
            watcher.nothing)
        self.follower.start()
        self.addCleanup(self.follower.stop)
        self.assertTrue(self.source.watching.wait(waiting.PATIENCE))
        self.source.changed()
        self._await(lambda: self.follower.state.stale)
        self.source.answers = [some()]
        self._await(lambda: not self.follower.state.problem)

    def test_pushes_what_could_not_be_told(self):
        self._start(some(8000))
        self.speechless.append(AttributeError('a bug'))
        self.source.changed()
        self._await_push()
        self.assertEqual([some(8000)], self.pushed)
        self.assertIn('a bug', self.log.output)

    def test_a_watch_that_fails_is_opened_again(self):
        source = Source(some(8000))
        watch, source.watch = source.watch, mock.Mock(
            side_effect=AttributeError('a bug'))
        follower = self.follower = watcher.Watcher(
            source, watcher.State(some()), self._tell, self._push)
        follower.start()
        self.addCleanup(follower.stop)
        self._await(lambda: source.watch.call_count > 2)
        # With a pause.
        self.assertLess(source.watch.call_count, 10)
        self.assertIn('a bug', self.log.output)
        source.watch = watch
        self.assertTrue(source.watching.wait(waiting.PATIENCE))
        source.changed()
        self._await_push()
        self.assertEqual([some(8000)], self.pushed)

    def test_stop(self):
        before = threading.enumerate()
        self._start(some(8000))
        began = time.monotonic()
        self.follower.stop()
        self.assertLess(time.monotonic() - began, 10)
        self.assertEqual([], [
            each.name for each in threading.enumerate()
            if each not in before])
        self.source.changed()
        self._no_push()

    def test_stop_twice_and_without_a_start(self):
        self._start(some())
        self.follower.stop()
        self.follower.stop()
        watcher.Watcher(Source(some()), watcher.State(some()), self.fail,
                        self.fail).stop()

    def test_does_not_keep_the_process(self):
        self._start(some())
        for each in threading.enumerate():
            if each.name.startswith('nova-k8s-'):
                self.assertTrue(each.daemon)
