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

"""The machine as its kernel shows it: trees as recorded."""

import pathlib

from nova_k8s.inventory import numa
from nova_k8s.util import cpulist
from tests.unit import base


def write(root, nodes, siblings, online=None):
    """Make a tree as of /sys/devices/system.

    :param nodes: (CPUs, KiB of memory, huge pages of 2 MiB) by number
    :param siblings: the CPUs of each core
    """
    root = pathlib.Path(root)
    present = frozenset().union(*siblings)
    files = {
        'cpu/online': cpulist.render(present if online is None else online),
        'node/online': cpulist.render(nodes)}
    for core in siblings:
        for cpu in core:
            files[f'cpu/cpu{cpu}/topology/thread_siblings_list'] = (
                cpulist.render(core))
    for number, (ids, memory_kb, huge) in nodes.items():
        name = f'node/node{number}'
        files[f'{name}/cpulist'] = cpulist.render(ids)
        files[f'{name}/meminfo'] = (
            f'Node {number} MemTotal:       {memory_kb} kB\n'
            f'Node {number} MemFree:        1 kB')
        files[f'{name}/hugepages/hugepages-2048kB/nr_hugepages'] = huge
        files[f'{name}/hugepages/hugepages-1048576kB/nr_hugepages'] = 0
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'{text}\n')


# Machines by (nodes, cores of a node, threads of a core), with the numbers
# of siblings apart, as Linux has them.
def machine(nodes, cores, threads):
    every = nodes * cores
    siblings = [frozenset(core + every * thread for thread in range(threads))
                for core in range(every)]
    return {number: (frozenset().union(
        *siblings[number * cores:(number + 1) * cores]), 65536 * 1024, 512)
        for number in range(nodes)}, siblings


class ReadTest(base.TestCase):

    def read(self, *arguments, **options):
        folder = self.folder()
        write(folder, *arguments, **options)
        return numa.read(folder)

    def test_machines(self):
        for nodes in (1, 2, 8):
            for threads in (1, 2):
                found = self.read(*machine(nodes, 4, threads))
                self.assertEqual(nodes, len(found.nodes))
                self.assertEqual(4 * nodes, len(found.cores))
                self.assertEqual({threads}, {len(each)
                                             for each in found.cores})
                self.assertEqual(
                    ({65536}, {((2048, 512), (1048576, 0))}),
                    ({each.memory_mb for each in found.nodes},
                     {each.hugepages for each in found.nodes}))
                self.assertEqual(4 * nodes * threads, sum(
                    len(each.cpus) for each in found.nodes))

    def test_holes(self):
        found = self.read(
            {0: ({0, 2}, 1024, 0), 3: ({5, 9}, 2048, 0), 4: (set(), 4096, 0)},
            [{0, 2}, {5, 9}], online={0, 5, 9})
        self.assertEqual(
            [(0, {0}, 1), (3, {5, 9}, 2), (4, set(), 4)],
            [(each.id, each.cpus, each.memory_mb) for each in found.nodes])
        self.assertEqual(({0}, {5, 9}), found.cores)

    def test_without_numa(self):
        found = self.read({}, [{0}, {1}])
        self.assertEqual([(0, {0, 1})],
                         [(each.id, each.cpus) for each in found.nodes])

    def test_nothing_to_read(self):
        self.assertEqual(numa.Layout(), numa.read('/nowhere'))
