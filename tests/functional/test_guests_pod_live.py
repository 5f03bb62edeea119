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

"""The whole path of a guests' pod: made, filled, drained and made anew."""

import functools
import json
import os
import threading

import fixtures
from kubernetes import client
import nova.conf
from nova import context
from nova import objects

from nova_k8s.confinement import controller
from nova_k8s.confinement import guests_pod
from tests.functional import base
from tests.functional import cluster
from tests.functional import control_plane
from tests.functional import test_guests_pod

CONF = nova.conf.CONF


class GuestsPodTest(base.ServersTestBase):
    """With the rights and the policies of etc/kubernetes."""

    def setUp(self):
        # First: Nova's tests have a home directory of their own.
        control_plane.shared()
        super().setUp()
        self.compute = self.useFixture(cluster.ComputePod(policies=True))
        self.plane, self.core = self.compute.plane, self.compute.plane.core
        self.namespace = self.compute.namespace
        self.name = f'guests-{self.compute.node}'
        self.core.create_namespaced_config_map(self.namespace, {
            'metadata': {'name': 'guests'}, 'data': {
                'guests-pod.yaml': test_guests_pod.TEMPLATE.read_text()}})
        self.compute.apply('base/guests-policy.yaml')
        self.patch_node(metadata={'annotations': {
            'nova-k8s/guests-cpu': '4', 'nova-k8s/guests-memory': '4Gi'}})
        self.file = self.useFixture(
            fixtures.TempDir()).join('guests-pod.json')
        self.useFixture(fixtures.MonkeyPatch(
            'nova_k8s.confinement.controller.from_conf', functools.partial(
                controller.from_conf, file=self.file)))
        # Nova's fake of it does not answer who asks it directly.
        self.useFixture(fixtures.MonkeyPatch(
            'nova_k8s.inventory.host.ask_libvirt', lambda uri: True))
        self.useFixture(fixtures.MonkeyPatch(
            'nova_k8s.confinement.controller.SOON', 1))
        options = self.compute.options()
        options.update(pod_name=None,
                       guests_pod=str(test_guests_pod.TEMPLATE))
        self.flags(limits_from='api', hypervisor_hostname='compute1',
                   group='kubernetes', **options)
        self.flags(state_path=self.useFixture(fixtures.TempDir()).path)
        self.stop = threading.Event()
        kubelet = threading.Thread(target=self.play_kubelet, daemon=True)
        kubelet.start()
        self.addCleanup(kubelet.join)
        self.addCleanup(self.stop.set)

    def patch_node(self, **body):
        self.core.patch_node(self.compute.node, body)

    def pod(self):
        try:
            return self.core.read_namespaced_pod(self.name, self.namespace)
        except client.ApiException as exc:
            self.assertEqual(404, exc.status)

    def play_kubelet(self):
        """And the scheduler, for the guests' pod."""
        while not self.stop.wait(0.2):
            pod = self.pod()
            if pod and not pod.spec.node_name:
                self.core.create_namespaced_pod_binding(
                    self.name, self.namespace, {
                        'metadata': {'name': self.name},
                        'target': {'apiVersion': 'v1', 'kind': 'Node',
                                   'name': self.compute.node}},
                    _preload_content=False)
                self.plane.set_pod_status(self.pod())

    def service(self):
        found = objects.Service.get_by_compute_host(
            context.get_admin_context(), 'compute1')
        return found.disabled, found.disabled_reason

    def told(self):
        with open(self.file, encoding='utf-8') as f:
            return json.load(f)['uid']

    def held(self):
        return (self.pod().metadata.annotations or {}).get(guests_pod.HELD)

    def test_from_the_first_start_to_the_next_pod(self):
        self.start_compute()
        self.wait_for_inventory(VCPU=(4, 0), MEMORY_MB=(4096, 0))
        first = self.pod()
        self.assertEqual(first.metadata.uid, self.told())
        self.assertEqual(0o644, os.stat(self.file).st_mode & 0o777)
        self._run_periodics()
        self.wait_for('0', self.held)

        server = self.boot(vcpus=2, memory_mb=2048)
        self.wait_for(str(2048 << 20), self.held)
        limits = {'cpu': '4', 'memory': '2047Mi'}
        exc = self.assertRaises(
            client.ApiException, self.plane.resize, first, limits, limits,
            'guests')
        self.assertIn('guests hold 2048Mi', json.loads(exc.body)['message'])
        limits['memory'] = '3Gi'
        self.plane.set_pod_status(
            self.plane.resize(first, limits, limits, 'guests'))
        self.wait_for_inventory(VCPU=(4, 0), MEMORY_MB=(3072, 0))

        # A restart of nova-compute is no news to anybody.
        self.restart_compute_service('compute1')
        self._run_periodics()
        self.assertEqual(first.metadata.uid, self.pod().metadata.uid)
        self.wait_for((False, None), self.service)

        # kubectl drain; the guest still runs.
        self.patch_node(spec={'unschedulable': True})
        self.core.create_namespaced_pod_eviction(
            self.name, self.namespace, {'metadata': {'name': self.name}})
        self.wait_for(
            (True, f'AUTO: draining, cordoned (Kubernetes node '
                   f'{self.compute.node})'), self.service)
        self.assertIsNotNone(self.pod().metadata.deletion_timestamp)
        self.assertEqual(
            'ACTIVE', self.api.get_server(server['id'])['status'])

        self._delete_server(server)
        self.wait_for('0', self.held)
        self.plane.remove_pod(first)
        self.wait_for(True, lambda: 'no budget' in self.service()[1])
        self.wait_for_inventory(VCPU=(4, 4), MEMORY_MB=(3072, 3072))
        self.assertIsNone(self.pod())

        self.patch_node(spec={'unschedulable': False})
        self.wait_for_inventory(VCPU=(4, 0), MEMORY_MB=(4096, 0))
        self.assertNotEqual(first.metadata.uid, self.pod().metadata.uid)
        self.wait_for((False, None), self.service)
        self.wait_for(self.pod().metadata.uid, self.told)

    def allow(self, *verbs):
        """Allow these verbs for pods, and wait until that is in effect."""
        rbac = client.RbacAuthorizationV1Api(self.plane.admin)
        rbac.patch_namespaced_role('nova-k8s', self.namespace, {'rules': [{
            'apiGroups': [''], 'resources': ['pods'],
            'verbs': ['get', 'list', 'watch', 'patch', *verbs]}]})
        mine = client.AuthorizationV1Api(
            self.plane.client(self.compute.kubeconfig()))

        def may_create():
            return mine.create_self_subject_access_review({'spec': {
                'resourceAttributes': {
                    'verb': 'create', 'resource': 'pods',
                    'namespace': self.namespace}}}).status.allowed
        self.wait_for('create' in verbs, may_create)

    def test_a_restart_without_the_pod(self):
        self.start_compute()
        self.wait_for_inventory(VCPU=(4, 0), MEMORY_MB=(4096, 0))
        server = self.boot(vcpus=2, memory_mb=2048)
        first = self.pod()
        self.computes['compute1'].stop()
        self.allow()
        self.plane.remove_pod(first)

        self.restart_compute_service('compute1')
        errors = [line for line in self.stdlog.logger.output.splitlines()
                  if 'nova-compute starts, and' in line]
        self.assertEqual(1, len(errors), errors)
        self.assertIn(f'Pod {self.namespace}/{self.name}: API server',
                      errors[0])
        self.assertIn('cannot create resource', errors[0])
        self.wait_for(True, lambda: 'no budget' in (self.service()[1] or ''))
        self.wait_for_inventory(VCPU=(4, 4), MEMORY_MB=(4096, 4096))
        # It can be managed.
        self._stop_server(server)
        self._delete_server(server)

        self.allow('create')
        self.wait_for_inventory(VCPU=(4, 0), MEMORY_MB=(4096, 0))
        self.assertNotEqual(first.metadata.uid, self.pod().metadata.uid)
        self.wait_for((False, None), self.service)
        self.wait_for(self.pod().metadata.uid, self.told)

    def test_a_right_that_is_missing(self):
        client.RbacAuthorizationV1Api(
            self.plane.admin).delete_namespaced_role_binding(
                'nova-k8s', self.namespace)
        mine = client.CoreV1Api(self.plane.client(self.compute.kubeconfig()))

        def may_read():
            try:
                mine.list_namespaced_pod(self.namespace)
            except client.ApiException as exc:
                return exc.status != 403
            return True
        self.wait_for(False, may_read)
        self.assertRaises(SystemExit, self.start_compute)
        line, = [line for line in self.stdlog.logger.output.splitlines()
                 if 'does not start' in line]
        self.assertIn(f'Pod {self.namespace}/{self.name}: API server', line)
        self.assertIn('cannot get resource', line)
