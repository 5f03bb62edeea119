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

"""The boundary moves: Nova, Placement and a real API server.

The test plays the kubelet.
"""

import time

import fixtures
import nova.conf

from nova_k8s.accounting import instance_overhead
from nova_k8s.elastic import mover
from tests.functional import base
from tests.functional import cluster
from tests.functional import control_plane

CONF = nova.conf.CONF


class ElasticTest(base.ServersTestBase):

    def setUp(self):
        # First: Nova's tests have a home directory of their own.
        control_plane.shared()
        super().setUp()
        self.useFixture(fixtures.MockPatchObject(mover, 'RETRY', 1))
        self.compute = self.useFixture(cluster.ComputePod(
            cpu='4', memory='4Gi', labels={'nova-k8s/elastic': 'on'}))
        self.compute.apply_elastic()
        self.plane = self.compute.plane
        self.flags(
            limits_from='api', hypervisor_hostname='compute1',
            elastic=True, elastic_min=(4096, 2000),
            elastic_max=(16384, 8000), elastic_headroom=(2048, 2000),
            elastic_spare=(2048, 1000), elastic_step=(1024, 1000),
            elastic_idle=20, reserved_memory_mb='0', overhead_factor=0,
            group='kubernetes', **self.compute.options())
        self.flags(state_path=self.useFixture(fixtures.TempDir()).path)
        self.flags(initial_cpu_allocation_ratio=1.0)

    def pod(self):
        return self.plane.core.read_namespaced_pod(
            self.compute.pod.metadata.name, self.compute.namespace)

    def wished(self):
        limits = self.pod().spec.containers[0].resources.limits
        return limits['cpu'], limits['memory']

    def wait_for_wish(self, cpu, memory):
        self.wait_for((cpu, memory), self.wished)
        self.assertEqual(
            {'cpu': cpu, 'memory': memory},
            self.pod().spec.containers[0].resources.requests)

    def kubelet(self, **fields):
        self.compute.pod = self.plane.set_pod_status(self.compute.pod,
                                                     **fields)

    def reasons(self):
        return [reason for _, reason, _ in self.compute.events()]

    def test_grow_and_shrink(self):
        self.start_compute()
        self.wait_for_inventory(VCPU=(4, 0), MEMORY_MB=(4096, 0))
        servers = [self.boot(vcpus=2, memory_mb=2048)]
        # 2048 and 2 are free, which is the headroom.
        time.sleep(1)
        self.assertEqual(('4', '4Gi'), self.wished())
        servers.append(self.boot(vcpus=2, memory_mb=2048))
        self.wait_for_wish('6', '6Gi')
        # Not before the kubelet has made it so.
        self.assertEqual(4096, self.inventory()['MEMORY_MB']['total'])
        self.kubelet()
        self.wait_for_inventory(VCPU=(6, 0), MEMORY_MB=(6144, 0))
        self.assertIn('GuestsPodGrows', self.reasons())
        servers.append(self.boot(vcpus=2, memory_mb=2048))
        self.wait_for_wish('8', '8Gi')
        # Deferred: nothing is reported that is not there.
        before = {'cpu': '6', 'memory': '6Gi'}
        self.compute.pod = self.plane.set_pod_status(
            self.compute.pod, {'compute': {
                'resources': {'limits': before, 'requests': before},
                'allocatedResources': before}},
            {'PodResizePending': {'reason': 'Deferred', 'message': 'full'}})
        self.wait_for(True, lambda: 'ResizeDeferred' in self.reasons())
        self.assertEqual(6144, self.inventory()['MEMORY_MB']['total'])
        self.kubelet()
        self.wait_for_inventory(VCPU=(8, 0), MEMORY_MB=(8192, 0))
        for server in servers:
            self._delete_server(server)
        # First the report, then the pod.
        self.wait_for_inventory(VCPU=(2, 0), MEMORY_MB=(4096, 0))
        self.wait_for_wish('2', '4Gi')
        self.assertIn('GuestsPodShrinks', self.reasons())
        self.kubelet()
        kept = mover.load(CONF, self.compute.pod.metadata.uid)
        self.assertEqual([4096, 2000], kept['smallest'])

    def test_containers_get_the_headroom(self):
        self.plane.set_node_status(self.compute.node, capacity={
            'cpu': '16', 'memory': '16Gi', 'pods': '100'})
        self.start_compute()
        self.wait_for_inventory(VCPU=(4, 0), MEMORY_MB=(4096, 0))
        for _ in range(2):
            self.boot(vcpus=2, memory_mb=2048)
        self.wait_for_wish('6', '6Gi')
        self.kubelet()
        self.wait_for_inventory(VCPU=(6, 0), MEMORY_MB=(6144, 0))
        # What a pod that is made anew would have to hold.
        needs, vcpus = instance_overhead.of_host(CONF, 'compute1')
        self.assertEqual(([2048, 2048], 4),
                         ([each.memory_mb for each in needs], vcpus))
        # Of 16 GiB, 4 are guests', 2 their headroom, and the rest this one's.
        self.plane.create_pod(
            self.compute.namespace, self.compute.node,
            limits={'cpu': '1', 'memory': '10Gi'})
        # Half of what guests do not use.
        self.wait_for_wish('6', '5Gi')
        self.wait_for_inventory(MEMORY_MB=(5120, 0))
        self.wait_for(True, lambda: any(
            'containers need room' in text
            for _, _, text in self.compute.events()))

    def test_a_quota_refuses(self):
        self.plane.core.create_namespaced_resource_quota(
            self.compute.namespace, {
                'metadata': {'name': 'small'},
                'spec': {'hard': {'limits.memory': '5Gi'}}})
        self.plane.core.patch_namespaced_resource_quota_status(
            'small', self.compute.namespace, {'status': {
                'hard': {'limits.memory': '5Gi'},
                'used': {'limits.memory': '4Gi'}}})
        self.start_compute()
        self.wait_for_inventory(VCPU=(4, 0), MEMORY_MB=(4096, 0))
        self.boot(vcpus=4, memory_mb=4096)
        self.wait_for(True, lambda: 'ElasticRests' in self.reasons())
        text, = [text for _, reason, text in self.compute.events()
                 if reason == 'ElasticRests']
        self.assertIn('Quota: ', text)
        self.assertIn('exceeded quota: small', text)
        self.assertEqual(('4', '4Gi'), self.wished())

    def test_beyond_what_the_policy_allows(self):
        # The defaults of the policy are 16Gi and 8 cores.
        self.flags(elastic_max=(65536, 32000),
                   elastic_headroom=(20480, 2000), group='kubernetes')
        self.start_compute()
        self.wait_for(True, lambda: 'ElasticRests' in self.reasons())
        text, = [text for _, reason, text in self.compute.events()
                 if reason == 'ElasticRests']
        self.assertIn('Policy: ', text)
        self.assertIn('memory is beyond the bounds of this node', text)
