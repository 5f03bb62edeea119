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

"""NUMA nodes never hold more than the pod has."""

import hypothesis
from hypothesis import strategies as st

from nova_k8s.inventory import topology
from tests.unit import base


def cell(number, *cpus, memory_mb=1000, huge=5):
    return topology.Cell(number, frozenset(cpus), memory_mb,
                         ((4, memory_mb * 256), (2048, huge)))


CELLS = st.lists(st.builds(
    topology.Cell, st.integers(0, 20),
    st.frozensets(st.integers(0, 64), max_size=4), st.integers(0, 10 ** 6),
    st.integers(0, 10 ** 6).map(lambda number: ((4, number), (2048, 7)))),
    max_size=8, unique_by=lambda each: each.id)


class TopologyTest(base.TestCase):

    def test_without_a_limit(self):
        cells = (cell(0, 1), cell(1))
        self.assertEqual(cells, topology.bound(cells, None, None))

    def test_memory_of_one_node(self):
        found = topology.bound(
            [cell(0, 1, 2), cell(1, 3), cell(2)], {1}, 800)
        self.assertEqual(
            [(0, 0, ((4, 0), (2048, 0))), (1, 800, ((4, 204800), (2048, 5)))],
            [(each.id, each.memory_mb, each.pages) for each in found])

    def test_limit_is_split(self):
        for cells, limit, expected in (
                ((cell(0, 1), cell(1, 2)), 801, (401, 400)),
                ((cell(0, 1, memory_mb=3000), cell(1, 2)), 800, (600, 200)),
                # Where there are CPUs first.
                ((cell(0), cell(1, 2)), 1200, (200, 1000)),
                ((cell(0), cell(1, 2)), 800, (0, 800)),
                ((cell(0, 1), cell(4, 2), cell(7, 3)), 2, (1, 1, 0)),
                ((cell(0, 1), cell(1, 2)), 0, (0, 0)),
                ((cell(0, 1), cell(1, 2)), 9000, (1000, 1000))):
            self.assertEqual(expected, tuple(
                each.memory_mb for each in topology.bound(
                    cells, None, limit)))

    @hypothesis.given(CELLS, st.none() | st.frozensets(st.integers(0, 20)),
                      st.none() | st.integers(0, 10 ** 7))
    def test_whatever_there_is(self, cells, mems, limit):
        found = topology.bound(cells, mems, limit)
        stock = {each.id: each for each in cells}
        usable = sum(each.memory_mb for each in cells
                     if mems is None or each.id in mems)
        total = sum(each.memory_mb for each in found)
        # All of what there is, and no more.
        self.assertEqual(
            usable if limit is None else min(usable, limit), total)
        if limit is not None:
            self.assertLessEqual(
                sum(each.pages[0][1] * 4 for each in found), limit * 1024)
        for each in found:
            whole = stock[each.id]
            self.assertEqual(whole.cpus, each.cpus)
            self.assertLessEqual(each.memory_mb, whole.memory_mb)
            for (size, number), (its, most) in zip(each.pages, whole.pages):
                self.assertEqual(its, size)
                self.assertLessEqual(number, most)
            if mems is not None and each.id not in mems:
                self.assertTrue(each.cpus)
                self.assertEqual((0, 0, 0), (
                    each.memory_mb, *(number for _, number in each.pages)))
