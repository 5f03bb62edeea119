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

"""Nova's sets of CPUs follow the guests' pod."""

from unittest import mock

import fixtures
import nova.conf
from nova import objects

from nova_k8s import conf
from nova_k8s.confinement import cpuset
from nova_k8s import errors
from nova_k8s.inventory import bounds
from nova_k8s.inventory import cpu_sets
from nova_k8s.inventory import cpus
from nova_k8s.inventory import numa
from nova_k8s.inventory import pinning
from nova_k8s.limits import budget
from tests.unit import base

CONF = nova.conf.CONF
LAYOUT = numa.Layout((numa.Node(0, frozenset(range(8)), 1000),),
                     tuple(frozenset((each, each + 4)) for each in range(4)))


def seen(*numbers, assigned=True):
    return cpuset.Seen(frozenset(numbers), frozenset((0,)), assigned)


def topology(*dedicated, shared=(), pinned=()):
    return objects.NUMATopology(cells=[objects.NUMACell(
        id=0, socket=0, cpuset=set(shared), pcpuset=set(dedicated),
        memory=1000, cpu_usage=3, memory_usage=5, pinned_cpus=set(pinned),
        siblings=[], mempages=[objects.NUMAPagesTopology(
            size_kb=4, total=256000, used=7, reserved=0)],
        network_metadata=objects.NetworkMetadata(
            physnets=set(), tunneled=False))])


class CpuSetsTest(base.TestCase):

    def setUp(self):
        super().setUp()
        conf.register_opts(CONF)
        objects.register_all()
        self.log = self.useFixture(fixtures.FakeLogger())
        self.guests = pinning.Guests()
        self.useFixture(fixtures.MockPatchObject(
            pinning, 'find', self._find))
        self.present = seen(2, 3, 6, 7)
        self.limit = 4000
        self.body = {'metadata': {'uid': 'a', 'name': 'b', 'namespace': 'c'},
                     'status': {'qosClass': 'Guaranteed'}}
        self.tell, self.changed, self.move = (mock.Mock() for _ in range(3))
        self.node = mock.Mock(numa_topology=None)

    def _find(self, host, nodes=()):
        pinned = self.guests.cpus.union(*(
            pinning.pinned_cpus(each.numa_topology) for each in nodes))
        return pinning.Guests(self.guests.floating, self.guests.pinned,
                              pinned)

    def flags(self, group='kubernetes', **options):
        for name, value in options.items():
            CONF.set_override(name, value, group=group)
            self.addCleanup(CONF.clear_override, name, group=group)

    def begin(self, known=(), **options):
        self.flags(**options)
        reader = mock.Mock(look=lambda body=None: self.present)
        found = cpu_sets.CpuSets(
            CONF, 'host', reader, lambda: self.body,
            lambda: budget.Budget('Pod a/b', self.limit, 2 ** 30), LAYOUT)
        self.addCleanup(found.stop)
        found.begin(known)
        tracker = mock.Mock(compute_nodes={'node': self.node})
        found.connect(tracker, lambda: topology(
            *found.sets.dedicated, shared=found.sets.shared), self.move,
            self.tell, self.changed, mock.Mock())
        return found

    def assertSets(self, shared, dedicated):
        self.assertEqual((shared, dedicated), (
            CONF.compute.cpu_shared_set, CONF.compute.cpu_dedicated_set))

    def assertRefused(self, *parts, **options):
        exc = self.assertRaises(errors.Refused, self.begin, **options)
        for part in parts:
            self.assertIn(part, str(exc))
        self.assertSets(None, None)

    def test_shared_is_the_default(self):
        found = self.begin()
        self.assertSets('2-3,6-7', None)
        found.follow()
        self.changed.assert_not_called()
        found.stop()
        self.assertSets(None, None)

    def test_shared_follows(self):
        found = self.begin()
        self.node.numa_topology = topology(
            shared=(2, 3, 6, 7))._to_json()
        self.present = seen(3, 6)
        found.follow()
        self.assertSets('3,6', None)
        self.changed.assert_called_once_with()
        self.move.assert_called_once_with(
            {3, 6}, set(), {0: set(range(8))})
        cell, = objects.NUMATopology.obj_from_db_obj(
            self.node.numa_topology).cells
        # With what guests use.
        self.assertEqual(({3, 6}, 3, 5, 7), (
            cell.cpuset, cell.cpu_usage, cell.memory_usage,
            cell.mempages[0].used))
        self.node.save.assert_called_once_with()
        # What is not known changes nothing.
        self.present = None
        found.follow()
        self.assertSets('3,6', None)
        self.assertEqual(1, self.changed.call_count)

    def test_shared_comes_later(self):
        self.present, now = None, self.present
        found = self.begin()
        self.assertSets(None, None)
        self.assertIsNone(found.mems)
        self.present = now
        found.follow()
        self.assertSets('2-3,6-7', None)

    def test_shared_is_off_beside_pinned_guests(self):
        self.guests = pinning.Guests(pinned=True, cpus=frozenset((1,)))
        found = self.begin()
        self.assertSets(None, None)
        self.assertIn('cpus = shared is off', self.log.output)
        self.present = seen(2)
        found.follow()
        self.assertSets(None, None)
        self.assertEqual(1, self.log.output.count('is off'))
        self.assertEqual({0}, found.mems)

    def test_shared_is_off_beside_reserved_cpus(self):
        CONF.set_override('reserved_host_cpus', 1)
        self.addCleanup(CONF.clear_override, 'reserved_host_cpus')
        self.begin()
        self.assertSets(None, None)
        self.assertIn('reserved_host_cpus = 1', self.log.output)

    def test_off(self):
        self.begin(cpus='off').follow()
        self.assertSets(None, None)

    def test_dedicated(self):
        found = self.begin(cpus='dedicated')
        self.assertSets(None, '2-3,6-7')
        found.stop()
        self.begin(cpus='dedicated', cpus_shared=2)
        self.assertSets('2,6', '3,7')

    def test_dedicated_is_refused(self):
        self.limit = 3500
        self.assertRefused('3500 millicores', cpus='dedicated')
        self.limit = 4000
        self.present = seen(*range(8))
        self.assertRefused('may use 8 CPUs', cpus='dedicated')
        self.present = None
        self.assertRefused('is not seen', cpus='dedicated')
        self.present = seen(2, 3, 6, 7)
        self.guests = pinning.Guests(floating=True)
        self.assertRefused('cpus_shared', cpus='dedicated')

    def test_dedicated_of_a_known_node_comes_later(self):
        self.present, now = None, self.present
        found = self.begin(known=[self.node], cpus='dedicated')
        # Nothing is offered.
        self.assertEqual(cpus.Sets(), found.sets)
        self.assertSets(None, None)
        self.assertEqual({}, bounds.count_cpus(
            {'VCPU': {'total': 8, 'reserved': 0}}, found.sets))
        found.follow()
        self.present = now
        found.follow()
        self.assertSets(None, '2-3,6-7')

    def test_dedicated_cpu_goes_away(self):
        found = self.begin(cpus='dedicated')
        self.node.numa_topology = topology(
            2, 3, 6, 7, pinned=(6, 7))._to_json()
        self.present, self.limit = seen(2, 3, 6), 3000
        found.follow()
        self.assertSets(None, '2-3,6-7')
        self.assertEqual((4, 1), (found.sets.dedicated_count,
                                  found.sets.lost_count))
        line, = self.tell.call_args[0]
        self.assertEqual(('Warning', 'CpusLost'), (line.type, line.reason))
        self.assertIn('has lost CPUs 7', line.text)
        # What Nova's audit does with the guest.
        cell, = objects.NUMATopology.obj_from_db_obj(
            self.node.numa_topology).cells
        cell.unpin_cpus({6, 7})
        cell.pin_cpus({6, 7})
        # It is told once, and forgotten when the guest has left.
        found.follow()
        self.assertEqual(1, self.tell.call_count)
        self.node.numa_topology = topology(2, 3, 6, 7)._to_json()
        found.follow()
        self.assertSets(None, '2-3,6')
        self.assertEqual(frozenset(), found.sets.lost)

    def test_dedicated_after_a_restart_without_its_cpus(self):
        self.guests = pinning.Guests(pinned=True, cpus=frozenset((6, 7)))
        self.present = seen(*range(8), assigned=False)
        found = self.begin(cpus='dedicated')
        self.assertSets(None, '6-7')
        self.assertEqual((2, 2), (found.sets.dedicated_count,
                                  found.sets.lost_count))

    def test_sets_of_the_operator(self):
        self.flags('compute', cpu_shared_set='2', cpu_dedicated_set='3,6')
        found = self.begin()
        self.assertSets('2', '3,6')
        self.assertEqual(cpus.Sets(frozenset((2,)), frozenset((3, 6))),
                         found.sets)
        self.present = seen(2, 3)
        found.follow()
        # They stay as they are; nothing is placed on what is not there.
        self.assertSets('2', '3,6')
        self.assertEqual({6}, found.sets.lost)
        self.assertIn('the operator has named', self.tell.call_args[0][0].text)

    def test_sets_of_the_operator_that_reach_outside(self):
        self.flags('compute', cpu_shared_set='1-2')
        exc = self.assertRaises(errors.Refused, self.begin)
        for part in ('(1-2)', '(2-3,6-7)', ': 1 belong'):
            self.assertIn(part, str(exc))
        self.begin(cpus='off')


class RefreshTest(base.TestCase):

    def test_audit_counts_with_the_sets_of_now(self):
        objects.register_all()
        old, new = topology(1), topology(1, 2)
        node = mock.Mock(numa_topology=old._to_json())
        counted = []
        tracker = mock.Mock(compute_nodes={'node': node})
        tracker._update_usage_from_instances = lambda *args: counted.append(
            node.numa_topology)
        pinning.refresh_in_audits(tracker, lambda: new)
        tracker._update_usage_from_instances('context', [], 'node')
        self.assertEqual([new._to_json()], counted)


class BoundTest(base.TestCase):

    def test_nothing_left(self):
        objects.register_all()
        self.assertIsNone(pinning.bound(None, None, 1))
        # Nova looks at the first cell without asking whether there is one.
        self.assertIsNone(pinning.bound(topology(), frozenset(), 1))

    def test_memory(self):
        objects.register_all()
        cell, = pinning.bound(topology(1), frozenset((0,)), 100).cells
        self.assertEqual((100, 100 * 256), (
            cell.memory, cell.mempages[0].total))
