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

"""A picture of the machine's CPUs: whose they are, and who uses them."""

import dataclasses
import pathlib
import re
import string
import typing as ty

from rich import table as rich_table
from rich import text as rich_text

from nova_k8s.inventory import cpus
from nova_k8s.util import cpulist

OTHERS, SHARED, DEDICATED, LOST = 'others', 'shared', 'dedicated', 'lost'

# What stands behind the number of a CPU, and its colour.
_MARKS = {OTHERS: ('.', 'dim'), SHARED: ('s', 'green'),
          DEDICATED: ('d', 'cyan'), LOST: ('!', 'bold red')}

_LETTERS = string.ascii_uppercase

# CPUs in a line of the picture, which is 80 columns wide.
_LINE = 8

# QEMU's threads of a guest's VCPUs: "CPU 0/KVM", "CPU 0/TCG".
_VCPU = re.compile(r'CPU \d+/')


@dataclasses.dataclass(frozen=True)
class Guest:
    """One guest, and where the kernel lets its VCPUs run."""

    uuid: str
    pinned: ty.FrozenSet[int] = frozenset()
    """CPUs that one of its VCPUs is alone on."""

    floating: ty.FrozenSet[int] = frozenset()


def look(pids, proc='/proc'):
    """Return the Guest of each process. Does I/O.

    :param pids: PID by UUID
    """
    found = []
    for uuid, pid in sorted(pids.items()):
        pinned, floating = set(), set()
        for task in pathlib.Path(proc, str(pid), 'task').glob('*'):
            try:
                if not _VCPU.match((task / 'comm').read_text()):
                    continue
                allowed = cpulist.parse(re.search(
                    r'Cpus_allowed_list:(.*)',
                    (task / 'status').read_text())[1])
            except (OSError, TypeError, ValueError):
                # It has ended.
                continue
            (pinned if len(allowed) == 1 else floating).update(allowed)
        found.append(Guest(uuid, frozenset(pinned), frozenset(floating)))
    return tuple(found)


def describe(layout, seen, sets, guests=()):
    """Return what scripts get to see of the CPUs.

    :param layout: the numa.Layout of the machine
    :param seen: the cpuset.Seen of the guests' pod; None where it is not
        seen
    :param sets: the cpus.Sets of Nova, None for its own
    :param guests: the Guests that are here
    """
    sets = sets or cpus.Sets()
    return {
        'pod': None if seen is None else {
            'cpus': sorted(seen.cpus), 'memory_nodes': sorted(seen.mems)},
        'shared': sorted(sets.shared), 'dedicated': sorted(sets.dedicated),
        'lost': sorted(sets.lost),
        'nodes': [{
            'id': node.id, 'memory_mb': node.memory_mb,
            'memory_of_pod': seen is None or node.id in seen.mems,
            'hugepages': [{'size_kb': size, 'total': number}
                          for size, number in node.hugepages],
            'cores': [sorted(core) for core in layout.cores
                      if core & node.cpus],
        } for node in layout.nodes],
        'guests': [{'uuid': each.uuid, 'pinned': sorted(each.pinned),
                    'floating': sorted(each.floating)} for each in guests],
    }


def draw(found):
    """Return what people get to see of it, for rich, within 80 columns.

    :param found: as from describe()
    """
    owners = {}
    for letter, guest in zip(_LETTERS, found['guests']):
        for cpu in guest['pinned']:
            owners[cpu] = letter
    grid = rich_table.Table(title='CPUs', title_justify='left')
    grid.add_column('node')
    grid.add_column('memory')
    grid.add_column('CPUs', no_wrap=True)
    for node in found['nodes']:
        memory = [f'{node["memory_mb"]} MiB' if node['memory_of_pod'] else
                  "not the pod's"]
        memory += [f'{each["total"]} x {_size(each["size_kb"])}'
                   for each in node['hugepages']]
        grid.add_row(str(node['id']), '\n'.join(memory),
                     _map(node['cores'], found, owners))
    lines = [rich_text.Text(
        f'. of others, s shared, d dedicated and free, ! lost'
        f'{", A to Z pinned by a guest" if owners else ""}; the CPUs of one '
        f'core are joined by +')]
    for letter, guest in zip(_LETTERS, found['guests']):
        lines.append(rich_text.Text(f'{letter}: guest {guest["uuid"]}' + (
            f', pinned to {cpulist.render(guest["pinned"])}'
            if guest['pinned'] else '') + (
            f', floats over {cpulist.render(guest["floating"])}'
            if guest['floating'] else '')))
    if len(found['guests']) > len(_LETTERS):
        lines.append(rich_text.Text(
            f'and {len(found["guests"]) - len(_LETTERS)} guests more'))
    return [grid, *lines]


def _map(cores, found, owners):
    """The CPUs of one node, a mark behind each."""
    lines, line, count = [], rich_text.Text(), 0
    for core in cores:
        if count and count + len(core) > _LINE:
            lines.append(line)
            line, count = rich_text.Text(), 0
        for position, cpu in enumerate(core):
            mark, style = _mark(cpu, found, owners)
            line.append(f'{"+" if position else " "}{cpu:>3}')
            line.append(mark, style)
        count += len(core)
    return rich_text.Text('\n').join([*lines, line])


def _mark(cpu, found, owners):
    for use in (LOST, DEDICATED, SHARED):
        if cpu in found[use]:
            break
    else:
        use = OTHERS
    mark, style = _MARKS[use]
    if use != LOST and cpu in owners:
        return owners[cpu], 'bold'
    return mark, style


def _size(size_kb):
    return (f'{size_kb // 1048576} GiB' if size_kb % 1048576 == 0 else
            f'{size_kb // 1024} MiB')
