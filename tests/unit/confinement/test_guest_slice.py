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

"""What is written to the cgroup of guests, and what is refused: pure."""

from hypothesis import given
from hypothesis import strategies as st

from nova_k8s.confinement import guest_slice
from nova_k8s.confinement.guest_slice import Limits
from nova_k8s.limits import budget
from tests.unit import base

MIB = budget.MIB
UID = '0f3ad3b2-0a4b-4c62-8a83-1d4f2a8d7c11'


def seen(own, used_mb=0, enforced=None):
    return guest_slice.Seen(own, enforced or own, used_mb * MIB)


def told(memory_mb, cpu_millicores, certain=True):
    return guest_slice.Told(Limits(memory_mb * MIB, cpu_millicores), certain)


def limits(memory_mb, cpu_millicores):
    return Limits(memory_mb * MIB, cpu_millicores)


class PathTest(base.TestCase):

    def test_normalize(self):
        for text, expected in (
                ('/machine.slice', '/machine.slice'), ('machine', '/machine'),
                (' /a/b/ ', '/a/b'), ('/a/../..', '/'), ('//', '/'),
                ('/machine.slice/..', '/'), ('', '/')):
            self.assertEqual(expected, guest_slice.normalize(text))

    def test_units_are_systemds(self):
        for path, unit in (
                ('/machine.slice', 'machine.slice'),
                ('/a.slice/a-b.slice', 'a-b.slice'),
                ('/system.slice/x.service', 'x.service'),
                ('/machine', None), ('/system.slice/x.service/guests', None)):
            self.assertEqual(unit, guest_slice.unit_of(path))

    def harm(self, path, **facts):
        return guest_slice.find_harm(
            path, guest_slice.Facts(**{'v2': True, **facts}))

    def test_no_harm(self):
        for path in ('/machine.slice', '/machine', '/podman', '/a/pod',
                     '/machine.slice/machine-guests.slice',
                     '/system.slice/guests.service'):
            self.assertIsNone(self.harm(path), path)

    def test_harm(self):
        pod = UID.replace('-', '_')
        for path, why in (
                ('/', 'root'), ('/system.slice', 'node itself'),
                ('/user.slice', 'node itself'), ('/init.scope', 'node itsel'),
                ('/kubepods', 'kubelet\'s'), ('/kubepods.slice', 'kubelet'),
                ('/kubepods/burstable', 'kubelet'),
                ('/kubepods.slice/kubepods-burstable.slice', 'kubelet'),
                (f'/kubepods/burstable/pod{UID}/guests', 'guests_pod'),
                (f'/kubepods.slice/kubepods-pod{pod}.slice', 'guests_pod'),
                ('/kubelet/kubepods', 'kubelet'),
                ('/kubelet.slice/kubelet-kubepods.slice', 'kubelet'),
                (f'/elsewhere/pod{UID}', 'kubelet')):
            self.assertIn(why, self.harm(path), path)
        self.assertIn('cgroup v1', self.harm('/machine', v2=False))
        self.assertIn('nova-compute itself', self.harm('/a', own=True))
        self.assertIn('/a/kubepods', self.harm('/a', pods='/a/kubepods'))

    def test_lack(self):
        def lack(path, **facts):
            found = guest_slice.find_lack(
                path, guest_slice.Facts(v2=True, **facts), '/cg' + path)
            self.assertTrue(found is None or base.one_line(found))
            return found
        self.assertIsNone(lack('/machine'))
        self.assertIn('systemctl start machine.slice',
                      lack('/machine.slice', exists=False))
        self.assertIn('/cg/machine', lack('/machine', exists=False))
        self.assertIn('+cpu +memory > /cg/a/cgroup.subtree_control',
                      lack('/a/machine', limits=False))
        # systemd enables them where a limit is set.
        self.assertIsNone(lack('/machine.slice', limits=False))


class WantedTest(base.TestCase):

    def wanted(self, cpu, memory, unlimited='error'):
        return guest_slice.wanted(budget.Budget('x', cpu, memory), unlimited)

    def test_whole_mib(self):
        self.assertEqual(limits(8191, 4500),
                         self.wanted(4500, 8192 * MIB - 1))

    def test_what_touches_nothing(self):
        self.assertIsNone(guest_slice.wanted(None, 'host'))
        self.assertIsNone(self.wanted(None, 8 * MIB))
        self.assertIsNone(self.wanted(4000, None))

    def test_the_machine_is_the_limit(self):
        self.assertEqual(Limits(None, 4000), self.wanted(4000, None, 'host'))
        self.assertEqual(Limits(MIB, None), self.wanted(None, MIB, 'host'))

    def test_the_least_that_the_kernel_takes(self):
        self.assertEqual(10, self.wanted(1, MIB).cpu_millicores)


class DecideTest(base.TestCase):

    goal = limits(4096, 4000)

    def decide(self, own, told_=told(0, 0), used_mb=0):
        return guest_slice.decide(self.goal, seen(own, used_mb), told_)

    def test_nothing_to_do(self):
        self.assertIsNone(self.decide(self.goal, told(4096, 4000)))

    def test_growth(self):
        self.assertEqual(self.goal, self.decide(limits(2048, 1000),
                                                told(2048, 1000)))

    def test_growth_needs_no_certainty(self):
        self.assertEqual(self.goal, self.decide(
            limits(2048, 1000), told(2048, 1000, False)))

    def test_shrink_waits_for_the_report(self):
        large = limits(8192, 8000)
        self.assertIsNone(self.decide(large, told(8192, 8000)))
        self.assertEqual(limits(6144, 8000),
                         self.decide(large, told(6144, 8000)))
        self.assertEqual(self.goal, self.decide(large, told(4096, 4000)))
        self.assertIsNone(self.decide(large, told(4096, 4000, False)))

    def test_one_of_both_each(self):
        self.assertEqual(limits(4096, 8000), self.decide(
            limits(2048, 8000), told(2048, 8000)))

    def test_none_yet(self):
        self.assertEqual(self.goal, self.decide(Limits()))
        # After a boot of the machine, with the report of before.
        self.assertEqual(limits(8192, 4000), self.decide(
            Limits(), told(8192, 2000, False)))

    def test_what_is_used_stays(self):
        large = limits(8192, 4000)
        # A sixteenth of it is kept free.
        self.assertEqual(limits(6384, 4000), self.decide(
            large, told(0, 0), 6000))
        self.assertEqual(limits(4096, 4000), self.decide(
            large, told(0, 0), 3000))
        self.assertIsNone(self.decide(large, told(0, 0), 8000))
        self.assertEqual(limits(6384, 4000), self.decide(
            Limits(), told(0, 0), 6000))

    def test_small_steps_are_not_worth_it(self):
        used = seen(limits(6384, 4000), 5995)
        self.assertIsNone(guest_slice.decide(self.goal, used, told(0, 0)))
        used = seen(limits(6384, 4000), 5970)
        self.assertIsNotNone(guest_slice.decide(self.goal, used, told(0, 0)))

    def test_never_raised_for_what_was_told(self):
        # Somebody else wrote it.
        self.assertEqual(self.goal, self.decide(
            limits(2048, 1000), told(8192, 8000)))
        self.assertIsNone(self.decide(self.goal, told(8192, 8000)))

    def test_the_machine_is_the_limit(self):
        self.goal = Limits(None, 4000)
        self.assertEqual(self.goal, self.decide(limits(4096, 4000)))

    def test_wait(self):
        def wait(own, used_mb, *told_):
            return guest_slice.find_wait(self.goal, seen(own, used_mb),
                                         told(*told_))
        self.assertIsNone(wait(self.goal, 4000, 0, 0))
        self.assertIsNone(wait(limits(8192, 4000), 8000, 8192, 4000))
        self.assertIn('guests use 8000 MiB',
                      wait(limits(8192, 4000), 8000, 4096, 4000))

    @given(st.data())
    def test_safe(self, data):
        amount = st.one_of(st.none(), st.integers(0, 2 ** 20))

        def draw():
            memory, cpu = data.draw(amount), data.draw(amount)
            return Limits(memory and memory * MIB, cpu)
        goal, own = draw(), draw()
        used = data.draw(st.integers(0, 2 ** 40))
        was = guest_slice.Told(Limits(
            data.draw(st.integers(0, 2 ** 20)) * MIB,
            data.draw(st.integers(0, 2 ** 20))), data.draw(st.booleans()))
        found = guest_slice.Seen(own, own, used)
        made = guest_slice.decide(goal, found, was)
        after = made or own
        if after.memory_bytes is not None and (
                own.memory_bytes is None or
                after.memory_bytes < own.memory_bytes):
            self.assertGreaterEqual(after.memory_bytes,
                                    guest_slice.floor(used))
        for name in ('memory_bytes', 'cpu_millicores'):
            mine, limit, wished, sold = (getattr(each, name) for each in (
                own, after, goal, was.limits))
            if mine is None or mine >= sold:
                # What was told is enforced before and after it.
                self.assertTrue(limit is None or limit >= sold)
            if wished is not None and limit != mine:
                self.assertGreaterEqual(limit, wished)
        report = guest_slice.report(goal, guest_slice.Seen(after, after, 0))
        for name in ('memory_bytes', 'cpu_millicores'):
            offered, limit, wished = (getattr(each, name) for each in (
                report, after, goal))
            self.assertTrue(limit is None or offered <= limit)
            self.assertTrue(wished is None or offered <= wished)
            if wished is not None and limit is None:
                self.assertEqual(0, offered)
