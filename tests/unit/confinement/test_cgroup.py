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

"""Reading cgroups, from folders that look like them."""

import functools
import pathlib
from unittest import mock

import fixtures

from nova_k8s.confinement import cgroup
from tests.unit import base


class CgroupTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.root = pathlib.Path(self.folder())

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def test_v2(self):
        self.write('self/cgroup', '0::/\n')
        mounted = self.root / 'cg'
        mounted.mkdir()
        # The root of all cgroups has no limit.
        self.assertIsNone(cgroup.own_folder(self.root, mounted))
        self.write('cg/memory.max', 'max')
        self.assertEqual(str(mounted), cgroup.own_folder(self.root, mounted))

    def test_v1(self):
        self.write('self/cgroup', '7:blkio:/\n3:memory:/kubepods/x\n1:a:/\n')
        self.write('cg/memory/kubepods/x/memory.limit_in_bytes', '1')
        self.assertEqual(str(self.root / 'cg/memory/kubepods/x'),
                         cgroup.own_folder(self.root, self.root / 'cg'))
        self.write('self/cgroup', '3:memory:/\n')
        self.assertIsNone(cgroup.own_folder(self.root, self.root / 'cg'))

    def test_none(self):
        self.assertIsNone(cgroup.own_folder(self.root, self.root))

    def kubepods(self, *levels):
        """A cgroup v2 with (cpu.max, memory.max) of each level, from above.

        None is a level without the file, as the root is one.
        """
        folder = self.root / 'cg'
        for i, limits in enumerate(levels):
            folder = folder / f'level{i}' if i else folder
            name = str(folder.relative_to(self.root))
            self.write(f'{name}/cgroup.controllers', 'cpu memory')
            for file, text in zip(('cpu.max', 'memory.max'), limits):
                if text is not None:
                    self.write(f'{name}/{file}', text + '\n')
        return folder

    def test_enforced_is_the_least_of_all_levels(self):
        # What is above a mount is no cgroup, whatever lies there.
        self.write('memory.max', '1')
        root, kubepods = (None, None), ('max 100000', '8000')
        for pod, container, expected in (
                (('max 100000', 'max'), ('max 100000', 'max'),
                 (None, 8000, 'level1')),
                (('750000 100000', '6000'), ('400000 100000', '5000'),
                 (4000, 5000, 'level3')),
                # The container has what was wished, its pod has not.
                (('400000 100000', '4000'), ('750000 100000', '5000'),
                 (4000, 4000, 'level2')),
                (('333 1000', '4096'), ('max 100000', '5000'),
                 (333, 4096, 'level2'))):
            found = cgroup.find_enforced(
                self.kubepods(root, kubepods, pod, container), True)
            self.assertEqual(expected[:2], (found.cpu_millicores,
                                            found.memory_bytes))
            self.assertIn(f'{expected[2]}/memory.max', found.where)
            self.assertTrue(found.binding)

    def test_enforced_in_a_container(self):
        # Of its own cgroup namespace it sees the own level only.
        found = cgroup.find_enforced(
            self.kubepods(('400000 100000', '5000')), False)
        self.assertEqual((4000, 5000, False), (
            found.cpu_millicores, found.memory_bytes, found.binding))

    def test_enforced_that_cannot_be_seen(self):
        for folder in (self.kubepods((None, None)), self.root / 'gone',
                       self.kubepods(('rubbish', 'rubbish'))):
            self.assertIsNone(cgroup.find_enforced(folder, True))
        # cgroup v1 has other files.
        self.write('memory/x/memory.limit_in_bytes', '5000')
        self.assertIsNone(cgroup.find_enforced(self.root / 'memory/x', True))

    def test_whose_cgroup_it_is(self):
        self.useFixture(fixtures.MockPatchObject(
            cgroup, 'own_folder', lambda: '/own'))
        for options, expected in (
                # A pod of one container, which this runs in.
                ({}, ('/own', True)),
                ({'pod_selector': 'a=b'}, None),
                ({'pod_name': 'a'}, None),
                ({'container': 'a'}, None), ({'container': '*'}, None),
                ({'limits_from': 'manifest'}, None),
                # The volume may show another container.
                ({'limits_from': 'downward_api'}, ('/own', False)),
                ({'pod_cgroup': '/x', 'pod_selector': 'a=b'}, ('/x', True)),
                ({'pod_cgroup': '/x', 'limits_from': 'downward_api'},
                 ('/x', True))):
            conf = self.conf(**options)
            found = cgroup.enforced_from_conf(conf)
            self.assertEqual(expected, found and found.args, options)
            for name in options:
                conf.clear_override(name, group='kubernetes')
        self.useFixture(fixtures.MockPatchObject(
            cgroup, 'own_folder', lambda: None))
        self.assertIsNone(cgroup.enforced_from_conf(self.conf()))

    def test_a_guests_pod_is_its_own_bound(self):
        # Whatever nova-compute's container is held to.
        uid = '0f3ad3b2-0a4b-4c62-8a83-1d4f2a8d7c11'
        folder = f'cg/kubepods/pod{uid}'
        for name in ('cg', 'cg/kubepods', folder):
            self.write(f'{name}/cgroup.controllers', 'cpu memory')
        self.write('cg/cgroup.procs', '1')
        self.write(f'{folder}/memory.max', '2147483648')
        self.write(f'{folder}/cpu.max', '150000 100000')
        self.useFixture(fixtures.MockPatchObject(
            cgroup, 'node_tree', return_value=str(self.root / 'cg')))
        for options in ({'guests_pod': '/t.yaml'},
                        {'pod_name': 'guests-kube-1'}):
            self.write('told', '')
            find = functools.partial(cgroup.guests_pod_folder,
                                     str(self.root / 'told'))
            with mock.patch.object(cgroup, 'guests_pod_folder', find):
                conf = self.conf(node_name='kube-1', **options)
                enforced = cgroup.enforced_from_conf(conf)
                for name in options:
                    conf.clear_override(name, group='kubernetes')
            self.assertIsNone(enforced())
            self.write('told', f'{{"uid": "{uid}"}}')
            found = enforced()
            self.assertEqual((1500, 2 << 30, True), (
                found.cpu_millicores, found.memory_bytes, found.binding))

    def test_charged(self):
        for text, kb in (
                ('anon 1024\nfile 9999\nshmem 1024\nkernel 3072\n'
                 'slab_reclaimable 1024\n', 4),
                ('anon 1024\nshmem 0\npagetables 1024\nkernel_stack 1024\n'
                 'slab_unreclaimable 1024\nslab_reclaimable 1024\n', 4),
                ('rss 1\ntotal_rss 2048\ntotal_shmem 1024\n', 3)):
            self.write('memory.stat', text)
            self.assertEqual(kb, cgroup.charged_kb(self.root))
