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

"""kubectl drain moves guests away first: real kubectl, API server and Nova.

There is no kubelet: a thread plays it together with the holder, which ends
the guests' pod once no guest runs on its node. tests/node has the real ones.
"""

import contextlib
import signal
import subprocess
import threading
import time

import fixtures
from keystoneauth1 import loading
from kubernetes import client
import nova.conf
import yaml

from tests.functional import cluster
from tests.functional import compute_nodes
from tests.functional import control_plane

CONF = nova.conf.CONF

DRAIN_EVENTS = ('DrainStarted', 'GuestLeft', 'Drained')

GRACE = 30 * 24 * 3600


class Holder:
    """Ends a pod that is being deleted once no guest runs, as its kubelet."""

    def __init__(self, plane, pod, guests):
        self._plane = plane
        self._pod = pod
        self._guests = guests
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._hold, daemon=True)
        self._thread.start()

    def stop(self):
        self._stop.set()
        self._thread.join()

    def _hold(self):
        metadata = self._pod.metadata
        while not self._stop.wait(0.5):
            found = self._plane.core.list_namespaced_pod(
                metadata.namespace,
                field_selector=f'metadata.name={metadata.name}').items
            if not found:
                return
            if found[0].metadata.deletion_timestamp and not self._guests():
                self._plane.remove_pod(self._pod)
                return


class KubectlDrainTestBase(compute_nodes.ComputeNodesTestBase):

    drain_on = 'eviction'

    def setUp(self):
        # First: Nova's tests have a home directory of their own.
        self.plane = control_plane.shared()
        super().setUp()
        for name, seconds in (('kube.watch.PERIOD', 3),
                              ('kube.watch.FIRST_DELAY', 0.2),
                              ('drain.drainer.IDLE', 1),
                              ('drain.plan.FIRST_RETRY', 0.5),
                              ('drain.plan.LAST_RETRY', 1)):
            self.useFixture(fixtures.MonkeyPatch(f'nova_k8s.{name}', seconds))
        self.namespace = self.plane.create_namespace()
        self.nodes, self.pods, self.folders = {}, {}, {}
        for name in ('rbac', 'node-conditions'):
            self.plane.kubectl(
                'apply', '-f', '-', stdin=yaml.safe_dump_all(
                    cluster.load(f'base/{name}.yaml', self.namespace)))
        CONF.register_opts(
            loading.get_auth_plugin_conf_options('admin_token'),
            group='kubernetes_drain')
        self.flags(auth_type='admin_token', endpoint=self.http.url,
                   endpoint_override=self.http.url, token='operator',
                   group='kubernetes_drain')
        self.flags(drain_on=self.drain_on, limits_from='api',
                   namespace=self.namespace, api_timeout=5,
                   group='kubernetes')

    def start_nodes(self):
        for host in self.HOSTS:
            self.nodes[host] = self.plane.create_node()
            self.pods[host] = self.create_pod(host)
            self.folders[host] = self.useFixture(fixtures.TempDir()).path
            self.start(host)

    def create_pod(self, host):
        node = self.plane.core.read_node(self.nodes[host])
        pod = self.plane.core.create_namespaced_pod(self.namespace, {
            # guests-<node> would be the driver's own.
            'metadata': {'name': f'holder-{node.metadata.name}',
                         'ownerReferences': [{
                             'apiVersion': 'v1', 'kind': 'Node',
                             'name': node.metadata.name, 'controller': True,
                             'uid': node.metadata.uid}]},
            'spec': {'nodeName': node.metadata.name,
                     'serviceAccountName': cluster.SERVICE_ACCOUNT,
                     'terminationGracePeriodSeconds': GRACE,
                     'containers': [{
                         'name': 'holder', 'image': 'holder',
                         'resources': {'limits': {'cpu': '4',
                                                  'memory': '8Gi'}}}]}})
        holder = Holder(self.plane, pod, lambda: self.running_on(host))
        self.addCleanup(holder.stop)
        return self.plane.set_pod_status(pod)

    def _options(self, host):
        # All of them in one process and one configuration: what a driver
        # needs later, it has read by then.
        self.flags(state_path=self.folders[host])
        self.flags(
            node_name=self.nodes[host], hypervisor_hostname=host,
            pod_name=self.pods[host].metadata.name,
            # Not of the pod that a drain ends: nova-compute is in another.
            kubeconfig=self.plane.service_account_kubeconfig(
                self.namespace, cluster.SERVICE_ACCOUNT,
                self.plane.core.read_node(self.nodes[host])),
            group='kubernetes')

    def start(self, host):
        self._options(host)
        self.start_compute(hostname=host)
        self.wait_until_it_follows(host)

    def restart(self, host):
        self._options(host)
        self.restart_compute_service(host)
        self.wait_until_it_follows(host)

    def wait_until_it_follows(self, host):
        self.wait_for(None, lambda: self.computes[
            host].driver._service._problem)

    def running_on(self, host):
        """Nova's word for it: the fake of libvirt keeps what has left."""
        found = self.admin_api.get_servers(
            detail=True, search_opts={'host': host})
        return [each['id'] for each in found
                if each['OS-EXT-STS:power_state'] in (1, 3)]

    def service(self, host):
        found, = self.admin_api.get_services('nova-compute', host)
        return found['status'], found['disabled_reason']

    @contextlib.contextmanager
    def kubectl_drain(self, host, *arguments):
        """Run kubectl drain beside; yield the process."""
        process = subprocess.Popen(
            [control_plane.find_kubectl(), '--kubeconfig',
             self.plane.admin_kubeconfig, 'drain', self.nodes[host],
             *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True)
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def end_of(self, process):
        output, _ = process.communicate(timeout=300)
        return process.returncode, output

    def uncordon(self, host):
        self.plane.kubectl('uncordon', self.nodes[host])

    def node_events(self, host):
        found = self.plane.core.list_namespaced_event(
            'default',
            field_selector=f'involvedObject.name={self.nodes[host]}')
        return [(each.reason, each.message) for each in sorted(
            found.items, key=lambda each: int(
                each.metadata.name.rpartition('.')[2], 16))
                if each.reporting_component == 'nova-k8s']

    def conditions(self, host):
        found = {each.type: each.status for each in
                 self.plane.core.read_node(self.nodes[host]).status.conditions}
        return found.get('DrainInProgress'), found.get('Drained')

    def wait_for_event(self, host, reason):
        self.wait_for(True, lambda: reason in [
            each for each, _ in self.node_events(host)])
        return [text for each, text in self.node_events(host)
                if each == reason]


class KubectlDrainTest(KubectlDrainTestBase):

    def test_it_blocks_until_the_guests_are_gone(self):
        # Whose token it is that the one process has, see _options().
        self.start_nodes()
        servers = [self.boot_on('compute3', f'guest-{each}')
                   for each in range(2)]
        self.going.clear()
        with self.kubectl_drain('compute3', '--timeout=300s') as process:
            self.wait_for(('disabled', 'AUTO: draining, cordoned (Kubernetes '
                           f'node {self.nodes["compute3"]})'),
                          lambda: self.service('compute3'))
            self.wait_for(True, lambda: bool(self.outgoing('compute3')))
            time.sleep(1)
            self.assertIsNone(process.poll())
            self.wait_for(('True', 'False'),
                          lambda: self.conditions('compute3'))
            shown = self.plane.kubectl(
                'describe', 'node', self.nodes['compute3']).stdout
            self.assertIn('2 left: guest-', shown)
            self.assertEqual(['compute3'] * 2, self.hosts_of(*servers))
            self.going.set()
            status, output = self.end_of(process)
        self.assertEqual(0, status, output)
        self.assertIn('drained', output)
        self.assertNotIn('compute3', self.hosts_of(*servers))
        for each in servers:
            self.assertEqual('ACTIVE',
                             self.admin_api.get_server(each['id'])['status'])
        self.wait_for_event('compute3', 'Drained')
        reasons = [each for each, _ in self.node_events('compute3')]
        self.wait_for(('False', 'True'), lambda: self.conditions('compute3'))
        self.assertEqual(['DrainStarted', 'GuestLeft', 'GuestLeft',
                          'Drained'], [each for each in reasons
                                       if each in DRAIN_EVENTS])

    def outgoing(self, host):
        return self.admin_api.api_get(
            f'/os-migrations?source_compute={host}').body['migrations']

    def test_a_timeout_that_strikes_and_an_interrupt(self):
        self.start_nodes()
        server = self.boot_on('compute1')
        self.going.clear()
        with self.kubectl_drain('compute1', '--timeout=2s') as process:
            status, output = self.end_of(process)
        self.assertEqual(1, status, output)
        with self.kubectl_drain('compute1') as process:
            time.sleep(1)
            # Like SIGINT, which is ignored where all of this is in background.
            process.send_signal(signal.SIGTERM)
            status, output = self.end_of(process)
        self.assertNotEqual(0, status, output)
        self.going.set()
        with self.kubectl_drain('compute1', '--timeout=300s') as process:
            status, output = self.end_of(process)
        self.assertEqual(0, status, output)
        self.assertNotIn('compute1', self.hosts_of(server))
        # It was asked for once, by whoever drains, however often.
        self.assertEqual(1, len(self.outgoing('compute1')))

    def test_two_nodes_at_once(self):
        self.start_nodes()
        servers = [self.boot_on(host) for host in ('compute1', 'compute2')
                   for _ in range(2)]
        with self.kubectl_drain('compute1', '--timeout=300s') as one, \
                self.kubectl_drain('compute2', '--timeout=300s') as other:
            for process in (one, other):
                status, output = self.end_of(process)
                self.assertEqual(0, status, output)
        self.assertEqual(['compute3'] * 4, self.hosts_of(*servers))

    def test_nowhere_to_go(self):
        self.start_nodes()
        server = self.boot_on('compute1', 'lonely')
        for host in ('compute2', 'compute3'):
            self.disable(host)
        with self.kubectl_drain('compute1', '--timeout=10s') as process:
            text, = self.wait_for_event('compute1', 'GuestNotMoved')
            self.assertIn('No valid host', text)
            status, output = self.end_of(process)
        self.assertEqual(1, status, output)
        self.assertEqual(['compute1'], self.hosts_of(server))
        text, = self.wait_for_event('compute1', 'DrainIncomplete')
        self.assertIn('1 left: lonely (failed: ', text)
        # A node comes.
        service, = self.admin_api.get_services('nova-compute', 'compute2')
        self.admin_api.put_service(service['id'], {'status': 'enabled'})
        with self.kubectl_drain('compute1', '--timeout=300s') as process:
            status, output = self.end_of(process)
        self.assertEqual(0, status, output)
        self.assertEqual(['compute2'], self.hosts_of(server))

    def test_uncordoned_in_the_middle(self):
        self.start_nodes()
        servers = [self.boot_on('compute1', memory_mb=512 + each)
                   for each in range(2)]
        self.going.clear()
        with self.kubectl_drain('compute1', '--timeout=300s'):
            self.wait_for(1, lambda: len(self.outgoing('compute1')))
        self.uncordon('compute1')
        self.wait_for(('disabled', 'AUTO: draining'),
                      lambda: self.service('compute1'))
        self.going.set()
        self.wait_for_event('compute1', 'DrainCalledOff')
        # What was under way finished, and no other one began.
        self.assertEqual(['compute1'],
                         [each for each in self.hosts_of(*servers)
                          if each == 'compute1'])
        self.assertEqual(1, len(self.outgoing('compute1')))
        # The end of the pod cannot be taken back.
        self.assertEqual('disabled', self.service('compute1')[0])
        self.restart('compute1')
        time.sleep(2)
        self.assertEqual(1, len(self.outgoing('compute1')))
        # Cordoned again, it goes on.
        self.plane.kubectl('cordon', self.nodes['compute1'])
        self.wait_for([], lambda: self.running_on('compute1'))

    def test_nova_compute_is_restarted_in_the_middle(self):
        self.start_nodes()
        servers = [self.boot_on('compute1') for _ in range(2)]
        with self.kubectl_drain('compute1', '--timeout=300s') as process:
            self.wait_for(True, lambda: bool(self.outgoing('compute1')))
            self.restart('compute1')
            status, output = self.end_of(process)
        self.assertEqual(0, status, output)
        self.assertNotIn('compute1', self.hosts_of(*servers))

    def test_nothing_comes_to_a_node_that_is_drained(self):
        self.start_nodes()
        stays = self.boot_on('compute1')
        self.admin_api.api_post(f'/servers/{stays["id"]}/metadata', {
            'metadata': {'nova-k8s:drain': 'skip'}})
        other = self.boot_on('compute2')
        with self.kubectl_drain('compute1', '--timeout=5s') as process:
            self.end_of(process)
        text, = self.wait_for_event('compute1', 'GuestStays')
        self.assertIn('nova-k8s:drain says skip', text)
        # Also not where an administrator names the host.
        self.admin_api.post_server_action(other['id'], {'os-migrateLive': {
            'host': 'compute1', 'block_migration': 'auto'}})
        self._wait_for_migration_status(other, ['error'])
        self.assertEqual(['compute1', 'compute2'],
                         self.hosts_of(stays, other))


class WorkloadTest(KubectlDrainTestBase):

    HOSTS = ('compute1', 'compute2')

    def create_pod(self, host):
        labels = {'app': host}
        client.AppsV1Api(self.plane.admin).create_namespaced_deployment(
            self.namespace, {
                'metadata': {'name': host},
                'spec': {
                    'replicas': 1, 'selector': {'matchLabels': labels},
                    'template': {
                        'metadata': {'labels': labels},
                        'spec': {
                            # There is no scheduler.
                            'nodeName': self.nodes[host],
                            'serviceAccountName': cluster.SERVICE_ACCOUNT,
                            'containers': [{
                                'name': 'libvirt', 'image': 'libvirt',
                                'resources': {'limits': {
                                    'cpu': '4', 'memory': '8Gi'}}}]}}}})
        return self.plane.set_pod_status(self.newest_pod(host))

    def newest_pod(self, host, but=None):
        self.wait_for(True, lambda: bool(self.pods_of(host, but)))
        return self.pods_of(host, but)[0]

    def pods_of(self, host, but):
        found = self.plane.core.list_namespaced_pod(
            self.namespace, label_selector=f'app={host}').items
        return [each for each in found if each.metadata.name != but]

    def _options(self, host):
        super()._options(host)
        self.flags(pod_name=None, pod_selector=f'app={host}',
                   group='kubernetes')

    def test_an_update_is_no_drain(self):
        self.start_nodes()
        server = self.boot_on('compute1')
        old = self.pods['compute1']
        self.plane.kubectl('rollout', 'restart', 'deployment/compute1',
                           '--namespace', self.namespace)
        new = self.newest_pod('compute1', old.metadata.name)
        self.plane.set_pod_status(new)
        self.wait_for(True, lambda: bool(self.plane.core.read_namespaced_pod(
            old.metadata.name, self.namespace).metadata.deletion_timestamp))
        time.sleep(1)
        self.plane.remove_pod(old)
        time.sleep(1)
        self.assertEqual(('enabled', None), self.service('compute1'))
        self.assertEqual(['compute1'], self.hosts_of(server))
        self.assertNotIn('DrainStarted', [
            each for each, _ in self.node_events('compute1')])


class CordonTest(KubectlDrainTestBase):

    drain_on = 'cordon'

    def test_cordon(self):
        self.start_nodes()
        server = self.boot_on('compute1')
        self.plane.kubectl('cordon', self.nodes['compute1'])
        self.wait_for([], lambda: self.running_on('compute1'))
        self.assertNotIn('compute1', self.hosts_of(server))
        self.uncordon('compute1')
        self.wait_for(('enabled', None), lambda: self.service('compute1'))


class TaintTest(KubectlDrainTestBase):

    drain_on = 'taint'

    def test_taint(self):
        self.start_nodes()
        server = self.boot_on('compute1')
        node = self.nodes['compute1']
        self.plane.kubectl('cordon', node)
        time.sleep(1)
        self.assertEqual(['compute1'], self.hosts_of(server))
        self.plane.kubectl('taint', 'node', node, 'nova-k8s/drain=:NoSchedule')
        self.wait_for([], lambda: self.running_on('compute1'))
        self.assertNotIn('compute1', self.hosts_of(server))
        self.plane.kubectl('taint', 'node', node, 'nova-k8s/drain-')
        self.uncordon('compute1')
        self.wait_for(('enabled', None), lambda: self.service('compute1'))
