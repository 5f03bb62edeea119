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

"""How much of a limit is sold, and what the commands say of it."""

import contextlib
import io
import json
import pathlib
import re
from unittest import mock

import hypothesis
from hypothesis import strategies as st
import nova.conf
from oslo_config import fixture as config_fixture

from nova_k8s.accounting import claims
from nova_k8s.accounting import ledger
from nova_k8s.accounting import overhead
from nova_k8s.cmd import main
from nova_k8s import errors
from nova_k8s.inventory import bounds
from nova_k8s.inventory import capacity
from tests.unit import base

SETTINGS = overhead.Settings()
OTHERS = 256

# Memory in MB and vCPUs of the flavors in overhead.rst.
SIZES = ((512, 1), (1024, 1), (2048, 1), (4096, 2), (8192, 4), (16384, 4),
         (32768, 8), (65536, 16))


def true_mb(memory_mb, vcpus):
    """What such a guest was measured to cost; see overhead.rst."""
    # The page tables of the 512 MB that were measured are in the 44.5.
    return 44.5 + 0.7 * (vcpus - 1) + (memory_mb - 512) / 512


def need(memory_mb, vcpus=1):
    return overhead.need(overhead.Guest(memory_mb, vcpus), SETTINGS)


def filled(limit_mb, sizes):
    """Return how many guests of each size end up in a limit, one by one."""
    needs, numbers = [], []
    for memory_mb, vcpus in sizes:
        one, number = need(memory_mb, vcpus), 0
        while True:
            reserved = min(limit_mb, ledger.reserved_mb(needs, OTHERS, 1))
            allocated = sum(each.allocated_mb for each in needs)
            if allocated + one.allocated_mb > limit_mb - reserved or (
                    claims.find_refusal(limit_mb, OTHERS, needs, one)):
                break
            needs.append(one)
            number += 1
        numbers.append(number)
    return numbers


def sold(limit_mb, memory_mb, vcpus):
    """Return (guests, guests of 512 MB in the rest, percent sold)."""
    large, small = filled(limit_mb, ((memory_mb, vcpus), (512, 1)))
    true = large * true_mb(memory_mb, vcpus) + small * true_mb(512, 1)
    return large, small, 100 * (large * memory_mb + small * 512) / (
        limit_mb - true - OTHERS)


class FitTest(base.TestCase):

    def test_size(self):
        self.assertEqual(capacity.Size(2, 4096), capacity.parse_size('2,4096'))
        for text in ('', '2', '2,', 'a,b', '0,1', '1,0', '1,2,3', '-1,5'):
            self.assertRaises(errors.Refused, capacity.parse_size, text)

    def test_guests(self):
        each = need(512).total_mb
        for limit, expected in ((OTHERS + 7 * each, 7),
                                (OTHERS + 8 * each - 1, 7), (0, 0), (100, 0)):
            self.assertEqual(
                expected, capacity.count_guests(limit, OTHERS, need(512)))

    @hypothesis.given(st.integers(0, 10 ** 5), st.integers(0, 2000),
                      st.integers(1, 10 ** 4), st.integers(0, 2),
                      st.floats(1, 8))
    def test_never_above_the_limit(self, limit, others, memory, ahead, ratio):
        number = capacity.count_guests(
            limit, others, need(memory), ahead, ratio)
        self.assertTrue(
            not number or
            others + number * need(memory).total_mb <= limit)
        if ahead == 1 or ratio > 2:
            # And nothing is wasted: what is reserved in advance is what the
            # next one costs.
            self.assertGreater(
                others + (number + 1) * need(memory).total_mb, limit)

    def test_most_of_it_is_sold(self):
        # What overhead.rst says below the table.
        for gib, least, least_of_512 in (
                *((gib, 0, 95.5) for gib in range(32, 64, 3)),
                *((gib, 97, 96.4) for gib in range(64, 128, 7)),
                *((gib, 97, 96.8) for gib in range(128, 256, 13)),
                *((gib, 97, 97) for gib in range(256, 513, 32))):
            for memory, vcpus in SIZES:
                if memory > gib * 512:
                    continue
                self.assertGreaterEqual(
                    sold(gib * 1024, memory, vcpus)[2],
                    least_of_512 if memory == 512 else least, (gib, memory))

    def test_the_table_says_so(self):
        text = (pathlib.Path(__file__).parents[3] / 'doc' / 'source' /
                'overhead.rst').read_text(encoding='utf-8')
        section = text.partition('How much is sold')[2]
        rows = re.findall(
            r'^(\d+) +(\d+) +(\d+) +(\d+) +([\d.]+) %$', section,
            re.MULTILINE)
        self.assertEqual(
            [(memory, vcpus) for memory, vcpus in SIZES],
            [(int(row[0]), int(row[1])) for row in rows])
        for row in rows:
            large, small, percent = sold(262144, int(row[0]), int(row[1]))
            self.assertEqual((str(large), str(small), f'{percent:.1f}'),
                             row[2:], row)

    def test_result(self):
        records = {
            bounds.VCPU: dict(total=64, reserved=0, allocation_ratio=4.0),
            bounds.MEMORY_MB: dict(total=32768, reserved=256,
                                   allocation_ratio=1.0)}
        found = capacity.describe(records, capacity.Size(1, 512), SETTINGS)
        self.assertEqual(56, found['fit'])
        self.assertEqual('memory', found['bounded_by'])
        self.assertEqual(32768 - 256 - 56 * 571, found['left_mb'])
        # As many as Nova would take are more than the kernel lets live.
        self.assertEqual(
            {'fit': 63, 'needs_mb': 256 + 63 * 571, 'survives': False},
            found['stock'])
        found = capacity.describe(records, capacity.Size(128, 512), SETTINGS)
        self.assertEqual((2, 'vcpus', True), (
            found['fit'], found['bounded_by'], found['stock']['survives']))


class CommandTest(base.TestCase):

    def setUp(self):
        super().setUp()
        # A command sets options, which would stay.
        self.useFixture(config_fixture.Config(nova.conf.CONF))
        base.forget_override(nova.conf.CONF, 'reserved_host_memory_mb')

    def run_command(self, *arguments):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main.main(arguments)
        return status, out.getvalue(), err.getvalue()

    def test_flavors(self):
        status, out, _ = self.run_command(
            'flavors', '--flavor', '1,512', '--flavor', '2,4096', '--format',
            'json', '--image-property', 'hw_firmware_type=uefi')
        self.assertEqual(0, status)
        self.assertEqual(
            [('resources:MEMORY_MB=587', 75), ('resources:MEMORY_MB=4188',
                                               92)],
            [(each['property'], each['overhead_mb'])
             for each in json.loads(out)])

    def test_flavors_table(self):
        status, out, _ = self.run_command('flavors', '--flavor', '1,512')
        self.assertEqual(0, status)
        self.assertIn('resources:MEMORY_MB=571', out)

    def test_flavors_nonsense(self):
        status, _, err = self.run_command('flavors', '--flavor', 'm1.small')
        self.assertEqual(1, status)
        self.assertIn('--flavor m1.small', err)
        self.assertEqual(1, len(err.splitlines()))

    def test_flavors_of_a_cloud(self):
        cloud = mock.MagicMock()
        cloud.__enter__.return_value = cloud
        cloud.compute.flavors.return_value = [
            mock.Mock(vcpus=1, ram=512, extra_specs=specs)
            for specs in ({'resources:MEMORY_MB': '571'},
                          {'resources:MEMORY_MB': '512'}, {}, None)]
        with mock.patch('openstack.connect', return_value=cloud) as connect:
            for each in cloud.compute.flavors.return_value:
                each.name = 'tiny'
            status, out, _ = self.run_command(
                'flavors', '--cloud', 'home', '--format', 'json')
        self.assertEqual(0, status)
        connect.assert_called_once_with(cloud='home')
        self.assertEqual(
            [('tiny', True)] + [('tiny', False)] * 3,
            [(each['name'], each['is_set']) for each in json.loads(out)])

    def test_flavors_of_no_cloud(self):
        with mock.patch('openstack.connect',
                        side_effect=RuntimeError('no\nsuch cloud')):
            status, out, err = self.run_command('flavors', '--cloud', 'home')
        self.assertEqual((1, ''), (status, out))
        self.assertIn('no such cloud; name one with --cloud', err)
        self.assertEqual(1, len(err.splitlines()))

    def test_report(self):
        path = self.folder() + '/pod.yaml'
        with open(path, 'w', encoding='utf-8') as f:
            f.write('{kind: Pod, metadata: {name: a}, spec: {containers: [{'
                    'name: c, resources: {limits: {cpu: 8, memory: 8Gi}}}]}}')
        status, out, _ = self.run_command(
            'report', '--manifest', path, '--machine', 'cpus=8,memory=8Gi',
            '--flavor', '1,512', '--format', 'json')
        self.assertEqual(0, status)
        found = json.loads(out)
        self.assertEqual(256, found['inventory']['MEMORY_MB']['reserved'])
        self.assertEqual([13], [each['fit'] for each in found['flavors']])
