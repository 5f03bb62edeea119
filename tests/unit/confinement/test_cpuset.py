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

"""What the container of the guests' pod has, from recorded trees."""

import json
import os
import pathlib

from nova_k8s.confinement import cpuset
from nova_k8s.confinement import guests_pod
from tests.unit import base

UID = '5ba009c0-0000-4000-8000-61fee2426666'
ID = '3f' * 32
SANDBOX = '7a' * 32

# The folder of the pod and the name of a container's, as on a kubelet 1.37
# with either cgroup driver.
LAYOUTS = {
    'cgroupfs': (f'kubepods/pod{UID}', '{}'),
    'cgroupfs, burstable': (f'kubepods/burstable/pod{UID}', '{}'),
    'systemd': ('kubepods.slice/kubepods-pod%s.slice' % UID.replace('-', '_'),
                'cri-containerd-{}.scope'),
    'systemd, CRI-O': (
        'kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod'
        '%s.slice' % UID.replace('-', '_'), 'crio-{}.scope'),
}


def pod(container=f'containerd://{ID}'):
    statuses = [{'name': 'guests', 'containerID': container}]
    return {'metadata': {'uid': UID, 'name': 'guests-a', 'namespace': 'b'},
            'status': {'containerStatuses': statuses}}


class CpusetTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.tree = pathlib.Path(self.folder())
        self.told = str(self.tree / 'told.json')
        self.reader = cpuset.Reader(str(self.tree), self.told)

    def group(self, path, cpus, mems='0', assigned=''):
        folder = self.tree / path
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in (('cgroup.procs', ''), ('cpuset.cpus', assigned),
                           ('cpuset.cpus.effective', cpus),
                           ('cpuset.mems.effective', mems)):
            (folder / name).write_text(text + '\n')

    def test_every_layout(self):
        for folder, name in LAYOUTS.values():
            tree = self.tree / folder.replace('/', '')
            self.group(tree / folder, '0-7', '0-1')
            # The pause container has all, as its pod; guests have the same.
            self.group(tree / folder / name.format(SANDBOX), '0-7', '0-1')
            self.group(tree / folder / 'guests', '0-7', '0-1')
            self.group(tree / folder / name.format(ID), '2-3,6', '1', '2-3,6')
            self.assertEqual(
                cpuset.Seen(frozenset((2, 3, 6)), frozenset((1,)), True),
                cpuset.Reader(str(tree), self.told).look(pod()))

    def test_without_a_cpu_manager(self):
        self.group(f'kubepods/pod{UID}/{ID}', '0-7')
        self.assertEqual(cpuset.Seen(frozenset(range(8)), frozenset((0,))),
                         self.reader.look(pod()))

    def test_follows(self):
        self.group(f'kubepods/pod{UID}/{ID}', '0-7')
        self.assertEqual(8, len(self.reader.look(pod()).cpus))
        self.group(f'kubepods/pod{UID}/{ID}', '0-5')
        self.assertEqual(6, len(self.reader.look(pod()).cpus))
        # The container started again.
        other = 'aa' * 32
        self.group(f'kubepods/pod{UID}/{other}', '0-3')
        self.assertEqual(
            4, len(self.reader.look(pod(f'containerd://{other}')).cpus))

    def test_container_that_is_not_there(self):
        for body in (pod(''), pod(f'containerd://{SANDBOX}')):
            self.assertIsNone(self.reader.look(body))
            self.group(f'kubepods/pod{UID}/{ID}', '0-7')
        # On its way out.
        self.group(f'kubepods/pod{UID}/{ID}', '')
        self.assertIsNone(self.reader.look(pod()))
        self.group(f'kubepods/pod{UID}/{ID}', 'rubbish')
        self.assertIsNone(self.reader.look(pod()))
        # It comes later than its pod.
        self.group(f'kubepods/pod{UID}/{ID}', '1')
        self.assertEqual({1}, self.reader.look(pod()).cpus)

    def test_without_the_api_server(self):
        self.group(f'kubepods/pod{UID}/{ID}', '0-7')
        self.assertIsNone(self.reader.look())
        for record in ([], {'uid': UID}):
            pathlib.Path(self.told).write_text(json.dumps(record))
            self.assertIsNone(self.reader.look())
        pathlib.Path(self.told).write_text(
            json.dumps(guests_pod.record(pod())))
        self.assertEqual(8, len(self.reader.look().cpus))

    def test_tree_is_walked_once(self):
        self.group(f'kubepods/pod{UID}/{ID}', '0-7')
        self.reader.look(pod())
        walk, self.reader._tree = self.reader._tree, os.devnull
        self.assertEqual(8, len(self.reader.look(pod()).cpus))
        self.reader._tree = walk
