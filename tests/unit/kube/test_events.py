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

"""Events, as the API server gets them."""

import threading
import time

import fixtures
from kubernetes import client

from nova_k8s import errors
from nova_k8s.kube import events
from nova_k8s.limits import budget
from tests.unit import api_server
from tests.unit import base
from tests import waiting

POD = budget.Reference('Pod', 'compute-x7k2p', 'uid-1', 'openstack')
PATH = '/api/v1/namespaces/openstack/events'


class RecorderTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.log = self.useFixture(fixtures.FakeLogger('nova_k8s'))
        for name, value in (('_FIRST_RETRY', 0.02), ('_LAST_RETRY', 0.1)):
            self.useFixture(fixtures.MockPatchObject(events, name, value))
        self.server = self.useFixture(api_server.ApiServer())
        self.failures = []
        self.recorder = events.Recorder(self._connect, 'node-1', 5)

    def _connect(self):
        if self.failures:
            raise self.failures.pop()
        configuration = client.Configuration()
        configuration.host = self.server.url
        configuration.retries = False
        return client.ApiClient(configuration)

    def _start(self):
        self.recorder.start()
        self.addCleanup(self.recorder.stop)

    def _record(self, text='Something happened.', reference=POD):
        self.recorder.record(reference, 'Warning', 'LimitsLost', text)

    def _await(self, number):
        waiting.until(lambda: len(self.server.bodies) >= number,
                      interval=0.005)
        return self.server.bodies

    def _no_more_than(self, number):
        time.sleep(0.2)
        self.assertEqual(number, len(self.server.bodies))

    def test_written_once(self):
        self._start()
        self._record()
        body, = self._await(1)
        self.assertEqual((PATH, {}), self.server.requests[0])
        self.assertEqual(
            {'apiVersion': 'v1', 'kind': 'Pod', 'name': 'compute-x7k2p',
             'namespace': 'openstack', 'uid': 'uid-1'},
            body['involvedObject'])
        self.assertEqual(
            ('Event', 'Warning', 'LimitsLost', 'Something happened.', 1),
            tuple(body[key] for key in ('kind', 'type', 'reason', 'message',
                                        'count')))
        self.assertEqual('openstack', body['metadata']['namespace'])
        self.assertEqual('node-1', body['source']['host'])
        self.assertRegex(body['firstTimestamp'],
                         r'^20\d\d-\d\d-\d\dT[\d:]{8}(Z|\+00:00)$')
        self._no_more_than(1)

    def test_in_order_with_names_of_their_own(self):
        for number in range(5):
            self._record(str(number))
        self._start()
        bodies = self._await(5)
        self.assertEqual(list('01234'), [each['message'] for each in bodies])
        self.assertEqual(
            5, len({each['metadata']['name'] for each in bodies}))

    def test_object_without_a_namespace(self):
        self._start()
        self._record(reference=budget.Reference('Node', 'node-1', 'uid-2'))
        body, = self._await(1)
        self.assertEqual('default', body['metadata']['namespace'])
        self.assertNotIn('namespace', body['involvedObject'])

    def test_longest(self):
        self._start()
        self._record('x' * 5000)
        self.assertEqual(1024, len(self._await(1)[0]['message']))

    def test_repeated_under_the_same_name(self):
        for status in (500, 503, 429, 401):
            del self.server.bodies[:]
            self.server.will_refuse(status, 'because')
            if not self.recorder._thread.ident:
                self._start()
            self._record()
            bodies = self._await(3)
            self.server.will_answer({})
            self.assertEqual(
                1, len({each['metadata']['name'] for each in bodies}))
            self.recorder.record(POD, 'Normal', 'X', 'the next one')
            while self.server.bodies[-1]['message'] != 'the next one':
                time.sleep(0.005)
        self.assertEqual('', self.log.output)

    def test_repeated_without_a_connection(self):
        self.failures += [errors.Refused('no token'), OSError('no route'),
                          ValueError('a bug')]
        self._start()
        self._record()
        self._await(1)
        self._no_more_than(1)

    def test_done_where_repeating_is_of_no_use(self):
        # 409: an attempt that timed out had succeeded.
        self._start()
        for number, status in enumerate((409, 404, 400, 422), 1):
            self.server.will_refuse(status, 'because')
            self._record()
            self._await(number)
            self._no_more_than(number)
        self.assertEqual('', self.log.output)

    def test_forbidden_warns_once(self):
        self._start()
        message = 'events is forbidden: User "a" cannot create'
        self.server.will_refuse(403, message)
        for number in (1, 2, 3):
            self._record()
            self._await(number)
        self._no_more_than(3)
        line, = self.log.output.splitlines()
        self.assertIn(message, line)

    def test_the_oldest_go_first(self):
        for number in range(events._WAITING + 5):
            self._record(str(number))
        self._start()
        bodies = self._await(events._WAITING)
        self._no_more_than(events._WAITING)
        self.assertEqual(
            [str(number) for number in range(5, events._WAITING + 5)],
            [each['message'] for each in bodies])

    def test_recording_waits_for_nothing(self):
        self.server.will_hang()
        self._start()
        began = time.monotonic()
        for _ in range(100):
            self._record()
        self.assertLess(time.monotonic() - began, 4)
        self.server.release.set()

    def _no_thread(self):
        self.assertNotIn('nova-k8s-events',
                         [each.name for each in threading.enumerate()])

    def test_stop(self):
        self.recorder.start()
        self.recorder.stop()
        self._no_thread()
        self.recorder.stop()

    def test_stop_while_it_fails(self):
        self.server.will_refuse(500, 'because')
        self.recorder.start()
        for _ in range(events._WAITING + 5):
            self._record()
        self._await(1)
        self.recorder.stop()
        self._no_thread()

    def test_stop_without_a_start(self):
        self._record()
        self.recorder.stop()
        self._no_thread()

    def test_does_not_keep_the_process(self):
        self.assertTrue(self.recorder._thread.daemon)
