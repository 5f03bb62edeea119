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

"""Two conditions of its own node, and nothing else of any node."""

import itertools

from kubernetes import client
import testtools
import yaml

from nova_k8s.kube import conditions
from tests.functional import cluster
from tests.functional import control_plane
from tests import waiting

OURS = conditions.body((True, False, '1 left: web (moves)'), None)


class ConditionsTest(testtools.TestCase):

    def setUp(self):
        super().setUp()
        self.compute = self.useFixture(cluster.ComputePod())
        self.plane, self.node = self.compute.plane, self.compute.node
        self.plane.kubectl('apply', '-f', '-', stdin=yaml.safe_dump_all(
            cluster.load('base/node-conditions.yaml',
                         self.compute.namespace)))
        self.core = client.CoreV1Api(self.plane.client(
            self.compute.kubeconfig()))

    def patch(self, body, node=None):
        return self.core.patch_node_status(
            node or self.node, body, _content_type=control_plane.STRATEGIC)

    def refused(self, text, body, node=None):
        exc = self.assertRaises(client.ApiException, self.patch, body, node)
        self.assertIn(exc.status, (403, 422))
        self.assertIn(text, exc.body)

    def wait_for_the_policy(self):
        # It is in force a little after it was made. What changes nothing is
        # not refused: each time another.
        numbers = itertools.count()

        def refused():
            try:
                self.patch({'metadata': {'labels': {
                    'a': str(next(numbers))}}})
            except client.ApiException:
                return True
        waiting.until(refused, 'the policy')

    def test_only_these(self):
        self.wait_for_the_policy()
        self.patch(OURS)
        found = {each.type: each for each in self.plane.core.read_node(
            self.node).status.conditions}
        self.assertEqual('True', found['DrainInProgress'].status)
        self.assertEqual('1 left: web (moves)', found['Drained'].message)
        self.assertEqual('True', found['Ready'].status)
        self.refused('only the node of the token', OURS,
                     self.plane.create_node())
        self.refused('nothing else of the status',
                     {'status': {'capacity': {'cpu': '1'}}})
        self.refused('nothing else of the status', {'status': {'addresses': [
            {'type': 'InternalIP', 'address': '192.0.2.1'}]}})
        self.refused('only the conditions', {'status': {'conditions': [
            {'type': 'Ready', 'status': 'False'}]}})
        self.refused('only conditions, no metadata',
                     {'metadata': {'labels': {'a': 'c'}}})
        self.refused('only conditions, no metadata',
                     {'metadata': {'annotations': {'a': 'c'}}})

    def test_spec_is_not_the_status(self):
        self.patch({'spec': {'unschedulable': True}})
        self.assertFalse(
            self.plane.core.read_node(self.node).spec.unschedulable)
