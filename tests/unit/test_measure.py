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

"""Reading /proc and cgroups, from folders that look like them."""

import os
import pathlib

from nova_k8s import measure
from tests.unit import base

UUID = '2a8ec8b8-2098-43c0-ba98-589025157a1d'

SMAPS = """\
7f0000000000-7f0020000000 rw-p 00000000 00:00 0
Size:             524288 kB
Rss:              524288 kB
Anonymous:        524000 kB
Swap:                  0 kB
VmFlags: rd wr mr mw me ac sd
7f1000000000-7f1040000000 rwxp 00000000 00:00 0
Size:            1048572 kB
Rss:               55296 kB
Anonymous:         55296 kB
55d000000000-55d001000000 rw-p 00000000 00:00 0                  [heap]
Size:              16384 kB
Rss:                5340 kB
Anonymous:          5340 kB
Swap:                100 kB
7f2000000000-7f2000100000 r-xp 00000000 fe:00 1234    /usr/lib/libc.so.6
Size:               1024 kB
Rss:                1000 kB
Anonymous:             8 kB
7f3000000000-7f3000400000 rw-s 00000000 00:01 99      /memfd:qxl (deleted)
Size:               4096 kB
Rss:                4096 kB
Anonymous:             0 kB
"""

STATUS = """\
Name:	qemu-system-x86
VmPTE:	    1700 kB
RssAnon:	  600000 kB
RssShmem:	    4096 kB
VmSwap:	     100 kB
Threads:	4
"""


class MeasureTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.root = pathlib.Path(self.folder())

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    def process(self, pid, command, **files):
        self.write(f'{pid}/cmdline', b'\0'.join(
            each.encode() for each in command) + b'\0')
        for name, text in files.items():
            self.write(f'{pid}/{name}', text)

    def qemu(self, pid='100', memory='size=524288k'):
        self.process(pid, ['/usr/bin/qemu-system-x86_64', '-name', 'g',
                           '-m', memory, '-uuid', UUID, '-nodefaults'],
                     smaps=SMAPS, status=STATUS)


class GuestTest(MeasureTest):

    def test_guests(self):
        self.qemu()
        self.process(101, ['/usr/bin/swtpm', 'socket', '--tpmstate',
                           f'dir=/var/lib/libvirt/swtpm/{UUID}/tpm2'],
                     status=STATUS)
        self.process(102, ['bash', '-c', f'qemu -uuid {UUID}'])
        self.process(103, ['/usr/bin/swtpm', 'socket', 'other'])
        self.write('self', '')
        guest, = measure.guests(self.root).values()
        self.assertEqual(
            measure.Process(UUID, 100, 524288, (101,)), guest)

    def test_memory_of_older_libvirt(self):
        for text, kb in (('512', 524288), ('1G', 1048576),
                         ('size=2048k,slots=16', 2048)):
            self.qemu(memory=text)
            self.assertEqual(kb, measure.guests(self.root)[UUID].memory_kb)

    def test_used(self):
        self.qemu()
        used = measure.guests(self.root)[UUID].used(self.root)
        self.assertEqual(524000, used.guest_kb)
        # heap, what was copied of libc, shared memory
        self.assertEqual(5440 + 8 + 4096, used.own_kb)
        self.assertEqual(55296, used.translated_kb)
        self.assertEqual(1700 + 4 * 16, used.kernel_kb)
        self.assertEqual(5440 + 8 + 4096 + 1764, used.overhead_kb)

    def test_with_a_vtpm(self):
        self.qemu()
        self.process(101, ['swtpm', UUID], status=STATUS)
        used = measure.guests(self.root)[UUID].used(self.root)
        self.assertEqual(600000 + 4096 + 100 + 1700, used.helpers_kb)

    def test_huge_pages(self):
        # The guest's memory is not charged as memory, and not subtracted.
        self.qemu()
        self.write('100/smaps', SMAPS.replace('524000 kB', '0 kB'))
        used = measure.guests(self.root)[UUID].used(self.root)
        self.assertEqual(0, used.guest_kb)
        self.assertEqual(5440 + 8 + 4096, used.own_kb)

    def test_numa_cells(self):
        self.qemu(memory='size=8388608k')
        first = SMAPS.partition('7f1000000000')[0]
        cell = first.replace('524288 kB', '4194304 kB').replace(
            '524000 kB', '4194304 kB')
        self.write('100/smaps', cell + SMAPS[len(first):] + cell)
        used = measure.guests(self.root)[UUID].used(self.root)
        self.assertEqual(8388608, used.guest_kb)
        self.assertEqual(5440 + 8 + 4096, used.own_kb)

    def test_memory_that_cannot_be_told_apart(self):
        # Arenas of malloc are none of it, nor is what nobody can write to.
        self.qemu()
        first, rest = SMAPS.split('7f1000000000')
        piece = first.replace('524288 kB', '65536 kB')
        for text in (piece * 8, first.replace('rw-p', '---p'),
                     first.replace('524288 kB', '524284 kB')):
            self.write('100/smaps', f'{text}7f1000000000{rest}')
            self.assertIsNone(
                measure.guests(self.root)[UUID].used(self.root))
        self.qemu(memory='nonsense')
        self.assertIsNone(measure.guests(self.root)[UUID].used(self.root))

    def test_gone(self):
        self.qemu()
        guest = measure.guests(self.root)[UUID]
        os.unlink(self.root / '100/smaps')
        self.assertRaises(OSError, guest.used, self.root)
        self.assertEqual(0, measure.process_kb(self.root, 999))


class CgroupTest(MeasureTest):

    def test_v2(self):
        self.write('self/cgroup', '0::/\n')
        mounted = self.root / 'cg'
        mounted.mkdir()
        # The root of all cgroups has no limit.
        self.assertIsNone(measure.cgroup(self.root, mounted))
        self.write('cg/memory.max', 'max')
        self.assertEqual(str(mounted), measure.cgroup(self.root, mounted))

    def test_v1(self):
        self.write('self/cgroup', '7:blkio:/\n3:memory:/kubepods/x\n1:a:/\n')
        self.write('cg/memory/kubepods/x/memory.limit_in_bytes', '1')
        self.assertEqual(str(self.root / 'cg/memory/kubepods/x'),
                         measure.cgroup(self.root, self.root / 'cg'))
        self.write('self/cgroup', '3:memory:/\n')
        self.assertIsNone(measure.cgroup(self.root, self.root / 'cg'))

    def test_none(self):
        self.assertIsNone(measure.cgroup(self.root, self.root))

    def test_charged(self):
        for text, kb in (
                ('anon 1024\nfile 9999\nshmem 1024\nkernel 3072\n'
                 'slab_reclaimable 1024\n', 4),
                ('anon 1024\nshmem 0\npagetables 1024\nkernel_stack 1024\n'
                 'slab_unreclaimable 1024\nslab_reclaimable 1024\n', 4),
                ('rss 1\ntotal_rss 2048\ntotal_shmem 1024\n', 3)):
            self.write('memory.stat', text)
            self.assertEqual(kb, measure.charged_kb(self.root))

    def test_others_beside_guests_in_cgroups(self):
        self.write('cg/memory.stat', 'anon 1048576000\n')
        self.write('cg/machine/qemu-1-g.libvirt-qemu/memory.stat',
                   'anon 524288000\n')
        self.write('cg/machine/qemu-1-g.libvirt-qemu/cgroup.procs', '100\n')
        self.qemu()
        self.assertEqual(512000,
                         measure.others_kb(self.root / 'cg', self.root))

    def test_others_beside_guests_without_cgroups(self):
        self.write('cg/memory.stat', 'anon 1048576000\n')
        self.write('cg/cgroup.procs', '1\n100\n')
        self.qemu()
        guest = 600000 + 4096 + 100 + 1700
        name, = measure.guests(self.root)
        for known, expected in ((None, 1024000 - guest),
                                ({name}, 1024000 - guest),
                                # Nobody else accounts for it.
                                ({'another'}, 1024000)):
            self.assertEqual(expected, measure.others_kb(
                self.root / 'cg', self.root, known))


class SteadyTest(base.TestCase):

    def test_steady(self):
        for present, measured_mb, expected in (
                # the floor, then steps with room to breathe
                (0, 0, 256), (0, 224, 256), (0, 225, 320), (0, 900, 960),
                # more at once, less only when it is much, and slowly
                (320, 400, 448), (320, 225, 320), (384, 225, 384),
                (448, 225, 384), (960, 0, 896), (320, 0, 320)):
            self.assertEqual(
                expected, measure.steady_mb(present, measured_mb * 1024),
                (present, measured_mb))
