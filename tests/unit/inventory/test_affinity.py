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

"""Where guests that run are to be, from XML as Nova writes it."""

from unittest import mock

import hypothesis
from hypothesis import strategies as st

from nova_k8s.inventory import affinity
from tests.unit import base

NODES = {0: frozenset(range(4)), 1: frozenset(range(4, 8))}

# A guest that floats over all.
PLAIN = """<domain><vcpu cpuset="%s">2</vcpu>
<iothreads>1</iothreads><cputune><shares>2</shares>%s</cputune></domain>"""

# With hw:numa_nodes = 2, and the first VCPU of each node pinned.
MIXED = """<domain><vcpu>4</vcpu><iothreads>1</iothreads><cputune>
<vcpupin vcpu="0" cpuset="1"/><vcpupin vcpu="1" cpuset="%s"/>
<vcpupin vcpu="2" cpuset="5"/><vcpupin vcpu="3" cpuset="%s"/>
<emulatorpin cpuset="%s"/><iothreadpin iothread="1" cpuset="%s"/></cputune>
<numatune><memory mode="strict" nodeset="0-1"/>
<memnode cellid="0" mode="strict" nodeset="0"/>
<memnode cellid="1" mode="strict" nodeset="1"/></numatune>
<cpu><numa><cell id="0" cpus="0-1"/><cell id="1" cpus="2-3"/></numa></cpu>
</domain>"""

PINNED = """<domain><vcpu>1</vcpu><cputune><vcpupin vcpu="0" cpuset="1"/>
<emulatorpin cpuset="%s"/></cputune><numatune>
<memnode cellid="0" mode="strict" nodeset="0"/></numatune>
<cpu><numa><cell id="0" cpus="0"/></numa></cpu></domain>"""


def cpus(*numbers):
    return frozenset(numbers)


def find(xml, *shared, pinned=()):
    return affinity.find(xml, frozenset(shared), frozenset(pinned), NODES)


class FindTest(base.TestCase):

    def test_as_it_was_born(self):
        self.assertIsNone(find(PLAIN % ('2-3', ''), 2, 3))

    def test_set_that_changed(self):
        found = find(PLAIN % ('2-3', ''), 3, 4)
        both = cpus(3, 4)
        self.assertEqual(affinity.Change(
            ((0, both), (1, both)), both, ((1, both),)), found)

    def test_set_that_changed_again(self):
        pins = ('<vcpupin vcpu="%d" cpuset="3-4"/>' * 2 % (0, 1) +
                '<emulatorpin cpuset="3-4"/>'
                '<iothreadpin iothread="1" cpuset="3-4"/>')
        self.assertIsNone(find(PLAIN % ('2-3', pins), 3, 4))
        self.assertEqual(cpus(2, 3),
                         find(PLAIN % ('2-3', pins), 2, 3).emulator)

    def test_numa_guest_stays_on_its_nodes(self):
        stock = MIXED % ('2-3', '6-7', '1-3,5-7', '1-3,5-7')
        self.assertIsNone(find(stock, 2, 3, 6, 7, pinned=(1, 5)))
        found = find(stock, 0, 3, 6, 7, pinned=(1, 5))
        self.assertEqual(((1, cpus(0, 3)),), found.vcpus)
        self.assertEqual(cpus(0, 1, 3, 5, 6, 7), found.emulator)
        self.assertEqual(((1, found.emulator),), found.iothreads)
        # Nothing is left of a node: the kernel has the thread elsewhere.
        self.assertEqual((), find(stock, 6, 7, pinned=(1, 5)).vcpus)

    def test_pinned_guest(self):
        self.assertIsNone(find(PINNED % '1', 2, 3, pinned=(1,)))
        # hw:emulator_threads_policy = share
        self.assertIsNone(find(PINNED % '2-3', 2, 3, pinned=(1,)))
        self.assertEqual(affinity.Change(emulator=cpus(3)),
                         find(PINNED % '2-3', 3, pinned=(1,)))

    def test_what_is_not_novas(self):
        for xml in ('<domain/>', '<domain><vcpu cpuset="^3">2</vcpu></domain>',
                    '<domain><vcpu>x</vcpu></domain>'):
            self.assertIsNone(find(xml, 1))

    @hypothesis.given(st.frozensets(st.integers(0, 7)),
                      st.frozensets(st.sampled_from((1, 5))))
    def test_never_outside(self, shared, pinned):
        shared -= cpus(1, 5)
        for xml in (PLAIN % ('2-3', ''),
                    MIXED % ('2-3', '6-7', '1-3,5-7', '1-3,5-7'),
                    PINNED % '2-3'):
            found = affinity.find(xml, shared, pinned, NODES)
            if found:
                for _, each in found.vcpus + found.iothreads:
                    self.assertEqual(set(), each - shared - pinned)
                self.assertEqual(
                    set(), (found.emulator or set()) - shared - pinned)


class ApplyTest(base.TestCase):

    def test_apply(self):
        domain = mock.Mock()
        affinity.apply(domain, affinity.Change(
            ((1, cpus(2)),), cpus(0, 3), ((1, cpus(3)),)), 4)
        self.assertEqual([
            mock.call.pinVcpuFlags(1, (False, False, True, False), 1),
            mock.call.pinEmulator((True, False, False, True), 1),
            mock.call.pinIOThread(1, (False, False, False, True), 1),
        ], domain.mock_calls)

    def test_one_that_ends_leaves_the_others(self):
        guests = [mock.Mock(uuid='a'), mock.Mock(uuid='b')]
        guests[0].get_xml_desc.side_effect = RuntimeError('gone')
        guests[1].get_xml_desc.return_value = PLAIN % ('2-3', '')
        host = mock.Mock()
        host.get_available_cpus.return_value = set(range(8))
        host.list_guests.return_value = guests
        affinity.move(host, cpus(3), cpus(), NODES)
        self.assertEqual(2, guests[1]._domain.pinVcpuFlags.call_count)

    def test_xml_for_another_machine(self):
        pins = ('<vcpupin vcpu="0" cpuset="3-4"/>'
                '<emulatorpin cpuset="3-4"/>'
                '<iothreadpin iothread="1" cpuset="3-4"/>')
        found = affinity.without_pins(PLAIN % ('2-3', pins))
        self.assertNotIn('pin ', found)
        self.assertIn('<shares>2</shares>', found)
        for xml in (PLAIN % ('2-3', ''), PINNED % '1', '<domain/>'):
            self.assertEqual(xml, affinity.without_pins(xml))
