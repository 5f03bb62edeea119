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


"""kubectl cordon and uncordon are enough, for real Nova and Placement."""

import time
from unittest import mock

import fixtures
import nova.conf
from nova import objects
from nova.tests import fixtures as nova_fixtures

from nova_k8s.cmd import observed
from nova_k8s.cmd import status
from nova_k8s.kube import node
from nova_k8s.service import reasons
from tests.functional import base
from tests.functional import cluster
from tests.functional import control_plane
from tests.functional import fault_proxy

CONF = nova.conf.CONF

DISABLED = 'COMPUTE_STATUS_DISABLED'
ENABLED = ('enabled', None, False)


class CordonTestBase(base.ServersTestBase):

    HOST = 'compute1'

    tls = False

    def setUp(self):
        # First: Nova's tests have a home directory of their own.
        control_plane.shared()
        super().setUp()
        for name, seconds in (('PERIOD', 3), ('LAST_DELAY', 1),
                              ('FIRST_DELAY', 0.2), ('PROBATION', 0.5)):
            self.useFixture(fixtures.MonkeyPatch(
                f'nova_k8s.kube.watch.{name}', seconds))
        self.compute = self.useFixture(cluster.ComputePod(policies=True))
        self.plane = self.compute.plane
        self.node = self.compute.node
        self.proxy = self.useFixture(
            fault_proxy.FaultProxy(self.plane, tls=self.tls))
        self.flags(
            limits_from='api', hypervisor_hostname=self.HOST,
            group='kubernetes', **self.compute.options(self.proxy))
        self.flags(state_path=self.useFixture(fixtures.TempDir()).path)
        # So that a trait in Placement is not the periodic task's work.
        self.flags(update_resources_interval=60)

    def start(self, follows=True):
        self.start_compute(hostname=self.HOST)
        if follows:
            self.wait_until_it_follows()

    @property
    def driver(self):
        return self.computes[self.HOST].driver

    def wait_until_it_follows(self):
        self.wait_for(None, lambda: self.driver._service._problem)

    def restart(self, follows=True):
        self.restart_compute_service(self.HOST)
        if follows:
            self.wait_until_it_follows()

    def cordon(self):
        self.plane.kubectl('cordon', self.node)

    def uncordon(self):
        self.plane.kubectl('uncordon', self.node)

    def service(self):
        found, = self.admin_api.get_services('nova-compute', self.HOST)
        return found

    def admin(self, **request):
        self.admin_api.put_service(self.service()['id'], request)

    def admin_disables(self):
        self.admin(status='disabled', disabled_reason='maintenance')

    def admin_enables(self):
        self.admin(status='enabled')

    def connection(self, there):
        self.driver._handle_conn_event(
            there, None if there else 'Connection to libvirt lost')

    def state(self):
        """(status, reason, whether Placement knows it as disabled)"""
        service = self.service()
        return (service['status'], service['disabled_reason'],
                DISABLED in self._get_provider_traits(
                    self.compute_rp_uuids[self.HOST]))

    def disabled(self, reasons):
        return ('disabled', f'AUTO: {reasons} (Kubernetes node {self.node})',
                True)

    def wait_for_state(self, expected):
        self.wait_for(expected, self.state)

    def stays(self, expected, seconds=1):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.assertEqual(expected, self.state())
            time.sleep(0.2)

    def node_events(self):
        found = self.plane.core.list_namespaced_event(
            'default', field_selector=f'involvedObject.name={self.node}')
        return [each.reason for each in sorted(
            found.items, key=lambda each: int(
                each.metadata.name.rpartition('.')[2], 16))
                if each.reporting_component == 'nova-k8s']


class CordonTest(CordonTestBase):

    MAINTENANCE = ('disabled', 'maintenance', True)

    def test_cordon_and_uncordon(self):
        self.start()
        self.boot()
        self.assertEqual(ENABLED, self.state())
        for _ in range(2):
            self.cordon()
            self.wait_for_state(self.disabled('cordoned'))
            self.assert_full()
            self.uncordon()
            self.wait_for_state(ENABLED)
            self.boot()
        self.wait_for(['ComputeServiceDisabled', 'ComputeServiceEnabled'] * 2,
                      self.node_events)
        shown = self.plane.kubectl('describe', 'node', self.node).stdout
        self.assertIn('The compute service of compute1 is disabled: cordoned '
                      f'(Kubernetes node {self.node})', shown)

    def test_guests_stay(self):
        self.start()
        server = self.boot()
        self.cordon()
        self.wait_for_state(self.disabled('cordoned'))
        self.assertEqual('ACTIVE',
                         self.api.get_server(server['id'])['status'])

    def test_what_an_administrator_disabled_stays_disabled(self):
        self.start()
        self.admin_disables()
        for change in (self.cordon, self.uncordon):
            change()
            self.stays(self.MAINTENANCE)
        self.restart()
        self.stays(self.MAINTENANCE)
        self.cordon()
        self.stays(self.MAINTENANCE)
        self.wait_for(['ComputeServiceLeft'] * 3, self.node_events)
        self.admin_enables()
        self.stays(ENABLED)

    def test_disabled_by_an_administrator_while_cordoned(self):
        self.start()
        self.cordon()
        self.wait_for_state(self.disabled('cordoned'))
        self.admin_disables()
        self.uncordon()
        self.stays(self.MAINTENANCE)

    def test_without_a_reason_too(self):
        self.start()
        self.cordon()
        self.wait_for_state(self.disabled('cordoned'))
        self.admin(status='disabled')
        self.uncordon()
        self.stays(('disabled', None, True))

    def test_what_an_administrator_enabled_stays_enabled(self):
        self.start()
        self.cordon()
        self.wait_for_state(self.disabled('cordoned'))
        self.admin_enables()
        self.stays(ENABLED)
        self.restart()
        self.stays(ENABLED)
        self.uncordon()
        self.stays(ENABLED)
        self.cordon()
        self.wait_for_state(self.disabled('cordoned'))

    def test_libvirt_comes_and_goes(self):
        self.start()
        self.connection(False)
        self.wait_for_state(
            ('disabled', 'AUTO: libvirt not connected', True))
        self.cordon()
        self.wait_for_state(self.disabled('cordoned, libvirt not connected'))
        self.connection(True)
        self.wait_for_state(self.disabled('cordoned'))
        self.stays(self.disabled('cordoned'))
        self.connection(False)
        self.wait_for_state(self.disabled('cordoned, libvirt not connected'))
        self.uncordon()
        self.wait_for_state(
            ('disabled', 'AUTO: libvirt not connected', True))
        self.connection(True)
        self.wait_for_state(ENABLED)

    def test_restart_of_a_cordoned_node(self):
        self.start()
        self.cordon()
        self.wait_for_state(self.disabled('cordoned'))
        self.restart()
        self.stays(self.disabled('cordoned'))
        self.uncordon()
        self.wait_for_state(ENABLED)

    def test_uncordoned_meanwhile(self):
        self.start()
        self.cordon()
        self.wait_for_state(self.disabled('cordoned'))
        self.computes[self.HOST].stop()
        self.uncordon()
        self.restart()
        self.wait_for_state(ENABLED)

    def test_cordoned_before_the_first_start(self):
        self.cordon()
        self.start()
        self.wait_for_state(self.disabled('cordoned'))

    def test_restart_without_an_api_server(self):
        self.start()
        self.cordon()
        self.wait_for_state(self.disabled('cordoned'))
        self.proxy.cut()
        self.restart(follows=False)
        self.uncordon()
        self.stays(self.disabled('cordoned'), seconds=3)
        self.proxy.restore()
        self.wait_for_state(ENABLED)
        self.proxy.cut()
        self.cordon()
        self.stays(ENABLED, seconds=3)
        self.proxy.restore()
        self.wait_for_state(self.disabled('cordoned'))

    def test_crash_between_the_steps(self):
        self.start()
        save = self.driver._service._file.save

        def crash(known, uuid):
            # Not before the reason is written, if it looks for the first time.
            if known.acted:
                raise SystemExit
            save(known, uuid)

        with mock.patch.object(self.driver._service._file, 'save', crash):
            self.cordon()
            self.wait_for(('enabled', self.disabled('cordoned')[1], False),
                          self.state)
        self.restart()
        self.wait_for_state(self.disabled('cordoned'))
        self.uncordon()
        self.wait_for_state(ENABLED)

    def test_conductor_fails(self):
        self.start()
        with mock.patch.object(objects.Service, 'save',
                               side_effect=RuntimeError('no conductor')):
            self.cordon()
            self.wait_for(True, lambda: 'no conductor' in
                          self.stdlog.logger.output)
        self.wait_for_state(self.disabled('cordoned'))

    def test_placement_fails(self):
        self.start()
        with mock.patch.object(self.driver.virtapi,
                               'update_compute_provider_status',
                               side_effect=RuntimeError('no placement')):
            self.cordon()
            self.wait_for(True, lambda: 'no placement' in
                          self.stdlog.logger.output)
            self.assertEqual((*self.disabled('cordoned')[:2], False),
                             self.state())
        self.wait_for_state(self.disabled('cordoned'))

    def test_off(self):
        self.flags(follow_cordon=False, group='kubernetes')
        self.cordon()
        self.start(follows=False)
        self.stays(ENABLED)
        # All is as in Nova's own driver.
        self.flags(host=self.HOST)
        self.connection(False)
        self.assertEqual(
            ('disabled', 'AUTO: Connection to libvirt lost', True),
            self.state())

    def test_switched_off_while_cordoned(self):
        self.start()
        self.cordon()
        self.wait_for_state(self.disabled('cordoned'))
        self.flags(follow_cordon=False, group='kubernetes')
        self.restart(follows=False)
        # Nova's driver enables what a driver had disabled.
        self.flags(host=self.HOST)
        self.connection(True)
        self.assertEqual(ENABLED, self.state())
        # And nobody takes that for an administrator's word.
        self.flags(follow_cordon=True, group='kubernetes')
        self.restart()
        self.wait_for_state(self.disabled('cordoned'))


class BetweenTest(CordonTestBase):
    """An administrator's word between our read and our save."""

    def before_save(self, speak, number=1):
        """Have an administrator speak just before a save of the driver."""
        save = objects.Service.save
        saves = []

        def first_the_administrator(service):
            # Nova saves how often it has reported itself, too.
            if service.obj_what_changed() & {'disabled', 'disabled_reason'}:
                saves.append(service)
                if len(saves) == number:
                    patch.stop()
                    speak()
            save(service)

        patch = mock.patch.object(objects.Service, 'save',
                                  first_the_administrator)
        patch.start()

    def test_disables(self):
        self.start()
        self.before_save(self.admin_disables)
        self.cordon()
        # What the reason was cannot be known any more where it was
        # overwritten; that it was not is as good.
        ends = [('disabled', reason, True)
                for reason in (reasons.OVERWRITTEN, 'maintenance')]
        self.wait_for(True, lambda: self.state() in ends)
        # It may still be on its way from the one to the other.
        time.sleep(2)
        self.wait_for(True, lambda: self.state() in ends)
        state = self.state()
        self.uncordon()
        self.stays(state)
        self.restart()
        self.stays(state)
        self.admin_enables()
        self.stays(ENABLED)

    def test_disables_before_it_is_enabled(self):
        self.start()
        self.cordon()
        self.wait_for_state(self.disabled('cordoned'))
        self.before_save(self.admin_disables)
        self.uncordon()
        self.wait_for(('disabled', True), lambda: self.state()[::2])
        self.cordon()
        self.uncordon()
        self.wait_until_it_follows()
        time.sleep(1)
        self.assertEqual(('disabled', True), self.state()[::2])
        self.assertFalse(self.state()[1].startswith(reasons.PREFIX))

    def test_enables(self):
        self.start()
        # The first save has the reason, the second disables the service.
        self.before_save(self.admin_enables, number=2)
        self.cordon()
        self.wait_for(True, lambda: 'An administrator enabled' in
                      self.stdlog.logger.output)
        self.wait_for_state(ENABLED)
        self.stays(ENABLED)

    def test_record_made_anew(self):
        self.start()
        self.cordon()
        self.wait_for_state(self.disabled('cordoned'))
        before = self.service()['id']
        self.computes.pop(self.HOST).stop()
        self.compute_rp_uuids.pop(self.HOST)
        self.admin_api.api_delete(f'/os-services/{before}')
        self.start()
        self.assertNotEqual(before, self.service()['id'])
        self.wait_for_state(self.disabled('cordoned'))
        self.uncordon()
        self.wait_for_state(ENABLED)


class StatusTest(CordonTestBase):

    def setUp(self):
        super().setUp()
        # For what looks at CONF.host, as on a host of its own.
        self.flags(host=self.HOST)

    def states(self):
        return {part['name']: part['state'].split(':')[0]
                for part in status.status()['parts']}

    def wait_for_states(self, **expected):
        self.wait_for(expected, lambda: {
            name: state for name, state in self.states().items()
            if name in expected})

    def test_both_sides(self):
        self.start()
        self.boot()
        # Of libvirt there is a fake only, and that in the driver.
        self.assertEqual(
            {'cordoned': 'follows', 'ready': 'follows', 'limits': 'follows',
             'budget': 'follows', 'ratios': 'follows', 'guests': 'unknown'},
            self.states())
        self.cordon()
        self.wait_for_state(self.disabled('cordoned'))
        found = status.status()
        self.assertEqual(self.node, found['kubernetes']['node'])
        self.assertTrue(found['kubernetes']['cordoned'])
        self.assertEqual(
            ('compute1', 'disabled', self.disabled('cordoned')[1], True, 4,
             4096, 1), tuple(found['nova'].values()))
        self.assertLess(found['budget']['age_seconds'], 60)
        self.assertEqual(1.0, found['placement']['VCPU']['allocation_ratio'])
        self.assertEqual('follows', found['parts'][0]['state'])
        self.admin_enables()
        self.wait_for_states(cordoned='administrator')
        self.proxy.cut()
        self.wait_for_states(cordoned='unknown', limits='stale',
                             budget='stale')
        self.proxy.restore()
        self.wait_for_states(limits='follows')

    def test_ratio_of_an_adopted_node(self):
        # What is in Placement already keeps the ratio it has.
        self.flags(cpu_allocation_ratio=None,
                   initial_cpu_allocation_ratio=4.0)
        self.start()
        self.flags(initial_cpu_allocation_ratio=1.0)
        self.restart()
        self.assertEqual(4.0, self.inventory()['VCPU']['allocation_ratio'])
        found = status.status()
        self.assertEqual(4.0, found['placement']['VCPU']['allocation_ratio'])
        self.assertEqual('kept', self.states()['ratios'])
        self.flags(cpu_allocation_ratio=1.0)
        self.assertEqual('behind', self.states()['ratios'])
        self._run_periodics()
        self.assertEqual(1.0, self.inventory()['VCPU']['allocation_ratio'])
        self.assertEqual('follows', self.states()['ratios'])

    def test_asks_the_conductor(self):
        self.start()
        self.boot()
        asked = []

        class Conductor:
            """Of one process, only one side can ask over the network."""

            def object_class_action_versions(self, context, name, method,
                                             versions, args, kwargs):
                asked.append(f'{name}.{method}')
                with nova_fixtures.IndirectionAPIFixture(None):
                    return getattr(getattr(objects, name), method)(
                        context, *args, **kwargs)

        with nova_fixtures.IndirectionAPIFixture(Conductor()):
            found = observed.ask_nova()
        self.assertEqual((ENABLED[1], 4, 4096, 1), (
            found.record.reason, found.vcpus, found.memory_mb, found.guests))
        self.assertTrue(found.up)
        # Nothing else: on a compute node there is no database to ask.
        self.assertEqual(['Service.get_by_compute_host',
                          'ComputeNodeList.get_all_by_host',
                          'InstanceList.get_uuids_by_host'], asked)

    def test_behind(self):
        self.start()
        self.computes[self.HOST].stop()
        self.cordon()
        self.compute.resize(cpu='2', memory='2Gi')
        self.wait_for_states(cordoned='behind', limits='behind',
                             budget='stale')


class ReadyTest(CordonTestBase):

    def ready(self, status, reason, message=''):
        # As a kubelet does.
        self.plane.kubelet(self.node).patch_node_status(
            self.node, {'status': {'conditions': [{
                'type': 'Ready', 'status': status, 'reason': reason,
                'message': message}]}},
            _content_type=control_plane.STRATEGIC)

    def test_kubelet_restarts(self):
        self.flags(not_ready_grace=3, group='kubernetes')
        self.start()
        self.ready('False', 'KubeletNotReady', 'PLEG is not healthy')
        self.stays(ENABLED)
        self.ready('True', 'KubeletReady')
        self.stays(ENABLED, seconds=3)
        self.assertEqual([], self.node_events())

    def test_not_ready(self):
        self.flags(not_ready_grace=2, group='kubernetes')
        self.start()
        self.ready('Unknown', 'NodeStatusUnknown')
        self.stays(ENABLED)
        self.wait_for_state(self.disabled(node.NOT_READY))
        self.ready('True', 'KubeletReady')
        self.wait_for_state(ENABLED)

    def test_shuts_down_gracefully(self):
        self.start()
        self.ready('False', 'KubeletNotReady', 'node is shutting down')
        # At once: the grace is a minute.
        self.wait_for_state(self.disabled(node.SHUTTING_DOWN))
        self.ready('Unknown', 'NodeStatusUnknown')
        self.wait_for_state(self.disabled(node.NOT_READY))
        self.ready('True', 'KubeletReady')
        self.wait_for_state(ENABLED)


class RightsTest(CordonTestBase):

    def test_without_the_right(self):
        binding = f'nova-k8s-node-{self.compute.namespace}'
        self.plane.kubectl('delete', 'clusterrolebinding', binding)
        self.wait_for(False, lambda: 'yes' in self.plane.kubectl(
            'auth', 'can-i', 'list', 'nodes', check=False,
            kubeconfig=CONF.kubernetes.kubeconfig).stdout)
        self.start(follows=False)
        self.wait_for(True, lambda: 'is forbidden' in
                      self.stdlog.logger.output)
        # The limits are followed all the same.
        self.compute.resize(cpu='8', memory='8Gi')
        self.wait_for_inventory(VCPU=(8, 0), MEMORY_MB=(8192, 0))
        self.cordon()
        self.stays(ENABLED, seconds=4)
        lines = [line for line in self.stdlog.logger.output.splitlines()
                 if 'is forbidden' in line]
        self.assertEqual(1, len(lines), lines)
        for word in ('list', '"nodes"', 'system:serviceaccount:'
                     f'{self.compute.namespace}:{cluster.SERVICE_ACCOUNT}'):
            self.assertIn(word, lines[0])
        self.compute.apply('base/rbac.yaml')
        self.wait_for_state(self.disabled('cordoned'))

    def test_one_node_is_enough(self):
        """A right on this node by name does, where accounts are per node."""
        role = f'nova-k8s-node-{self.compute.namespace}'
        self.plane.kubectl(
            'patch', 'clusterrole', role, '--type=json', '-p',
            '[{"op": "add", "path": "/rules/0/resourceNames", "value": '
            f'["{self.node}"]}}]')
        other = self.plane.create_node()
        self.wait_for('no', lambda: self.plane.kubectl(
            'auth', 'can-i', 'list', f'nodes/{other}', check=False,
            kubeconfig=CONF.kubernetes.kubeconfig).stdout.strip())
        self.start()
        self.cordon()
        self.wait_for_state(self.disabled('cordoned'))


class AnswerTest(CordonTestBase):
    """What the driver asks for, seen between it and the API server."""

    tls = True

    def test_asks_for_its_own_node_only(self):
        self.start()
        self.cordon()
        self.wait_for_state(self.disabled('cordoned'))
        self.wait_for(['ComputeServiceDisabled'], self.node_events)
        asked = [request for request in self.proxy.requests
                 if '/nodes' in request.path]
        self.assertTrue(asked)
        for method, path in asked:
            self.assertEqual('GET', method)
            self.assertIn(f'fieldSelector=metadata.name%3D{self.node}', path)

    def test_rights_are_those_that_are_used(self):
        """No right is missing, and none is there that nothing asks for."""
        self.start()
        self.cordon()
        self.wait_for_state(self.disabled('cordoned'))
        self.compute.resize(cpu='8', memory='8Gi')
        self.wait_for(True, lambda: 'LimitsFollowed' in [
            reason for _, reason, _ in self.compute.events()])
        self.wait_for(['ComputeServiceDisabled'], self.node_events)
        used = {fault_proxy.right(each) for each in self.proxy.requests}
        everywhere = {each[1:] for each in used if each[0] is None}
        # What is asked for where there is a guests' pod: test_guests_pod.
        others = {self.compute.namespace: {
            (verb, 'pods') for verb in ('get', 'create', 'patch', 'delete')}}
        for namespace in (self.compute.namespace, 'default', 'kube-system'):
            self.assertEqual(
                {each[1:] for each in used if each[0] == namespace} |
                everywhere | others.get(namespace, set()),
                cluster.allowed(self.plane, namespace,
                                CONF.kubernetes.kubeconfig))

    def test_server_that_fails(self):
        self.start()
        for code in (429, 500, 410):
            self.proxy.answer('/nodes', code, event=code == 410)
            self.proxy.drop()
            self.stays(ENABLED, seconds=1.5)
            self.proxy.forget_answers()
            self.wait_until_it_follows()
        self.proxy.answer('/nodes', 200, body='{"items": [7], "metadata": '
                                              '{"resourceVersion": "1"}}')
        self.proxy.drop()
        self.stays(ENABLED, seconds=1.5)
        self.proxy.forget_answers()
        self.cordon()
        self.wait_for_state(self.disabled('cordoned'))


class NoBudgetTest(CordonTestBase):

    def test_restart_while_the_pod_is_gone(self):
        self.start()
        server = self.boot()
        self.plane.remove_pod(self.compute.pod)
        closed = ('disabled', 'AUTO: no budget', True)
        self.wait_for_state(closed)
        self.restart()
        self.stays(closed)
        self.wait_for_inventory(VCPU=(4, 4), MEMORY_MB=(4096, 4096))
        self.assertEqual('ACTIVE',
                         self.api.get_server(server['id'])['status'])
        self.compute.pod = self.compute.create_pod(
            name=self.compute.pod.metadata.name)
        self.wait_for_state(ENABLED)
        self.wait_for_inventory(VCPU=(4, 0), MEMORY_MB=(4096, 0))

    def test_limits_lost(self):
        self.start()
        self.plane.remove_pod(self.compute.pod)
        self.wait_for_state(('disabled', 'AUTO: no budget', True))
        self.cordon()
        self.wait_for_state(self.disabled('cordoned, no budget'))
