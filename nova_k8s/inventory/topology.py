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

"""The NUMA nodes that Nova is told of, within what the pod has: pure."""

import dataclasses
import typing as ty


@dataclasses.dataclass(frozen=True)
class Cell:
    """One NUMA node, as far as it is bounded."""

    id: int
    cpus: ty.FrozenSet[int]
    """Those that Nova gives to guests, shared and dedicated."""

    memory_mb: int
    pages: ty.Tuple[ty.Tuple[int, int], ...] = ()
    """(size in KiB, how many), the smallest size first."""


def bound(cells, mems, limit_mb):
    """Return the Cells that the pod has, with no more than its memory.

    The limit of a pod is one number for all nodes, while Nova looks at each:
    it is split in proportion to their memory. A node without CPUs holds no
    guest, so it gets only what is left by the others.

    Only the smallest pages are ordinary memory. What may be used of the
    others is not for here to say, but for a node whose memory is not the
    pod's: there it is none.

    :param cells: all Cells of the machine
    :param mems: IDs of the nodes whose memory the pod may use; None for all
    :param limit_mb: memory that the pod may use; None without a limit
    """
    kept = [each for each in cells
            if each.cpus or mems is None or each.id in mems]
    shares = _shares(
        {each.id: each.memory_mb if mems is None or each.id in mems else 0
         for each in kept},
        {each.id for each in kept if each.cpus}, limit_mb)
    return tuple(_bound_cell(each, shares[each.id], mems) for each in kept)


def _bound_cell(cell, memory_mb, mems):
    pages = []
    for size_kb, number in cell.pages:
        if mems is not None and cell.id not in mems:
            number = 0
        elif size_kb == cell.pages[0][0]:
            number = min(number, memory_mb * 1024 // size_kb)
        pages.append((size_kb, number))
    return dataclasses.replace(cell, memory_mb=memory_mb, pages=tuple(pages))


def _shares(memory, first, limit_mb):
    """Return the MiB of each node by ID, together at most limit_mb."""
    if limit_mb is None:
        return memory
    left, shares = max(0, limit_mb), {}
    for group in (sorted(memory.keys() & first),
                  sorted(memory.keys() - first)):
        whole = sum(memory[each] for each in group)
        given = min(whole, left)
        for each in group:
            shares[each] = memory[each] * given // whole if whole else 0
        # What was lost in rounding, less than one for each node.
        for each in group:
            if sum(shares[other] for other in group) >= given:
                break
            shares[each] += shares[each] < memory[each]
        left -= given
    return shares
