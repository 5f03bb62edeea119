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

"""Reading where guests are, from folders that look like the kernel's."""

import json
import pathlib

from nova_k8s.confinement import cgroup
from nova_k8s.confinement import snapshot
from tests.unit import base

UID = '0f3ad3b2-0a4b-4c62-8a83-1d4f2a8d7c11'
POD = {'metadata': {'name': 'guests-kube-1', 'uid': UID},
       'status': {'phase': 'Running', 'qosClass': 'Guaranteed'}}


class TestCase(base.TestCase):

    def setUp(self):
        super().setUp()
        self.root = pathlib.Path(self.folder())
        self.tree = self.root / 'cg'
        self.proc = self.root / 'proc'
        self.told = self.root / 'guests-pod.json'

    def write(self, path, text=''):
        path = self.root / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def read(self, guests=(), pod=POD, **fields):
        return snapshot.read(str(self.tree), dict(guests or {}), pod,
                             proc=str(self.proc), told=str(self.told),
                             **fields)


class PodFolderTest(TestCase):

    def test_both_drivers(self):
        slices = UID.replace('-', '_')
        for path in (
                f'kubepods/pod{UID}', f'kubepods/burstable/pod{UID}',
                f'kubelet/kubepods/besteffort/pod{UID}',
                f'kubepods.slice/kubepods-pod{slices}.slice',
                f'kubepods.slice/kubepods-burstable.slice/'
                f'kubepods-burstable-pod{slices}.slice',
                f'kubelet.slice/kubelet-kubepods.slice/'
                f'kubelet-kubepods-burstable.slice/'
                f'kubelet-kubepods-burstable-pod{slices}.slice'):
            tree = self.root / path.replace('/', '_')
            self.assertIsNone(cgroup.pod_folder(str(tree), UID))
            (tree / path / 'guests').mkdir(parents=True)
            self.assertEqual(str(tree / path),
                             cgroup.pod_folder(str(tree), UID))

    def test_not_that_of_another_pod(self):
        (self.tree / 'kubepods' / f'pod{UID}x').mkdir(parents=True)
        (self.tree / 'kubepods' / f'xpod{UID}').mkdir()
        self.assertIsNone(cgroup.pod_folder(str(self.tree), UID))


class ReadTest(TestCase):

    def setUp(self):
        super().setUp()
        self.pod = f'cg/kubepods/pod{UID}'
        self.write('cg/cgroup.controllers', 'cpu memory')
        self.write(f'{self.pod}/cgroup.procs')
        self.write(f'{self.pod}/guests/cgroup.subtree_control', 'cpu memory')
        self.write(f'{self.pod}/guests/machine/q/emulator/cgroup.procs',
                   '41\n42\n')
        self.write('proc/2/comm', 'kthreadd\n')
        self.write('proc/42/cmdline',
                   '/usr/bin/qemu\0-name\0guest=instance-7,debug=on\0-S')
        self.write('proc/42/cgroup', f'0::/kubepods/pod{UID}/guests/machine')
        self.write('guests-pod.json', json.dumps({'uid': UID}))

    def test_all_is_well(self):
        found = self.read({'u': 42})
        self.assertEqual(
            (True, True, UID, str(self.root / self.pod)),
            (found.v2, found.node_pids, found.told_uid, found.folder))
        self.assertEqual(
            snapshot.Pod('guests-kube-1', UID, 'Running', 'Guaranteed'),
            found.pod)
        self.assertEqual(
            (snapshot.Guest('u', 'instance-7', 42,
                            f'/kubepods/pod{UID}/guests/machine', True),),
            found.guests)
        self.assertEqual({'cpu', 'memory'}, found.controllers)
        self.assertEqual((None, None, 2), (
            found.pids_max, found.descendants_max, found.pids))
        self.assertFalse(found.oom_group)

    def test_limits(self):
        for name, text in (('pids.max', '1024'), ('memory.oom.group', '1'),
                           ('cgroup.max.descendants', '50'),
                           ('cgroup.stat',
                            'nr_descendants 7\nnr_dying_descendants 1'),
                           ('memory.swap.max', '1048576')):
            self.write(f'{self.pod}/{name}', text + '\n')
        self.write('proc/meminfo', 'MemTotal:  9 kB\nSwapTotal:  4096 kB\n')
        found = self.read()
        self.assertEqual((1024, True, 50, 7, 1048576), (
            found.pids_max, found.oom_group, found.descendants_max,
            found.descendants, found.swap_bytes))
        self.write(f'{self.pod}/memory.swap.max', 'max\n')
        self.assertEqual(4096 * 1024, self.read().swap_bytes)
        self.write(f'{self.pod}/memory.swap.max', '0\n')
        self.assertEqual(0, self.read().swap_bytes)

    def test_a_guest_elsewhere(self):
        self.write('proc/43/cgroup', '0::/machine/qemu-2-x\n')
        found, = self.read({'u': 43}).guests
        self.assertEqual(('u', '/machine/qemu-2-x', False),
                         (found.name, found.cgroup, found.inside))
        # It has ended meanwhile.
        found, = self.read({'u': 44}).guests
        self.assertEqual('?', found.cgroup)

    def test_without_a_pod(self):
        found = self.read(pod=None)
        self.assertIsNone(found.pod)
        self.assertIsNone(found.folder)
        self.assertIsNone(found.controllers)

    def test_slice(self):
        self.write('cg/cgroup.controllers')
        self.write('proc/2/comm', 'kthreadd\n')
        found = self.read(None, None, expected=False,
                          guest_slice='machine.slice')
        self.assertEqual(('/machine.slice', None, ()), (
            found.guest_slice, found.folder, found.unlimited))
        for name, text in (
                ('cgroup.controllers', 'cpu memory'), ('memory.max', '9'),
                ('cpu.max', 'max 100000'), ('a/cgroup.procs', '42\n')):
            self.write(f'cg/machine.slice/{name}', text)
        found = self.read({'u': 42, 'v': 43}, None, expected=False,
                          guest_slice='machine.slice')
        self.assertEqual((str(self.tree / 'machine.slice'), ('cpu.max',), 1),
                         (found.folder, found.unlimited, found.pids))
        self.assertEqual([True, False],
                         [each.inside for each in found.guests])

    def test_without_an_api_server(self):
        found = self.read({'u': 42}, pod=None, pod_problem='away')
        self.assertEqual(str(self.root / self.pod), found.folder)
        self.assertTrue(found.guests[0].inside)

    def test_a_container_of_its_own(self):
        self.write('proc/2/comm', 'python3\n')
        self.assertFalse(self.read().node_pids)
        (self.tree / 'cgroup.controllers').unlink()
        self.told.write_text('[')
        found = self.read()
        self.assertFalse(found.v2)
        self.assertIsNone(found.told_uid)
