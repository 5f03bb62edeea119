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

"""A small virtual machine without KVM, for a node of Kubernetes.

Its root file system is this machine's own, below a layer that
tools/kubernetes/build-node makes; what it writes is lost with it.
"""

import json
import os
import pathlib
import subprocess
import sys
import time
import urllib.request

import fixtures

from tests.functional import control_plane

TOP = pathlib.Path(__file__).resolve().parents[2]
BUILD = TOP / 'tools' / 'kubernetes' / 'build-node'
INIT = TOP / 'tests' / 'node' / 'vm' / 'init'

# How long a boot may take, in seconds: 20 on an idle machine.
BOOT_TIMEOUT = 300
# The address of this machine as the VM sees it, and its own.
MACHINE = '10.0.2.2'
ADDRESS = '10.0.2.15'
# Seconds that a script in the VM may take unless told otherwise.
SCRIPT_TIMEOUT = 120


class Failed(AssertionError):
    """A script in the VM failed; says what it wrote."""


def built():
    """Return the folder that the VM boots from.

    :raises unittest.SkipTest: where it is missing; in CI an AssertionError
    """
    check = subprocess.run([sys.executable, str(BUILD), '--check'],
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                           text=True)
    if check.returncode:
        control_plane.unavailable(
            'No VM for a node (%s); tools/kubernetes/build-node builds it.'
            % check.stderr.strip().rpartition('\n')[2])
    return pathlib.Path(check.stdout.strip())


class Machine(fixtures.Fixture):
    """The VM; its agent answers when it is set up.

    :ivar console: file with what its kernel and systemd say
    """

    def __init__(self, name, api_port, forwarded=(), memory_mb=4096, cpus=2,
                 kernel_arguments='', numa_nodes=1):
        """Describe a VM.

        :param name: its host name
        :param api_port: port of the API server on this machine's loopback
        :param forwarded: ports that are the VM's on this machine's loopback
        :param numa_nodes: among which its CPUs and memory are split evenly
        """
        super().__init__()
        self.name = name
        self._api_port = api_port
        self._ports = list(forwarded)
        self._memory_mb = memory_mb
        self._cpus = cpus
        self._arguments = kernel_arguments
        self._numa_nodes = numa_nodes

    def _setUp(self):
        folder = built()
        guard = self.useFixture(control_plane.Guard())
        self.console = os.path.join(guard.directory, 'console.log')
        holder = control_plane.reserve_port()
        self._agent_port = holder.getsockname()[1]
        holder.close()
        self._process = control_plane.Process('qemu', self._command(folder),
                                              guard)
        self._process.start()
        # Its file systems are read-only or end with it.
        self.addCleanup(self._process.kill)
        self._wait_for_agent()

    def _command(self, folder):
        ports = ['hostfwd=tcp:127.0.0.1:%d-:%d' % (port, port)
                 for port in [self._agent_port, *self._ports]]
        command = [
            # Below everything else that runs on this machine.
            'nice', 'qemu-system-x86_64', '-machine', 'q35',
            '-accel', 'tcg,thread=multi', '-cpu', 'max',
            '-m', str(self._memory_mb), '-smp', str(self._cpus),
            '-display', 'none', '-vga', 'none', '-monitor', 'none',
            '-no-reboot', '-serial', 'file:' + self.console,
            '-kernel', str(folder / 'vmlinuz'),
            '-initrd', str(folder / 'initrd'),
            '-append', 'console=ttyS0 quiet panic=-1 init_script=%s node=%s '
            'agent_port=%d api_port=%d %s' % (
                INIT, self.name, self._agent_port, self._api_port,
                self._arguments),
            '-netdev', ','.join(['user,id=net', *ports]),
            '-device', 'virtio-net-pci,netdev=net']
        if self._numa_nodes > 1:
            cpus = self._cpus // self._numa_nodes
            for each in range(self._numa_nodes):
                command += [
                    '-object', 'memory-backend-ram,id=memory%d,size=%dM' % (
                        each, self._memory_mb // self._numa_nodes),
                    '-numa', 'node,nodeid=%d,memdev=memory%d,cpus=%d-%d' % (
                        each, each, each * cpus, (each + 1) * cpus - 1)]
        for tag, path in (('machine', '/'), ('layer', folder / 'layer')):
            command += [
                '-fsdev', 'local,id=%s,path=%s,security_model=none,'
                'multidevs=remap,readonly=on' % (tag, path),
                '-device', 'virtio-9p-pci,fsdev=%s,mount_tag=%s' % (tag, tag)]
        return command

    def _wait_for_agent(self):
        deadline = time.monotonic() + BOOT_TIMEOUT
        while True:
            self._process.check()
            try:
                return self.run('true')
            except OSError as failure:
                if time.monotonic() > deadline:
                    raise Failed('The VM did not start in %d s (%s):\n%s' % (
                        BOOT_TIMEOUT, failure, self.console_tail()))
            time.sleep(0.2)

    def console_tail(self, lines=30):
        with open(self.console, errors='replace') as file:
            return ''.join(file.readlines()[-lines:])

    def run(self, script, stdin='', timeout=SCRIPT_TIMEOUT, check=True):
        """Run a shell script in the VM, as root.

        :param stdin: text
        :param timeout: in seconds; then it is killed
        :returns: what it wrote, both streams
        :raises Failed: where it fails and check is true
        :raises OSError: where the VM does not answer
        """
        status, output = self.attempt(script, stdin, timeout)
        if check and status:
            raise Failed('%s\nended with %d in the VM:\n%s'
                         % (script, status, output))
        return output

    def attempt(self, script, stdin='', timeout=SCRIPT_TIMEOUT):
        """Like run; return (exit status, output)."""
        request = urllib.request.Request(
            'http://127.0.0.1:%d/' % self._agent_port,
            json.dumps({'script': script, 'input': stdin,
                        'timeout': timeout}).encode())
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=timeout + 30) as answer:
            done = json.load(answer)
        return done['status'], done['output']

    def write(self, path, text, mode=0o644):
        """Write a file in the VM; a reader sees all of it or nothing."""
        self.run('mkdir -p "$(dirname {0})" && cat > {0}.new && '
                 'chmod {1:o} {0}.new && mv {0}.new {0}'.format(path, mode),
                 stdin=text)

    def read(self, path):
        return self.run('cat ' + path)
