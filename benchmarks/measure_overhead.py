#!/usr/bin/env python3
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

"""Measure what a QEMU guest costs beyond its memory.

Starts real guests through libvirt (qemu:///embed, no daemon), in the shape
that Nova's driver gives them. Each boots a small Linux that fills all of its
memory, writes and reads all its disks, sends over all its network cards, and
says so on its console. Then the memory of QEMU is read, the guest's own
memory apart, and held against the estimate of nova_k8s.accounting.overhead.

Runs as root on Debian, where it fetches a kernel and busybox with apt-get and
installs neither. Elsewhere: --kernel, --modules and --busybox.

With TCG, code that QEMU translated lies in memory too. KVM translates
nothing; it is shown in a column of its own and is no part of the overhead.
"""

import argparse
import dataclasses
import gzip
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid

import libvirt

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from nova_k8s.accounting import overhead  # noqa: E402
from nova_k8s.accounting import usage  # noqa: E402

MIB = 1024 * 1024

# What the guest's kernel has as modules.
MODULES = ('virtio_pci', 'virtio_blk', 'virtio_net', 'virtio_balloon',
           'virtio_gpu')

DONE = 'everything-was-touched'

# Memory the guest keeps free of the file that fills it, in MiB.
SPARE = 24

INIT = f"""\
#!/bin/busybox sh
b=/bin/busybox
for d in /proc /sys /dev /fill; do $b mkdir -p $d; done
$b mount -t proc none /proc
$b mount -t sysfs none /sys
$b mount -t devtmpfs none /dev
while read -r m; do $b insmod /modules/$m.ko; done < /modules/order
$b sleep 2
if [ -e /dev/fb0 ]; then
    for n in 1 2 3; do
        $b dd if=/dev/urandom of=/dev/fb0 bs=64k 2>/dev/null
    done
fi
n=0
for i in /sys/class/net/eth*; do
    i=${{i##*/}}
    n=$((n + 1))
    $b ip link set $i up
    $b ip address add 10.0.2.$((14 + n))/24 dev $i
    $b dd if=/dev/zero bs=1024 count=20000 2>/dev/null |
        $b nc -u -w 1 10.0.2.2 9
    $b ip address flush dev $i
done
for d in /dev/vd?; do
    $b dd if=/dev/zero of=$d bs=1M count=128 2>&1
    $b dd if=$d of=/dev/null bs=64k count=2048 2>&1
done
$b sync
echo 3 > /proc/sys/vm/drop_caches
free=$($b awk '/^MemAvailable/ {{print int($2 / 1024) - {SPARE}}}' \
/proc/meminfo)
$b mount -t tmpfs -o size=100% none /fill
$b dd if=/dev/zero of=/fill/all bs=1M count=$free 2>&1
for d in /dev/vd?; do
    $b dd if=/dev/zero of=$d bs=4k count=256 oflag=direct 2>&1
done
echo {DONE} > /dev/console
while true; do $b sleep 1000; done
"""


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of guest to measure."""

    name: str
    memory_mb: int = 512
    vcpus: int = 1
    disks: int = 1
    nics: int = 1
    graphics: bool = True
    uefi: bool = False
    vtpm: bool = False
    machine: str = 'pc'
    looked_at: bool = False
    """A VNC client is connected while the guest runs."""

    def guest(self):
        return overhead.Guest(
            memory_mb=self.memory_mb, vcpus=self.vcpus,
            graphics=self.graphics, uefi=self.uefi, vtpm=self.vtpm)


KINDS = (
    Kind('small'),
    Kind('no graphics', graphics=False),
    Kind('2 vCPUs', vcpus=2),
    Kind('4 vCPUs', vcpus=4),
    Kind('8 vCPUs', vcpus=8),
    Kind('1 GiB', memory_mb=1024),
    Kind('2 GiB', memory_mb=2048, vcpus=2),
    Kind('4 GiB', memory_mb=4096, vcpus=2),
    Kind('4 disks, 4 NICs', disks=4, nics=4),
    Kind('UEFI', uefi=True, machine='q35'),
    Kind('UEFI, vTPM', uefi=True, vtpm=True, machine='q35'),
    Kind('VNC client', looked_at=True),
)


def fetched(directory):
    """Fetch kernel and busybox; return what --kernel and so on would say."""
    packages = ['busybox-static']
    depends = run('apt-cache', 'depends', 'linux-image-amd64')
    packages += re.findall(r'Depends: (linux-image-\S+)', depends)[:1]
    subprocess.run(['apt-get', 'download', '-qq', *packages], cwd=directory,
                   check=True)
    for package in directory.glob('*.deb'):
        run('dpkg', '-x', str(package), str(directory))
    kernel, = directory.glob('boot/vmlinuz-*')
    modules, = directory.glob('lib/modules/*')
    return kernel, modules, directory / 'bin' / 'busybox'


def run(*command):
    return subprocess.run(command, check=True, text=True,
                          stdout=subprocess.PIPE).stdout


def in_order(files):
    """Return the modules to load, each after what it depends on.

    :param files: by name, all that there are
    """
    order = {}

    def add(name):
        if name not in files or name in order:
            return
        depends = re.search(rb'\0depends=([^\0]*)\0',
                            files[name].read_bytes()).group(1).decode()
        for other in filter(None, depends.split(',')):
            add(other.replace('-', '_'))
        order[name] = files[name]
    for name in MODULES:
        add(name)
    return order


def initramfs(directory, modules, busybox):
    """Make the guest's system; return its path."""
    tree = directory / 'initramfs'
    for name in ('bin', 'modules', 'dev'):
        (tree / name).mkdir(parents=True)
    shutil.copy(busybox, tree / 'bin' / 'busybox')
    order = in_order({path.stem.replace('-', '_'): path
                      for path in modules.rglob('*.ko')})
    for name, path in order.items():
        shutil.copy(path, tree / 'modules' / f'{name}.ko')
    (tree / 'modules' / 'order').write_text(''.join(
        f'{name}\n' for name in order))
    (tree / 'init').write_text(INIT)
    (tree / 'init').chmod(0o755)
    names = '\n'.join(str(path.relative_to(tree))
                      for path in sorted(tree.rglob('*')))
    archive = subprocess.run(
        [str(busybox), 'cpio', '-o', '-H', 'newc'], cwd=tree, check=True,
        input=names.encode(), stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL).stdout
    path = directory / 'initramfs.gz'
    path.write_bytes(gzip.compress(archive, 1))
    return path


def domain(kind, name, directory, kernel, initrd):
    """The guest's XML, in the shape that Nova's driver gives it."""
    disks = ''
    for i in range(kind.disks):
        path = directory / f'{name}-{i}.raw'
        with open(path, 'wb') as disk:
            disk.truncate(256 * MIB)
        disks += f"""
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw' cache='writeback'/>
      <source file='{path}'/>
      <target dev='vd{chr(ord("a") + i)}' bus='virtio'/>
    </disk>"""
    nics = """
    <interface type='user'>
      <model type='virtio'/>
    </interface>""" * kind.nics
    graphics = """
    <graphics type='vnc' autoport='yes' listen='127.0.0.1'/>
    <input type='tablet' bus='usb'/>
    <video><model type='virtio'/></video>""" if kind.graphics else """
    <video><model type='none'/></video>"""
    tpm = """
    <tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>
""" if kind.vtpm else ''
    loader = """
    <loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd\
</loader>
    <nvram template='/usr/share/OVMF/OVMF_VARS_4M.fd'/>""" if (
        kind.uefi) else ''
    return f"""
<domain type='qemu'>
  <name>{name}</name>
  <uuid>{uuid.uuid4()}</uuid>
  <memory unit='MiB'>{kind.memory_mb}</memory>
  <vcpu>{kind.vcpus}</vcpu>
  <sysinfo type='smbios'/>
  <os>
    <type arch='x86_64' machine='{kind.machine}'>hvm</type>{loader}
    <kernel>{kernel}</kernel>
    <initrd>{initrd}</initrd>
    <cmdline>console=ttyS0 panic=-1 rdinit=/init quiet</cmdline>
  </os>
  <features><acpi/><apic/></features>
  <clock offset='utc'/>
  <devices>{disks}{nics}
    <serial type='pty'>
      <log file='{directory}/{name}.log' append='off'/>
    </serial>{graphics}{tpm}
    <memballoon model='virtio'><stats period='10'/></memballoon>
    <rng model='virtio'>
      <backend model='random'>/dev/urandom</backend>
    </rng>
  </devices>
</domain>"""


class Guest:
    """A running guest of some kind."""

    def __init__(self, connection, kind, number, directory, kernel, initrd):
        self._directory = directory
        self._name = f'guest{number}'
        self.kind = kind
        self._domain = connection.createXML(
            domain(kind, self._name, directory, kernel, initrd))
        self.uuid = self._domain.UUIDString()

    def wait(self, timeout):
        """Wait until it has touched everything."""
        if self.kind.looked_at:
            threading.Thread(target=look, args=(self._domain,),
                             daemon=True).start()
        log = self._directory / f'{self._name}.log'
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if log.exists() and DONE in log.read_text(errors='replace'):
                time.sleep(5)
                return
            time.sleep(1)
        tail = log.read_text(errors='replace')[-2000:] if log.exists() else ''
        raise SystemExit(f'{self.kind.name}: not done in {timeout} s\n{tail}')

    def end(self):
        self._domain.destroy()
        for path in self._directory.glob(f'{self._name}*'):
            path.unlink()


def look(guest):
    """Be a VNC client that asks for the whole screen all the time."""
    import socket
    port = re.search(r"type='vnc' port='(\d+)'", guest.XMLDesc()).group(1)
    with socket.create_connection(('127.0.0.1', int(port))) as client:
        client.recv(12)
        client.sendall(b'RFB 003.008\n')
        client.recv(16)
        client.sendall(b'\x01')
        client.recv(4)
        client.sendall(b'\x01')
        client.recv(1024)
        client.settimeout(1)
        while True:
            try:
                client.sendall(b'\x03\x00\x00\x00\x00\x00\xff\xff\xff\xff')
                client.recv(1 << 20)
            except TimeoutError:
                pass
            except OSError:
                return


def connect(root):
    """Open libvirt's QEMU driver inside this process."""
    (root / 'etc').mkdir()
    (root / 'etc' / 'qemu.conf').write_text(
        'security_driver = "none"\nstdio_handler = "file"\nmax_core = 0\n'
        'cgroup_controllers = []\nuser = "root"\ngroup = "root"\n'
        'swtpm_user = "root"\nswtpm_group = "root"\n')
    libvirt.virEventRegisterDefaultImpl()

    def events():
        while True:
            libvirt.virEventRunDefaultImpl()
    threading.Thread(target=events, daemon=True).start()
    return libvirt.open(f'qemu:///embed?root={root}')


def row(kind, used):
    """What is shown of one kind of guest."""
    estimate = overhead.cost_mb(kind.guest())
    return {
        'kind': kind.name, 'memory_mb': kind.memory_mb, 'vcpus': kind.vcpus,
        'resident_mb': used.guest_kb // 1024,
        'qemu_mb': round(used.own_kb / 1024, 1),
        'page_tables_mb': round(used.kernel_kb / 1024, 1),
        'vtpm_mb': round(used.helpers_kb / 1024, 1),
        'measured_mb': round(used.overhead_kb / 1024, 1),
        'estimate_mb': estimate,
        'translated_mb': round(used.translated_kb / 1024, 1),
    }


def show(rows):
    """Print a table in reST."""
    heading = {
        'kind': 'Guest', 'memory_mb': 'Memory', 'vcpus': 'vCPUs',
        'resident_mb': 'touched', 'qemu_mb': 'QEMU',
        'page_tables_mb': 'kernel', 'vtpm_mb': 'vTPM',
        'measured_mb': 'measured', 'estimate_mb': 'estimate',
        'translated_mb': '(TCG)'}
    lines = [heading] + [{k: str(v) for k, v in r.items()} for r in rows]
    widths = {k: max(len(line[k]) for line in lines) for k in heading}
    rule = '  '.join('=' * width for width in widths.values())
    print(rule)
    for i, line in enumerate(lines):
        print('  '.join(line[k].ljust(width)
                        for k, width in widths.items()).rstrip())
        if not i:
            print(rule)
    print(rule)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--kernel', type=pathlib.Path)
    parser.add_argument('--modules', type=pathlib.Path,
                        help='folder with the modules of that kernel')
    parser.add_argument('--busybox', type=pathlib.Path,
                        help='a busybox that is linked statically')
    parser.add_argument('--kind', action='append',
                        help='measure this kind only; may be repeated')
    parser.add_argument('--timeout', type=int, default=600,
                        help='seconds for one guest')
    parser.add_argument('--json', type=pathlib.Path,
                        help='write the figures to this file as well')
    parser.add_argument('--smaps', action='store_true',
                        help='print the largest mappings of each guest')
    args = parser.parse_args()
    # A short path: sockets lie below it.
    with tempfile.TemporaryDirectory(prefix='measure-', dir='/tmp') as name:
        directory = pathlib.Path(name)
        kernel, modules, busybox = (
            (args.kernel, args.modules, args.busybox) if args.kernel
            else fetched(directory))
        initrd = initramfs(directory, modules, busybox)
        root = directory / 'root'
        root.mkdir()
        connection = connect(root)
        rows = []
        for number, kind in enumerate(KINDS):
            if args.kind and kind.name not in args.kind:
                continue
            print(f'measuring: {kind.name}', file=sys.stderr)
            guest = Guest(connection, kind, number, directory, kernel, initrd)
            try:
                guest.wait(args.timeout)
                used = usage.guests('/proc')[guest.uuid].used('/proc')
                if args.smaps:
                    pid = usage.guests('/proc')[guest.uuid].pid
                    for each in sorted(usage.mappings('/proc', pid),
                                       key=lambda m: -m.own_kb)[:14]:
                        print(each, file=sys.stderr)
                rows.append(row(kind, used))
                print(rows[-1], file=sys.stderr)
            finally:
                guest.end()
        show(rows)
        if args.json:
            args.json.write_text(json.dumps(rows, indent=1))
    # libvirt's threads never end.
    sys.stdout.flush()
    os._exit(0)


if __name__ == '__main__':
    main()
