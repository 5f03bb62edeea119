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

"""Huge pages for guests: those of the machine, within the pod's limits.

A pod without a limit of a page size may use none of that size: the kubelet
says so in the pod's cgroup. So none is offered, whatever is done about CPU
and memory without a limit.

The kernel counts the pages of a pod on all NUMA nodes together, Nova gives
them out node by node. So what the pod may use is divided among the nodes, as
they have pages: their sum is never more.
"""

import dataclasses
import typing as ty

from nova_k8s.accounting import overhead

KIB_PER_MIB = 1024


class Count(ty.NamedTuple):
    """Pages of one size on one NUMA node."""

    total: int
    kept: int
    """From guests, by [DEFAULT] reserved_huge_pages."""


@dataclasses.dataclass(frozen=True)
class Pages:
    """Huge pages of the machine, and what guests may use of them, in MiB."""

    machine_mb: int = 0
    by_size: ty.Tuple[ty.Tuple[int, int], ...] = ()
    """(page size in KiB, MiB that guests may use) of each size."""

    @property
    def offered_mb(self):
        return sum(mb for _size_kb, mb in self.by_size)


def cells(topology):
    """Return the Counts of huge pages by NUMA node and page size in KiB.

    :param topology: Nova's NUMATopology, as its driver makes it
    """
    return {cell.id: {pages.size_kb: Count(pages.total, pages.reserved)
                      for pages in cell.mempages
                      if overhead.is_huge(pages.size_kb)}
            for cell in topology.cells}


def offer(cells, limits):
    """Return how many pages guests may use, by NUMA node and page size.

    :param cells: as from cells()
    :param limits: bytes by page size in KiB; a size that is not there has no
        limit, and no pages
    """
    sizes = {size_kb for counts in cells.values() for size_kb in counts}
    offered = {cell_id: {} for cell_id in cells}
    for size_kb in sizes:
        room = {cell_id: max(0, counts[size_kb].total - counts[size_kb].kept)
                for cell_id, counts in cells.items() if size_kb in counts}
        most = limits.get(size_kb, 0) // (size_kb * 1024)
        for cell_id, number in _divide(most, room).items():
            offered[cell_id][size_kb] = number
    return offered


def _divide(number, room):
    """Divide a number in proportion to the room, none more than its own."""
    total = sum(room.values())
    if number >= total:
        return dict(room)
    shares = {each: number * size // total for each, size in room.items()}
    # What rounding left over, to those that lost most by it.
    rest = sorted(room, key=lambda each: (-(number * room[each] % total),
                                          each))
    for each in rest[:number - sum(shares.values())]:
        shares[each] += 1
    return shares


def summarize(cells, offered):
    """Return the Pages.

    :param cells: as from cells()
    :param offered: as from offer()
    """
    by_size = {}
    for counts in offered.values():
        for size_kb, number in counts.items():
            by_size[size_kb] = by_size.get(size_kb, 0) + number
    return Pages(
        # Rounded up: it is subtracted from what the machine has.
        -(-sum(size_kb * count.total for counts in cells.values()
               for size_kb, count in counts.items()) // KIB_PER_MIB),
        tuple(sorted((size_kb, number * size_kb // KIB_PER_MIB)
                     for size_kb, number in by_size.items())))


def withhold(topology):
    """Leave only memory that is not in huge pages, which are all reserved.

    :param topology: Nova's NUMATopology, which is changed
    """
    for cell in topology.cells:
        huge_kb = 0
        for pages in cell.mempages:
            if overhead.is_huge(pages.size_kb):
                pages.reserved = pages.total
                huge_kb += pages.total * pages.size_kb
        cell.memory = max(0, cell.memory - -(-huge_kb // KIB_PER_MIB))


def reserve(topology, offered):
    """Have Nova give out no other pages: what is not offered is reserved.

    The memory of a node is what is not in huge pages, and those offered.

    :param topology: Nova's NUMATopology after withhold(), which is changed
    :param offered: as from offer()
    """
    for cell in topology.cells:
        before_mb = _given_mb(cell)
        for pages in cell.mempages:
            if overhead.is_huge(pages.size_kb):
                pages.reserved = pages.total - min(
                    pages.total, offered.get(cell.id, {}).get(
                        pages.size_kb, 0))
        cell.memory += _given_mb(cell) - before_mb


def _given_mb(cell):
    return sum((pages.total - pages.reserved) * pages.size_kb
               for pages in cell.mempages
               if overhead.is_huge(pages.size_kb)) // KIB_PER_MIB


def name(size_kb):
    """A page size as Kubernetes writes it: 2Mi."""
    for unit, kib in (('Gi', 1 << 20), ('Mi', 1 << 10)):
        if size_kb % kib == 0:
            return f'{size_kb // kib}{unit}'
    return f'{size_kb}Ki'
