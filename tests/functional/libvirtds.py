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

"""Several libvirtd on this machine, as several nodes would have them.

Each has mounts of its own, and in them /etc, /var and /run of its own. It is
started by the manifests' libvirtd.sh, with their configuration. Guests are
QEMU processes under TCG, in no cgroups of their own, as in the overlay
sidecar: this machine's may be anything.
"""

import atexit
import functools
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import uuid

from oslo_utils import importutils

from tests.functional import real_libvirt
from tests import waiting

libvirt = real_libvirt.libvirt
libvirt_qemu = importutils.try_import('libvirt_qemu')

TOP = pathlib.Path(__file__).resolve().parents[2]
BASE = TOP / 'etc' / 'kubernetes' / 'base'
SIDECAR = TOP / 'etc' / 'kubernetes' / 'overlays' / 'sidecar'

# Of two nodes, and of nobody else: other tests run beside this.
ADDRESSES = tuple(f'127.{1 + os.getpid() // 250 % 250}.'
                  f'{os.getpid() % 250}.{each}' for each in (2, 3))

# Who is in the images (Containerfile).
PASSWD = '''\
nova:x:42424:42424::/var/lib/nova:/usr/sbin/nologin
qemu:x:42425:42425::/nonexistent:/usr/sbin/nologin
'''
GROUP = '''\
nova:x:42424:
qemu:x:42425:
'''
START = '''\
set -e
for each in etc var; do
    mount -t overlay overlay /$each -o \\
        lowerdir=/$each,upperdir=$ROOT/$each,workdir=$ROOT/work-$each
done
mount --bind $ROOT/run /run
# A socket of what lies below is another one in each overlay.
mkdir -p /etc/pki /var/cache/libvirt /var/lib/libvirt
mount --bind $ROOT/libvirt /var/lib/libvirt
mount --bind $ROOT/pki /etc/pki
mount --bind $CACHE /var/cache/libvirt
[ ! -e /dev/kvm ] || mount --bind $ROOT/kvm /dev/kvm
'''
# As libvirt.sh has it.
BASE_COMMAND = '''\
bash /etc/libvirt/libvirtd.sh --follow $$ restart &
exec bash /etc/libvirt/libvirtd.sh --followed
'''

# The boot sector of a guest that counts the ticks of its clock, 18 a second,
# from 0, and sleeps in between:
#     xor ax, ax; mov ds, ax; mov dword [0x600], 0; sti
#     sleep: hlt; inc dword [0x600]; jmp sleep
#
# It has one partition, without which Nova takes no disk of this kind.
COUNTER = (bytes.fromhex('31c08ed866c706000600000000fbf466ff060006ebf8').ljust(
    446, b'\0') + bytes.fromhex('80000200830003000100000001000000').ljust(
        64, b'\0') + b'\x55\xaa')
DISK = '/var/lib/nova/disk'
DOMAIN = '''\
<domain type='qemu'>
  <name>counter</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>{memory_mb}</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/><source file='{disk}'/>
      <target dev='hda' bus='ide'/>
    </disk>
    <memballoon model='none'/>
  </devices>
</domain>
'''


def missing():
    """What this machine lacks for it, or None."""
    reason = real_libvirt.missing()
    if reason:
        return reason
    if os.geteuid() != 0:
        return 'mounts of its own for a libvirtd take root'
    return real_libvirt.missing_program(('libvirtd', 'libvirt-daemon'),
                                        ('virt-admin', 'libvirt-clients'))


@functools.cache
def cache():
    """What QEMU can do: to ask it takes libvirtd most of a minute."""
    folder = tempfile.mkdtemp(prefix='libvirt-cache-')
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


class Node:
    """A node that has nothing but libvirtd.

    :ivar address: where it listens, if it does
    :ivar pki: the folder that is its /etc/pki
    """

    def __init__(self, root, address, libvirtd_conf=BASE / 'libvirtd.conf'):
        """Make its files; start() starts it.

        :param root: an empty folder, whose path is short
        """
        # What it has to say it also raises.
        libvirt.registerErrorHandler(lambda *args: None, None)
        self.root = pathlib.Path(root)
        self.address = address
        self.uri = f'qemu+unix:///system?socket={root}/run/libvirt/' \
            'libvirt-sock'
        self.pki = self.root / 'pki'
        self._process = self._connection = None
        for each in ('etc/libvirt', 'pki', 'run', 'libvirt', 'var/lib/nova',
                     'work-etc', 'work-var'):
            (self.root / each).mkdir(parents=True)
        # One that a guest cannot use has libvirt ask QEMU anew each time.
        (self.root / 'kvm').touch(0)
        etc = self.root / 'etc'
        for name, more in (('passwd', PASSWD), ('group', GROUP)):
            text = pathlib.Path('/etc', name).read_text()
            if name == 'group' and '\nkvm:' not in text:
                more += 'kvm:x:993:qemu\n'
            (etc / name).write_text(text + more)
        shutil.copy(BASE / 'libvirtd.sh', etc / 'libvirt')
        # In its own view of /dev, libvirt cannot move what is mounted in it.
        (etc / 'libvirt' / 'qemu.conf').write_text(
            (SIDECAR / 'qemu.conf').read_text() + 'namespaces = []\n')
        # Else all nodes would be one: the machine's.
        (etc / 'libvirt' / 'libvirtd.conf').write_text(
            libvirtd_conf.read_text() + f'host_uuid = "{uuid.uuid4()}"\n')

    def start(self, command=BASE_COMMAND):
        """Start libvirtd, and wait until it answers."""
        environment = {
            **os.environ, 'ROOT': str(self.root), 'CACHE': cache(),
            'LISTEN_ADDR': self.address, 'TMPDIR': '/run', 'INTERVAL': '1'}
        for name in ('XDG_RUNTIME_DIR', 'XDG_CACHE_HOME',
                     'LIBVIRT_LOG_OUTPUTS'):
            environment.pop(name, None)
        with open(self.root / 'log', 'ab') as log:
            self._process = subprocess.Popen(
                # It ends with whoever runs the test.
                ['setpriv', '--pdeathsig', 'TERM', 'unshare', '--mount', '--',
                 'bash', '-c', START + command],
                env=environment, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, start_new_session=True)
        waiting.until(self._answers, 'libvirtd starts')

    def _answers(self):
        if self._process.poll() is not None:
            raise AssertionError('libvirtd does not start: ' + self.log())
        try:
            self._connection = libvirt.open(self.uri)
        except libvirt.libvirtError:
            return False
        return True

    def log(self):
        """What libvirtd and its script have said."""
        return (self.root / 'log').read_text()

    @property
    def pid(self):
        """That of libvirtd."""
        return self._process.pid

    def connection(self):
        """A connection as nova-compute has it."""
        return self._connection

    def enter(self, *command):
        """Run a program in its mounts; what it says.

        :raises subprocess.CalledProcessError: where it fails
        """
        return subprocess.run(
            ['nsenter', '--target', str(self.pid), '--mount', '--', *command],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, check=True,
            timeout=60).stdout

    def stop(self):
        """Stop libvirtd; guests stay."""
        self._process.terminate()
        self.wait(30)

    def wait(self, timeout):
        """Wait until libvirtd has ended; its exit status."""
        status = self._process.wait(timeout)
        # Its follower.
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._connection = None
        return status

    def close(self):
        """End what there is of it."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self.stop()
        for file in (self.root / 'run' / 'libvirt' / 'qemu').glob('*.pid'):
            try:
                os.kill(int(file.read_text()), signal.SIGKILL)
            except (ProcessLookupError, ValueError):
                pass

    # Guests

    def make_disk(self, content=b''):
        """Make the disk of a guest, as Nova does before it comes."""
        self.enter('sh', '-c',
                   f'truncate --size=1M {DISK} && chmod 666 {DISK}')
        if content:
            path = self.root / 'run' / 'content'
            path.write_bytes(content)
            self.enter('dd', 'if=/run/content', f'of={DISK}', 'conv=notrunc')

    def boot(self, memory_mb=32):
        """Start the guest that counts; its libvirt domain."""
        self.make_disk(COUNTER)
        domain = self.connection().defineXML(DOMAIN.format(
            uuid=uuid.uuid4(), memory_mb=memory_mb, disk=DISK))
        domain.create()
        return domain


def count(domain):
    """How far the guest has counted."""
    # xp: a word of its memory. 'NNN: 0xVALUE'
    return int(libvirt_qemu.qemuMonitorCommand(
        domain, 'xp /1xw 0x600',
        libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP).split()[1], 16)
