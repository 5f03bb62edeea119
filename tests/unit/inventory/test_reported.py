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

"""What was reported, and how a change of it gets out."""

import threading
from unittest import mock

import fixtures
from nova.compute import provider_tree
from nova.compute import resource_tracker
from nova import objects
from nova.scheduler.client import report

from nova_k8s.accounting import claims
from nova_k8s import errors
from nova_k8s.inventory import bounds
from nova_k8s.inventory import reported
from nova_k8s.limits import budget
from tests.unit import base
from tests.unit.inventory import test_hugepages
from tests import waiting

NODE = 'node-1'
UUID = '2f1f0b2e-6a0c-4a1e-9d2c-000000000001'


def record(total):
    return {'total': total, 'min_unit': 1, 'max_unit': total, 'step_size': 1,
            'allocation_ratio': 1.0, 'reserved': 0}


class BoundTest(base.TestCase):

    def test_ratio_that_was_set_in_placement_stays(self):
        found = reported.Reported(
            lambda: budget.Budget('Pod a/b', 4000, 8 * 2 ** 30), 'error')
        # The last of what Nova's driver says, where nova.conf has none, is
        # what Placement has.
        for ratio, changed in ((4.0, False), (2.0, False), (2.0, False)):
            records, wake = found.bound({
                bounds.VCPU: dict(record(64), allocation_ratio=ratio),
                'DISK_GB': record(9)})
            self.assertEqual((4, ratio), (
                records[bounds.VCPU]['total'],
                records[bounds.VCPU]['allocation_ratio']))
            self.assertEqual(record(9), records['DISK_GB'])
            self.assertIs(changed, wake)

    def test_pod_that_is_being_deleted(self):
        present = [budget.Budget('Pod a/b', 4000, 8 * 2 ** 30)]
        found = reported.Reported(lambda: present[0], 'error')
        stock = {bounds.VCPU: record(64), bounds.MEMORY_MB: record(16384)}
        found.bound(stock)
        self.assertEqual(8192, found.memory_limit_mb())
        present[0] = budget.Budget('Pod a/b', 4000, 8 * 2 ** 30,
                                   deletion_time='soon')
        # The next audit has the publisher tell it.
        self.assertTrue(found.bound(stock)[1])
        for name, total in ((bounds.VCPU, 4), (bounds.MEMORY_MB, 8192)):
            self.assertEqual((total, total), tuple(
                found._wanted()[name][key] for key in ('total', 'reserved')))
        # A guest that Placement let through before is refused by whoever
        # asks, and those that are here use what they may.
        self.assertTrue(found.closed)
        self.assertEqual(8192, found.memory_limit_mb())

    def test_what_is_told_and_what_is_let_in(self):
        found = reported.Reported(
            lambda: budget.Budget('Pod a/b', 4000, 8 * 2 ** 30), 'error')
        found.bound({bounds.VCPU: record(64), bounds.MEMORY_MB: record(16384)})
        found.cap, found.claim_cap = lambda: (4096, 2000), lambda: (6144, 3000)
        data = {'vcpus': 64, 'memory_mb': 16384}
        found.bound_resources(data)
        self.assertEqual({'vcpus': 2, 'memory_mb': 4096}, data)
        self.assertEqual(4096, found._wanted()[bounds.MEMORY_MB]['total'])
        self.assertEqual(6144, found.memory_limit_mb())

    def test_change_is_for_the_publisher(self):
        present = [budget.Budget('Pod a/b', 4000, 8 * 2 ** 30)]
        found = reported.Reported(lambda: present[0], 'error')
        stock = {bounds.VCPU: record(64)}
        found.bound(stock)
        present[0] = budget.Budget('Pod a/b', 2000, 8 * 2 ** 30)
        for _ in range(2):
            records, wake = found.bound(stock)
            # A claim that wrote it could fail for it.
            self.assertEqual(4, records[bounds.VCPU]['total'])
            self.assertTrue(wake)

    def test_what_the_cgroup_of_guests_enforces(self):
        found = reported.Reported(
            lambda: budget.Budget('Pod a/b', 4000, 8 * 2 ** 30), 'error')
        found.hold(lambda: (4096, 2500))
        records, _ = found.bound({bounds.VCPU: record(64),
                                  bounds.MEMORY_MB: record(16384)})
        self.assertEqual([2, 4096], [records[name]['total'] for name in (
            bounds.VCPU, bounds.MEMORY_MB)])
        self.assertEqual(4096, found.memory_limit_mb())
        # Beyond that, the kernel would end guests.
        self.assertEqual(4096, found.start_limit_mb())
        # Those that are here may be started, also before it is there.
        found.hold(lambda: (0, 0))
        self.assertEqual(0, found.memory_limit_mb())
        self.assertEqual(8192, found.start_limit_mb())

    def test_what_is_let_in_where_a_cgroup_holds_guests(self):
        found = reported.Reported(
            lambda: budget.Budget('Pod a/b', 4000, 8 * 2 ** 30), 'error')
        for held, expected in ((4096, 4096), (7168, 6144), (None, 6144)):
            found.hold(lambda: (held, None))
            found.cap = lambda: (2048, 2000)
            found.claim_cap = lambda: (6144, 3000)
            self.assertEqual([expected] * 2, [
                found.memory_limit_mb(), found.start_limit_mb()])
            self.assertEqual(2048, found.limits[bounds.MEMORY_MB])

    def test_dedicated_cpus_and_the_cgroup_of_guests(self):
        found = reported.Reported(
            lambda: budget.Budget('Pod a/b', 8000, 8 * 2 ** 30), 'error')
        found.hold(lambda: (8192, 5000))
        records, _ = found.bound({bounds.VCPU: record(64),
                                  bounds.PCPU: record(4)})
        self.assertEqual([1, 4], [records[name]['total'] for name in (
            bounds.VCPU, bounds.PCPU)])
        self.assertEqual((0, 5000, False), found.told())

    def test_limit_of_memory(self):
        for limit, machine, expected in (
                (8 * 2 ** 30, 2 ** 18, 8192), (2 ** 40, 2 ** 18, 2 ** 18),
                (None, 2 ** 18, 0)):
            found = reported.Reported(
                lambda: budget.Budget('Pod a/b', 4000, limit), 'error')
            found.bound({bounds.MEMORY_MB: record(machine)})
            self.assertEqual(expected, found.memory_limit_mb())


class HugePagesTest(base.TestCase):
    """4 GiB of the machine's 64 are in huge pages, 2 on each NUMA node."""

    def setUp(self):
        super().setUp()
        self.present = self._budget()
        self.known = None

    def _budget(self, memory=8 * 2 ** 30, **sizes):
        return budget.Budget('Pod a/b', 4000, memory, hugepages=tuple(
            sizes.items()))

    def start(self, mems=None, **options):
        self.reported = reported.Reported(
            lambda: self.present, 'error', self.known, **options)
        self.topology = test_hugepages.topology(
            [(4, 2 ** 23, 0), (2048, 1024, 0)],
            [(4, 2 ** 23, 0), (2048, 1024, 24)])
        self.topology = self.reported.bound_topology(self.topology, mems)

    def free(self):
        return [pages.free for cell in self.topology.cells
                for pages in cell.mempages if pages.size_kb == 2048]

    def memory(self):
        return self.reported.bound({bounds.MEMORY_MB: record(65536)})[0][
            bounds.MEMORY_MB]

    def test_none(self):
        self.start()
        self.assertEqual([0, 0], self.free())
        self.assertEqual(8192, self.memory()['total'])
        self.assertEqual(8192, self.reported.memory_limit_mb())
        self.assertEqual({2048: 0}, self.reported.pages_mb())

    def test_beside_memory(self):
        self.present = self._budget(**{'2Mi': 2 ** 30})
        self.start()
        self.assertEqual(512, sum(self.free()))
        self.assertEqual(8192 + 1024, self.memory()['total'])
        data = {'vcpus': 64, 'memory_mb': 65536}
        self.reported.bound_resources(data)
        self.assertEqual(8192 + 1024, data['memory_mb'])
        self.assertEqual(8192, self.reported.memory_limit_mb())
        self.assertEqual({2048: 1024}, self.reported.pages_mb())

    def test_nodes(self):
        """The pages of its limit come on top of the memory of its limit."""
        for mems, free in ((None, {0: 259, 1: 253}), ({1}, {0: 0, 1: 512})):
            self.present = self._budget(**{'2Mi': 2 ** 30})
            self.start(mems=mems)
            cells = self.topology.cells
            self.assertEqual(free, {
                cell.id: cell.mempages[1].free for cell in cells})
            self.assertEqual(8192 + 1024, sum(cell.memory for cell in cells))
            for cell in cells:
                small, huge = cell.mempages
                self.assertEqual(cell.memory, small.total * 4 // 1024 +
                                 huge.free * 2)
                # A guest in all of them fits into the node.
                self.assertLessEqual(huge.free * 2, cell.memory)
            # What is in huge pages elsewhere is no other memory here.
            self.assertEqual(8192 + 1024, self.memory()['total'])
            self.present = self._budget(2 ** 40, **{'2Mi': 2 ** 30})
            self.assertEqual(65536 - 4096 + 1024, self.reported._wanted()[
                bounds.MEMORY_MB]['total'])

    def test_of_the_cgroup_of_guests(self):
        """Its limit is one of ordinary memory, and so is what was told."""
        self.present = self._budget(**{'2Mi': 2 ** 30})
        self.start()
        self.reported.hold(lambda: (4096, None))
        self.assertEqual(4096 + 1024, self.memory()['total'])
        self.assertEqual((4096, 0, False), self.reported.told())
        self.assertEqual(4096, self.reported.memory_limit_mb())
        self.assertEqual({2048: 1024}, self.reported.pages_mb())

    def test_what_the_machine_has(self):
        self.present = self._budget(2 ** 40, **{'2Mi': 2 ** 40})
        self.start()
        self.assertEqual([1024, 1000], self.free())
        # 24 pages are kept from guests, and are no ordinary memory either.
        self.assertEqual(65536 - 48, self.memory()['total'])
        self.assertEqual(65536 - 4096, self.reported.memory_limit_mb())

    def test_lost(self):
        self.present = self._budget(**{'2Mi': 2 ** 30})
        self.start()
        self.memory()
        self.present = None
        self.memory()
        found = self.reported._wanted()[bounds.MEMORY_MB]
        self.assertEqual((9216, 9216), (found['total'], found['reserved']))
        self.assertEqual(0, self.reported.memory_limit_mb())
        # A guest that is here may be started, whatever is known.
        self.assertIsNone(self.reported.pages_mb())

    def test_memory_that_is_of_files(self):
        self.present = self._budget(**{'2Mi': 2 ** 30})
        self.start(ram=False)
        self.assertEqual([0, 0], self.free())
        self.present = self._budget(2 ** 40, **{'2Mi': 2 ** 30})
        self.assertEqual(65536, self.memory()['total'])


class DiskTest(base.TestCase):

    def start(self, disk_gb, **known):
        self.present = budget.Budget('Pod a/b', 4000, 8 * 2 ** 30)
        self.reported = reported.Reported(
            lambda: self.present, 'error',
            known and mock.Mock(vcpus=4, memory_mb=8192, **known),
            disk_gb=disk_gb)

    def disk(self, total=500, **fields):
        return self.reported.bound({bounds.DISK_GB: dict(
            record(total), **fields)})[0][bounds.DISK_GB]

    def data(self, total=500.5, available=300):
        found = {'vcpus': 64, 'memory_mb': 65536, 'local_gb': total,
                 'disk_available_least': available}
        self.reported.bound_resources(found)
        return found['local_gb'], found['disk_available_least']

    def test_file_system(self):
        self.start(None)
        self.assertEqual(record(500), self.disk())
        self.assertEqual((500.5, 300), self.data())

    def test_limit(self):
        self.start(100)
        self.assertEqual((100, -100.5), self.data())
        found = self.disk(reserved=7)
        self.assertEqual((100, 7), (found['total'], found['reserved']))
        # A guest that was here before with more may still move away.
        self.assertEqual(500, found['max_unit'])
        self.present = budget.Budget('Pod a/b', 4000, 8 * 2 ** 30,
                                     deletion_time='soon')
        self.disk()
        found = self.reported._wanted()[bounds.DISK_GB]
        self.assertEqual((100, 100), (found['total'], found['reserved']))

    def test_limit_above_the_file_system(self):
        self.start(1000)
        self.assertEqual(500, self.disk()['total'])
        self.assertEqual((500, 299.5), self.data())

    def test_limit_that_is_not_known(self):
        for known, total in (({}, 1), ({'local_gb': 120}, 120)):
            self.start(0, **known)
            found = self.disk()
            self.assertEqual((total, total), (
                found['total'], found['reserved']))
            self.assertEqual(total, self.data()[0])

    def test_compute_node_has_the_same(self):
        self.start(100)
        self.disk()
        node = mock.Mock(local_gb=500, memory_mb=0, memory_mb_used=0)
        self.reported._save(node, self.reported.records)
        self.assertEqual(100, node.local_gb)


class PublishTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.present = budget.Budget('Pod a/b', 4000, 8 * 2 ** 30)
        self.reported = reported.Reported(lambda: self.present, 'error')
        self.reported._stock = {bounds.VCPU: record(64),
                                bounds.MEMORY_MB: record(2 ** 18)}
        self.tracker = mock.create_autospec(
            resource_tracker.ResourceTracker, instance=True)
        self.node = mock.Mock(uuid=UUID, vcpus=64, memory_mb=65536,
                              memory_mb_used=512)
        self.tracker.compute_nodes = {NODE: self.node}
        self.tracker.reportclient = mock.create_autospec(
            report.SchedulerReportClient, instance=True)
        self.tree = provider_tree.ProviderTree()
        self.tree.new_root(NODE, UUID)
        self.tracker.reportclient._provider_tree = self.tree
        self.write = self.useFixture(fixtures.MockPatch(
            'nova_k8s.inventory.placement.write',
            return_value=({'DISK_GB': record(9)}, 7))).mock
        self.tracker.attach_mock(self.write, 'write')

    def publish(self):
        self.reported.publish(self.tracker, NODE)

    @property
    def wanted(self):
        return {bounds.VCPU: record(4), bounds.MEMORY_MB: record(8192)}

    def test_nothing_to_write(self):
        self.tracker.disabled.return_value = False
        self.reported._records = self.wanted
        self.publish()
        self.write.assert_not_called()

    def test_what_was_not_written_is_written_later(self):
        self.tracker.disabled.return_value = False
        self.write.side_effect = errors.NotWritten()
        self.assertRaises(errors.NotWritten, self.publish)
        self.write.side_effect = None
        self.publish()
        self.assertEqual(2, self.write.call_count)
        self.assertEqual(self.wanted, self.reported._records)

    def test_no_audit(self):
        self.tracker.disabled.return_value = False
        self.publish()
        self.assertEqual(
            [mock.call.disabled(NODE),
             mock.call.write(self.tracker.reportclient, UUID, self.wanted,
                             mock.ANY),
             mock.call.disabled(NODE)],
            self.tracker.mock_calls)
        # Nova's client has what Placement answered.
        known = self.tree.data(UUID)
        self.assertEqual(({'DISK_GB': record(9)}, 7),
                         (known.inventory, known.generation))

    def test_other_huge_pages_of_the_same_sum(self):
        self.tracker.disabled.return_value = False
        topology = test_hugepages.topology(
            [(4, 2 ** 23, 0), (2048, 512, 0), (2 ** 20, 1, 0)])
        topology.cells[0].mempages[1].used = 100
        self.node.numa_topology = topology._to_json()
        topology = self.reported.bound_topology(topology, None)
        for sizes, free in ((('2Mi',), (412, 0)), (('1Gi',), (-100, 1))):
            self.present = budget.Budget(
                'Pod a/b', 4000, 8 * 2 ** 30,
                hugepages=tuple((size, 2 ** 30) for size in sizes))
            self.publish()
            found = objects.NUMATopology.obj_from_db_obj(
                self.node.numa_topology)
            self.assertEqual(free, tuple(
                pages.free for pages in found.cells[0].mempages[1:]))
        writes = self.write.call_count
        self.publish()
        self.assertEqual(writes, self.write.call_count)

    def test_provider_that_the_client_does_not_know(self):
        self.tracker.disabled.return_value = False
        self.tree.remove(UUID)
        self.publish()
        self.assertFalse(self.tree.exists(UUID))
        self.assertEqual(self.wanted, self.reported._records)

    def test_compute_node_has_the_same(self):
        self.tracker.disabled.return_value = False
        self.publish()
        self.assertEqual((4, 8192, 8192 - 512), (
            self.node.vcpus, self.node.memory_mb, self.node.free_ram_mb))
        self.node.save.assert_called_once_with()
        # What is reserved changes with every guest, and is not in it.
        self.reported._records = {}
        self.publish()
        self.node.save.assert_called_once_with()

    def test_not_before_nova_knows_the_node(self):
        self.tracker.disabled.return_value = True
        self.publish()
        self.assertEqual([mock.call.disabled(NODE)], self.tracker.mock_calls)

    def test_failure_is_for_the_worker(self):
        self.tracker.disabled.return_value = False
        self.write.side_effect = RuntimeError('unreachable')
        self.assertRaises(RuntimeError, self.publish)
        self.node.save.assert_not_called()

    def test_claims_do_not_wait_for_placement(self):
        self.tracker.disabled.return_value = False
        asked, answer = threading.Event(), threading.Event()

        def write(*args):
            asked.set()
            answer.wait(10)
            return {}, 7

        self.write.side_effect = write
        thread = threading.Thread(target=self.publish)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(answer.set)
        self.assertTrue(asked.wait(waiting.PATIENCE))
        claimed = threading.Thread(target=claims.locked, args=(str,))
        claimed.start()
        claimed.join(5)
        self.assertFalse(claimed.is_alive())

    def test_placement_that_hangs(self):
        self.tracker.disabled.return_value = False
        self.useFixture(fixtures.MonkeyPatch(
            'nova_k8s.inventory.reported.DEADLINE', 0.05))
        given_up = []
        self.write.side_effect = lambda *args: given_up.append(
            args[-1].wait(10))
        exc = self.assertRaises(TimeoutError, self.publish)
        self.assertIn('Placement', str(exc))

    def test_what_may_have_arrived_is_looked_at(self):
        self.tracker.disabled.return_value = False
        self.publish()
        self.present = budget.Budget('Pod a/b', 8000, 8 * 2 ** 30)
        self.write.side_effect = TimeoutError
        self.assertRaises(TimeoutError, self.publish)
        # It is as it was, and Placement may not be.
        self.present = budget.Budget('Pod a/b', 4000, 8 * 2 ** 30)
        self.write.side_effect = None
        self.publish()
        self.assertEqual(3, self.write.call_count)
        self.publish()
        self.assertEqual(3, self.write.call_count)

    def test_told(self):
        # Where a cgroup holds guests, what Nova's first audit wrote is looked
        # at: it may have failed.
        self.tracker.disabled.return_value = False
        self.reported.hold(lambda: (None, None))
        self.assertEqual((0, 0, False), self.reported.told())
        self.assertTrue(self.reported.bound(self.reported._stock)[1])
        self.assertEqual((8192, 4000, False), self.reported.told())
        self.publish()
        self.assertEqual((8192, 4000, True), self.reported.told())
        # A write that may have arrived, and one that may not have.
        self.write.side_effect = errors.NotWritten('no answer')
        for cpu, memory in ((8000, 2 ** 30), (1000, 2 ** 34)):
            self.present = budget.Budget('Pod a/b', cpu, memory)
            self.assertRaises(errors.NotWritten, self.publish)
        self.assertEqual((16384, 8000, True), self.reported.told())
        self.write.side_effect = None
        self.publish()
        self.assertEqual((16384, 1000, True), self.reported.told())

    def test_told_by_the_last_start(self):
        self.tracker.disabled.return_value = False
        self.node.numa_topology = None
        self.reported = reported.Reported(lambda: self.present, 'error',
                                          self.node)
        self.reported.hold(lambda: (None, None))
        self.assertEqual((65536, 64000, False), self.reported.told())
        self.reported.bound({bounds.VCPU: record(64),
                             bounds.MEMORY_MB: record(2 ** 18)})
        self.assertEqual((65536, 64000, False), self.reported.told())
        self.publish()
        self.assertEqual((8192, 4000, True), self.reported.told())
        # What is closed cannot be allocated.
        self.present = None
        self.publish()
        self.assertEqual((0, 0, True), self.reported.told())

    def test_nova_wrote_meanwhile(self):
        self.tracker.disabled.return_value = False
        before = {bounds.VCPU: record(64)}
        generations = [7, 9]

        def write(*args):
            # What Nova believed, with a generation after ours.
            self.tree.update_inventory(UUID, before, generation=8)
            return {bounds.VCPU: record(4)}, generations.pop(0)

        self.write.side_effect = write
        self.publish()
        self.assertEqual(2, self.write.call_count)
        known = self.tree.data(UUID)
        self.assertEqual(({bounds.VCPU: record(4)}, 9),
                         (known.inventory, known.generation))
