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

"""Watching, against a server that does not always let us."""

import threading
import time

import fixtures
from kubernetes import client
from kubernetes.informer import informer

from nova_k8s import errors
from nova_k8s.kube import client as kube_client
from nova_k8s.kube import watch
from tests.unit import api_server
from tests.unit import base
from tests.unit.limits.sources import test_api
from tests import waiting

pod = test_api.pod


class WatchTestBase(base.TestCase):

    def setUp(self):
        super().setUp()
        # A tenth of what they are.
        for name in ('FIRST_DELAY', 'LAST_DELAY', 'PROBATION', 'SHORTEST'):
            self.useFixture(fixtures.MockPatchObject(
                watch, name, getattr(watch, name) / 10))
        self.server = self.useFixture(api_server.ApiServer())
        self.server.will_list(pod())
        self.server.will_watch()
        self.changed = threading.Semaphore(0)
        self.connected = 0
        self.broken = []
        self.watch = watch.Watch(
            self._connect, kube_client.path('v1', 'pods', 'openstack'),
            'Pod openstack/compute',
            self.changed.release, 5, field_selector='metadata.name=compute')

    def _connect(self):
        self.connected += 1
        if self.broken:
            raise self.broken[-1]
        configuration = client.Configuration()
        configuration.host = self.server.url
        configuration.retries = False
        return client.ApiClient(configuration)

    def _start(self):
        self.stop = threading.Event()
        self.thread = threading.Thread(
            target=self.watch.run, args=(self.stop,), daemon=True)
        self.thread.start()
        self.addCleanup(self._end)

    def _end(self):
        self.stop.set()
        self.thread.join(20)

    def _await(self, condition):
        waiting.until(condition, interval=0.005)

    def _works(self):
        self._await(lambda: not self.watch._problem)

    def _fails(self, *names):
        self._await(lambda: self.watch._problem and
                    self.watch._problem != 'not yet connected')
        exc = self.assertRaises(errors.Unreadable, self.watch.objects)
        for name in ('Pod openstack/compute', *names):
            self.assertIn(name, str(exc))
        self.assertTrue(base.one_line(exc))

    def _seen(self):
        return [each['spec']['containers'][0]['resources']['limits']['cpu']
                for each in self.watch.objects()]


class WatchTest(WatchTestBase):

    def test_before_the_first_answer(self):
        self.assertRaises(errors.Unreadable, self.watch.objects)

    def test_list_and_watch(self):
        self._start()
        self._works()
        self.assertEqual(['4'], self._seen())
        self.assertTrue(self.changed.acquire(timeout=waiting.PATIENCE))
        self._await(lambda: self.server.watched)
        listed, watched = (query for _, query in self.server.requests)
        self.assertEqual({'fieldSelector': 'metadata.name=compute'}, listed)
        self.assertEqual({
            'fieldSelector': 'metadata.name=compute', 'resourceVersion': '1',
            'timeoutSeconds': str(watch.PERIOD), 'watch': 'true',
            'allowWatchBookmarks': 'true'},
            # The client before 37 writes True.
            {name: value.lower() for name, value in watched.items()})
        # One connection for both.
        self.assertEqual(1, self.connected)

    def test_silence(self):
        self.useFixture(fixtures.MockPatchObject(watch, 'SILENCE', 0.2))
        # That the server answers others is no matter here.
        self.useFixture(fixtures.MockPatchObject(
            watch.Watch, '_ask_whether_it_answers'))
        self.watch._timeout = 0.1
        self.server.will_watch({
            'type': 'BOOKMARK', 'object': {
                'kind': 'Pod', 'metadata': {'resourceVersion': '7'}}})
        self._start()
        self._works()
        # It hangs, and the next one goes on where it ended.
        self._await(lambda: self.server.watched > 1)
        self.assertEqual(2, self.connected)
        listed = [query for _, query in self.server.requests
                  if 'watch' not in query]
        self.assertEqual(1, len(listed))
        self.assertEqual('7', self.server.requests[-1][1]['resourceVersion'])

    def test_empty_list_is_an_answer(self):
        self.server.will_list()
        self._start()
        self._works()
        self.assertEqual([], self.watch.objects())
        self.assertTrue(self.changed.acquire(timeout=waiting.PATIENCE))

    def test_event(self):
        changed = pod(cpu='2')
        changed['metadata']['resourceVersion'] = '2'
        self.server.will_watch({'type': 'MODIFIED', 'object': changed})
        self._start()
        self._await(lambda: not self.watch._problem and
                    self._seen() == ['2'])

    def test_deleted(self):
        self.server.will_watch({'type': 'DELETED', 'object': pod()})
        self._start()
        self._await(lambda: not self.watch._problem and self._seen() == [])

    def test_stop(self):
        before = threading.active_count()
        self._start()
        self._works()
        self._await(lambda: self.server.watched)
        # Time for the answer to arrive: it is what is waited for.
        time.sleep(0.1)
        began = time.monotonic()
        self._end()
        self.assertLess(time.monotonic() - began, 15)
        self.server.release.set()
        self._await(lambda: threading.active_count() <= before)

    def test_stop_during_the_first_list(self):
        gone = threading.Event()

        def answer(handler, original=self.server._answer):
            gone.wait(10)
            original(handler)

        self.useFixture(fixtures.MockPatchObject(
            self.server, '_answer', answer))
        self._start()
        self._await(lambda: self.connected)
        self.stop.set()
        gone.set()
        self.thread.join(5)
        # Not only when the watch ends by itself.
        self.assertFalse(self.thread.is_alive())
        self.assertEqual(0, self.server.watched)

    def test_stop_while_it_fails(self):
        # A thread that never waits is all that a green thread's process does.
        self.server.will_watch(status=403, lasts=0)
        self._start()
        self._fails('403')
        original = self.watch._informer.stop

        def stop():
            time.sleep(0.2)
            original()

        self.useFixture(fixtures.MockPatchObject(
            self.watch._informer, 'stop', stop))
        before = self.watch._failures
        self._end()
        self.assertFalse(self.thread.is_alive())
        self.assertLess(self.watch._failures - before, 100)

    def test_thread_that_ended(self):
        self.useFixture(fixtures.MockPatchObject(watch, 'PERIOD', 0.2))
        self.server.will_watch(lasts=0.3)
        original = informer.Watch

        def broken():
            informer.Watch = original
            raise MemoryError

        self.addCleanup(setattr, informer, 'Watch', original)
        informer.Watch = broken
        self._start()
        self._await(lambda: self.server.watched)
        self._works()


class FailureTest(WatchTestBase):

    def _delays(self, number):
        """The pauses after as many failures."""
        delays = []
        self.watch._stop = self
        self.wait = delays.append
        for _ in range(number):
            self.watch._failed(errors.Unreadable('x'))
        return delays

    def test_backoff(self):
        first, last = watch.FIRST_DELAY, watch.LAST_DELAY
        delays = self._delays(20)
        longest = first
        for delay in delays:
            self.assertGreaterEqual(delay, longest / 2)
            self.assertLessEqual(delay, longest)
            longest = min(2 * longest, last)
        self.assertLessEqual(max(delays), last)
        # Jitter: no two compute nodes return together for long.
        self.assertGreater(len(set(self._delays(20))), 15)

    def test_backoff_of_a_thousand_failures(self):
        self.assertLessEqual(max(self._delays(1100)), watch.LAST_DELAY)

    def test_backoff_starts_anew(self):
        self._delays(10)
        self.watch._works()
        self.assertLessEqual(self._delays(1)[0], watch.FIRST_DELAY)

    def test_one_failure_is_silent(self):
        self.watch._works()
        self._delays(1)
        self.assertIsNone(self.watch._problem)
        self._delays(1)
        self.assertEqual('x', self.watch._problem)

    def test_gone_is_no_outage(self):
        self.watch._works()
        self.watch._stop = threading.Event()
        self.watch._stop.set()
        for _ in range(3):
            self.watch._failed(client.ApiException(410, 'Gone'))
        self.assertIsNone(self.watch._problem)

    def test_gone_lists_anew(self):
        self.server.will_watch({'type': 'ERROR', 'object': {
            'kind': 'Status', 'code': 410, 'reason': 'Expired',
            'message': 'too old resource version'}})
        self._start()
        self._await(lambda: self.server.watched)
        self.server.will_list(pod(cpu='2'))
        self._await(lambda: not self.watch._problem and
                    self._seen() == ['2'])

    def test_watch_that_is_refused(self):
        self.server.will_watch(lasts=0.15)
        self._start()
        self._works()
        self.server.will_watch(status=403, lasts=0)
        self._fails(self.server.url, '403')
        self.server.will_watch()
        self._works()

    def test_outage_and_back(self):
        self.server.will_watch(lasts=0.15)
        self._start()
        self._works()
        self.broken.append(errors.Unreadable(
            'Pod openstack/compute: no token'))
        self._fails('no token')
        self.server.will_watch()
        self.broken.clear()
        self._works()

    def test_any_exception(self):
        self.server.will_watch(lasts=0.15)
        self._start()
        self._works()
        for text, exc in (('no route', OSError('no route')),
                          ('a bug', AttributeError('a bug'))):
            self.broken.append(exc)
            self._await(lambda text=text: text in (self.watch._problem or ''))
            self._fails()
        self.server.will_watch()
        self.broken.clear()
        self._works()

    def test_probation(self):
        # A connection that breaks soon again does not count as working.
        self.server.will_watch(lasts=0)
        self._start()
        self._fails()
        self.server.will_watch()
        watched = self.server.watched
        self._await(lambda: self.server.watched > watched)
        began = time.monotonic()
        self.assertTrue(self.watch._problem)
        self._works()
        self.assertGreater(time.monotonic() - began, watch.PROBATION / 2)


class SilentTest(WatchTestBase):
    """A server that hangs, while nothing happens."""

    def setUp(self):
        super().setUp()
        self.watch._timeout = 0.5
        self._start()
        self._works()
        self._await(lambda: self.server.watched)

    def test_noticed(self):
        # How soon that is, test_pulse shows with a clock of its own.
        self.server.will_hang()
        self._fails(self.server.url)
        # The watch itself has not noticed.
        self.assertEqual(0, self.watch._failures)

    def test_told_once_and_recovers(self):
        while self.changed.acquire(blocking=False):
            pass
        self.server.will_hang()
        self._fails()
        self.assertTrue(self.changed.acquire(timeout=waiting.PATIENCE))
        self.server.will_list(pod())
        self.server.release.set()
        self._works()
        self.assertTrue(self.changed.acquire(timeout=waiting.PATIENCE))
        self.assertEqual(['4'], self._seen())

    def test_refusal_is_an_answer(self):
        # The watch says what is wrong, when it is opened the next time.
        asked = len(self.server.requests)
        self.server.will_refuse(403, 'because')
        self._await(lambda: len(self.server.requests) > asked + 2)
        self.assertIsNone(self.watch._problem)

    def test_connection_that_is_not_made(self):
        # An API server that restarts: the watch notices, and forgives it.
        self.broken.append(ConnectionRefusedError('refused'))
        self.watch._pulse._api = None
        connected = self.connected
        self._await(lambda: self.connected > connected + 1)
        self.assertIsNone(self.watch._problem)

    def test_connection_is_kept(self):
        connected = self.connected
        asked, opened = len(self.server.requests), self.server.connections
        self._await(lambda: len(self.server.requests) > asked + 2)
        self.assertLessEqual(self.connected, connected + 1)
        # Each would be a handshake of TLS.
        self.assertLessEqual(self.server.connections, opened + 1)

    def test_one_asks_for_all(self):
        another = watch.Watch(
            self._connect, kube_client.path('v1', 'nodes'), 'Node a',
            lambda: None, 0.5)
        thread = threading.Thread(
            target=another.run, args=(self.stop,), daemon=True)
        thread.start()
        self.addCleanup(thread.join, 20)
        self.addCleanup(self.stop.set)
        self._await(lambda: self.server.watched == 2)
        asked = len(self.server.requests)
        began = time.monotonic()
        time.sleep(2)
        # One every half second, and not one of each.
        self.assertLessEqual(len(self.server.requests) - asked,
                             (time.monotonic() - began) / 0.5 + 1)
        self.server.will_hang()
        self._fails(self.server.url)
        self._await(lambda: another._problem)

    def test_asked_seldom_while_it_hangs(self):
        # Whose watches break, too.
        self.server.will_hang()
        self._fails()
        self.server._watch = None
        self.server.close_all()
        self._await(lambda: not self.watch._go.is_set())
        asked, connected = len(self.server.requests), self.connected
        time.sleep(3)
        # One in four timeouts: three of pause, and one without an answer.
        self.assertLessEqual(len(self.server.requests) - asked, 3)
        self.assertEqual(connected, self.connected)
        self.server.will_list(pod(cpu='5'))
        self.server.will_watch({'type': 'MODIFIED', 'object': pod(cpu='5')})
        self._works()
        self.assertEqual(['5'], self._seen())

    def test_ends_while_it_hangs(self):
        self.server.will_hang()
        self._fails()
        self.server._watch = None
        self.server.close_all()
        self._await(lambda: not self.watch._go.is_set())
        self.stop.set()
        self.thread.join(5)
        self.assertFalse(self.thread.is_alive())

    def test_not_asked_while_the_watch_fails(self):
        self.server.will_watch(status=403, lasts=0)
        self.server.release.set()
        self._fails('403')
        self.server.will_hang()
        time.sleep(1)
        self.assertIn('403', self.watch._problem)


class HotLoopTest(WatchTestBase):
    """A server that ends its watches at once is left in peace."""

    def _few(self):
        self._start()
        self._await(lambda: self.server.watched)
        time.sleep(0.5)
        # Without a pause there are a hundred in this time.
        self.assertLess(self.server.watched, 15)

    def test_without_a_word(self):
        self.server.will_watch(lasts=0)
        self._few()
        self._fails('ends the watch at once')

    def test_after_an_event(self):
        self.server.will_watch({'type': 'MODIFIED', 'object': pod()},
                               lasts=0)
        self._few()

    def test_with_a_list_instead(self):
        self.server._watch = None
        self.server.watched = 1
        self._few()
        self.assertLess(len(self.server.requests), 15)

    def test_after_some_time(self):
        # An API server that ends its watches early is still one.
        self.server.will_watch(lasts=watch.SHORTEST * 1.5)
        self._start()
        self._await(lambda: self.server.watched > 3)
        self.assertIsNone(self.watch._problem)
