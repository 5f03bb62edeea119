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

"""Reading /proc, from folders that look like it."""

import os
import pathlib

from nova_k8s.accounting import usage
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


class ProcTest(base.TestCase):

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


class GuestTest(ProcTest):

    def test_guests(self):
        self.qemu()
        self.process(101, ['/usr/bin/swtpm', 'socket', '--tpmstate',
                           f'dir=/var/lib/libvirt/swtpm/{UUID}/tpm2'],
                     status=STATUS)
        self.process(102, ['bash', '-c', f'qemu -uuid {UUID}'])
        self.process(103, ['/usr/bin/swtpm', 'socket', 'other'])
        self.write('self', '')
        guest, = usage.guests(self.root).values()
        self.assertEqual({UUID: guest}, usage.guests(
            self.root, [str(guest.pid), *map(str, guest.helpers)]))
        self.assertEqual({}, usage.guests(self.root, ['1', 'self']))
        self.assertEqual(
            usage.Process(UUID, 100, 524288, (101,)), guest)

    def test_memory_of_older_libvirt(self):
        for text, kb in (('512', 524288), ('1G', 1048576),
                         ('size=2048k,slots=16', 2048)):
            self.qemu(memory=text)
            self.assertEqual(kb, usage.guests(self.root)[UUID].memory_kb)

    def test_used(self):
        self.qemu()
        used = usage.guests(self.root)[UUID].used(self.root)
        self.assertEqual(524000, used.guest_kb)
        # heap, what was copied of libc, shared memory
        self.assertEqual(5440 + 8 + 4096, used.own_kb)
        self.assertEqual(55296, used.translated_kb)
        self.assertEqual(1700 + 4 * 16, used.kernel_kb)
        self.assertEqual(5440 + 8 + 4096 + 1764, used.overhead_kb)

    def test_with_a_vtpm(self):
        self.qemu()
        self.process(101, ['swtpm', UUID], status=STATUS)
        used = usage.guests(self.root)[UUID].used(self.root)
        self.assertEqual(600000 + 4096 + 100 + 1700, used.helpers_kb)

    def test_huge_pages(self):
        # The guest's memory is not charged as memory, and not subtracted.
        self.qemu()
        self.write('100/smaps', SMAPS.replace('524000 kB', '0 kB'))
        used = usage.guests(self.root)[UUID].used(self.root)
        self.assertEqual(0, used.guest_kb)
        self.assertEqual(5440 + 8 + 4096, used.own_kb)

    def test_numa_cells(self):
        self.qemu(memory='size=8388608k')
        first = SMAPS.partition('7f1000000000')[0]
        cell = first.replace('524288 kB', '4194304 kB').replace(
            '524000 kB', '4194304 kB')
        self.write('100/smaps', cell + SMAPS[len(first):] + cell)
        used = usage.guests(self.root)[UUID].used(self.root)
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
                usage.guests(self.root)[UUID].used(self.root))
        self.qemu(memory='nonsense')
        self.assertIsNone(usage.guests(self.root)[UUID].used(self.root))

    def test_gone(self):
        self.qemu()
        guest = usage.guests(self.root)[UUID]
        os.unlink(self.root / '100/smaps')
        self.assertRaises(OSError, guest.used, self.root)
        self.assertEqual(0, usage.process_kb(self.root, 999))
