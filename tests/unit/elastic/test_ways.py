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

"""What the mover looks at in a running compute node."""

import types
from unittest import mock

import fixtures

from nova_k8s.accounting import overhead
from nova_k8s.elastic import values
from nova_k8s.elastic import ways
from nova_k8s import errors
from tests.unit import base

Room = values.Room


class WaysTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.told = True
        self.woken = []
        self.reported = types.SimpleNamespace(
            cap=None, is_told=lambda: self.told, ratio=lambda name: 2.0)
        self.accounts = types.SimpleNamespace(
            others_mb=100, needs=lambda: [overhead.Need(1024, 50, 1024)])
        self.client = mock.Mock()
        self.client.get.return_value = mock.Mock(
            status_code=200, json=lambda: {
                'usages': {'MEMORY_MB': 3072, 'VCPU': 4}})
        self.tracker = types.SimpleNamespace(
            compute_nodes={'node1': types.SimpleNamespace(
                uuid='u', vcpus_used=3)}, reportclient=self.client)

    def elastic(self, **options):
        conf = self.conf(elastic=True, elastic_max='65536:32', **options)
        with mock.patch.object(ways.instance_overhead, 'settings_from',
                               return_value=overhead.Settings()):
            # Where it is kept is Nova's affair.
            with mock.patch.object(ways.mover, 'path', return_value='/none'):
                return ways.from_conf(
                    conf, types.SimpleNamespace(pod=lambda: {}), None,
                    self.accounts, self.reported, self.tracker,
                    lambda: self.woken.append(1), None)

    def test_off(self):
        self.assertIsNone(ways.from_conf(self.conf(), None))

    def test_needs_an_api_server(self):
        exc = self.assertRaises(
            errors.Refused, ways.from_conf,
            self.conf(elastic=True, limits_from='manifest'), None)
        self.assertIn('limits_from = api', str(exc))

    def test_demand(self):
        found = self.elastic()
        self.assertEqual(Room(1024 + 50 + 100, 1500),
                         found._demand(Room()))
        # Placement has more, which is on its way.
        self.assertEqual(Room(1174 + 2048, 2000),
                         found._demand(found._usages()))
        self.client.get.assert_called_once_with(
            '/resource_providers/u/usages', version='1.26')

    def test_placement_does_not_answer(self):
        self.client.get.return_value = mock.Mock(status_code=500, text='no')
        self.assertRaises(errors.NotWritten, self.elastic()._usages)

    def test_before_the_first_audit(self):
        self.tracker.compute_nodes.clear()
        self.assertRaises(errors.Unreadable, self.elastic()._demand, Room())

    def test_it_waits_until_placement_is_told(self):
        found = self.elastic()
        self.assertIsNone(self.reported.cap())
        found.mover.cap = Room(4096, 2000)
        self.assertEqual(Room(4096, 2000), self.reported.cap())
        found._have_published()
        self.assertEqual([1], self.woken)
        self.told = False
        self.useFixture(fixtures.MockPatchObject(ways, 'PATIENCE', 0.1))
        self.assertRaises(errors.NotWritten, found._have_published)
        # More than before waits for nobody.
        found.mover.cap = None
        found._have_published()

    def test_no_node_is_followed(self):
        found = self.elastic()
        self.assertIsNone(found._node())
        self.assertIsNone(found._neighbours)
