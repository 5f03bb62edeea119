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

"""What guests and the pod's other processes use, as the kernel tells it.

Everything is read below a root that tests replace, and imports no Nova.
Nothing here may be called on Nova's paths: reading a large guest's mappings
takes the kernel milliseconds per GiB.
"""

import dataclasses
import os
import pathlib
import re
import typing as ty

KIB_PER_MIB = 1024

# Writable mappings up to this size may be QEMU's own: arenas of malloc, the
# memory of a screen.
PIECE_KB = 64 * KIB_PER_MIB

# A mapping's first line in smaps: addresses, permissions, offset, device,
# inode, and the file's name where it has one.
_MAPPING = re.compile(
    r'[0-9a-f]+-[0-9a-f]+ (\S{4}) [0-9a-f]+ \S+ \d+ *(.*)')

# Options of QEMU that libvirt always writes.
_UUID = re.compile(rb'\0-uuid\0([0-9a-f-]{36})\0')


@dataclasses.dataclass(frozen=True)
class Mapping:
    """One mapping of a process; sizes in KiB."""

    size_kb: int
    own_kb: int
    """Memory that is charged for it: anonymous, shared or of tmpfs, but not
    page cache of files."""

    resident_kb: int
    executable: bool
    writable: bool
    name: str


@dataclasses.dataclass(frozen=True)
class Used:
    """What one guest uses, in KiB, page cache apart."""

    guest_kb: int
    """Memory of the guest itself that it has touched."""

    own_kb: int
    """QEMU's own."""

    kernel_kb: int
    """Page tables and kernel stacks of QEMU."""

    translated_kb: int = 0
    """Code that TCG translated; none with KVM."""

    helpers_kb: int = 0
    """Processes that belong to the guest: swtpm."""

    @property
    def overhead_kb(self):
        """What it costs beyond its memory, translated code apart."""
        return self.own_kb + self.kernel_kb + self.helpers_kb


@dataclasses.dataclass(frozen=True)
class Process:
    """QEMU of one guest."""

    uuid: str
    pid: int
    memory_kb: int
    """The guest's memory, as QEMU was told."""

    helpers: ty.Tuple[int, ...] = ()

    def used(self, proc='/proc'):
        """Return what it uses; None where its memory cannot be told apart.

        :raises OSError: when it has ended, or may not be read
        """
        mapped = mappings(proc, self.pid)
        ram = self._ram(mapped)
        if not ram:
            return None
        # With huge pages it is neither anonymous nor charged as memory; then
        # nothing of it is subtracted.
        guest_kb = min(sum(m.own_kb for m in ram), self.memory_kb)
        translated = sum(m.own_kb for m in mapped if m.executable)
        return Used(
            guest_kb=guest_kb,
            own_kb=sum(m.own_kb for m in mapped) - guest_kb - translated,
            kernel_kb=kernel_kb(proc, self.pid),
            translated_kb=translated,
            helpers_kb=sum(process_kb(proc, pid) for pid in self.helpers))

    def _ram(self, mapped):
        """The mappings that are the guest's memory; none if in doubt.

        It is one mapping, or one for each of its NUMA cells.
        """
        if not self.memory_kb:
            return []
        data = [m for m in mapped if m.writable and not m.executable]
        whole = [m for m in data if m.size_kb >= self.memory_kb]
        if whole:
            return [max(whole, key=lambda m: m.own_kb)]
        found = []
        for each in sorted(data, key=lambda m: m.size_kb, reverse=True):
            if each.size_kb <= PIECE_KB:
                break
            found.append(each)
            if sum(m.size_kb for m in found) >= self.memory_kb:
                return found
        return []


def _fields(text):
    """Fields in KiB of 'Name:   123 kB' lines."""
    fields = {}
    for line in text.splitlines():
        name, _, value = line.partition(':')
        if value.endswith(' kB'):
            fields[name] = int(value[:-3])
    return fields


def _read(proc, pid, name):
    return pathlib.Path(proc, str(pid), name).read_text(errors='replace')


def mappings(proc, pid):
    """Return the mappings of a process.

    :raises OSError: when it has ended, or may not be read
    """
    found, heading, lines = [], None, []

    def end():
        if heading:
            found.append(_mapping(heading, _fields('\n'.join(lines))))
    for line in _read(proc, pid, 'smaps').splitlines():
        match = _MAPPING.fullmatch(line)
        if match:
            end()
            heading, lines = match, []
        else:
            lines.append(line)
    end()
    return found


def _mapping(heading, fields):
    permissions, name = heading.groups()
    # A private mapping of a file holds page cache and anonymous copies; a
    # shared one of no real file is memory throughout.
    shared_memory = permissions[3] == 's' and (
        not name or name.startswith(('/dev/shm/', '/dev/zero', '/memfd:',
                                     '/SYSV', '/run/', '/tmp/')))
    anonymous = fields.get('Anonymous', 0)
    return Mapping(
        size_kb=fields.get('Size', 0),
        own_kb=(fields.get('Rss', 0) if shared_memory else anonymous) +
        fields.get('Swap', 0),
        resident_kb=fields.get('Rss', 0),
        executable='x' in permissions and not name.startswith('/usr'),
        writable='w' in permissions,
        name=name)


def kernel_kb(proc, pid):
    """Return what the kernel keeps for a process, as far as it tells."""
    text = _read(proc, pid, 'status')
    threads = re.search(r'^Threads:\s*(\d+)', text, re.MULTILINE)
    # The stack of a thread in the kernel has 16 KiB on the architectures
    # that Nova runs on.
    return (_fields(text).get('VmPTE', 0) +
            16 * (int(threads.group(1)) if threads else 1))


def process_kb(proc, pid):
    """Return what a process uses, page cache apart; 0 when it has ended.

    Shared memory counts in each process that maps it: rather too much than
    too little.
    """
    try:
        fields = _fields(_read(proc, pid, 'status'))
    except OSError:
        return 0
    return (fields.get('RssAnon', 0) + fields.get('RssShmem', 0) +
            fields.get('VmSwap', 0) + fields.get('VmPTE', 0))


def _command(proc, pid):
    try:
        return pathlib.Path(proc, str(pid), 'cmdline').read_bytes()
    except OSError:
        return b''


def _memory_kb(command):
    """The guest's memory: '-m 512' or '-m size=524288k'."""
    match = re.search(rb'\0-m\0(?:size=)?(\d+)([kmgMGK]?)', command)
    if not match:
        return 0
    unit = {b'k': 1, b'g': 1 << 20}.get(match.group(2).lower(), 1 << 10)
    return int(match.group(1)) * unit


def pids(proc='/proc'):
    """Return the PID of each guest that can be seen, by UUID."""
    return {uuid: guest.pid for uuid, guest in guests(proc).items()}


def guests(proc='/proc', pids=None):
    """Return the Process of each guest that can be seen, by UUID.

    Those whose processes are in another PID namespace cannot be.

    :param pids: as text, the processes to look among; None for all
    """
    found, helpers = {}, {}
    for entry in os.listdir(proc) if pids is None else pids:
        if not entry.isdigit():
            continue
        command = _command(proc, entry)
        if b'qemu' in command.partition(b'\0')[0]:
            match = _UUID.search(command)
            if match:
                name = match.group(1).decode()
                found[name] = Process(name, int(entry), _memory_kb(command))
        elif os.path.basename(command.partition(b'\0')[0]) == b'swtpm':
            helpers[int(entry)] = command
    for name, guest in found.items():
        # libvirt keeps a TPM's state in a folder called after the guest.
        mine = tuple(pid for pid, command in helpers.items()
                     if name.encode() in command)
        if mine:
            found[name] = dataclasses.replace(guest, helpers=mine)
    return found
