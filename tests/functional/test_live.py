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


"""The whole path: a pod is resized, and Placement knows."""

import json
import time

import fixtures
import nova.conf
import testtools

from nova_k8s.cmd import report
from nova_k8s.inventory import bounds
from nova_k8s.limits import checkpoint
from tests.functional import base
from tests.functional import cluster
from tests.functional import control_plane
from tests.functional import fault_proxy
from tests import waiting

CONF = nova.conf.CONF


class LiveTest(base.ServersTestBase):
    """limits_from = api, against a real API server behind a proxy."""

    def setUp(self):
        # First: Nova's tests have a home directory of their own.
        control_plane.shared()
        super().setUp()
        for name, seconds in (('PERIOD', 3), ('LAST_DELAY', 1),
                              ('FIRST_DELAY', 0.2), ('PROBATION', 0.5)):
            self.useFixture(fixtures.MonkeyPatch(
                f'nova_k8s.kube.watch.{name}', seconds))
        self.compute = self.useFixture(cluster.ComputePod(policies=True))
        self.proxy = self.useFixture(
            fault_proxy.FaultProxy(self.compute.plane))
        self.flags(
            limits_from='api', hypervisor_hostname='compute1',
            group='kubernetes', **self.compute.options(self.proxy))
        self.flags(state_path=self.useFixture(fixtures.TempDir()).path)

    def test_resize_reaches_placement_at_once(self):
        # A minute, so that it cannot be the periodic task.
        self.flags(update_resources_interval=60)
        self.start_compute()
        self.wait_for_inventory(VCPU=(4, 0), MEMORY_MB=(4096, 0))
        server = self.boot(vcpus=3, memory_mb=3072)
        self.compute.resize(cpu='8', memory='8Gi')
        self.wait_for_inventory(VCPU=(8, 0), MEMORY_MB=(8192, 0))
        self.wait_for_hypervisor(vcpus=8, memory_mb=8192)
        self.boot(vcpus=4, memory_mb=4096)
        # The kubelet has not acted yet.
        self.compute.resize(actual=False, cpu='2', memory='2Gi')
        self.wait_for_inventory(VCPU=(2, 0), MEMORY_MB=(2048, 0))
        self.assert_full()
        self.assertEqual(
            'ACTIVE', self.api.get_server(server['id'])['status'])

    def test_nothing_is_pushed_before_the_first_periodic_update(self):
        self.start_compute()
        driver = self.computes['compute1'].driver
        driver.virtapi._compute.rt.compute_nodes.clear()
        self.compute.resize(cpu='8', memory='8Gi')
        self.wait_for(8000, lambda:
                      driver._watcher.state.budget.cpu_millicores)
        time.sleep(0.5)
        self.assertEqual(4, self.inventory()[bounds.VCPU]['total'])
        self._run_periodics()
        self.wait_for_inventory(VCPU=(8, 0), MEMORY_MB=(8192, 0))

    def test_start_without_an_api_server(self):
        self.start_compute()
        self.proxy.cut()
        self.restart_compute_service('compute1')
        self.wait_for_inventory(VCPU=(4, 0), MEMORY_MB=(4096, 0))
        self.assertIn('The last known limits stay in force: 4000 millicores',
                      self.stdlog.logger.output)
        result, _ = report.report('cpus=64,memory=64Gi')
        self.assertEqual(4, result['inventory'][bounds.VCPU]['total'])
        self.assertIn('stale: ', result['warnings'][0])
        self.compute.resize(cpu='2', memory='2Gi')
        self.proxy.restore()
        self.wait_for_inventory(VCPU=(2, 0), MEMORY_MB=(2048, 0))

    def restart_closed(self):
        """Restart without limits, on a node that Nova knows."""
        self.restart_compute_service('compute1')
        self.wait_for_inventory(VCPU=(4, 4), MEMORY_MB=(4096, 4096))
        line, = [line for line in self.stdlog.logger.output.splitlines()
                 if 'nova-compute starts, and nothing new is placed' in line]
        self.assertIn(self.proxy.url, line)

    def refusal(self):
        self.assertRaises(SystemExit, self.start_compute)
        line, = [line for line in self.stdlog.logger.output.splitlines()
                 if 'does not start' in line]
        return line

    def test_start_with_neither(self):
        self.proxy.cut()
        begin = time.monotonic()
        self.assertIn(self.proxy.url, self.refusal())
        self.assertGreater(time.monotonic() - begin,
                           CONF.kubernetes.api_timeout - 0.1)

    def test_what_was_kept_for_another_node_is_not_used(self):
        self.start_compute()
        self.assertTrue(checkpoint.load(CONF))
        with open(checkpoint.path(CONF), encoding='utf-8') as f:
            record = json.load(f)
        record['key']['node'] = 'another'
        with open(checkpoint.path(CONF), 'w', encoding='utf-8') as f:
            json.dump(record, f)
        self.assertIsNone(checkpoint.load(CONF))
        with open(checkpoint.path(CONF), 'w', encoding='utf-8') as f:
            f.write('{"key": {}, "budget"')
        self.assertIsNone(checkpoint.load(CONF))
        self.proxy.cut()
        self.restart_closed()

    def test_missing_right(self):
        self.compute.plane.kubectl('delete', 'rolebinding', 'nova-k8s', '-n',
                                   self.compute.namespace)
        self.wait_for(False, lambda: 'yes' in self.compute.plane.kubectl(
            'auth', 'can-i', 'list', 'pods', '-n', self.compute.namespace,
            kubeconfig=CONF.kubernetes.kubeconfig, check=False).stdout)
        line = self.refusal()
        for word in ('list', '"pods"', self.compute.namespace,
                     f'system:serviceaccount:{self.compute.namespace}:'
                     f'{cluster.SERVICE_ACCOUNT}'):
            self.assertIn(word, line)

    def test_events_tell_the_story(self):
        self.start_compute()
        self.wait_for(['LimitsAdopted'], self.event_reasons)
        self.compute.resize(cpu='6', memory='4Gi')
        self.wait_for(['LimitsAdopted', 'LimitsFollowed'],
                      self.event_reasons)
        self.proxy.cut()
        driver = self.computes['compute1'].driver
        self.wait_for(True, lambda: driver._watcher.state.stale)
        self.proxy.restore()
        told = ['LimitsAdopted', 'LimitsFollowed', 'LimitsStale',
                'LimitsRead']
        self.wait_for(told, self.event_reasons)
        # Nothing is repeated while nothing happens: here several watches
        # end and are opened again.
        time.sleep(8)
        self.assertEqual(told, self.event_reasons())
        shown = self.compute.plane.kubectl(
            'describe', 'pod', self.compute.pod.metadata.name, '-n',
            self.compute.namespace).stdout
        self.assertIn('Guests may use 6000 millicores of CPU and 4096 MiB of '
                      'memory now, before 4000 millicores', shown)

    def start_beside(self):
        """Start nova-compute in another pod than the one that is followed.

        The token of a pod ends with the pod.
        """
        own = self.compute.create_pod(labels={})
        self.flags(
            kubeconfig=self.compute.plane.service_account_kubeconfig(
                self.compute.namespace, cluster.SERVICE_ACCOUNT, own,
                url=self.proxy.url, ca_file=self.proxy.ca_file),
            group='kubernetes')
        self.start_compute()
        self.wait_for_inventory(VCPU=(4, 0), MEMORY_MB=(4096, 0))

    def remove_pod(self):
        self.compute.plane.remove_pod(self.compute.pod)
        self.wait_for_inventory(VCPU=(4, 4), MEMORY_MB=(4096, 4096))

    def create_pod(self, **fields):
        """Create the pod again, under the same name."""
        self.compute.pod = self.compute.create_pod(
            name=self.compute.pod.metadata.name, **fields)

    def test_pod_is_lost_and_comes_back(self):
        self.start_beside()
        server = self.boot()
        self.remove_pod()
        self.assert_full()
        self.create_pod()
        self.wait_for_inventory(VCPU=(4, 0), MEMORY_MB=(4096, 0))
        # The compute service was disabled meanwhile, for want of a budget.
        self.wait_for(False, lambda: 'COMPUTE_STATUS_DISABLED' in
                      self.placement.get(
                          '/resource_providers/%s/traits' %
                          self.compute_rp_uuids['compute1'],
                          version='1.6').body['traits'])
        self.boot()
        self.assertEqual(
            'ACTIVE', self.api.get_server(server['id'])['status'])

    def test_pod_that_is_being_deleted_takes_no_new_guests(self):
        self.start_beside()
        server = self.boot()
        self.compute.plane.core.delete_namespaced_pod(
            self.compute.pod.metadata.name, self.compute.namespace,
            grace_period_seconds=600)
        self.wait_for_inventory(VCPU=(4, 4), MEMORY_MB=(4096, 4096))
        self.assert_full()
        self.assertEqual(
            'ACTIVE', self.api.get_server(server['id'])['status'])
        # It is a drain as well, for which there is no account here.
        self.wait_for(['DrainHindered', 'LimitsAdopted', 'PodTerminating'],
                      lambda: sorted(self.event_reasons()))
        # A restart in the middle of it manages its guests, and closes again.
        self.restart_compute_service('compute1')
        self._run_periodics()
        self.wait_for_inventory(VCPU=(4, 4), MEMORY_MB=(4096, 4096))

    def test_event_on_a_pod_without_a_limit(self):
        self.start_beside()
        self.remove_pod()
        self.create_pod(limits={'memory': '4Gi'})
        self.wait_for_inventory(VCPU=(4, 4), MEMORY_MB=(4096, 0))
        self.wait_for(['LimitsAdopted', 'LimitsLost', 'LimitMissing'],
                      self.event_reasons)
        # On this pod, not on the one that had its name before.
        uid = self.compute.pod.metadata.uid
        event, = [
            each for each in self.compute.plane.core.list_namespaced_event(
                self.compute.namespace).items
            if each.reason == 'LimitMissing']
        self.assertEqual(uid, event.involved_object.uid)
        self.assertEqual('Warning', event.type)
        self.assertIn(
            'no limit at spec.containers[compute].resources.limits.cpu',
            event.message)

    def test_what_was_lost_does_not_come_back_with_a_restart(self):
        self.start_beside()
        self.assertTrue(checkpoint.load(CONF))
        self.remove_pod()
        self.assertIsNone(checkpoint.load(CONF))
        self.proxy.cut()
        self.restart_closed()

    def event_reasons(self):
        found = [reason for _, reason, _ in self.compute.events()]
        # A pod on its way out may or may not be seen.
        return [reason for number, reason in enumerate(found)
                if reason not in ('PodTerminating', 'DrainHindered') or
                'LimitsLost' not in found[number:]]


class PolicyTest(testtools.TestCase):
    """What a stolen token of one compute pod cannot do."""

    def setUp(self):
        super().setUp()
        self.compute = self.useFixture(cluster.ComputePod(policies=True))

    def create(self, node, kind='Node', name=None, **fields):
        """Try to write an event as this pod's service account."""
        body = {
            'apiVersion': 'v1', 'kind': 'Event',
            'metadata': {'generateName': 'event-', 'namespace': 'default'},
            'involvedObject': {'apiVersion': 'v1', 'kind': kind,
                               'name': name or node},
            'type': 'Normal', 'reason': 'Test', 'message': 'test',
            'reportingComponent': 'nova-k8s', 'reportingInstance': node,
            **fields,
        }
        if kind == 'Pod':
            body['metadata']['namespace'] = self.compute.namespace
            body['involvedObject']['namespace'] = self.compute.namespace
        return self.compute.plane.kubectl(
            'create', '-f', '-', stdin=json.dumps(body), check=False,
            kubeconfig=self.compute.kubeconfig())

    def assert_denied(self, **kwargs):
        # A policy holds a little after it was made.
        deadline = time.monotonic() + waiting.PATIENCE
        while True:
            result = self.create(**kwargs)
            if result.returncode or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        self.assertNotEqual(0, result.returncode)
        self.assertIn('node of the token', result.stderr)

    def test_events(self):
        other = self.compute.plane.create_node()
        self.assert_denied(node=other)
        self.assert_denied(node=self.compute.node, name=other)
        self.assert_denied(node=other, kind='Pod', name='pod')
        # What kubectl shows as "From".
        self.assert_denied(node=self.compute.node, source={
            'component': 'kubelet', 'host': other})
        result = self.create(node=self.compute.node, source={
            'component': 'nova-k8s', 'host': self.compute.node})
        self.assertEqual(0, result.returncode, result.stderr)
        for kind in ('Node', 'Pod'):
            result = self.create(node=self.compute.node, kind=kind)
            self.assertEqual(0, result.returncode, result.stderr)

    def test_everything_else_is_refused(self):
        # What it may do with pods, policies narrow: test_guests_pod.
        for verb, what in (('update', 'pods'), ('patch', 'pods/resize'),
                           ('patch', 'nodes'), ('get', 'secrets'),
                           ('create', 'pods/eviction'),
                           ('create', 'pods/exec'), ('update', 'events'),
                           ('list', 'configmaps')):
            # What follows a slash there would be a name.
            resource, _, part = what.partition('/')
            result = self.compute.plane.kubectl(
                'auth', 'can-i', verb, resource, f'--subresource={part}',
                '-n', self.compute.namespace,
                kubeconfig=self.compute.kubeconfig(), check=False)
            self.assertEqual('no', result.stdout.split()[0], (verb, what))
