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

"""Guests in huge pages and others, each within what is meant for them."""

from nova import context
from nova import objects
from nova.tests.fixtures import libvirt
from nova.tests.functional.libvirt import base as libvirt_base

from nova_k8s.inventory import bounds
from tests.functional import base

TWO_MI, GI = 2048, 2 ** 20


class HugePagesTestBase(base.ServersTestBase):

    ADDITIONAL_FILTERS = ['NUMATopologyFilter']

    def start(self, host='compute1', **limits):
        self.set_limits(**{name.replace('pages_', 'pages-'): value
                           for name, value in limits.items()})
        # Two NUMA nodes, each with 2 GiB in pages of 2 MiB and 2 GiB in
        # pages of 1 GiB.
        self.start_compute(hostname=host, host_info=libvirt.HostInfo(
            cpu_nodes=2, cpu_sockets=1, cpu_cores=3, cpu_threads=2,
            kB_mem=32 * GI, mempages=[libvirt.create_mempages(
                [(4, 12 * GI // 4), (TWO_MI, 1024), (GI, 2)])
                for _ in range(2)]))

    def change(self, **limits):
        self.set_limits(**{name.replace('pages_', 'pages-'): value
                           for name, value in limits.items()})

    def boot_huge(self, memory_mb=1024, size='2MB', expected_state='ACTIVE',
                  **kwargs):
        flavor = self._create_flavor(
            vcpu=1, memory_mb=memory_mb, disk=1, ephemeral=0,
            extra_spec={'hw:mem_page_size': size} if size else {})
        return self._create_server(flavor_id=flavor, networks='none',
                                   expected_state=expected_state, **kwargs)

    def assert_refused(self, memory_mb=1024, size='2MB'):
        server = self.boot_huge(memory_mb, size, expected_state='ERROR')
        self.assertIn('No valid host', server['fault']['message'])
        self._delete_server(server)

    def pages(self, host='compute1'):
        """(free, used) by page size, node by node, as the scheduler sees."""
        node = objects.ComputeNode.get_by_nodename(
            context.get_admin_context(), host)
        topology = objects.NUMATopology.obj_from_db_obj(node.numa_topology)
        return {size_kb: [(pages.free, pages.used)
                          for cell in topology.cells
                          for pages in cell.mempages
                          if pages.size_kb == size_kb]
                for size_kb in (TWO_MI, GI)}


class OfferTest(HugePagesTestBase):

    def test_no_limit(self):
        self.start(cpu='8', memory='4Gi')
        self.wait_for_inventory(MEMORY_MB=(4096, 0))
        self.assertEqual({TWO_MI: [(0, 0)] * 2, GI: [(0, 0)] * 2},
                         self.pages())
        for size in ('2MB', '1GB', 'large'):
            self.assert_refused(size=size)
        # Of the two, Nova takes what there is.
        self.boot_huge(size='any')
        self.boot_huge(size=None)

    def test_within_the_limit(self):
        self.start(cpu='8', memory='1Gi', hugepages_2Mi='2Gi')
        self.wait_for_inventory(MEMORY_MB=(3072, 0))
        self.wait_for_hypervisor(memory_mb=3072)
        self.assertEqual({TWO_MI: [(512, 0)] * 2, GI: [(0, 0)] * 2},
                         self.pages())
        self.assert_refused(size='1GB')
        for _ in range(2):
            self.boot_huge()
        self.assertEqual([(0, 512)] * 2, self.pages()[TWO_MI])
        self.assert_refused(memory_mb=2)
        # All that is left is ordinary memory.
        self.boot(memory_mb=1024)
        self.assert_full(memory_mb=1)
        self._run_periodics()
        self.wait_for_inventory(MEMORY_MB=(3072, 0))
        self.restart_compute_service('compute1')
        self.assertEqual([(0, 512)] * 2, self.pages()[TWO_MI])
        self.assert_refused(memory_mb=2)

    def test_neither_takes_of_the_other(self):
        self.start(cpu='8', memory='1Gi', hugepages_2Mi='2Gi')
        self.boot(memory_mb=1024)
        # Placement has room, for huge pages; the node knows.
        self.boot(memory_mb=64, expected_state='ERROR')
        self.assertIn('the memory limit of the pod leaves 0 MiB: 1024 MiB',
                      self.stdlog.logger.output)
        for _ in range(2):
            self.boot_huge()
        self.assertEqual([(0, 512)] * 2, self.pages()[TWO_MI])

    def test_what_a_guest_costs_is_ordinary_memory(self):
        self.flags(overhead_addition_mb=100, reserve_ahead=0,
                   group='kubernetes')
        self.start(cpu='8', memory='250Mi', hugepages_2Mi='4Gi')
        for _ in range(2):
            self.boot_huge(512)
        self.wait_for_inventory(MEMORY_MB=(4096 + 250, 200))
        self.boot_huge(512, expected_state='ERROR')
        self.assertIn('the memory limit of the pod leaves 50 MiB',
                      self.stdlog.logger.output)

    def test_what_the_operator_keeps(self):
        self.flags(reserved_huge_pages=[
            {'node': '0', 'size': '2048', 'count': '1024'},
            {'node': '1', 'size': '1GB', 'count': '1'}])
        self.start(cpu='8', memory='1Gi', hugepages_2Mi='4Gi',
                   hugepages_1Gi='4Gi')
        self.assertEqual({TWO_MI: [(0, 0), (1024, 0)],
                          GI: [(2, 0), (1, 0)]}, self.pages())
        self.wait_for_inventory(MEMORY_MB=(1024 + 2048 + 3072, 0))
        self.assertIn('resources.limits.hugepages-2Mi allows 4096 MiB, the '
                      'machine has 2048 MiB', self.stdlog.logger.output)

    def test_sizes_that_nova_chooses(self):
        self.start(cpu='8', memory='1Gi', hugepages_2Mi='1Gi',
                   hugepages_1Gi='2Gi')
        for size in ('large', 'any'):
            self.boot_huge(1024, size)
        self.assertEqual({TWO_MI: [(256, 0)] * 2, GI: [(0, 1)] * 2},
                         self.pages())
        driver = self.computes['compute1'].driver
        self.assertEqual((0, 2048), (driver._accounts.summary().used_mb,
                                     driver._accounts.summary().huge_used_mb))
        self.boot(memory_mb=1024)


class FollowTest(HugePagesTestBase):

    def test_grows_and_shrinks(self):
        self.start(cpu='8', memory='1Gi')
        self.assert_refused()
        self.change(cpu='8', memory='1Gi', hugepages_2Mi='2Gi')
        # Without any audit.
        self.wait_for_inventory(MEMORY_MB=(3072, 0))
        self.wait_for([(512, 0)] * 2, lambda: self.pages()[TWO_MI])
        server = self.boot_huge()
        self.change(cpu='8', memory='1Gi', hugepages_2Mi='1Gi')
        self.wait_for_inventory(MEMORY_MB=(2048, 0))
        self.wait_for([(-256, 512), (256, 0)],
                      lambda: sorted(self.pages()[TWO_MI]))
        # A NUMA node has pages, and the pod has none.
        self.boot_huge(512, expected_state='ERROR')
        self.assertIn('the limit of the pod leaves 0 MiB in huge pages',
                      self.stdlog.logger.output)
        self.assertEqual('ACTIVE',
                         self.api.get_server(server['id'])['status'])

    def test_another_size(self):
        self.start(cpu='8', memory='1Gi', hugepages_2Mi='2Gi')
        self.change(cpu='8', memory='1Gi', hugepages_1Gi='2Gi')
        # The sum is the same.
        self.wait_for({TWO_MI: [(0, 0)] * 2, GI: [(1, 0)] * 2}, self.pages)
        self.boot_huge(size='1GB')
        self.assert_refused(size='2MB')

    def test_limits_that_are_lost(self):
        self.start(cpu='8', memory='1Gi', hugepages_2Mi='2Gi')
        self.boot_huge()
        self.change(cpu='8', hugepages_2Mi='2Gi')
        self.wait_for_inventory(MEMORY_MB=(3072, 3072))
        self.assert_refused()
        self.restart_compute_service('compute1')
        self.wait_for_inventory(MEMORY_MB=(3072, 3072))
        self.change(cpu='8', memory='1Gi', hugepages_2Mi='2Gi')
        self.wait_for_inventory(MEMORY_MB=(3072, 0))
        self.wait_for_service('enabled')
        self.boot_huge()


class MoveTest(libvirt_base.LibvirtMigrationMixin, HugePagesTestBase):

    def setUp(self):
        super().setUp()
        self.flags(allow_resize_to_same_host=False)
        for host in ('compute1', 'compute2'):
            self.start(host, cpu='8', memory='1Gi', hugepages_2Mi='2Gi')
        self.src = self.computes['compute1']
        self.dest = self.computes['compute2']

    def used(self):
        return [(found.used_mb, found.huge_used_mb) for found in (
            self.computes[host].driver._accounts.summary()
            for host in ('compute1', 'compute2'))]

    def test_live_migration(self):
        self.server = self.boot_huge(host='compute1')
        self._live_migrate(self.server)
        self._run_periodics()
        self.assertEqual([(0, 0), (0, 1024)], self.used())

    def test_resize(self):
        self.useFixture(libvirt_base.fixtures.MockPatch(
            'nova.virt.libvirt.driver.LibvirtDriver.'
            'migrate_disk_and_power_off', return_value='{}'))
        server = self.boot_huge(host='compute1')
        flavor = self._create_flavor(vcpu=1, memory_mb=512, disk=1,
                                     ephemeral=0)
        self._resize_server(server, flavor)
        self.assertEqual([(0, 1024), (512, 0)], self.used())
        self._confirm_resize(server)
        self.assertEqual([(0, 0), (512, 0)], self.used())
        self.assertEqual(3072, self.inventory()[bounds.MEMORY_MB]['total'])
