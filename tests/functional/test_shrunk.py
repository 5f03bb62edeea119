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

"""Guests on a node whose limit is below what they have."""

import os

import fixtures
import nova.conf
from nova.tests.functional.api import client
from nova.tests.functional.libvirt import base as libvirt_base

from nova_k8s.accounting import instance_overhead
from nova_k8s.accounting import overhead
from nova_k8s.inventory import bounds
from nova_k8s.inventory import room
from tests.functional import test_overhead

CONF = nova.conf.CONF


class LeaveTest(libvirt_base.LibvirtMigrationMixin,
                test_overhead.OverheadTestBase):
    """A guest that is larger than all of the limit can go."""

    def setUp(self):
        super().setUp()
        # There are no disks in these tests.
        self.useFixture(fixtures.MockPatch(
            'nova.virt.libvirt.driver.LibvirtDriver.'
            'migrate_disk_and_power_off', return_value='{}'))
        shrunk = self.manifest
        self.start('compute1', cpu='8', memory=self.room_for(1, 2048))
        # Each has a pod of its own.
        self.manifest = os.path.join(
            self.useFixture(fixtures.TempDir()).path, 'pod.yaml')
        self.flags(manifest=self.manifest, group='kubernetes')
        self.start('compute2', cpu='8', memory=self.room_for(2, 2048))
        self.src, self.dest = (self.computes[host] for host in (
            'compute1', 'compute2'))
        flavor = self._create_flavor(vcpu=4, memory_mb=2048, disk=1,
                                     ephemeral=0)
        self.server = self._create_server(
            flavor_id=flavor, networks='none', host='compute1')
        self.flavor = flavor
        self.manifest = shrunk
        self.set_limits(cpu='2', memory='1Gi')
        self.wait_for((2, 1024), lambda: tuple(
            self.inventory()[name]['total']
            for name in (bounds.VCPU, bounds.MEMORY_MB)))

    def test_live_migration(self):
        self._live_migrate(self.server, 'completed')
        self.assertEqual('compute2', self.host())
        # Who is gone needs no such unit.
        self._run_periodics()
        self.wait_for((2, 1024), lambda: tuple(
            self.inventory()[name]['max_unit']
            for name in (bounds.VCPU, bounds.MEMORY_MB)))

    def test_cold_migration(self):
        self._migrate_server(self.server)
        self._confirm_resize(self.server)
        self.assertEqual('compute2', self.host())

    def test_evacuation(self):
        service = self.admin_api.get_services(
            host='compute1', binary='nova-compute')[0]
        self.src.stop()
        self.admin_api.put_service_force_down(service['id'], True)
        # It stays stopped since 2.95.
        self._evacuate_server(self.server, expected_host='compute2',
                              expected_state='SHUTOFF')

    def test_no_other_comes(self):
        server = self._create_server(
            flavor_id=self.flavor, networks='none', host='compute1',
            expected_state='ERROR')
        self.assertIn('No valid host', server['fault']['message'])

    def host(self):
        return self.admin_api.get_server(
            self.server['id'])['OS-EXT-SRV-ATTR:host']


class StartTest(test_overhead.OverheadTestBase):
    """Stopped guests that a smaller limit has no room for."""

    def setUp(self):
        super().setUp()
        self.start(cpu='8', memory=self.room_for(2))
        self.servers = [self.boot(memory_mb=512) for _ in range(2)]
        for server in self.servers:
            self._stop_server(server)
        self._run_periodics()
        self.set_limits(cpu='8', memory=self.room_for(1))
        self.wait_for(int(self.room_for(1)[:-2]),
                      lambda: self.memory()['total'])

    def start_server(self, server):
        self.api.post_server_action(server['id'], {'os-start': None})

    def refused(self, server, action):
        # Nova's fixture makes of each cast a call: with real messaging the
        # API has answered before.
        exc = self.assertRaises(
            client.OpenStackApiException, self.api.post_server_action,
            server['id'], action)
        self.assertIn('ComputeResourcesUnavailable', str(exc))

    def test_one_of_two(self):
        first, second = self.servers
        self.start_server(first)
        self._wait_for_state_change(first, 'ACTIVE')
        self.refused(second, {'os-start': None})
        event = self._wait_for_action_fail_completion(
            second, 'start', 'compute_start_instance')
        self.assertIn('the memory limit of the pod leaves', event['details'])
        self.assertEqual('SHUTOFF', self.api.get_server(
            second['id'])['status'])
        # Room is made.
        self._delete_server(first)
        self._run_periodics()
        self.start_server(second)
        self._wait_for_state_change(second, 'ACTIVE')

    def test_hard_reboot_starts_as_well(self):
        first, second = self.servers
        self.start_server(first)
        self._wait_for_state_change(first, 'ACTIVE')
        self.refused(second, {'reboot': {'type': 'HARD'}})
        self._wait_for_action_fail_completion(
            second, 'reboot', 'compute_reboot_instance')


class StoryTest(test_overhead.OverheadTestBase):
    """The hypervisors API and Placement tell the same."""

    def assert_same(self):
        self._run_periodics()
        memory = self.memory()
        used = self.placement.get(
            '/resource_providers/%s/usages' %
            self.compute_rp_uuids['compute1']).body['usages']['MEMORY_MB']
        free = memory['total'] - memory['reserved'] - used
        self.wait_for_hypervisor(
            memory_mb=memory['total'], free_ram_mb=free,
            memory_mb_used=memory['total'] - free)
        return free

    def test_memory(self):
        self.start(cpu='8', memory=self.room_for(2))
        self.assert_same()
        servers = [self.boot(memory_mb=512) for _ in range(2)]
        # What status shows of it, to the MiB.
        inventory = self.inventory()
        usages = self.placement.get(
            '/resource_providers/%s/usages' %
            self.compute_rp_uuids['compute1']).body['usages']
        accounts = self.computes['compute1'].driver._accounts.summary()
        shown = room.describe(inventory, usages, accounts)
        self.assertEqual(self.memory()['reserved'], accounts.reserved_mb)
        self.assertEqual(self.assert_same(), shown['free_mb'])
        settings = instance_overhead.settings_from(CONF)
        for memory_mb in (64, 128, 512):
            need = overhead.need(overhead.guest(
                memory_mb, 1, {}, {}, settings), settings)
            fit = room.count_more(inventory, usages, accounts, need, 1)
            for _ in range(fit):
                servers.append(self.boot(memory_mb=memory_mb))
            self.assert_full(memory_mb=memory_mb)
            for _ in range(fit):
                self._delete_server(servers.pop())
            self._run_periodics()
            self.assert_reserved(self.reserved(512, 512))
        # It is full: less than what the next one takes is left.
        self.assertLess(self.assert_same(), 512)
        self._delete_server(servers[0])
        self.assert_same()
        self.set_limits(cpu='8', memory='512Mi')
        self.wait_for(512, lambda: self.memory()['total'])
        self.assert_same()
