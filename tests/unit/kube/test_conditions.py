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

import time

import fixtures
from kubernetes import client

from nova_k8s import errors
from nova_k8s.kube import conditions
from tests.unit import api_server
from tests.unit import base
from tests import waiting


class ConditionsTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.log = self.useFixture(fixtures.FakeLogger('nova_k8s'))
        for name, value in (('_FIRST_RETRY', 0.02), ('_LAST_RETRY', 0.1)):
            self.useFixture(fixtures.MockPatchObject(conditions, name, value))
        self.server = self.useFixture(api_server.ApiServer())
        self.failures = []
        self.conditions = conditions.Conditions(self._connect, 'node-1', 5)
        self.conditions.start()
        self.addCleanup(self.conditions.stop)

    def _connect(self):
        if self.failures:
            raise self.failures.pop()
        configuration = client.Configuration()
        configuration.host = self.server.url
        configuration.retries = False
        return client.ApiClient(configuration)

    def _await(self, number):
        waiting.until(lambda: len(self.server.bodies) >= number,
                      interval=0.005)
        return self.server.bodies

    def _no_more_than(self, number):
        time.sleep(0.3)
        self.assertEqual(number, len(self.server.bodies))

    def test_written_once(self):
        for _ in range(2):
            self.conditions.show(True, False, '2 left')
            self._await(1)
        self._no_more_than(1)
        self.assertEqual([('/api/v1/nodes/node-1/status', {})],
                         self.server.requests)

    def test_until_it_is_written(self):
        self.failures = [errors.Unreadable('away'), OSError('away')]
        self.conditions.show(True, False, '2 left')
        self._await(1)
        self.server.will_refuse(503, 'busy')
        self.conditions.show(True, False, '1 left')
        self._await(3)
        self.server.will_answer({})
        # The last word counts, not each.
        self.conditions.show(False, True, 'none is left')
        waiting.until(lambda: self.conditions._written == (
            False, True, 'none is left'), interval=0.005)

    def test_not_allowed(self):
        self.server.will_refuse(403, 'cannot patch "nodes/status"')
        self.conditions.show(True, False, '2 left')
        self._await(1)
        self.conditions.show(True, False, '1 left')
        self._no_more_than(1)
        self.assertEqual(1, self.log.output.count(
            'The conditions of node node-1 do not say'))


class BodyTest(base.TestCase):

    def found(self, wanted, before=None):
        return {each['type']: each for each in conditions.body(
            wanted, before)['status']['conditions']}

    def test_each(self):
        for wanted, statuses, reasons in (
                ((True, False, ''), ('True', 'False'),
                 ('GuestsLeave', 'GuestsLeft')),
                ((False, True, ''), ('False', 'True'),
                 ('NothingGoesOn', 'NoGuests')),
                ((False, False, ''), ('False', 'False'),
                 ('NothingGoesOn', 'NotDrained'))):
            found = self.found(wanted)
            both = [found[each] for each in ('DrainInProgress', 'Drained')]
            self.assertEqual(statuses, tuple(
                each['status'] for each in both))
            self.assertEqual(reasons, tuple(each['reason'] for each in both))

    def test_transition(self):
        found = self.found((True, False, 'b'), (True, False, 'a'))
        self.assertNotIn('lastTransitionTime', found['DrainInProgress'])
        found = self.found((False, True, 'b'), (True, False, 'a'))
        for each in found.values():
            self.assertIn('lastTransitionTime', each)

    def test_long(self):
        for each in self.found((True, False, 'x' * 5000)).values():
            self.assertEqual(1024, len(each['message']))
