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

"""Guests land on CPUs of the guests' pod only, whatever becomes of them."""

import pathlib
from xml.etree import ElementTree

import fixtures
from nova import context as nova_context
from nova import objects
from nova.tests.fixtures import libvirt as fakelibvirt

from nova_k8s.confinement import cpuset
from nova_k8s.inventory import cpu_sets
from nova_k8s.inventory import numa
from nova_k8s.util import cpulist
from tests.functional import base

UID = '5ba009c0-0000-4000-8000-61fee2426666'
ID = '3f' * 32
POD = {'metadata': {'uid': UID, 'name': 'guests-a', 'namespace': 'b'},
       'status': {'qosClass': 'Guaranteed', 'containerStatuses': [
           {'containerID': f'containerd://{ID}'}]}}

# Two NUMA nodes, with the CPUs 0-3 and 4-7.
LAYOUT = numa.Layout(
    tuple(numa.Node(node, frozenset(range(4 * node, 4 * node + 4)), 8192)
          for node in range(2)),
    tuple(frozenset((each,)) for each in range(8)))


class CpusTest(base.ServersTestBase):

    def setUp(self):
        super().setUp()
        self.tree = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.useFixture(fixtures.MonkeyPatch(
            'nova_k8s.inventory.cpu_sets.from_conf',
            lambda conf, host, source, budget: cpu_sets.CpuSets(
                conf, host, cpuset.Reader(str(self.tree)), lambda: POD,
                budget, LAYOUT)))
        self.moved = []
        for name in ('pinVcpuFlags', 'pinEmulator', 'pinIOThread'):
            self.useFixture(fixtures.MonkeyPatch(
                f'nova.tests.fixtures.libvirt.Domain.{name}',
                lambda domain, *args: self.moved.append(
                    (domain.UUIDString(), args))))

    def give(self, text, mems='0-1', assigned=True):
        """Have the container have these CPUs."""
        folder = self.tree / f'kubepods/pod{UID}/{ID}'
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in (('cpuset.cpus', text if assigned else ''),
                            ('cpuset.mems.effective', mems),
                            ('cpuset.cpus.effective', text)):
            (folder / name).write_text(f'{value}\n')

    def begin(self, cpu='4', **options):
        self.flags(group='kubernetes', **options)
        self.set_limits(cpu=cpu, memory='4Gi')
        self.start_compute(hostname='compute1', host_info=(
            fakelibvirt.HostInfo(cpu_nodes=2, cpu_sockets=1, cpu_cores=4,
                                 cpu_threads=1)))

    def boot_with(self, vcpus=2, expected_state='ACTIVE', **specs):
        flavor = self._create_flavor(
            vcpu=vcpus, memory_mb=512, disk=1, ephemeral=0,
            extra_spec={f'hw:{name}': value for name, value in specs.items()})
        return self._create_server(flavor_id=flavor, networks='none',
                                   expected_state=expected_state)

    def xml(self, server):
        connection = self.computes['compute1'].driver._host.get_connection()
        return ElementTree.fromstring(
            connection.lookupByUUIDString(server['id']).XMLDesc(0))

    def pins(self, server):
        """The CPUs of each VCPU of a guest with a NUMA topology."""
        return [cpulist.parse(each.get('cpuset'))
                for each in self.xml(server).findall('cputune/vcpupin')]

    def topology(self):
        node = objects.ComputeNode.get_by_nodename(
            nova_context.get_admin_context(), 'compute1')
        return objects.NUMATopology.obj_from_db_obj(node.numa_topology)

    def assertAudit(self):
        """An audit that raises is logged, and nothing else."""
        self._run_periodics()
        self.assertNotIn('Error updating resources',
                         self.stdlog.logger.output)

    def test_shared(self):
        self.give('2-5', assigned=False)
        self.begin(cpu='3')
        self.wait_for_inventory(VCPU=(3, 0))
        server = self.boot_with(2)
        self.assertEqual('2-5', self.xml(server).find('vcpu').get('cpuset'))
        # One with a NUMA topology floats over one node of the set.
        numa_guest = self.boot_with(1, numa_nodes='1')
        self.assertIn(self.pins(numa_guest)[0], ({2, 3}, {4, 5}))
        found = self.topology()
        self.assertEqual([{2, 3}, {4, 5}],
                         [cell.cpuset for cell in found.cells])
        self.assertLessEqual(sum(cell.memory for cell in found.cells), 4096)
        self.assertAudit()

        # Other pods take two of them.
        self.give('2,4', assigned=False)
        self.wait_for_inventory(VCPU=(2, 0))
        self.wait_for([{2}, {4}],
                      lambda: [cell.cpuset for cell in self.topology().cells])
        self.wait_for({server['id'], numa_guest['id']},
                      lambda: {uuid for uuid, _ in self.moved})
        wanted = tuple(each in (2, 4) for each in range(8))
        self.assertIn((server['id'], (1, wanted, 1)), self.moved)
        self.assertAudit()
        self.assertEqual([{2}, {4}],
                         [cell.cpuset for cell in self.topology().cells])

    def test_memory_of_one_node(self):
        self.give('2-5', mems='1', assigned=False)
        self.begin()
        self.assertEqual([(0, 0), (1, 4096)], [
            (cell.id, cell.memory) for cell in self.topology().cells])
        self.assertEqual({4, 5}, self.pins(
            self.boot_with(1, numa_nodes='1'))[0])

    def test_dedicated_cpu_goes_away(self):
        self.give('2-5')
        self.begin(cpus='dedicated')
        self.wait_for_inventory(PCPU=(4, 0))
        self.assertNotIn('VCPU', self.inventory())
        server = self.boot_with(2, cpu_policy='dedicated')
        pinned = frozenset().union(*self.pins(server))
        self.assertEqual(2, len(pinned))
        self.assertEqual(set(), pinned - {2, 3, 4, 5})
        self.assertAudit()

        lost = min(pinned)
        rest = frozenset((2, 3, 4, 5)) - {lost}
        self.set_limits(cpu='3', memory='4Gi')
        self.give(cpulist.render(rest))
        self.wait_for_inventory(PCPU=(4, 1))
        self.assertAudit()
        self.wait_for_inventory(PCPU=(4, 1))
        self.assertIn(f'has lost CPUs {lost}', self.stdlog.logger.output)
        # What is free of the rest can be had, and no more.
        other = self.boot_with(1, cpu_policy='dedicated')
        self.assertEqual(set(), self.pins(other)[0] - (rest - pinned))
        self.boot_with(1, cpu_policy='dedicated', expected_state='ERROR')

        self._delete_server(server)
        self.wait_for_inventory(PCPU=(3, 0))
        self.assertAudit()
        self.wait_for_inventory(PCPU=(3, 0))

    def test_mixed(self):
        self.give('2-5')
        self.begin(cpus='dedicated', cpus_shared=2)
        self.wait_for_inventory(PCPU=(2, 0), VCPU=(2, 0))
        plain = self.boot_with(1)
        self.assertEqual('2-3', self.xml(plain).find('vcpu').get('cpuset'))
        pinned = self.boot_with(1, cpu_policy='dedicated',
                                emulator_threads_policy='share')
        self.assertIn(self.pins(pinned), ([{4}], [{5}]))
        self.assertEqual('2-3', self.xml(pinned).find(
            'cputune/emulatorpin').get('cpuset'))
        self.assertAudit()

    def test_restart_with_another_set(self):
        self.give('2-5', assigned=False)
        self.begin()
        server = self.boot_with(2)
        self.give('6-7', assigned=False)
        self.restart_compute_service('compute1')
        self.wait_for_inventory(VCPU=(2, 0))
        self.wait_for(True, lambda: (server['id'], (0, tuple(
            each > 5 for each in range(8)), 1)) in self.moved)
        self._reboot_server(server, hard=True)
        self.assertEqual('6-7', self.xml(server).find('vcpu').get('cpuset'))

    def test_sets_of_the_operator(self):
        self.flags(cpu_shared_set='2', cpu_dedicated_set='3-5',
                   group='compute')
        self.give('1-6')
        self.begin(cpu='3')
        # One limit for both.
        self.wait_for_inventory(PCPU=(3, 0), VCPU=(1, 1))
        server = self.boot_with(2, cpu_policy='dedicated')
        self.assertEqual(
            set(), frozenset().union(*self.pins(server)) - {3, 4, 5})
        self.assertAudit()
