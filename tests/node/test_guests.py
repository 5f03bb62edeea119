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

"""Guests below a pod of their own: held by its limits, and alive."""

import re
import textwrap
import time

from tests.node import guests
from tests.node import pods

MIB = 1 << 20


class GuestsTestCase(guests.StageTestCase):

    def stat(self, path, file, name):
        """Return a figure of a file like memory.stat of a cgroup."""
        found = re.search('^%s (.*)$' % name,
                          self.vm.read('%s/%s' % (path, file)), re.MULTILINE)
        return int(found.group(1))

    def assertGuest(self, name, pid):
        """Fail where a guest is not what it was: the same living process."""
        self.assertTrue(self.stage.alive(pid), '%s has ended' % name)
        self.assertIn(self.stage.cgroup() + '/guests/machine/',
                      self.stage.cgroup_of(pid))
        self.assertEqual(
            pid, self.vm.read('/run/libvirt/qemu/%s.pid' % name).strip())

    def evict(self):
        self.core.create_namespaced_pod_eviction(
            self.stage.guests_pod, self.stage.namespace, {
                'metadata': {'name': self.stage.guests_pod}})


class HeldTests:
    """The kernel holds guests to the limits of the guests' pod."""

    def test_birth(self):
        cgroup = self.stage.cgroup()
        libvirt = self.pods.cgroup(self.stage.libvirt_pod().metadata.uid)
        before = [self.stat(path, 'memory.stat', 'anon')
                  for path in (cgroup, libvirt)]
        pid = self.stage.start_guest('one', memory_mb=96, touched_mb=96)
        # When QEMU's first instruction ran, as its namespace shows it.
        birth = self.vm.read(guests.BIRTHS).splitlines()[-1]
        found = re.fullmatch(
            '0::(/machine/qemu-[0-9]+-one.libvirt-qemu)/.*', birth)
        self.assertIsNotNone(found, birth)
        own = cgroup + '/guests' + found.group(1)
        self.assertIn(own + '/', self.stage.cgroup_of(pid))
        pods.wait_for(
            lambda: self.stat(own, 'memory.stat', 'anon') > 96 * MIB,
            'memory charged to the guest')
        self.assertGreater(self.stat(cgroup, 'memory.stat', 'anon'),
                           before[0] + 96 * MIB)
        self.assertLess(self.stat(libvirt, 'memory.stat', 'anon'),
                        before[1] + 16 * MIB)
        # The kubelet counts it as that pod's.
        pods.wait_for(
            lambda: self.pods.summary(self.stage.uid)['memory'][
                'workingSetBytes'] > 96 * MIB,
            'the guest in the summary of its pod')

    def test_cpu(self):
        """Two guests that never sleep get no more than the pod's CPU."""
        cgroup = self.stage.cgroup()
        for name in 'one', 'two':
            self.stage.start_guest(name, touched_mb=0)
        self.stage.resize('400m', self.stage.MEMORY)
        script = 'cat {0}/cpu.stat /proc/uptime; sleep 5; ' \
            'cat {0}/cpu.stat /proc/uptime'.format(cgroup)
        text = self.vm.run(script)
        used = [int(each) for each in re.findall('usage_usec (.*)', text)]
        uptime = [float(each) for each
                  in re.findall('^([0-9.]+) [0-9.]+$', text, re.MULTILINE)]
        share = (used[1] - used[0]) / 1e6 / (uptime[1] - uptime[0])
        # One period of 0.1 s more or less.
        self.assertLess(share, 0.4 * 1.05)
        self.assertGreater(share, 0.4 * 0.5)
        self.assertGreater(self.stat(cgroup, 'cpu.stat', 'nr_throttled'), 0)

    def test_memory(self):
        """A guest that takes too much ends alone."""
        neighbour = self.pods.create(pods.manifest(
            'neighbour', pods.container(
                'c', ['/bin/sh', '-c', 'yes > /dev/null & '
                      'dd if=/dev/zero of=/dev/shm/all bs=1M count=56; '
                      'sleep 100000'], cpu='200m', memory='64Mi')))
        cgroup = self.stage.cgroup()
        limit = int(self.vm.read(cgroup + '/memory.max'))
        self.assertEqual(600 * MIB, limit)
        other = self.stage.start_guest('other', memory_mb=64, touched_mb=64)
        libvirtd = self.stage.libvirtd()
        killed = self.stat(cgroup, 'memory.events', 'oom_kill')
        hog = self.stage.start_guest('hog', memory_mb=900, touched_mb=900)
        # Not by the test's own clock: nothing of the guests is charged
        # anywhere else.
        pods.wait_for(lambda: not self.stage.alive(hog), 'end of the hog')
        self.assertEqual(killed + 1,
                         self.stat(cgroup, 'memory.events', 'oom_kill'))
        self.assertEqual(
            0, self.stat(cgroup, 'memory.events', 'oom_group_kill'))
        peak = self.vm.attempt('cat %s/memory.peak' % cgroup)
        if not peak[0]:
            self.assertLessEqual(int(peak[1]), limit)
        self.assertGuest('other', other)
        self.assertEqual(libvirtd, self.stage.libvirtd())
        pods.wait_for(lambda: self.stage.running() == {'other'},
                      'what libvirt knows of it')
        holder = self.stage.pods.read(self.stage.guests_pod)
        self.assertEqual('Running', holder.status.phase)
        self.assertEqual(
            0, holder.status.container_statuses[0].restart_count)
        lives = self.pods.read('neighbour').status.container_statuses[0]
        self.assertIsNotNone(lives.state.running)
        self.assertEqual(0, lives.restart_count)
        self.assertEqual(0, self.stat(
            self.pods.cgroup(neighbour.metadata.uid), 'memory.events',
            'oom_kill'))


class AliveTests:
    """Guests outlive everything but their pod."""

    def assertFound(self, pid):
        """Wait until a new libvirtd has found the guest, which lived on."""
        pods.wait_for(lambda: self.stage.running() == {'one'},
                      'the guest in a new libvirtd', interval=1)
        self.assertGuest('one', pid)

    def test_libvirt(self):
        """Its daemon is killed, its pod deleted and replaced."""
        pid = self.stage.start_guest('one')
        before = self.stage.libvirtd()
        self.vm.run('kill -9 ' + before)
        pods.wait_for(lambda: self.stage.libvirtd() not in (None, before),
                      'a new libvirtd')
        self.assertFound(pid)

        first = self.stage.libvirt_pod().metadata
        self.stage.pods.delete(first.name)
        self.stage.pods.wait_until_gone(first.name)
        self.assertFound(pid)

        second = self.stage.libvirt_pod().metadata
        self.assertNotEqual(first.uid, second.uid)
        self.plane.kubectl('-n', self.stage.namespace, 'rollout', 'restart',
                           'daemonset/libvirt')
        self.plane.kubectl('-n', self.stage.namespace, 'rollout', 'status',
                           'daemonset/libvirt', timeout=pods.TIMEOUT)
        self.assertNotEqual(second.uid,
                            self.stage.libvirt_pod().metadata.uid)
        self.assertFound(pid)
        # And it still is one that can be ended.
        self.stage.destroy_guest('one')
        self.assertFalse(self.stage.alive(pid))

    def test_node(self):
        """The kubelet and containerd are killed, the pod is resized."""
        pid = self.stage.start_guest('one', memory_mb=128, touched_mb=128)
        cgroup = self.stage.cgroup()
        for cpu, memory in (('900m', '800Mi'), ('500m', '400Mi')):
            self.stage.resize(cpu, memory)
            self.assertEqual(int(memory[:-2]) * MIB,
                             int(self.vm.read(cgroup + '/memory.max')))
            self.assertGuest('one', pid)
        restarts = {
            pod.metadata.uid: pod.status.container_statuses[0].restart_count
            for pod in (self.stage.pods.read(self.stage.guests_pod),
                        self.stage.libvirt_pod())}
        for name in 'kubelet', 'containerd':
            started = self.vm.run(
                'systemctl show -P ExecMainStartTimestampMonotonic ' + name)
            self.vm.run('systemctl kill --kill-whom=main -s KILL ' + name)
            pods.wait_for(lambda: self.vm.run(
                'systemctl show -P ExecMainStartTimestampMonotonic ' + name
            ) != started, 'a new ' + name)
            self.assertGuest('one', pid)
        # As soon as the new kubelet works again.
        self.pods.create(pods.manifest('after', pods.container(
            'c', ['sleep', '100000'], cpu='100m', memory='32Mi')))
        self.stage.resize('600m', '500Mi')
        # The shims live on, and with them all containers.
        for pod in (self.stage.pods.read(self.stage.guests_pod),
                    self.stage.libvirt_pod()):
            self.assertEqual(
                restarts[pod.metadata.uid],
                pod.status.container_statuses[0].restart_count)
        self.assertGuest('one', pid)
        self.assertEqual({'one'}, self.stage.running())


class DrainTests:
    """The guests' pod ends when the last guest has left it."""

    def test_drain(self):
        one = self.stage.start_guest('one')
        two = self.stage.start_guest('two')
        uid = self.stage.uid
        self.addCleanup(self.plane.kubectl, 'uncordon', self.cluster.node)
        # Real: by eviction, and without --force.
        stuck = self.plane.kubectl(
            'drain', self.cluster.node, '--ignore-daemonsets',
            '--timeout=5s', check=False)
        self.assertEqual(1, stuck.returncode, stuck.stderr)
        self.assertIn('waiting for pod "guests-node1"', stuck.stderr)
        pod = self.stage.pods.read(self.stage.guests_pod)
        self.assertIsNotNone(pod.metadata.deletion_timestamp)
        self.stage.destroy_guest('one')
        time.sleep(8)
        self.assertFalse(self.stage.alive(one))
        self.assertGuest('two', two)
        status = self.stage.pods.read(
            self.stage.guests_pod).status.container_statuses[0]
        self.assertIsNotNone(status.state.running)
        # Seconds until the holder ended, and what a script takes here that
        # does what it does: a busy machine is slow in both.
        ended, yardstick = self.vm.run(textwrap.dedent('''\
            now() { date +%s%N; }
            virsh -q destroy two
            start=$(now)
            # Not this script, which has the name in it as well.
            while pgrep -f '[/]scripts/guests.sh' > /dev/null; do
                sleep 0.1
            done
            end=$(now)
            for time in 1 2 3; do
                find /sys/fs/cgroup -maxdepth 5 -type d > /dev/null
                grep -qs populated /sys/fs/cgroup/*/cgroup.events
                sleep 1
            done
            echo $((end - start)) $(($(now) - end))
            ''')).split()
        self.assertLess(int(ended), int(yardstick) * 5 / 3)
        self.stage.pods.wait_until_gone(self.stage.guests_pod, uid)
        done = self.plane.kubectl(
            'drain', self.cluster.node, '--ignore-daemonsets',
            '--timeout=60s', timeout=90)
        self.assertIn('drained', done.stdout)
        self.plane.kubectl('uncordon', self.cluster.node)
        # The next one: libvirtd finds its way into it.
        self.stage.create_guests_pod()
        self.assertNotEqual(uid, self.stage.uid)
        self.stage.wait_until_followed()
        self.assertGuest('three', self.stage.start_guest('three'))


class CgroupfsHeldTest(HeldTests, GuestsTestCase):
    cgroup_driver = 'cgroupfs'


class CgroupfsAliveTest(AliveTests, GuestsTestCase):
    cgroup_driver = 'cgroupfs'


class CgroupfsDrainTest(DrainTests, GuestsTestCase):
    cgroup_driver = 'cgroupfs'


class SystemdHeldTest(HeldTests, GuestsTestCase):
    cgroup_driver = 'systemd'


class SystemdAliveTest(AliveTests, GuestsTestCase):
    cgroup_driver = 'systemd'


class SystemdDrainTest(DrainTests, GuestsTestCase):
    cgroup_driver = 'systemd'


# What follows is the same whatever the cgroup driver, and takes minutes.

class OutageTest(GuestsTestCase):
    """The API server is out of reach, and the node for it."""

    cgroup_driver = 'systemd'

    def test_api_server(self):
        """It is so until the node's pods are evicted for it."""
        pid = self.stage.start_guest('one')
        # With a grace period of 0 it would be gone before its kubelet hears of
        # it.
        self.pods.create(pods.manifest('evicted', pods.container(
            'c', ['sleep', '100000'], cpu='100m', memory='32Mi'),
            terminationGracePeriodSeconds=1))
        reject = 'iptables-nft -%s OUTPUT -d 10.0.2.2 -p tcp --dport {} ' \
            '-j DROP'.format(self.plane.port)
        # Where no node is heard of, Kubernetes evicts nothing: it takes the
        # fault for its own.
        healthy = self.plane.create_node()
        self.addCleanup(self.core.delete_node, healthy)

        def evicted():
            self.plane.set_node_status(healthy)
            return self.pods.read('evicted').metadata.deletion_timestamp
        self.addCleanup(self.vm.run, reject % 'D', check=False)
        self.vm.run(reject % 'I')
        pods.wait_for(evicted, 'the eviction of a pod that tolerates no '
                      'outage', interval=2)
        self.assertIsNone(self.stage.pods.read(
            self.stage.guests_pod).metadata.deletion_timestamp)
        # The kubelet's housekeeping runs every 2 s.
        time.sleep(10)
        self.vm.run(reject % 'D')
        self.pods.wait_until_gone('evicted')
        self.cluster.wait_until_ready(pods.TIMEOUT)
        self.assertGuest('one', pid)
        self.assertEqual({'one'}, self.stage.running())


class EndTest(GuestsTestCase):
    """Other ends of the guests' pod."""

    cgroup_driver = 'systemd'

    def test_force(self):
        """What Kubernetes has forgotten lives on where it was."""
        one = self.stage.start_guest('one')
        old = self.stage.cgroup()
        self.evict()
        pods.wait_for(lambda: self.stage.pods.read(
            self.stage.guests_pod).metadata.deletion_timestamp, 'its end')
        # Until the kubelet has told the holder to end, this would end it.
        time.sleep(5)
        self.stage.pods.delete(self.stage.guests_pod, grace=0)
        self.stage.pods.wait_until_gone(self.stage.guests_pod)
        libvirtd = self.stage.libvirtd()
        self.stage.create_guests_pod()
        self.assertNotEqual(old, self.stage.cgroup())
        # Several looks of libvirt.sh: libvirtd stays with its guest.
        time.sleep(10)
        self.assertEqual(libvirtd, self.stage.libvirtd())
        self.assertTrue(self.stage.alive(one))
        self.assertIn(old + '/guests/machine/', self.stage.cgroup_of(one))
        self.assertEqual({'one'}, self.stage.running())
        self.stage.destroy_guest('one')
        self.stage.wait_until_followed()

    def test_nothing_to_wait_for(self):
        self.evict()
        self.stage.pods.wait_until_gone(self.stage.guests_pod)


class ContainerTest(GuestsTestCase):
    """For comparison: guests in libvirt's own container."""

    cgroup_driver = 'systemd'

    def test_all_end(self):
        self.stage.delete_libvirt()
        self.addCleanup(self.stage.delete_libvirt, 'older')
        self.stage.create_libvirt(
            'older', qemu_conf='in-container.conf', memory='600Mi',
            script='exec libvirtd')
        self.stage.wait_for_libvirt()
        libvirtd = self.stage.libvirtd()
        other = self.stage.start_guest('other')
        cgroup = self.stage.cgroup_of(other)
        self.assertEqual(cgroup, self.stage.cgroup_of(libvirtd))
        # What the kubelet writes since Kubernetes 1.28.
        self.assertEqual('1', self.vm.read(
            cgroup + '/memory.oom.group').strip())
        hog = self.stage.start_guest('hog', memory_mb=900, touched_mb=900)
        for pid in hog, other, libvirtd:
            pods.wait_for(lambda pid=pid: not self.stage.alive(pid),
                          'end of process %s' % pid)
