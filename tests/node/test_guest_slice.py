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

"""[kubernetes] guest_slice on a real cgroup v2 kernel, and a real systemd.

Without a kubelet: guests outside of any pod are none of its business. What
runs in the VM is the driver's own code, below Nova.
"""

import json
import os
import sys

import testtools

from tests.functional import control_plane
from tests.node import machine

TOP = machine.TOP
MIB = 1 << 20

# Budgets come in, one a line: MiB, millicores, MiB and millicores that Nova
# has been told. What was done and what is offered goes out.
FOLLOWER = '''
import json, sys
from oslo_config import cfg
from nova_k8s.confinement import cgroup, guest_slice, holding
cfg.CONF([])
path, steps = sys.argv[1], json.loads(sys.argv[2])
goal = told = None
said = []
found = holding.Holding(holding.Cgroup(path, '/sys/fs/cgroup'))
found.connect(lambda: guest_slice.Limits(goal[0] << 20, goal[1]),
              lambda: (*told, True), lambda: None, dict,
              lambda line: said.append(line.text), lambda: None)
out = []
for *goal, memory_mb, millicores in steps:
    told = memory_mb, millicores
    found._step()
    seen = found._where.look()
    out.append({'own': [seen.own.memory_bytes, seen.own.cpu_millicores],
                'used': seen.used_bytes, 'cap': found.cap(),
                'said': said[:]})
    said.clear()
print(json.dumps(out))
'''

# Becomes a process of a cgroup, and holds this much memory.
HOG = '''
import sys, time
folder, size = sys.argv[1], int(sys.argv[2])
with open(folder + '/cgroup.procs', 'w') as f:
    f.write('0')
memory = [b'x' * (1 << 20) for _ in range(size)]
print('holds', flush=True)
time.sleep(3600)
'''


class GuestSliceTest(testtools.TestCase):

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        # One VM for all: no test changes what another one sees.
        holder = control_plane.reserve_port()
        cls.vm = machine.Machine('node1', holder.getsockname()[1],
                                 memory_mb=2048)
        holder.close()
        cls.vm.setUp()
        cls.vm.run('mkdir -p /run/test')
        cls.vm.write('/run/test/follower.py', FOLLOWER)
        cls.vm.write('/run/test/hog.py', HOG)

    @classmethod
    def tearDownClass(cls):
        cls.vm.cleanUp()
        super().tearDownClass()

    def follow(self, path, *steps):
        paths = os.pathsep.join([str(TOP), *filter(None, sys.path)])
        answer = self.vm.run(
            'PYTHONPATH=%s %s /run/test/follower.py %s \'%s\''
            % (paths, sys.executable, path, json.dumps(steps)), timeout=600)
        return json.loads(answer.splitlines()[-1])

    def start_hog(self, folder, size_mb):
        """Return the PID of a process that holds memory in a cgroup."""
        self.vm.run(
            'python3 -I /run/test/hog.py %s %d > /run/test/hog 2>&1 & '
            'echo $! > /run/test/pid; for i in $(seq 600); do '
            'grep -q holds /run/test/hog && break; '
            'kill -0 $(cat /run/test/pid) || break; sleep 0.1; done'
            % (folder, size_mb))
        pid = self.vm.read('/run/test/pid').strip()
        self.addCleanup(self.vm.run, 'kill -9 %s' % pid, check=False)
        return pid

    def alive(self, pid):
        return not self.vm.attempt('kill -0 ' + pid)[0]

    def check(self, path, folder):
        """All of it, in a cgroup that is there and has no limit."""
        # It is born with a limit; grows; shrinks once Nova has been told.
        found = self.follow(path, (512, 1500, 0, 0), (1024, 2000, 512, 1500),
                            (600, 1000, 1024, 2000), (600, 1000, 600, 1000))
        self.assertEqual([[512 * MIB, 1500], [1024 * MIB, 2000],
                          [1024 * MIB, 2000], [600 * MIB, 1000]],
                         [each['own'] for each in found])
        self.assertEqual([[512, 1500], [1024, 2000], [600, 1000],
                          [600, 1000]], [each['cap'] for each in found])
        self.assertEqual('100000 100000',
                         self.vm.read(folder + '/cpu.max').strip())
        # What is used stays, and lives.
        pid = self.start_hog(folder, 300)
        self.assertTrue(self.alive(pid), self.vm.read('/run/test/hog'))
        step, = self.follow(path, (256, 1000, 256, 1000))
        self.assertGreaterEqual(step['used'], 300 * MIB)
        self.assertGreaterEqual(step['own'][0], step['used'] + 128 * MIB)
        self.assertLess(step['own'][0], 600 * MIB)
        self.assertEqual([256, 1000], step['cap'])
        self.assertIn('guests use', step['said'][-1])
        self.assertTrue(self.alive(pid))
        # It leaves, and the cgroup follows.
        self.vm.run('kill -9 %s; while kill -0 %s 2> /dev/null; do '
                    'sleep 0.1; done' % (pid, pid))
        step, = self.follow(path, (256, 1000, 256, 1000))
        self.assertEqual([256 * MIB, 1000], step['own'])
        # One that is too greedy is ended by the kernel.
        pid = self.start_hog(folder, 400)
        self.assertFalse(self.alive(pid))
        self.assertIn('oom_kill 1', self.vm.read(
            folder + '/memory.events').splitlines())

    def test_slice_of_systemd(self):
        self.vm.run('systemctl start machine.slice')
        folder = '/sys/fs/cgroup/machine.slice'
        self.check('/machine.slice', folder)
        # What systemd was told it writes again, and nothing else.
        self.vm.run('echo max > %s/memory.max; systemctl daemon-reload' %
                    folder)
        step, = self.follow('/machine.slice', (256, 1000, 256, 1000))
        self.assertEqual([256 * MIB, 1000], step['own'])
        self.assertIn('MemoryMax=%d' % (256 * MIB), self.vm.run(
            'systemctl show machine.slice'))

    def test_cgroup_of_nobody(self):
        self.vm.run('echo +cpu +memory > /sys/fs/cgroup/cgroup.subtree_control'
                    '; mkdir /sys/fs/cgroup/machine')
        self.check('/machine', '/sys/fs/cgroup/machine')

    def test_refused(self):
        self.vm.run('mkdir -p /sys/fs/cgroup/a/kubepods')
        for path in ('/', '/system.slice', '/a', '/gone', '/gone.slice'):
            step = self.vm.attempt(
                'PYTHONPATH=%s %s /run/test/follower.py %s '
                '\'[[256, 1000, 0, 0]]\'' % (os.pathsep.join(
                    [str(TOP), *filter(None, sys.path)]), sys.executable,
                    path), timeout=600)
            # Whatever was asked, no limit was written.
            self.assertNotIn(str(256 * MIB), step[1], path)
        self.assertEqual('max', self.vm.read(
            '/sys/fs/cgroup/system.slice/memory.max').strip())
