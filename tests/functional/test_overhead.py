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

"""A node that Nova calls full is full, and one it calls free is not wasted."""

import collections
import contextlib
import time

import fixtures
import nova.conf
from nova import context
from nova import objects
from nova.scheduler.client import report as report_client
from nova.tests.fixtures import libvirt
from nova.tests.functional.api import client
from nova.tests.functional.libvirt import base as libvirt_base
from testtools import content

from nova_k8s.accounting import instance_overhead
from nova_k8s.accounting import overhead
from nova_k8s.inventory import bounds
from tests.functional import base
from tests import waiting

CONF = nova.conf.CONF

# For what runs in the pod besides guests.
OTHERS = 64


class OverheadTestBase(base.ServersTestBase):

    def setUp(self):
        super().setUp()
        self.flags(overhead_factor=1.0, group='kubernetes')
        self.flags(reserved_host_memory_mb=OTHERS)

    def cost(self, memory_mb=512, vcpus=1):
        """What a guest costs beyond its memory."""
        settings = instance_overhead.settings_from(CONF)
        return overhead.need(
            overhead.guest(memory_mb, vcpus, {}, {}, settings),
            settings).overhead_mb

    def room_for(self, guests, memory_mb=512):
        """The memory limit with room for so many, and half of one more."""
        need = memory_mb + self.cost(memory_mb)
        return '%dMi' % (OTHERS + guests * need + need // 2)

    def reserved(self, *memories, ahead=1):
        """What must be reserved with guests of these sizes on the node."""
        costs = [self.cost(memory_mb) for memory_mb in memories]
        return OTHERS + sum(costs) + ahead * max(costs, default=0)

    def memory(self, host='compute1'):
        return self.inventory(host)[bounds.MEMORY_MB]

    def assert_reserved(self, expected, host='compute1'):
        self.wait_for(expected, lambda: self.memory(host)['reserved'])

    def assert_kept(self, expected, host='compute1'):
        """It is so, and an audit and a restart find the same."""
        self.assert_reserved(expected, host)
        self._run_periodics()
        # What the publisher would change, it has changed by then.
        time.sleep(0.3)
        self.assert_reserved(expected, host)
        self.restart_compute_service(host)
        self.assert_reserved(expected, host)
        self.assertEqual(
            {}, self.computes[host].driver._accounts._ledger._held)


class FullTest(OverheadTestBase):

    def test_full_is_full_before_the_limit_is(self):
        self.start(cpu='8', memory=self.room_for(2))
        self.assert_reserved(OTHERS)
        self.boot(memory_mb=512)
        self.assert_reserved(self.reserved(512))
        self.boot(memory_mb=512)
        self.assert_reserved(self.reserved(512, 512))
        # Placement itself knows: no node was tried in vain.
        self.assert_full(memory_mb=512)
        self.assertNotIn('Failed to claim', self.stdlog.logger.output)
        self.assert_kept(self.reserved(512, 512))

    def test_the_node_has_the_last_word(self):
        # Nothing in advance: Placement finds room where there is none.
        self.flags(reserve_ahead=0, group='kubernetes')
        self.start(cpu='8', memory='%dMi' % (
            OTHERS + 2 * 512 + 2 * self.cost() - 1))
        self.boot(memory_mb=512)
        server = self.boot(memory_mb=512, expected_state='ERROR')
        self.assertIn('Exceeded maximum number of retries'
                      if 'retries' in server['fault']['message']
                      else 'No valid host', server['fault']['message'])
        log = self.stdlog.logger.output
        self.assertIn('the memory limit of the pod leaves', log)
        self.assertIn('this one needs %d MiB' % (512 + self.cost()), log)
        self.assert_kept(self.reserved(512, ahead=0))

    def test_real_memory_counts_whatever_the_ratio(self):
        self.flags(ram_allocation_ratio=4.0)
        self.start(cpu='8', memory=self.room_for(2))
        for _ in range(2):
            self.boot(memory_mb=512)
        self.boot(memory_mb=512, expected_state='ERROR')
        self._run_periodics()
        self.assertEqual(1, self.stdlog.logger.output.count(
            'the allocation ratio of MEMORY_MB is 4.0'))

    def test_flavor_that_tells_placement_is_not_counted_twice(self):
        self.start(cpu='8', memory=self.room_for(2))
        need = 512 + self.cost()
        flavor = self._create_flavor(
            vcpu=1, memory_mb=512, disk=1, ephemeral=0,
            extra_spec={'resources:MEMORY_MB': str(need)})
        for _ in range(2):
            self._create_server(flavor_id=flavor, networks='none')
        self.assert_reserved(OTHERS)
        server = self._create_server(flavor_id=flavor, networks='none',
                                     expected_state='ERROR')
        self.assertIn('No valid host', server['fault']['message'])

    def test_lowered_below_what_runs(self):
        self.start(cpu='8', memory=self.room_for(2))
        for _ in range(2):
            self.boot(memory_mb=512)
        self.set_limits(cpu='8', memory='600Mi')
        reserved = min(600, self.reserved(512, 512))
        self.wait_for_inventory(MEMORY_MB=(600, reserved))
        self.assert_full(memory_mb=128)
        limit = self.room_for(3)
        self.set_limits(cpu='8', memory=limit)
        self.wait_for_inventory(
            MEMORY_MB=(int(limit[:-2]), self.reserved(512, 512)))
        self.boot(memory_mb=512)


class Conflicts(fixtures.Fixture):
    """Counts what Placement answers to inventories that are written."""

    def _setUp(self):
        self.answers = collections.Counter()
        put = report_client.SchedulerReportClient.put

        def counted(client, url, *args, **kwargs):
            response = put(client, url, *args, **kwargs)
            if url.endswith('/inventories'):
                self.answers[response.status_code] += 1
            return response

        self.useFixture(fixtures.MonkeyPatch(
            'nova.scheduler.client.report.SchedulerReportClient.put',
            counted))


@contextlib.contextmanager
def target_cell(cells, context, cell_mapping):
    """Nova's fixture switches a global, and many threads wait in a circle.

    There is one cell with guests, and it is the global one anyway.
    """
    with cells._real_target_cell(context, cell_mapping) as targeted:
        yield targeted


class StormTest(OverheadTestBase):
    """Many boots at once: nothing waits for anything."""

    CAST_AS_CALL = False

    def setUp(self):
        self.useFixture(fixtures.MonkeyPatch(
            'nova.tests.fixtures.CellDatabases._wrap_target_cell',
            target_cell))
        super().setUp()
        self.conflicts = self.useFixture(Conflicts())
        for name in ('instances', 'cores', 'ram'):
            self.flags(group='quota', **{name: -1})
        self.flags(cpu_allocation_ratio=4.0)

    def storm(self, number, memory_mb=512):
        """Boot so many at once; return how many ended in which status."""
        flavor = self._create_flavor(vcpu=1, memory_mb=memory_mb, disk=1,
                                     ephemeral=0)
        for _ in range(number):
            self.api.post_server({'server': self._build_server(
                flavor_id=flavor, networks='none')})
        deadline = time.monotonic() + 2 * waiting.PATIENCE
        while time.monotonic() < deadline:
            found = self.api.get_servers()
            if all(each['status'] != 'BUILD' for each in found):
                break
            # Asking takes time from what is asked for.
            time.sleep(1)
        self.addDetail(
            'storm', content.text_content('%s of %s refused, writes: %s' % (
                self.refusals(), number, dict(self.conflicts.answers))))
        return collections.Counter(each['status'] for each in found)

    def refusals(self):
        return self.stdlog.logger.output.count('Failed to claim')

    def assert_calm(self):
        """Placement refused few writes, no claim failed of it."""
        log = self.stdlog.logger.output
        self.assertNotIn('ResourceProviderUpdateConflict', log)
        self.assertNotIn('Failed to build and run', log)
        self.assertNotIn('Failed to update inventory', log)

    def assert_not_shunned(self):
        self._run_periodics()
        for node in objects.ComputeNodeList.get_all(
                context.get_admin_context()):
            self.assertEqual('0', str(node.stats.get('failed_builds', 0)),
                             node.hypervisor_hostname)

    def test_one_node(self):
        self.start(cpu='16', memory=self.room_for(7))
        self.assertEqual({'ACTIVE': 7, 'ERROR': 13}, self.storm(20))
        self.assert_reserved(self.reserved(*[512] * 7))
        self.assert_calm()
        self.assert_not_shunned()
        self.assert_kept(self.reserved(*[512] * 7))

    def _three_nodes(self, number, room, memory_mb):
        for host in ('compute1', 'compute2', 'compute3'):
            self.start(host, cpu='16', memory=self.room_for(room, memory_mb))
        self.assertEqual(3, CONF.scheduler.max_attempts)
        self.assertEqual({'ACTIVE': number}, self.storm(number, memory_mb))
        self.assert_calm()
        self.assert_not_shunned()

    def test_three_nodes(self):
        self._three_nodes(18, 7, 512)

    def test_three_nodes_and_guests_that_cost_as_much_as_they_have(self):
        # Placement believes that each node has room for twice as many.
        self.flags(overhead_addition_mb=60, group='kubernetes')
        # All go where there is most room, so that nodes are tried in vain.
        self._three_nodes(9, 4, 128)


class MoveTest(libvirt_base.LibvirtMigrationMixin, OverheadTestBase):
    """Guests that come and go in every way that Nova knows."""

    hosts = ('compute1', 'compute2')

    def setUp(self):
        super().setUp()
        self.ending = None
        self.restarts = False
        # There are no disks in these tests.
        self.useFixture(fixtures.MockPatch(
            'nova.virt.libvirt.driver.LibvirtDriver.'
            'migrate_disk_and_power_off', return_value='{}'))
        for host in self.hosts:
            self.start(host, cpu='8', memory=self.room_for(2, 1024))
        self.src, self.dest = (self.computes[host] for host in self.hosts)
        self.small, self.large = (
            self._create_flavor(vcpu=1, memory_mb=memory_mb, disk=1,
                                ephemeral=0)
            for memory_mb in (512, 1024))

    def boot_on(self, host, flavor=None):
        return self._create_server(flavor_id=flavor or self.small,
                                   networks='none', host=host)

    def assert_both(self, first, second):
        """The guests on each node, by memory, and so it stays."""
        for host, memories in zip(self.hosts, (first, second)):
            self.assert_reserved(self.reserved(*memories), host)
        self._run_periodics()
        time.sleep(0.3)
        for host, memories in zip(self.hosts, (first, second)):
            self.assert_reserved(self.reserved(*memories), host)
            self.assertEqual(
                {}, self.computes[host].driver._accounts._ledger._held)

    def assert_both_after_restart(self, first, second):
        """The same, with nova-compute restarted in the middle of a move."""
        self.assert_both(first, second)
        for host in self.hosts:
            self.restart_compute_service(host)
        self.assert_both(first, second)

    def test_resize(self):
        server = self.boot_on('compute1')
        self._resize_server(server, self.large)
        # Room for a way back is kept.
        self.assert_both_after_restart([512], [1024])
        self._confirm_resize(server)
        self.assert_both([], [1024])
        self._resize_server(server, self.small)
        self.assert_both([512], [1024])
        self._revert_resize(server)
        self.assert_both_after_restart([], [1024])

    def test_resize_on_the_same_node(self):
        self.flags(allow_resize_to_same_host=True)
        self.admin_api.put_service_force_down(
            self.admin_api.get_services(
                host='compute2', binary='nova-compute')[0]['id'], True)
        server = self.boot_on('compute1')
        self._resize_server(server, self.large)
        self.assert_kept(self.reserved(512, 1024))
        self._confirm_resize(server)
        self.assert_kept(self.reserved(1024))
        self._resize_server(server, self.small)
        self.assert_kept(self.reserved(512, 1024))
        self._revert_resize(server)
        self.assert_kept(self.reserved(1024))

    def test_shelve(self):
        self.flags(shelved_offload_time=-1)
        server = self.boot_on('compute1')
        self._shelve_server(server, expected_state='SHELVED')
        self.assert_both([512], [])
        self._shelve_offload_server(server)
        self.assert_both([], [])
        self.boot_on('compute1', self.large)
        self.boot_on('compute1')
        server = self._unshelve_server(server)
        self.assertEqual('compute2', server['OS-EXT-SRV-ATTR:host'])
        self.assert_both([1024, 512], [512])

    def test_stopped(self):
        server = self.boot_on('compute1')
        self._stop_server(server)
        self.assert_kept(self.reserved(512))

    def test_evacuate(self):
        server = self.boot_on('compute1')
        self.computes['compute1'].stop()
        self.api.put_service_force_down(
            self.api.get_services(
                host='compute1', binary='nova-compute')[0]['id'], True)
        self._evacuate_server(server, expected_host='compute2',
                              expected_state='SHUTOFF')
        self.assert_kept(self.reserved(512), 'compute2')

    def _migrate_stub(self, domain, destination, params, flags):
        # What is on its way is counted before it is here.
        self.on_its_way = self._reserved_on_its_way()
        if self.restarts:
            # It held room, and knows nothing of that any more.
            self.restart_compute_service('compute2')
            self.dest = self.computes['compute2']
            self.on_its_way_after_restart = self._reserved_on_its_way()
        if self.ending is None:
            super()._migrate_stub(domain, destination, params, flags)
        else:
            # What libvirt says of the job in the end.
            self.src.driver._host.get_connection().lookupByUUIDString(
                self.server['id'])._job_type = self.ending

    def _reserved_on_its_way(self):
        def reserved():
            found = self.memory('compute2')['reserved']
            return found if found > OTHERS else None
        return waiting.until(reserved)

    def test_live_migrate(self):
        self.server = self.boot_on('compute1')
        self._live_migrate(self.server)
        self.assertEqual(self.reserved(512), self.on_its_way)
        self.assert_both([], [512])

    def test_live_migrate_to_a_node_that_restarts(self):
        self.restarts = True
        self.server = self.boot_on('compute1')
        self._live_migrate(self.server)
        self.assertEqual(self.reserved(512), self.on_its_way)
        self.assertEqual(self.reserved(512), self.on_its_way_after_restart)
        self.assert_both([], [512])

    def test_live_migration_that_does_not_fit(self):
        # Placement would take it: nothing is reserved in advance.
        self.flags(reserve_ahead=0, group='kubernetes')
        self.server = self.boot_on('compute1', self.large)
        for _ in range(2):
            self.boot_on('compute2', self.large)
        self.set_limits(cpu='8', memory='%dMi' % (
            OTHERS + 3 * 1024 + 2 * self.cost(1024) + 10))
        waiting.until(lambda: self.memory('compute2')['total'] >= 3 * 1024)
        # The conductor tried this host and found no other.
        exc = self.assertRaises(
            client.OpenStackApiException, self.api.post_server_action,
            self.server['id'], {'os-migrateLive': {
                'host': None, 'block_migration': 'auto'}})
        self.assertIn('NoValidHost', str(exc))
        self._wait_for_migration_status(self.server, ['error'])
        self.assertEqual('ACTIVE', self.api.get_server(
            self.server['id'])['status'])
        self.assertIn('Failed to take a live migration',
                      self.stdlog.logger.output)
        self.assertEqual({}, self.dest.driver._accounts._ledger._held)

    def _ends(self, job, status):
        # Nova tells the destination of a failure only where disks were
        # copied: the room is given up when its time is over.
        hold = 5
        self.useFixture(fixtures.MockPatch(
            'nova_k8s.accounting.instance_overhead.hold_time',
            return_value=hold))
        self.ending = job
        self.server = self.boot_on('compute1')
        self._live_migrate(self.server, migration_expected_state=status)
        self.assertEqual(self.reserved(512), self.on_its_way)
        time.sleep(hold)
        self._run_periodics()
        self.assert_both([512], [])

    def test_live_migration_that_fails(self):
        self._ends(libvirt.VIR_DOMAIN_JOB_FAILED, 'failed')

    def test_live_migration_that_is_aborted(self):
        self._ends(libvirt.VIR_DOMAIN_JOB_CANCELLED, 'cancelled')
