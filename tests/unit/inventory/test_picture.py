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

"""The picture of CPUs fits into a terminal and tells whose they are."""

import io
import pathlib

import hypothesis
from hypothesis import strategies as st
from rich import console

from nova_k8s.confinement import cpuset
from nova_k8s.inventory import cpus
from nova_k8s.inventory import numa
from nova_k8s.inventory import picture
from tests.unit import base
from tests.unit.inventory import test_numa


class PictureTest(base.TestCase):

    def layout(self, *arguments):
        nodes, cores = test_numa.machine(*arguments)
        return numa.Layout(tuple(
            numa.Node(number, cpus_, memory_kb // 1024, ((2048, huge),))
            for number, (cpus_, memory_kb, huge) in nodes.items()),
            tuple(cores))

    def draw(self, found):
        out = io.StringIO()
        screen = console.Console(file=out, width=80)
        for each in picture.draw(found):
            screen.print(each, highlight=False)
        return out.getvalue()

    def test_two_nodes(self):
        found = picture.describe(
            self.layout(2, 4, 2),
            cpuset.Seen(frozenset((1, 2, 3, 9, 10, 11)), frozenset((0,))),
            cpus.Sets(frozenset((1, 9)), frozenset((2, 3, 10, 15)),
                      frozenset((15,))),
            (picture.Guest('uuid-a', frozenset((3, 15)), frozenset()),
             picture.Guest('uuid-b', frozenset(), frozenset((1, 9)))))
        self.assertEqual({'cpus': [1, 2, 3, 9, 10, 11], 'memory_nodes': [0]},
                         found['pod'])
        self.assertEqual([[0, 8], [1, 9], [2, 10], [3, 11]],
                         found['nodes'][0]['cores'])
        self.assertEqual([True, False], [
            each['memory_of_pod'] for each in found['nodes']])
        drawn = self.draw(found)
        for part in ('0.+  8.', '1s+  9s', '2d+ 10d', '3A+ 11.', '15!',
                     "not the pod's", '512 x 2 MiB', '65536 MiB',
                     'A: guest uuid-a, pinned to 3,15',
                     'B: guest uuid-b, floats over 1,9'):
            self.assertIn(part, drawn)

    def test_without_a_pod(self):
        found = picture.describe(self.layout(1, 2, 1), None, None)
        self.assertIsNone(found['pod'])
        self.assertIn('0.   1.', self.draw(found))

    @hypothesis.given(st.sampled_from([1, 2, 8]), st.sampled_from([1, 2, 4]),
                      st.integers(0, 40))
    @hypothesis.settings(max_examples=20)
    def test_fits_into_80_columns(self, nodes, threads, guests):
        layout = self.layout(nodes, 12, threads)
        everything = frozenset().union(*layout.cores)
        found = picture.describe(
            layout, cpuset.Seen(everything, frozenset((0,))),
            cpus.Sets(everything),
            [picture.Guest(f'{each:036}', frozenset((each,)), everything)
             for each in range(guests)])
        drawn = self.draw(found).splitlines()
        self.assertLessEqual(max(map(len, drawn)), 80)
        for cpu in everything:
            self.assertRegex('\n'.join(drawn), rf'[ +]{cpu}\D')

    def test_threads_of_guests(self):
        proc = pathlib.Path(self.folder())
        for task, comm, allowed in (
                (10, 'qemu-system-x86', '0-7'), (11, 'CPU 0/KVM', '3'),
                (12, 'CPU 1/KVM', '4-5'), (13, 'worker', '0-7')):
            folder = proc / '10/task' / str(task)
            folder.mkdir(parents=True)
            (folder / 'comm').write_text(comm + '\n')
            (folder / 'status').write_text(
                f'Name:\t{comm}\nCpus_allowed:\tff\n'
                f'Cpus_allowed_list:\t{allowed}\n')
        self.assertEqual(
            (picture.Guest('a', frozenset((3,)), frozenset((4, 5))),
             picture.Guest('gone')),
            picture.look({'a': 10, 'gone': 99}, proc))
