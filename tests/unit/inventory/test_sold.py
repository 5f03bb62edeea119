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

"""How much of one cgroup guests may use, as Nova was told at most."""

import hypothesis
from hypothesis import strategies as st
from nova import objects

from nova_k8s.inventory import bounds
from nova_k8s.inventory import compute_node
from nova_k8s.inventory import hugepages
from nova_k8s.inventory import sold
from tests.unit import base
from tests.unit.inventory import test_hugepages

AMOUNTS = st.tuples(st.integers(0, 9), st.integers(0, 9))


def record(total, reserved=0):
    return {'total': total, 'reserved': reserved}


class RecordsTest(base.TestCase):

    def of(self, pages_mb=0, **records):
        return sold.of_records(records, hugepages.Pages(
            pages_mb, ((2048, pages_mb),)))

    def test_nothing(self):
        self.assertEqual(sold.NOTHING, self.of())

    def test_memory(self):
        self.assertEqual((8192, 0), self.of(MEMORY_MB=record(8192, 512)))
        self.assertEqual((8192, 0), self.of(1024, MEMORY_MB=record(9216)))
        self.assertEqual((0, 0), self.of(1024, MEMORY_MB=record(1)))

    def test_cpu(self):
        self.assertEqual((0, 6000), self.of(VCPU=record(4, 1),
                                            PCPU=record(2)))
        # Of those that Nova pins guests to, two are lost.
        self.assertEqual((0, 4000), self.of(PCPU=record(6, 2)))

    def test_closed(self):
        self.assertEqual((0, 0), self.of(
            1024, MEMORY_MB=record(9216, 9216), VCPU=record(4, 4),
            PCPU=record(2, 2)))

    @hypothesis.given(st.integers(0, 9999), st.integers(0, 99),
                      st.integers(0, 99), st.integers(0, 9999))
    def test_what_is_bounded_is_within(self, memory_mb, cores, dedicated,
                                       pages_mb):
        """Whatever the limits are, that is what is sold at most."""
        pages = hugepages.Pages(pages_mb, ((2048, pages_mb),))
        limits = bounds.share_cores(
            {bounds.MEMORY_MB: memory_mb, bounds.VCPU: cores}, dedicated)
        total, limits[bounds.MEMORY_MB] = bounds.add_pages(
            2 ** 20, memory_mb, pages)
        stock = {name: dict(record(amount), min_unit=1, max_unit=amount,
                            step_size=1)
                 for name, amount in (
                     (bounds.MEMORY_MB, total), (bounds.VCPU, 2 ** 20),
                     (bounds.PCPU, dedicated)) if amount}
        self.assertEqual(
            (memory_mb, 1000 * cores),
            sold.of_records(bounds.apply(stock, limits, {}), pages))


class SoldTest(base.TestCase):

    @hypothesis.given(AMOUNTS, st.lists(st.tuples(
        AMOUNTS, st.sampled_from(('lost', 'arrived', 'sure', 'unsure')))))
    def test_whatever_is_answered(self, before, writes):
        found, has = sold.Sold(before), before
        found.begin((1, 1))
        for amount, answer in writes:
            found.write(amount)
            # It may arrive at any moment from now on.
            self.assertEqual(found.at_most, sold.most(found.at_most, amount))
            if answer != 'lost':
                has = amount
            if answer in ('sure', 'unsure'):
                found.keep(amount, answer == 'sure')
            for mine, its in zip(found.at_most, has):
                self.assertGreaterEqual(mine, its)
            if answer == 'sure':
                self.assertEqual((amount, True),
                                 (found.at_most, found.certain))

    def test_not_certain_before_an_answer(self):
        found = sold.Sold((2, 3))
        self.assertEqual(((2, 3), False), (found.at_most, found.certain))
        found.begin((3, 1))
        found.write((1, 1))
        self.assertEqual(((3, 3), False), (found.at_most, found.certain))
        # Somebody wrote after it, perhaps what was before.
        found.keep((1, 1), False)
        self.assertEqual(((3, 3), False), (found.at_most, found.certain))
        found.keep((1, 1), True)
        self.assertEqual(((1, 1), True), (found.at_most, found.certain))


class ComputeNodeTest(base.TestCase):
    """What Nova's record says, before Placement has answered."""

    def node(self, numa_topology, memory_mb=9216, vcpus=6):
        return objects.ComputeNode(memory_mb=memory_mb, vcpus=vcpus,
                                   numa_topology=numa_topology)

    def test_memory_and_cpu(self):
        self.assertEqual((9216, 6000),
                         compute_node.most_sold(self.node(None)))

    def test_dedicated_cpus(self):
        topology = test_hugepages.topology((), ())
        for cell, cpus in zip(topology.cells, ({8, 9}, {10})):
            cell.pcpuset = cpus
        self.assertEqual((9216, 9000), compute_node.most_sold(
            self.node(topology._to_json())))
