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

"""Which huge pages of the machine guests get."""

import hypothesis
from hypothesis import strategies as st
from nova import objects

from nova_k8s.inventory import hugepages
from tests.unit import base

objects.register_all()

TWO_MI, GI = 2048, 2 ** 20


def topology(*cells):
    """As Nova's driver makes it: (size in KiB, total, reserved) by cell."""
    return objects.NUMATopology(cells=[
        objects.NUMACell(
            id=number, cpuset={number}, pcpuset=set(), memory=2 ** 16,
            cpu_usage=0, memory_usage=0, pinned_cpus=set(), siblings=[],
            socket=None, mempages=[
                objects.NUMAPagesTopology(
                    size_kb=size_kb, total=total, used=0, reserved=reserved)
                for size_kb, total, reserved in pages])
        for number, pages in enumerate(cells)])


COUNTS = st.builds(hugepages.Count, st.integers(0, 10 ** 6),
                   # An option of Nova's, which nothing keeps below it.
                   st.integers(0, 10 ** 6))
SIZES = st.sampled_from((TWO_MI, 32768, GI, 2 ** 24))
CELLS = st.dictionaries(
    st.integers(0, 7), st.dictionaries(SIZES, COUNTS), max_size=8)
LIMITS = st.dictionaries(SIZES, st.integers(0, 2 ** 50) |
                         st.integers(0, 10 ** 6).map(lambda n: n * 2 ** 21))


class OfferTest(base.TestCase):

    @hypothesis.given(CELLS, LIMITS)
    def test_whatever_there_is(self, cells, limits):
        offered = hugepages.offer(cells, limits)
        self.assertEqual(set(cells), set(offered))
        for size_kb in {each for counts in cells.values() for each in counts}:
            room = {cell: max(0, counts[size_kb].total - counts[size_kb].kept)
                    for cell, counts in cells.items() if size_kb in counts}
            found = {cell: offered[cell][size_kb] for cell in room}
            # As much as there may be, and no more.
            self.assertEqual(
                min(limits.get(size_kb, 0) // (size_kb * 1024),
                    sum(room.values())), sum(found.values()))
            for cell, number in found.items():
                self.assertGreaterEqual(number, 0)
                self.assertLessEqual(number, room[cell])

    @hypothesis.given(CELLS, LIMITS)
    def test_summary(self, cells, limits):
        offered = hugepages.offer(cells, limits)
        pages = hugepages.summarize(cells, offered)
        self.assertLessEqual(pages.offered_mb, pages.machine_mb)
        for size_kb, mb in pages.by_size:
            self.assertLessEqual(mb * 2 ** 20, limits.get(size_kb, 0))

    def test_no_limit_is_none(self):
        cells = {0: {TWO_MI: hugepages.Count(512, 0)}}
        self.assertEqual({0: {TWO_MI: 0}}, hugepages.offer(cells, {}))
        self.assertEqual({0: {TWO_MI: 0}},
                         hugepages.offer(cells, {GI: 2 ** 40}))

    def test_divided_among_nodes(self):
        cells = {0: {TWO_MI: hugepages.Count(300, 0)},
                 1: {TWO_MI: hugepages.Count(200, 100)},
                 2: {}}
        for limit, first, second in ((0, 0, 0), (1, 1, 0), (2, 2, 0),
                                     (4, 3, 1), (200, 150, 50),
                                     (399, 299, 100), (400, 300, 100),
                                     (9999, 300, 100)):
            self.assertEqual(
                {0: {TWO_MI: first}, 1: {TWO_MI: second}, 2: {}},
                hugepages.offer(cells, {TWO_MI: limit * 2 ** 21}), limit)

    def test_part_of_a_page(self):
        cells = {0: {GI: hugepages.Count(8, 0)}}
        self.assertEqual({0: {GI: 1}},
                         hugepages.offer(cells, {GI: 2 ** 31 - 1}))


class TopologyTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.topology = topology([(4, 10 ** 6, 7), (TWO_MI, 512, 12)],
                                 [(4, 10 ** 6, 0), (TWO_MI, 512, 0),
                                  (GI, 4, 0)])

    def test_cells(self):
        self.assertEqual(
            {0: {TWO_MI: (512, 12)}, 1: {TWO_MI: (512, 0), GI: (4, 0)}},
            hugepages.cells(self.topology))

    def test_reserve(self):
        hugepages.reserve(self.topology, {0: {TWO_MI: 500},
                                          1: {TWO_MI: 100, GI: 9}})
        self.assertEqual(
            # What the operator has for pages of the common size stays.
            [[(4, 7), (TWO_MI, 12)], [(4, 0), (TWO_MI, 412), (GI, 0)]],
            [[(pages.size_kb, pages.reserved) for pages in cell.mempages]
             for cell in self.topology.cells])
        hugepages.reserve(self.topology, {})
        self.assertEqual(
            [0, 0, 0],
            [pages.free for cell in self.topology.cells
             for pages in cell.mempages if pages.size_kb > 4])

    @hypothesis.given(
        st.lists(st.lists(st.tuples(
            SIZES | st.sampled_from((4, 64)), st.integers(0, 10 ** 6),
            st.integers(0, 10 ** 6)), unique_by=lambda each: each[0]),
            min_size=1, max_size=8), LIMITS)
    def test_nova_gives_out_no_more(self, pages, limits):
        found = topology(*pages)
        hugepages.reserve(found, hugepages.offer(
            hugepages.cells(found), limits))
        free = {}
        for cell, before in zip(found.cells, pages):
            for each, (size_kb, total, kept) in zip(cell.mempages, before):
                if size_kb <= 64:
                    self.assertEqual(kept, each.reserved)
                    continue
                self.assertGreaterEqual(each.free, 0)
                # What the operator keeps from guests is kept.
                self.assertGreaterEqual(each.reserved, min(kept, total))
                free[size_kb] = free.get(size_kb, 0) + each.free_kb * 1024
        for size_kb, amount in free.items():
            self.assertLessEqual(amount, limits.get(size_kb, 0))

    def test_names(self):
        for size_kb, name in ((TWO_MI, '2Mi'), (GI, '1Gi'), (64, '64Ki'),
                              (32768, '32Mi')):
            self.assertEqual(name, hugepages.name(size_kb))
