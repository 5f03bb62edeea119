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

"""CPUs, NUMA nodes and huge pages of a guests' pod, on a real kubelet."""

import re
import sys
import textwrap

from nova_k8s.confinement import cpuset
from nova_k8s.util import cpulist
from tests.node import guests
from tests.node import machine
from tests.node import pods

MIB = 1 << 20
HUGE = '<memoryBacking><hugepages/></memoryBacking>'


class CpusTestCase(guests.StageTestCase):
    """A node with two NUMA nodes, whose kubelet hands out CPUs and memory."""

    cgroup_driver = 'systemd'
    CPU = '2'
    node = {
        'cpus': 4, 'numa_nodes': 2,
        'kernel_arguments': 'hugepagesz=2M hugepages=96',
        'kubelet': {
            'cpuManagerPolicy': 'static', 'reservedSystemCPUs': '0',
            'cpuManagerReconcilePeriod': '1s',
            'memoryManagerPolicy': 'Static',
            'systemReserved': {'memory': '256Mi'},
            'reservedMemory': [
                {'numaNode': 0, 'limits': {'memory': '256Mi'}}]}}

    def make_stage(self):
        self.vm.run('mountpoint -q /dev/hugepages || '
                    '{ mkdir -p /dev/hugepages; '
                    'mount -t hugetlbfs hugetlbfs /dev/hugepages; }')
        return guests.shared(self.cluster, cpu=self.CPU, pages='64Mi')

    def setUp(self):
        super().setUp()
        if self.stage.cpu != self.CPU:
            self.stage.replace(self.CPU)

    def container(self):
        """Return the path of the cgroup of the guests' pod's container."""
        identity = self.stage.record()['container']
        return self.vm.run(
            'ls -d %s/*%s*' % (self.stage.cgroup(), identity)).strip()

    def numbers(self, path):
        return cpulist.parse(self.vm.read(path).strip())

    def wait_until_held(self):
        """Wait until guests have what the container has; return its CPUs."""
        container, own = self.container(), self.stage.cgroup() + '/guests'
        pods.wait_for(
            lambda: all(
                self.numbers('%s/cpuset.%s.effective' % (container, each)) ==
                self.numbers('%s/cpuset.%s' % (own, each))
                for each in ('cpus', 'mems')), 'the sets of guests')
        return self.numbers(own + '/cpuset.cpus')

    def assertWithin(self, pid, numbers, what='Cpus'):
        """Fail where any thread of a process may use others."""
        found = self.vm.run(
            'grep -h %s_allowed_list: /proc/%s/task/*/status' % (what, pid))
        for each in re.findall(r':\s+(\S+)', found):
            self.assertLessEqual(cpulist.parse(each), numbers, found)


class DedicatedTest(CpusTestCase):
    """A Guaranteed pod of whole cores."""

    def test_guests_have_the_cpus_of_the_container(self):
        cpus = self.wait_until_held()
        self.assertEqual(2, len(cpus))
        self.assertNotIn(0, cpus)
        # Its pod has all: without what libvirt.sh does, so would guests.
        self.assertEqual({0, 1, 2, 3}, self.numbers(
            self.stage.cgroup() + '/cpuset.cpus.effective'))
        mems = self.numbers(self.stage.cgroup() + '/guests/cpuset.mems')
        pid = self.stage.start_guest('one', memory_mb=64, touched_mb=48)
        self.assertWithin(pid, cpus)
        self.assertWithin(pid, mems, 'Mems')
        # What the driver sees is the same, and that they are its own. The VM
        # has the files of this machine.
        seen = self.vm.run(
            'cd %s && %s -c "%s"' % (
                machine.TOP, sys.executable,
                'from nova_k8s.confinement import cpuset; '
                'print(cpuset.Reader(\'/sys/fs/cgroup\').look())'))
        self.assertEqual(repr(cpuset.Seen(cpus, mems, True)), seen.strip())

    def test_huge_pages_are_the_pods(self):
        pod = self.stage.cgroup()
        self.assertEqual(64 * MIB, int(
            self.vm.read(pod + '/hugetlb.2MB.max')))
        pid = self.stage.start_guest('huge', memory_mb=48, backing=HUGE)
        self.assertTrue(self.stage.alive(pid))
        self.assertEqual(48 * MIB, int(
            self.vm.read(pod + '/hugetlb.2MB.current')))
        # There are more, and they are not this pod's.
        self.assertGreaterEqual(int(self.vm.read(
            '/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages')), 40)
        self.assertIsNone(self.stage.start_guest(
            'greedy', memory_mb=32, backing=HUGE, check=False))
        self.assertTrue(self.stage.alive(pid))


class SharedTest(CpusTestCase):
    """A pod that shares CPUs with others."""

    CPU = '700m'

    def test_guests_follow_what_others_leave(self):
        before = self.wait_until_held()
        self.assertEqual({0, 1, 2, 3}, before)
        pid = self.stage.start_guest('one', memory_mb=64, touched_mb=0)
        self.assertWithin(pid, before)
        paths = [each + '/cpuset.cpus' for each in (
            self.container(), self.stage.cgroup() + '/guests')]
        # Seconds between the two, as the node sees them.
        self.vm.write('/run/changes.sh', textwrap.dedent('''\
            before=$(cat {0}.effective)
            for each in {0}.effective {1}; do
                while [ "$(cat $each)" = "$before" ]; do sleep 0.05; done
                date +%s%N
            done
            ''').format(*paths))
        self.vm.run('setsid bash /run/changes.sh '
                    '</dev/null >/run/changes 2>/run/changes.log &')
        other = self.pods.create(pods.manifest('exclusive', pods.container(
            'c', ['sleep', '100000'], cpu='1', memory='64Mi')))
        self.assertTrue(other)
        pods.wait_for(lambda: len(self.vm.read('/run/changes').split()) == 2,
                      'the smaller sets')
        first, second = map(int, self.vm.read('/run/changes').split())
        self.assertLess(second - first, 2e9)
        after = self.wait_until_held()
        self.assertLess(after, before)
        self.assertEqual(3, len(after))
        self.assertWithin(pid, after)
        self.assertTrue(self.stage.alive(pid))
        # And what others give back.
        self.pods.delete('exclusive', grace=0)
        self.pods.wait_until_gone('exclusive')
        pods.wait_for(lambda: self.wait_until_held() == before,
                      'the larger sets')
