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

"""The NUMA nodes, cores and CPUs of the machine, as the kernel shows them."""

import dataclasses
import pathlib
import re
import typing as ty

from nova_k8s.util import cpulist

SYSFS = '/sys/devices/system'


@dataclasses.dataclass(frozen=True)
class Node:
    id: int
    cpus: ty.FrozenSet[int]
    memory_mb: int
    hugepages: ty.Tuple[ty.Tuple[int, int], ...] = ()
    """(size in KiB, how many)."""


@dataclasses.dataclass(frozen=True)
class Layout:
    nodes: ty.Tuple[Node, ...] = ()
    cores: ty.Tuple[ty.FrozenSet[int], ...] = ()
    """The CPUs of each core: several with SMT."""


def read(root=SYSFS):
    """Return the Layout of this machine, its CPUs that are online.

    What cannot be read is left out. Does I/O.
    """
    root = pathlib.Path(root)
    online = _list(root / 'cpu/online')
    nodes = []
    for number in sorted(_list(root / 'node/online')):
        folder = root / f'node/node{number}'
        nodes.append(Node(number, _list(folder / 'cpulist') & online,
                          _memory_mb(folder),
                          read_hugepages(folder / 'hugepages')))
    if not nodes and online:
        # A kernel without NUMA.
        nodes = [Node(0, online, 0)]
    cores = {_list(root / f'cpu/cpu{cpu}/topology/thread_siblings_list') &
             online or frozenset((cpu,)) for cpu in online}
    return Layout(tuple(nodes), tuple(sorted(cores, key=min)))


def _text(path):
    try:
        return path.read_text()
    except OSError:
        return ''


def _list(path):
    try:
        return cpulist.parse(_text(path))
    except ValueError:
        return frozenset()


def _memory_mb(folder):
    found = re.search(r'MemTotal:\s+(\d+) kB', _text(folder / 'meminfo'))
    return int(found[1]) // 1024 if found else 0


def read_hugepages(folder):
    """Return (size in KiB, how many) of each size of huge pages. Does I/O.

    :param folder: a pathlib.Path, of the machine or of one of its nodes
    """
    found = []
    for each in folder.glob('hugepages-*kB'):
        number = _text(each / 'nr_hugepages').strip()
        if number.isdigit():
            found.append((int(each.name[len('hugepages-'):-len('kB')]),
                          int(number)))
    return tuple(sorted(found))
