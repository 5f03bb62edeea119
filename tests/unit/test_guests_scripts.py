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

"""The scripts of the guests' pod and of libvirt's, on a tree of files.

What the kernel and the kubelet make of it: tests/node.
"""

import contextlib
import json
import os
import pathlib
import shlex
import signal
import subprocess

import fixtures
import testtools

from tests import waiting

BASE = pathlib.Path(__file__).resolve().parents[2] / 'etc/kubernetes/base'
UID = '5ba009c0-0000-4000-8000-61fee2426666'
OTHER = '99f94f90-0000-4000-8000-124df61feec6'
# Names of a pod's cgroup below the root, by the kubelet's cgroup driver.
LAYOUTS = {
    'cgroupfs': lambda uid: 'kubepods/pod' + uid,
    'cgroupfs, burstable': lambda uid: 'kubepods/burstable/pod' + uid,
    'systemd': lambda uid: 'kubepods.slice/kubepods-pod%s.slice'
    % uid.replace('-', '_'),
    'systemd, nested': lambda uid:
    'kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/'
    'kubelet-kubepods-burstable-pod%s.slice' % uid.replace('-', '_'),
}


class ScriptTestCase(testtools.TestCase):

    def setUp(self):
        super().setUp()
        root = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.tree = root / 'cgroup'
        self.tree.mkdir()
        self.record = root / 'guests-pod.json'

    def pod(self, uid=UID, layout='systemd'):
        path = self.tree / LAYOUTS[layout](uid)
        path.mkdir(parents=True)
        return path

    def fill(self, path, populated=1):
        path.mkdir(parents=True, exist_ok=True)
        (path / 'cgroup.events').write_text(
            'populated %d\nfrozen 0\n' % populated)


class HolderTest(ScriptTestCase):

    def start(self):
        process = subprocess.Popen(
            ['/bin/sh', str(BASE / 'guests.sh')], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
            env={**os.environ, 'NODE_CGROUP': str(self.tree),
                 'POD_UID': UID, 'INTERVAL': '0.05'})
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(self._end, process)
        # Until it has its trap, a signal would end it.
        waiting.until(lambda: self._catches(process.pid, signal.SIGTERM),
                      interval=0.01)
        return process

    @staticmethod
    def _end(process):
        # And what it waits for, which would outlive it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    @staticmethod
    def _catches(pid, number):
        status = pathlib.Path('/proc/%d/status' % pid).read_text()
        caught = status.partition('SigCgt:')[2].split()[0]
        return int(caught, 16) >> (number - 1) & 1

    def assertStays(self, process):
        self.assertRaises(subprocess.TimeoutExpired, process.wait, 0.7)

    def test_without_guests(self):
        for layout in LAYOUTS:
            self.tree = self.tree / layout.replace(' ', '')
            pod = self.pod(layout=layout)
            self.fill(pod / 'guests' / 'libvirtd')
            self.fill(pod / 'guests' / 'machine', populated=0)
            process = self.start()
            self.assertStays(process)
            process.terminate()
            self.assertEqual(0, process.wait(waiting.PATIENCE))
            self.assertIn('no guest is left', process.stderr.read())

    def test_without_libvirt(self):
        self.pod()
        process = self.start()
        process.terminate()
        self.assertEqual(0, process.wait(waiting.PATIENCE))

    def test_a_signal_before_it_waits(self):
        """None goes unnoticed, whenever it comes."""
        self.pod()
        for _each in range(15):
            process = self.start()
            process.terminate()
            self.assertEqual(0, process.wait(waiting.PATIENCE))

    def test_until_the_last_one_is_gone(self):
        pod = self.pod()
        self.fill(pod / 'guests' / 'machine')
        process = self.start()
        process.terminate()
        self.assertStays(process)
        # Told again it stays as well.
        process.terminate()
        self.assertStays(process)
        self.fill(pod / 'guests' / 'machine', populated=0)
        self.assertEqual(0, process.wait(waiting.PATIENCE))
        self.assertIn('waiting for its guests', process.stderr.read())

    def test_another_folder_is_a_guest_too(self):
        self.fill(self.pod() / 'guests' / 'machine.slice')
        process = self.start()
        process.terminate()
        self.assertStays(process)

    def test_what_cannot_be_seen_may_be_a_guest(self):
        self.pod(OTHER)
        process = self.start()
        process.terminate()
        self.assertStays(process)
        self._end(process)
        self.assertIn('cannot be seen', process.stderr.read())


class LibvirtTest(ScriptTestCase):

    def guests_cgroup(self):
        """Where libvirt.sh would have guests born, below the tree."""
        done = subprocess.run(
            ['bash', '-c', '. %s --functions; tree=%s; guests_cgroup' % (
                shlex.quote(str(BASE / 'libvirt.sh')),
                shlex.quote(str(self.tree)))],
            env={**os.environ, 'RECORD': str(self.record)},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
            check=True)
        path = done.stdout.strip()
        return os.path.relpath(path, self.tree) if path else None

    def publish(self, uid):
        # As json.dumps() writes it, and indented.
        for indent in None, 2:
            self.record.write_text(json.dumps(
                {'uid': uid, 'name': 'guests-node1',
                 'namespace': 'openstack'}, indent=indent))
            yield

    def test_nothing_is_known(self):
        self.pod()
        self.assertIsNone(self.guests_cgroup())
        self.record.write_text('')
        self.assertIsNone(self.guests_cgroup())

    def test_the_pod_has_no_cgroup_yet(self):
        self.pod(OTHER)
        for _each in self.publish(UID):
            self.assertIsNone(self.guests_cgroup())

    def test_the_recorded_pod(self):
        for layout in LAYOUTS:
            self.tree = self.tree / layout.replace(' ', '')
            self.pod(layout=layout)
            self.pod(OTHER, layout)
            for _each in self.publish(UID):
                self.assertEqual(LAYOUTS[layout](UID) + '/guests',
                                 self.guests_cgroup())

    def test_guests_of_another_pod_are_not_left(self):
        # It was deleted by force; libvirtd would end what it cannot see.
        old, new = self.pod(OTHER), self.pod()
        self.fill(old / 'guests' / 'machine')
        self.fill(new / 'guests' / 'machine', populated=0)
        for _each in self.publish(UID):
            self.assertEqual(LAYOUTS['systemd'](OTHER) + '/guests',
                             self.guests_cgroup())
        self.fill(old / 'guests' / 'machine', populated=0)
        self.assertEqual(LAYOUTS['systemd'](UID) + '/guests',
                         self.guests_cgroup())

    def test_a_container_may_have_such_a_folder(self):
        self.fill(self.pod(OTHER, 'cgroupfs') / '4f3c' / 'guests' / 'machine')
        self.assertIsNone(self.guests_cgroup())

    def test_guests_while_the_record_is_gone(self):
        # /run is new after a reboot, and so are all cgroups; this is somebody
        # who removed the file.
        for layout in LAYOUTS:
            self.tree = self.tree / layout.replace(' ', '')
            self.fill(self.pod(layout=layout) / 'guests' / 'machine')
            self.assertEqual(LAYOUTS[layout](UID) + '/guests',
                             self.guests_cgroup())


class ConfinementTest(ScriptTestCase):

    ID = '3f' * 32

    def setUp(self):
        super().setUp()
        self.tell(self.ID)

    def tell(self, container, indent=None):
        self.record.write_text(json.dumps(
            {'uid': UID, 'name': 'guests-node1', 'namespace': 'openstack',
             'container': container}, indent=indent))

    def group(self, folder, cpus, mems='0'):
        folder.mkdir(exist_ok=True)
        (folder / 'cpuset.cpus.effective').write_text(cpus + '\n')
        (folder / 'cpuset.mems.effective').write_text(mems + '\n')

    def guests(self, pod):
        folder = pod / 'guests'
        folder.mkdir(exist_ok=True)
        for name in ('cpuset.cpus', 'cpuset.mems'):
            (folder / name).touch()
        return folder

    def script(self, command, **options):
        return subprocess.Popen(
            ['bash', '-c', '. %s --functions; %s' % (
                shlex.quote(str(BASE / 'libvirt.sh')), command)],
            env={**os.environ, 'RECORD': str(self.record)},
            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            **options)

    def confine(self, guests):
        """Return (CPUs, memory nodes, what was said)."""
        process = self.script(f'confine {shlex.quote(str(guests))}')
        said = process.communicate(timeout=20)[1]
        self.assertEqual(0, process.returncode, said)
        return (*((guests / name).read_text().strip()
                  for name in ('cpuset.cpus', 'cpuset.mems')), said)

    def test_what_the_container_has(self):
        for name in (self.ID, f'cri-containerd-{self.ID}.scope',
                     f'crio-{self.ID}.scope'):
            self.tree = self.tree / name
            pod = self.pod()
            # The pause container has all.
            self.group(pod / ('7a' * 32), '0-7', '0-1')
            self.group(pod / name, '2-3,6', '1')
            guests = self.guests(pod)
            cpus, mems, said = self.confine(guests)
            self.assertEqual(('2-3,6', '1'), (cpus, mems))
            self.assertIn('cpuset.cpus 2-3,6, before: all', said)
            # Once.
            self.assertEqual(('2-3,6', '1', ''), self.confine(guests))
            self.group(pod / name, '2', '1')
            self.assertIn('before: 2-3,6', self.confine(guests)[2])

    def test_what_is_not_known_changes_nothing(self):
        pod = self.pod()
        guests = self.guests(pod)
        self.group(pod / self.ID, '1-3')
        self.confine(guests)
        # On its way out; another one, which is not there yet; a driver that
        # does not tell; no record.
        self.group(pod / self.ID, '', '')
        self.assertEqual(('1-3', '0', ''), self.confine(guests))
        self.group(pod / self.ID, '5')
        for container in ('aa' * 32, ''):
            self.tell(container)
            self.assertEqual(('1-3', '0', ''), self.confine(guests))
        self.record.write_text('{"uid": "a"}')
        self.assertEqual(('1-3', '0', ''), self.confine(guests))
        self.record.unlink()
        self.assertEqual(('1-3', '0', ''), self.confine(guests))
        self.tell(self.ID, indent=2)
        self.assertEqual('5', self.confine(guests)[0])

    def test_it_follows(self):
        pod = self.pod()
        guests = self.guests(pod)
        self.group(pod / self.ID, '0-3')
        process = self.script(
            f'keep_confined {shlex.quote(str(guests))}')
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        for cpus in ('0-3', '1-2'):
            self.group(pod / self.ID, cpus)
            waiting.until(
                lambda cpus=cpus: (guests / 'cpuset.cpus').read_text().strip()
                == cpus, interval=0.01)
