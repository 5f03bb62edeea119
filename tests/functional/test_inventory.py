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


"""What Nova offers is what the pod's limits allow, and no more."""

import os
import threading
from unittest import mock

import fixtures
from nova import context
from nova import exception
from nova.objects import host_mapping
from nova.virt.libvirt import driver
from oslo_utils.fixture import uuidsentinel as uuids

from nova_k8s.cmd import report
from nova_k8s.inventory import bounds
from tests.functional import base
from tests import waiting


class ReportedTest(base.ServersTestBase):

    def test_inventory_is_the_limits(self):
        self.start(cpu='7500m', memory='2000Mi')
        found = self.inventory()
        self.assertEqual(
            {'total': 7, 'reserved': 0, 'min_unit': 1, 'max_unit': 7,
             'step_size': 1, 'allocation_ratio': 1.0},
            found[bounds.VCPU])
        self.assertEqual(
            {'total': 2000, 'reserved': 0, 'min_unit': 1, 'max_unit': 2000,
             'step_size': 1, 'allocation_ratio': 1.0},
            found[bounds.MEMORY_MB])
        self.assertIn('DISK_GB', found)

    def test_hypervisors_api_tells_the_same(self):
        self.start(cpu='7500m', memory='2000Mi')
        hypervisor = self.hypervisor()
        self.assertEqual(7, hypervisor['vcpus'])
        self.assertEqual(2000, hypervisor['memory_mb'])

    def test_never_more_than_the_machine(self):
        self.start(cpu='1k', memory='1Pi')
        found = self.inventory()
        self.assertEqual(16, found[bounds.VCPU]['total'])
        self.assertEqual(base.HOST_MEMORY_MB,
                         found[bounds.MEMORY_MB]['total'])
        self.assertIn('allows 1000 VCPU, the machine has 16',
                      self.stdlog.logger.output)

    def test_what_nova_reserves_and_its_ratios_stay(self):
        self.flags(reserved_host_memory_mb=512, cpu_allocation_ratio=4.0)
        self.start(cpu='2', memory='2Gi')
        found = self.inventory()
        self.assertEqual(512, found[bounds.MEMORY_MB]['reserved'])
        self.assertEqual(4.0, found[bounds.VCPU]['allocation_ratio'])

    def test_unlimited_host(self):
        self.flags(unlimited='host', group='kubernetes')
        self.start(cpu='2')
        found = self.inventory()
        self.assertEqual(2, found[bounds.VCPU]['total'])
        self.assertEqual(base.HOST_MEMORY_MB,
                         found[bounds.MEMORY_MB]['total'])


class FullTest(base.ServersTestBase):

    def test_servers_fit_up_to_the_memory_limit(self):
        self.start(cpu='8', memory='2Gi')
        for _ in range(2):
            self.boot(memory_mb=1024)
        self.assert_full(memory_mb=1)

    def test_servers_fit_up_to_the_cpu_limit(self):
        self.start(cpu='3900m', memory='16Gi')
        self.boot(vcpus=2)
        self.boot(vcpus=1)
        self.assert_full(vcpus=1)


class ShrinkTest(base.ServersTestBase):

    def setUp(self):
        super().setUp()
        self.start(cpu='4', memory='4Gi')
        self.server = self.boot(vcpus=2, memory_mb=2048)

    def assert_kept(self):
        self.assertEqual(
            'ACTIVE', self.api.get_server(self.server['id'])['status'])
        usages = self.placement.get(
            '/resource_providers/%s/usages' % self.compute_rp_uuids['compute1']
        ).body['usages']
        self.assertEqual(2, usages[bounds.VCPU])
        self.assertEqual(2048, usages[bounds.MEMORY_MB])

    def assert_recovers(self):
        self.set_limits(cpu='4', memory='4Gi')
        self.wait_for_inventory(VCPU=(4, 0), MEMORY_MB=(4096, 0))
        self.wait_for_service('enabled')
        self.boot(vcpus=2, memory_mb=2048)

    def test_below_what_is_allocated(self):
        self.set_limits(cpu='1', memory='1Gi')
        self.wait_for_inventory(VCPU=(1, 0), MEMORY_MB=(1024, 0))
        self.wait_for_hypervisor(vcpus=1, memory_mb=1024)
        self.assert_full(vcpus=1, memory_mb=1)
        self.assert_kept()
        self.assert_recovers()

    def test_below_one_core(self):
        self.set_limits(cpu='500m', memory='4Gi')
        self.wait_for_inventory(VCPU=(4, 4), MEMORY_MB=(4096, 0))
        self.wait_for_hypervisor(vcpus=4, memory_mb=4096)
        self.assert_full()
        self.assert_kept()
        self.assert_recovers()

    def test_one_limit_is_lost(self):
        self.set_limits(cpu='4')
        self.wait_for_inventory(VCPU=(4, 0), MEMORY_MB=(4096, 4096))
        self.assert_full()
        self.assert_kept()
        self.assert_recovers()

    def test_the_container_is_lost(self):
        self.flags(container='libvirt', group='kubernetes')
        self.restart_compute_service('compute1')
        with open(self.manifest, encoding='utf-8') as f:
            text = f.read()
        with open(self.manifest, 'w', encoding='utf-8') as f:
            f.write(text.replace('name: libvirt', 'name: other'))
        self.wait_for_inventory(VCPU=(4, 4), MEMORY_MB=(4096, 4096))
        self.wait_for_hypervisor(vcpus=4, memory_mb=4096)
        self.assert_full()
        self.assert_kept()
        self.assert_recovers()

    def test_a_broken_manifest_changes_nothing(self):
        with open(self.manifest, 'w', encoding='utf-8') as f:
            f.write('kind: Pod\nspec: {containers: [')
        self._wait_for_log('The last known limits stay in force')
        self._run_periodics()
        self.wait_for_inventory(VCPU=(4, 0), MEMORY_MB=(4096, 0))
        self.set_limits(cpu='5', memory='4Gi')
        self.wait_for_inventory(VCPU=(5, 0), MEMORY_MB=(4096, 0))

    def test_a_restart_changes_nothing(self):
        self.restart_compute_service('compute1')
        self.wait_for_inventory(VCPU=(4, 0), MEMORY_MB=(4096, 0))
        self.assert_kept()

    def _wait_for_log(self, text):
        waiting.until(lambda: text in self.stdlog.logger.output, text)


class StartTest(base.ServersTestBase):

    def refusal(self, **limits):
        """Start, and return the one line with which it does not."""
        if limits:
            self.set_limits(**limits)
        before = len(self.stdlog.logger.output)
        self.assertRaises(SystemExit, self.start_compute)
        lines = self.stdlog.logger.output[before:].splitlines()
        self.assertNotIn('Traceback', '\n'.join(lines))
        found = [line for line in lines if 'does not start' in line]
        self.assertEqual(1, len(found), lines)
        return found[0]

    def test_unreadable(self):
        line = self.refusal()
        self.assertIn(self.manifest, line)
        self.assertIn('[kubernetes] manifest', line)

    def test_no_such_container(self):
        self.flags(container='qemu', group='kubernetes')
        line = self.refusal(cpu='4', memory='4Gi')
        self.assertIn('Pod openstack/compute', line)
        self.assertIn('no container qemu', line)
        self.assertIn('[kubernetes] container', line)

    def test_no_limit(self):
        line = self.refusal(cpu='4')
        self.assertIn('Pod openstack/compute, container libvirt', line)
        self.assertIn('spec.containers[libvirt].resources.limits.memory', line)
        self.assertIn('[kubernetes] unlimited', line)

    def test_below_one_core(self):
        line = self.refusal(cpu='500m', memory='4Gi')
        self.assertIn('Pod openstack/compute, container libvirt', line)
        self.assertIn('resources.limits.cpu is below one core', line)
        self.assertIn('[kubernetes] container', line)

    def test_below_what_is_reserved(self):
        self.flags(reserved_host_memory_mb=2048)
        line = self.refusal(cpu='4', memory='1Gi')
        self.assertIn('Pod openstack/compute, container libvirt', line)
        self.assertIn('resources.limits.memory is 1024 MiB', line)
        self.assertIn('lower reserved_host_memory_mb', line)


class ClosedStartTest(base.ServersTestBase):
    """A node that was there starts, whatever became of its limits."""

    def setUp(self):
        super().setUp()
        self.start(cpu='4', memory='4Gi')
        self.server = self.boot(vcpus=2, memory_mb=2048)

    def restart(self):
        before = len(self.stdlog.logger.output)
        self.restart_compute_service('compute1')
        errors = [line for line in
                  self.stdlog.logger.output[before:].splitlines()
                  if ' ERROR [nova_k8s.' in line]
        self.assertEqual(1, len(errors), errors)
        self.assertIn('nova-compute starts, and nothing new is placed on '
                      'this compute node', errors[0])
        return errors[0]

    def assert_managed_and_closed(self, **inventory):
        self.wait_for_inventory(**inventory)
        self.wait_for_hypervisor(vcpus=4, memory_mb=4096)
        self.assert_full()
        self._reboot_server(self.server, hard=True)
        # One that does not run is started when there is room again.
        self._stop_server(self.server)
        self.wait_for_service('disabled', 'AUTO: no budget')

    def assert_opens(self):
        self.set_limits(cpu='4', memory='4Gi')
        self.wait_for_inventory(VCPU=(4, 0), MEMORY_MB=(4096, 0))
        self.wait_for_service('enabled')
        self._start_server(self.server)
        self._delete_server(self.boot())

    def test_unreadable(self):
        os.unlink(self.manifest)
        self.assertIn(self.manifest, self.restart())
        self.assert_managed_and_closed(VCPU=(4, 4), MEMORY_MB=(4096, 4096))
        self.assert_opens()

    def test_no_limit(self):
        self.set_limits(cpu='4')
        self.assertIn('resources.limits.memory', self.restart())
        self.assert_managed_and_closed(VCPU=(4, 0), MEMORY_MB=(4096, 4096))
        self.assert_opens()

    def test_below_what_is_reserved(self):
        self.flags(reserved_host_memory_mb=2048)
        self.set_limits(cpu='4', memory='1Gi')
        self.assertIn('lower reserved_host_memory_mb', self.restart())
        self.wait_for_inventory(VCPU=(4, 0), MEMORY_MB=(1024, 1024))
        self.assert_full()
        self.set_limits(cpu='4', memory='8Gi')
        self.wait_for_inventory(VCPU=(4, 0), MEMORY_MB=(8192, 2048))

    def test_what_was_never_so(self):
        self.flags(container='qemu', group='kubernetes')
        compute = self.computes.pop('compute1')
        compute.stop()
        self.compute_rp_uuids.pop('compute1')
        self.assertRaises(SystemExit, self.start_compute,
                          hostname='compute1')


class NameTestBase(base.ServersTestBase):

    libvirt_hostname = None

    def _get_connection(self, *args, **kwargs):
        connection = super()._get_connection(*args, **kwargs)
        if self.libvirt_hostname:
            connection.getHostname = lambda: self.libvirt_hostname
        return connection

    def start_pod(self, hostname):
        self.libvirt_hostname = hostname
        if 'compute1' in self.computes:
            self.restart_compute_service(
                'compute1', keep_hypervisor_state=False)
        else:
            self.start(cpu='4', memory='4Gi')

    def providers(self):
        return {each['uuid']: each['name'] for each in self.placement.get(
            '/resource_providers').body['resource_providers']}

    def allocations(self):
        return self.placement.get(
            '/resource_providers/%s/allocations' %
            self.compute_rp_uuids['compute1']).body['allocations']


class NameTest(NameTestBase):
    """The compute node keeps its name, whatever its pod is called."""

    def test_another_pod_on_the_same_node(self):
        self.useFixture(fixtures.EnvironmentVariable('NODE_NAME', 'compute1'))
        self.start_pod('nova-compute-7d9f-abcde')
        server = self.boot()
        hypervisor, providers = self.hypervisor(), self.providers()
        allocations = self.allocations()
        self.assertEqual('compute1', hypervisor['hypervisor_hostname'])
        self.assertEqual(['compute1'], list(providers.values()))
        self.assertIn(server['id'], allocations)

        self.start_pod('nova-compute-7d9f-fghij')
        self._run_periodics()
        after = self.hypervisor()
        self.assertEqual('compute1', after['hypervisor_hostname'])
        self.assertEqual(hypervisor['id'], after['id'])
        self.assertEqual(providers, self.providers())
        self.assertEqual(allocations, self.allocations())
        self.assertEqual('compute1', self.admin_api.get_server(server['id'])[
            'OS-EXT-SRV-ATTR:hypervisor_hostname'])

    def test_another_host_on_the_same_node(self):
        # [DEFAULT] host is not set, so it is the random name of the pod.
        self.useFixture(fixtures.EnvironmentVariable('NODE_NAME', 'compute1'))
        self.start(cpu='4', memory='4Gi')
        providers = self.providers()
        self.assertEqual(['compute1'], list(providers.values()))
        self.assertRaises(SystemExit, self.start_compute,
                          hostname='nova-compute-7d9f-fghij')
        line, = [line for line in self.stdlog.logger.output.splitlines()
                 if 'does not start' in line]
        self.assertIn('compute node compute1 as that of host compute1', line)
        self.assertIn('[DEFAULT] host = compute1', line)
        self.assertEqual(providers, self.providers())

    def test_adoption(self):
        # It runs with Nova's own driver, under libvirt's host name.
        self.flags(compute_driver='libvirt.LibvirtDriver')
        self.start(cpu='4', memory='4Gi')
        self.assertIs(driver.LibvirtDriver,
                      type(self.computes['compute1'].driver))
        self.wait_for_inventory(VCPU=(16, 0),
                                MEMORY_MB=(base.HOST_MEMORY_MB, 0))
        server = self.boot()
        hypervisor, providers = self.hypervisor(), self.providers()
        allocations = self.allocations()
        self.assertIn(server['id'], allocations)
        connection = self.computes['compute1'].driver._get_connection()

        self.flags(compute_driver='k8s.K8sLibvirtDriver')
        self.useFixture(fixtures.EnvironmentVariable('NODE_NAME', 'node1'))
        self.assertRaises(SystemExit, self.restart_compute_service, 'compute1')
        line, = [line for line in self.stdlog.logger.output.splitlines()
                 if 'does not start' in line]
        self.assertIn('as compute1, and now it would be node1', line)
        self.assertIn('[kubernetes] hypervisor_hostname = compute1', line)

        self.flags(hypervisor_hostname='compute1', group='kubernetes')
        self.start_compute(connection=connection)
        self._run_periodics()
        self.wait_for_inventory(VCPU=(4, 0), MEMORY_MB=(4096, 0))
        self.wait_for_hypervisor(vcpus=4, memory_mb=4096)
        self.assertEqual(hypervisor['id'], self.hypervisor()['id'])
        self.assertEqual(providers, self.providers())
        self.assertEqual(allocations, self.allocations())


class WayBackTest(NameTestBase):
    """Back to Nova's own driver, as operations.rst has it."""

    NOVAS_NAME = 'compute1.example.org'

    def start_with_a_guest(self, name):
        self.useFixture(fixtures.EnvironmentVariable('NODE_NAME', 'compute1'))
        self.start_pod(name)
        self.server = self.boot(vcpus=2, memory_mb=2048)
        self.flags(compute_driver='libvirt.LibvirtDriver')

    def restart(self):
        self.restart_compute_service('compute1')
        self.assertIs(driver.LibvirtDriver,
                      type(self.computes['compute1'].driver))
        self._run_periodics()

    def assert_the_same(self, hypervisor, providers, allocations):
        self.assertEqual(hypervisor['id'], self.hypervisor()['id'])
        self.assertEqual(providers, self.providers())
        self.assertEqual(allocations, self.allocations())
        self.wait_for_inventory(VCPU=(16, 0),
                                MEMORY_MB=(base.HOST_MEMORY_MB, 0))
        self._stop_server(self.server)
        self._start_server(self.server)
        self.boot(vcpus=8, memory_mb=8192)

    def test_same_name(self):
        self.start_with_a_guest('compute1')
        before = self.hypervisor(), self.providers(), self.allocations()
        self.restart()
        self.assert_the_same(*before)

    def test_another_name_and_libvirt_is_told(self):
        self.start_with_a_guest(self.NOVAS_NAME)
        before = self.hypervisor(), self.providers(), self.allocations()
        connection = self.computes['compute1'].driver._get_connection()
        exc = self.assertRaises(exception.InvalidConfiguration,
                                self.restart_compute_service, 'compute1')
        self.assertIn('Possible rename detected', str(exc))
        # The host name of where libvirtd runs is what virsh hostname says.
        connection.getHostname = lambda: 'compute1'
        self.start_compute(connection=connection)
        self._run_periodics()
        self.assert_the_same(*before)

    def test_another_name_without_guests(self):
        self.start_with_a_guest(self.NOVAS_NAME)
        self._delete_server(self.server)
        connection = self.computes['compute1'].driver._get_connection()
        before = self.hypervisor()
        self.computes.pop('compute1').stop()
        service, = self.admin_api.get_services('nova-compute', 'compute1')
        self.admin_api.api_delete(f'/os-services/{service["id"]}')
        self.assertEqual({}, self.providers())
        # compute_id was deleted as well: Nova makes another one.
        self.mock_conn.return_value = connection
        with mock.patch('nova.virt.node.get_local_node_uuid',
                        return_value=uuids.another):
            compute = self.start_service('compute', host='compute1')
            compute.driver._host.get_node_uuid()
        self.assertIs(driver.LibvirtDriver, type(compute.driver))
        host_mapping.discover_hosts(context.get_admin_context())
        self.assertEqual({uuids.another: self.NOVAS_NAME}, self.providers())
        self.assertNotEqual(before['id'], self.hypervisor()['id'])
        self.boot(vcpus=8, memory_mb=8192)


class ReportTest(base.ServersTestBase):
    """nova-k8s report says what Placement then has."""

    def assert_same(self):
        found = self.inventory()
        host = self.computes['compute1'].driver._host
        machine = 'cpus=%d,memory=%dMi' % (
            len(host.get_online_cpus()), host.get_memory_mb_total())
        result, _ = report.report(machine)
        self.assertEqual({rc: found[rc] for rc in bounds.FIELDS
                          if rc in found}, result['inventory'])

    def test_limits(self):
        self.flags(reserved_host_memory_mb=512)
        self.start(cpu='2500m', memory='2Gi')
        self.assert_same()

    def test_machine_and_ratios(self):
        self.flags(cpu_allocation_ratio=None, ram_allocation_ratio=None,
                   reserved_host_cpus=1)
        self.start(cpu='100', memory='1Pi')
        self.assert_same()

    def test_shared_cpus(self):
        self.flags(cpu_shared_set='2-4,15', group='compute')
        self.start(cpu='100', memory='2Gi')
        self.assert_same()

    def test_dedicated_cpus(self):
        self.flags(cpu_dedicated_set='2-7', group='compute')
        self.start(cpu='100', memory='2Gi')
        self.assert_same()


class EndTest(base.ServersTestBase):

    @staticmethod
    def workers():
        return [each.name for each in threading.enumerate()
                if each.name.startswith('nova-k8s')]

    def test_nothing_goes_on_after_the_end(self):
        self.start(cpu='4', memory='8Gi')
        self.assertNotEqual([], self.workers())
        self.computes['compute1'].stop()
        # Or it goes on under the next test.
        self.assertEqual([], self.workers())
