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

"""What is wrong with where guests are, from frozen values."""

import dataclasses

from nova_k8s.confinement import findings
from nova_k8s.confinement import snapshot
from tests.unit import base

UID = '0f3ad3b2-0a4b-4c62-8a83-1d4f2a8d7c11'
FOLDER = f'/node/cgroup/kubepods/pod{UID}'

GUEST = snapshot.Guest('uuid-1', 'instance-1', 42,
                       f'/kubepods/pod{UID}/guests/machine/x', True)

GOOD = snapshot.Snapshot(
    v2=True, node_pids=True,
    pod=snapshot.Pod('guests-kube-1', UID, 'Running', 'Guaranteed'),
    told_uid=UID, folder=FOLDER,
    controllers=frozenset(('cpu', 'cpuset', 'io', 'memory', 'pids', 'rdma')),
    guests=(GUEST,))


class FindTest(base.TestCase):

    def find(self, **changes):
        seen = dataclasses.replace(GOOD, **changes)
        found = findings.find(seen)
        for each in found:
            self.assertNotIn('\n', str(each))
            self.assertTrue(each.fix and not each.fix.endswith('.'))
        return found

    def check(self, check, severity, text, **changes):
        found, = self.find(**changes)
        self.assertEqual((check, severity), (found.check, found.severity))
        self.assertIn(text, str(found))

    def problem(self, check, text, **changes):
        self.check(check, findings.PROBLEM, text, **changes)

    def warning(self, check, text, **changes):
        self.check(check, findings.WARNING, text, **changes)

    def test_nothing_is_wrong(self):
        self.assertEqual([], self.find())
        self.assertEqual([], self.find(guests=()))
        # Before libvirt has made it.
        self.assertEqual([], self.find(controllers=None))

    def test_cgroup_v1_is_all_there_is_to_say(self):
        self.problem('cgroup-version', 'unified_cgroup_hierarchy', v2=False,
                     pod=None, node_pids=False)

    def test_guests_pod(self):
        self.problem('guests-pod', 'Uncordon', pod=None, guests=())
        self.problem('guests-pod', 'Pending', pod=snapshot.Pod(
            'guests-kube-1', UID, 'Pending', 'Guaranteed'))
        self.warning('guests-pod', 'timed out', pod=None,
                     pod_problem='timed out')
        self.warning('guests-pod', 'guests_pod', expected=False, pod=None,
                     folder=None)

    def test_uid(self):
        self.problem('uid', 'was told of none', told_uid=None)
        self.problem('uid', 'was told of other', told_uid='other')

    def test_cgroup_not_seen(self):
        # Whether the guests are in it is not known then.
        self.problem('cgroup', '/node/cgroup', folder=None,
                     controllers=None, guests=(
                         dataclasses.replace(GUEST, inside=False),))

    def test_qos(self):
        self.warning('qos', 'Burstable', pod=snapshot.Pod(
            'guests-kube-1', UID, 'Running', 'Burstable'))

    def test_controllers(self):
        self.problem('controllers', 'io, memory',
                     controllers=frozenset(('cpu', 'cpuset', 'pids')))

    def test_oom_group(self):
        self.problem('oom-group', f'{FOLDER}/memory.oom.group',
                     oom_group=True)

    def test_pids(self):
        self.assertEqual([], self.find(pids_max=16384, pids=100))
        self.warning('pids.max', '1000 is enough for about 31 guests',
                     pids_max=1000)
        self.problem('pids.max', '820 of 1024', pids_max=1024, pids=820)

    def test_descendants(self):
        self.assertEqual([], self.find(descendants_max=1000, descendants=9))
        self.warning('cgroup.max.descendants', 'about 18 guests',
                     descendants_max=200)
        self.problem('cgroup.max.descendants', '100 of 100',
                     descendants_max=100, descendants=100)

    def test_swap(self):
        self.warning('swap', '2048 MiB', swap_bytes=2 << 30)

    def test_host_pid(self):
        self.problem('host-pid', 'hostPID: true', node_pids=False)

    def test_shutdown(self):
        self.warning('shutdown', 'after 30 s', shutdown_grace=30.0)
        self.assertEqual([], self.find(shutdown_grace=None))

    def escaped(self, cgroup):
        return (GUEST, dataclasses.replace(
            GUEST, name='instance-2', cgroup=cgroup, inside=False))

    def test_escaped(self):
        self.problem('escaped', 'guest instance-2: it is in the cgroup '
                                '/machine/qemu-2',
                     guests=self.escaped('/machine/qemu-2'))

    def test_machined(self):
        self.problem('machined', '/run/dbus', guests=self.escaped(
            '/machine.slice/machine-qemu\\x2d2.scope/libvirt/emulator'))

    def test_in_a_pod_that_was_deleted_by_force(self):
        for cgroup in (
                '/../../pod7c1d7e6a-1111-2222-3333-444455556666/guests/x',
                '/kubepods.slice/kubepods-pod7c1d7e6a_1111_2222_3333_4444555'
                '56666.slice/guests/machine/x'):
            self.problem('escaped', 'of another pod',
                         guests=self.escaped(cgroup))
            # The new one is not made yet.
            checks = [each.check for each in self.find(
                pod=None, folder=None, guests=self.escaped(cgroup)[1:])]
            self.assertEqual(['guests-pod', 'escaped'], checks)

    def test_guest_slice(self):
        there = {'guest_slice': '/machine.slice', 'pod': None,
                 'expected': False, 'told_uid': None, 'controllers': None,
                 'folder': '/node/cgroup/machine.slice'}
        self.assertEqual([], self.find(**there))
        self.problem('guest-slice', 'no such cgroup',
                     **{**there, 'folder': None})
        self.problem('guest-slice', 'machine.slice/cpu.max: there is no limi',
                     **there, unlimited=('cpu.max',))
        self.warning('pids.max', 'TasksMax', **there, pids_max=1000)
        self.warning('swap', 'machine.slice/memory.swap.max', **there,
                     swap_bytes=1 << 30)
        self.problem('oom-group', 'memory.oom.group', **there,
                     oom_group=True)
        for cgroup in ('/machine/qemu-2', '/machine.slice.d/x',
                       '/kubepods/pod7c1d7e6a-1111-2222-3333-444455556666'):
            self.problem('escaped', f'{cgroup}, outside of /machine.slice',
                         **there, guests=self.escaped(cgroup))

    def test_problems_come_first(self):
        found = self.find(swap_bytes=1 << 30, oom_group=True)
        self.assertEqual(['oom-group', 'swap'],
                         [each.check for each in found])


class ReasonsTest(base.TestCase):

    def reasons(self, on_escape, cgroup=None):
        guests = () if cgroup is None else (
            dataclasses.replace(GUEST, cgroup=cgroup, inside=False),)
        seen = dataclasses.replace(GOOD, guests=guests)
        return findings.reasons(seen, findings.find(seen), on_escape)

    def test_warn_and_disable(self):
        self.assertEqual(frozenset(), self.reasons('disable'))
        self.assertEqual(frozenset(), self.reasons('warn', '/machine/x'))
        self.assertEqual({findings.ESCAPED},
                         self.reasons('disable', '/machine/x'))

    def test_outside_of_a_slice(self):
        def reasons(on_escape):
            seen = dataclasses.replace(
                GOOD, guest_slice='/machine.slice', pod=None, expected=False,
                guests=(dataclasses.replace(
                    GUEST, inside=False, cgroup='/kubepods/pod7c1d7e6a-1111-'
                                                '2222-3333-444455556666'),))
            return findings.reasons(seen, findings.find(seen), on_escape)
        self.assertEqual(frozenset(), reasons('warn'))
        self.assertEqual({findings.ESCAPED}, reasons('disable'))

    def test_memory_that_is_promised_twice(self):
        self.assertEqual(
            {findings.ESCAPED}, self.reasons(
                'warn', '/kubepods/pod7c1d7e6a-1111-2222-3333-444455556666'))
