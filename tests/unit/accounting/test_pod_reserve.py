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

"""What is kept for the pod's other processes, and who says so."""

import os

import fixtures
import nova.conf
from oslo_config import fixture as config_fixture

from nova_k8s.accounting import pod_reserve
from nova_k8s.accounting import usage
from nova_k8s import conf
from tests.unit.accounting import test_usage
from tests.unit import base

CONF = nova.conf.CONF
conf.register_opts(CONF)


class MeasureTest(test_usage.ProcTest):

    def test_others_beside_guests_in_cgroups(self):
        self.write('cg/memory.stat', 'anon 1048576000\n')
        self.write('cg/machine/qemu-1-g.libvirt-qemu/memory.stat',
                   'anon 524288000\n')
        self.write('cg/machine/qemu-1-g.libvirt-qemu/cgroup.procs', '100\n')
        self.qemu()
        self.assertEqual(512000,
                         pod_reserve.measure_kb(self.root / 'cg', self.root))

    def test_a_guest_that_nova_has_forgotten(self):
        self.write('cg/memory.stat', 'anon 1048576000\n')
        folder = 'cg/guests/machine/qemu-1-g.libvirt-qemu'
        self.write(f'{folder}/memory.stat', 'anon 524288000\n')
        self.write(f'{folder}/emulator/cgroup.procs', '100\n')
        self.qemu()
        name, = usage.guests(self.root)
        for known, expected in ((None, 512000), ({name}, 512000),
                                ({'another'}, 1024000)):
            self.assertEqual(expected, pod_reserve.measure_kb(
                self.root / 'cg', self.root, known))

    def test_others_beside_guests_without_cgroups(self):
        self.write('cg/memory.stat', 'anon 1048576000\n')
        self.write('cg/cgroup.procs', '1\n100\n')
        self.qemu()
        guest = 600000 + 4096 + 100 + 1700
        name, = usage.guests(self.root)
        for known, expected in ((None, 1024000 - guest),
                                ({name}, 1024000 - guest),
                                # Nobody else accounts for it.
                                ({'another'}, 1024000)):
            self.assertEqual(expected, pod_reserve.measure_kb(
                self.root / 'cg', self.root, known))


class SteadyTest(base.TestCase):

    def test_steady(self):
        for measured_mb, expected in (
                # the floor, then steps with room to breathe
                ([0], 256), ([224], 256), ([225], 320), ([900], 960),
                # more at once, less when the peak is past
                ([225, 400], 448), ([400, 225], 448), ([225, 0, 0], 320)):
            self.assertEqual(
                expected,
                pod_reserve.steady_mb([mb * 1024 for mb in measured_mb]),
                measured_mb)


class PodReserveTest(base.TestCase):

    def setUp(self):
        super().setUp()
        CONF([], project='nova', default_config_files=[],
             default_config_dirs=[])
        base.forget_override(CONF, 'reserved_host_memory_mb')
        self.addCleanup(
            base.forget_override, CONF, 'reserved_host_memory_mb')
        self.conf_fixture = self.useFixture(config_fixture.Config(CONF))
        self.log = self.useFixture(fixtures.FakeLogger('nova_k8s'))

    def flags(self, **options):
        self.conf_fixture.config(**options)

    def measured(self, kb):
        self.useFixture(fixtures.MockPatch(
            'nova_k8s.accounting.pod_reserve.measure_kb', return_value=kb))

    def test_nova_default_does_not_count(self):
        self.assertEqual(512, CONF.reserved_host_memory_mb)
        self.flags(group='kubernetes', reserved_memory_mb='300')
        found = pod_reserve.from_conf(CONF)
        self.assertEqual((300, '[kubernetes] reserved_memory_mb'),
                         (found.mb, found.option))

    def test_what_the_operator_sets_wins(self):
        for mb in (0, 512, 1000):
            self.flags(reserved_host_memory_mb=mb)
            self.flags(group='kubernetes', reserved_memory_mb='300')
            found = pod_reserve.from_conf(CONF)
            found.measure()
            self.assertEqual((mb, 'reserved_host_memory_mb'),
                             (found.mb, found.option))

    def test_auto(self):
        self.flags(group='kubernetes', pod_cgroup='/some')
        self.measured(600 * 1024)
        found = pod_reserve.from_conf(CONF)
        self.assertEqual(640, found.mb)
        self.measured(650 * 1024)
        found.measure()
        self.assertEqual(704, found.mb)
        self.assertIn('/some', self.log.output)

    def test_auto_in_a_guests_pod(self):
        self.flags(group='kubernetes', pod_name='guests-kube-1',
                   node_name='kube-1')
        find = self.useFixture(fixtures.MockPatch(
            'nova_k8s.confinement.cgroup.guests_pod_folder',
            return_value=None)).mock
        found = pod_reserve.from_conf(CONF)
        self.assertEqual(128, found.mb)
        # Once it is there.
        find.return_value = '/some'
        for used, expected in ((62, 128), (97, 192), (0, 192)):
            self.measured(used * 1024)
            found.measure()
            self.assertEqual(expected, found.mb)
        self.assertEqual(128, pod_reserve.from_conf(CONF, look=False).mb)

    def test_auto_after_a_peak(self):
        # One step, which was kept for ever once.
        self.flags(group='kubernetes', pod_cgroup='/some')
        self.measured(200 * 1024)
        found = pod_reserve.from_conf(CONF)
        kept = []
        for used_mb, looks in ((200, 2), (230, 1), (200, 12)):
            self.measured(used_mb * 1024)
            for _ in range(looks):
                found.measure()
                kept.append(found.mb)
        self.assertEqual([256] * 2 + [320] * 10 + [256] * 3, kept)

    def test_moves(self):
        self.flags(group='kubernetes', pod_cgroup='/some')
        self.measured(200 * 1024)
        found = pod_reserve.from_conf(CONF)
        for used_mb, moves in ((200, False), (208, False), (217, True),
                               (217, False), (200, True)):
            self.measured(used_mb * 1024)
            self.assertIs(moves, found.measure(), used_mb)

    def test_auto_that_cannot_be_measured(self):
        self.flags(group='kubernetes', pod_cgroup=self.folder())
        found = pod_reserve.from_conf(CONF)
        found.measure()
        self.assertEqual(256, found.mb)
        self.assertEqual(1, self.log.output.count('pod_cgroup'))

    def test_auto_and_limits_of_another(self):
        self.measured(600 * 1024)
        for options, warned in (
                ({}, None), ({'container': '*'}, None),
                ({'container': 'libvirt'}, 'container'),
                ({'container': 'libvirt',
                  'limits_from': 'downward_api'}, None),
                ({'pod_selector': 'a=b'}, 'pod_selector'),
                ({'pod_selector': 'a=b', 'limits_from': 'manifest'}, None),
                ({'pod_selector': 'a=b', 'pod_cgroup': '/some'}, None),
                ({'pod_selector': 'a=b', 'reserved_memory_mb': '9'}, None)):
            with self.subTest(options), fixtures.FakeLogger(
                    'nova_k8s.accounting.pod_reserve') as log:
                self.flags(group='kubernetes', **{
                    'container': None, 'limits_from': 'api',
                    'pod_selector': None, 'pod_cgroup': None,
                    'reserved_memory_mb': 'auto', **options})
                pod_reserve.from_conf(CONF).measure()
                found = [line for line in log.output.splitlines()
                         if 'may be that of another' in line]
                self.assertEqual(1 if warned else 0, len(found))
                if warned:
                    for name in (f'] {warned})', 'pod_cgroup',
                                 'reserved_memory_mb'):
                        self.assertIn(name, found[0])

    def test_auto_in_the_cgroup_that_is_meant(self):
        self.measured(600 * 1024)
        self.flags(group='kubernetes', container='compute')
        folder = self.folder()
        self.useFixture(fixtures.MockPatchObject(
            pod_reserve.cgroup, 'own_folder', lambda: folder))
        for text, limit_bytes, warned in (
                # All in one container: it is the right one.
                ('4294967296', 4 << 30, False),
                # memory: 4G, in whole pages.
                ('3999997952', 4000000000, False),
                ('1073741824', 4 << 30, True),
                ('max', 4 << 30, True),
                ('max', None, True),
                (None, 4 << 30, True)):
            if text is None:
                os.unlink(folder + '/memory.max')
            else:
                with open(folder + '/memory.max', 'w') as f:
                    f.write(text + '\n')
            with fixtures.FakeLogger(
                    'nova_k8s.accounting.pod_reserve') as log:
                pod_reserve.from_conf(CONF, limit_bytes)
                self.assertEqual(warned, 'may be that of' in log.output,
                                 (text, limit_bytes))

    def test_auto_elsewhere(self):
        self.assertEqual(256, pod_reserve.from_conf(CONF, look=False).mb)

    def test_nonsense(self):
        self.assertRaises(ValueError, self.flags, group='kubernetes',
                          reserved_memory_mb='1Gi')
