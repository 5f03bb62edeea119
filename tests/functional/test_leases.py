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

"""Slots of the cluster, at a real API server, with the rights of etc/."""

import fixtures
from kubernetes import client
import testtools
import yaml

from nova_k8s.kube import leases
from tests.functional import cluster


class SlotsTest(testtools.TestCase):

    def setUp(self):
        super().setUp()
        self.compute = self.useFixture(cluster.ComputePod())
        self.plane = self.compute.plane
        self.plane.kubectl('apply', '-f', '-', stdin=yaml.safe_dump_all(
            cluster.load('base/drain-leases.yaml', self.compute.namespace)))
        self.kubeconfig = self.compute.kubeconfig()
        self.now = 1000

    def slots(self, holder, count=2):
        return leases.Slots(
            lambda: self.plane.client(self.kubeconfig),
            self.compute.namespace, 'drain', count, holder, 5,
            lambda: self.now)

    def holders(self):
        found = client.CoordinationV1Api(
            self.plane.admin).list_namespaced_lease(self.compute.namespace)
        return [each.spec.holder_identity for each in found.items]

    def test_no_more_than_there_are(self):
        one, two, three = map(self.slots, ('a', 'b', 'c'))
        self.assertEqual([True, True, False],
                         [each.hold() for each in (one, two, three)])
        self.assertEqual(['a', 'b'], self.holders())
        # After a restart it is the same one.
        again = self.slots('b')
        self.assertTrue(again.hold())
        self.assertEqual(['a', 'b'], self.holders())
        one.release()
        self.assertTrue(three.hold())
        self.assertEqual(['c', 'b'], self.holders())
        self.assertFalse(one.hold())

    def test_a_holder_that_died(self):
        self.useFixture(fixtures.MonkeyPatch(
            'nova_k8s.kube.leases.DURATION', 1))
        self.assertTrue(self.slots('a', 1).hold())
        other = self.slots('b', 1)
        self.assertFalse(other.hold())
        lease, = client.CoordinationV1Api(
            self.plane.admin).list_namespaced_lease(
                self.compute.namespace).items
        lease.spec.renew_time = lease.spec.renew_time.replace(year=2020)
        client.CoordinationV1Api(self.plane.admin).replace_namespaced_lease(
            lease.metadata.name, self.compute.namespace, lease)
        self.assertTrue(other.hold())

    def test_the_api_server_is_away(self):
        one, two = self.slots('a'), self.slots('b')
        self.assertTrue(one.hold())
        self.kubeconfig = '/nowhere'
        self.assertFalse(two.hold())
        self.now += leases.DEADLINE - 1
        self.assertTrue(one.hold())
        self.now += 1
        self.assertFalse(one.hold())
