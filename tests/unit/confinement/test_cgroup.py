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

import pathlib

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

    def test_charged(self):
        for text, kb in (
                ('anon 1024\nfile 9999\nshmem 1024\nkernel 3072\n'
                 'slab_reclaimable 1024\n', 4),
                ('anon 1024\nshmem 0\npagetables 1024\nkernel_stack 1024\n'
                 'slab_unreclaimable 1024\nslab_reclaimable 1024\n', 4),
                ('rss 1\ntotal_rss 2048\ntotal_shmem 1024\n', 3)):
            self.write('memory.stat', text)
            self.assertEqual(kb, cgroup.charged_kb(self.root))
