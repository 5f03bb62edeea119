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

"""What needs more rights, through a real privsep helper."""

import json
import os
import subprocess
import sys

import fixtures
import testtools

# Starts the helper of a context as root would, and becomes somebody; says what
# was found.
SHARED = '''
import dataclasses, json, os, pathlib, sys
from oslo_config import cfg
from oslo_privsep import priv_context


def begin(context):
    cfg.CONF([])
    context.start(priv_context.Method.FORK)
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)


def end(result):
    # The helper's capabilities, as the kernel tells them.
    for pid in os.listdir('/proc'):
        try:
            with open(f'/proc/{pid}/status') as f:
                status = dict(line.split(':', 1) for line in f if ':' in line)
        except OSError:
            continue
        if pid.isdigit() and int(status['PPid']) == os.getpid():
            result['capabilities'] = [status[name].strip()
                                      for name in ('CapEff', 'CapPrm')]
    print(json.dumps(result), flush=True)
    os._exit(0)

'''

# Looks at a process of root that plays QEMU.
LOOK = '''
from nova_k8s.accounting import privileged
from nova_k8s.accounting import usage

begin(privileged.guests_pctxt)
process = usage.Process('u', int(sys.argv[1]), 65536)
result = {'mode': privileged.guests_pctxt.client_mode}
try:
    process.used()
    result['direct'] = 'allowed'
except PermissionError:
    result['direct'] = 'denied'
result['used'] = dataclasses.asdict(privileged.used(process))
try:
    privileged.used(usage.Process('u', 4194305, 65536))
except FileNotFoundError:
    result['ended'] = True
end(result)
'''

# 64 MiB for the guest, of which 8 are touched.
GUEST = '''
import mmap, sys
memory = mmap.mmap(-1, 64 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for page in range(0, 8 << 20, 4096):
    memory[page] = 1
print('ready', flush=True)
sys.stdin.read()
'''

CAP_SYS_PTRACE = 19

# Writes to files that are root's, as those of a cgroup are.
LIMIT = '''
from nova_k8s.confinement import guest_slice
from nova_k8s.confinement import privileged
from nova_k8s import errors

begin(privileged.slice_pctxt)
folder = sys.argv[1]
result = {}
try:
    privileged.write(folder, {'memory.max': '1'})
    result['direct'] = 'allowed'
except PermissionError:
    result['direct'] = 'denied'
privileged.write_limits(folder, None, guest_slice.Limits(8 << 30, 2500))
result['files'] = [pathlib.Path(folder, name).read_text()
                   for name in ('memory.max', 'cpu.max', 'cgroup.procs')]
try:
    privileged._write(folder, {'cgroup.procs': '1'})
except ValueError:
    result['else'] = 'refused'
try:
    privileged.write_limits(folder + '/gone', None, guest_slice.Limits())
except errors.NotYet as exc:
    result['gone'] = str(exc)
end(result)
'''


class PrivilegedTest(testtools.TestCase):

    def setUp(self):
        super().setUp()
        if os.geteuid():
            self.skipTest('Only root starts a privsep helper without sudo.')

    def ask(self, script, argument):
        """Return what a script finds as somebody, with a helper of root."""
        done = subprocess.run(
            [sys.executable, '-c', SHARED + script, argument], text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, timeout=120)
        self.assertEqual(0, done.returncode, done.stderr)
        return json.loads(done.stdout.splitlines()[-1])

    def test_another_users_process(self):
        guest = subprocess.Popen(
            [sys.executable, '-I', '-S', '-c', GUEST], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(guest.wait)
        self.addCleanup(guest.stdin.close)
        self.addCleanup(guest.stdout.close)
        self.assertEqual('ready\n', guest.stdout.readline())
        found = self.ask(LOOK, str(guest.pid))
        self.assertEqual((True, 'denied', True), (
            found['mode'], found['direct'], found['ended']))
        self.assertEqual(8192, found['used']['guest_kb'])
        self.assertGreater(found['used']['own_kb'], 0)
        self.assertEqual(1 << CAP_SYS_PTRACE,
                         int(found['capabilities'][0], 16))

    def test_limits_of_a_cgroup(self):
        folder = self.useFixture(fixtures.TempDir()).path
        for name in ('cgroup.controllers', 'memory.max', 'cpu.max',
                     'cgroup.procs'):
            path = os.path.join(folder, name)
            with open(path, 'w', encoding='utf-8') as f:
                f.write('max')
            os.chmod(path, 0o644)
        os.chmod(folder, 0o755)
        found = self.ask(LIMIT, folder)
        self.assertIn('is no cgroup', found.pop('gone'))
        self.assertEqual({
            'direct': 'denied', 'else': 'refused',
            'files': [str(8 << 30), '250000 100000', 'max'],
            # Being root is enough.
            'capabilities': ['0' * 16] * 2}, found)
