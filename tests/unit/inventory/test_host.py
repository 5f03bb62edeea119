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

"""The machine, and what Nova's driver would report of it."""

import pathlib
from unittest import mock

import fixtures
import libvirt
import nova.conf
from oslo_config import fixture as config_fixture
import testscenarios

from nova_k8s import errors
from nova_k8s.inventory import host
from tests.unit import base

load_tests = testscenarios.load_tests_apply_scenarios

CONF = nova.conf.CONF


class GivenTest(base.TestCase):

    scenarios = [(text, {'text': text, 'cpus': cpus, 'memory_mb': memory_mb})
                 for text, cpus, memory_mb in (
        ('cpus=64,memory=256Gi', 64, 2 ** 18),
        ('memory=1Mi,cpus=1', 1, 1),
        ('cpus=2500m,memory=1G', 2, 953),
        # Larger than any machine, and still no traceback.
        ('cpus=10E,memory=10E', 2 ** 63 - 1, 2 ** 43 - 1))]

    def test_given(self):
        found = host.parse(self.text)
        self.assertEqual((self.cpus, self.memory_mb),
                         (found.cpus, found.memory_mb))
        self.assertEqual('given', found.source)
        self.assertEqual(self.cpus, host.stock_inventory(
            found, CONF, 512)['VCPU']['total'])
        self.assertEqual(0, host.count_dedicated(found))


class BadGivenTest(base.TestCase):

    scenarios = [(text or 'nothing', {'text': text}) for text in (
        '', ',', 'cpus', 'cpus=64', 'memory=1Gi', 'cpus=64,memory',
        'cpus=64,memory=', 'cpus=,memory=1Gi', 'cpus=64,memory=1Gi,',
        'cpus=64,memory=1Gi,disk=1', 'cpus=64,cpus=4,memory=1Gi',
        'cpus=many,memory=1Gi',
        'cpus=64,memory=1GiB', 'cpus=-1,memory=1Gi', 'cpus=NaN,memory=1Gi',
        'cpus=64;memory=1Gi', 'cpus=0,memory=1Gi', 'cpus=999m,memory=1Gi',
        'cpus=64,memory=0', 'cpus=64,memory=1023Ki')]

    def test_refused(self):
        exc = self.assertRaises(errors.Refused, host.parse, self.text)
        self.assertIn(f'--machine {self.text}', str(exc))
        self.assertTrue(base.one_line(exc))


class HereTest(base.TestCase):

    def test_local(self):
        found = host.ask_kernel()
        self.assertGreaterEqual(found.cpus, 1)
        self.assertGreater(found.memory_mb, 1)

    def test_no_libvirt(self):
        self.assertIsNone(host.ask_libvirt(
            f'qemu+unix:///system?socket={self.folder()}/none'))

    def test_libvirt(self):
        closed = []

        class Connection:

            def getInfo(self):
                return ['x86_64', 2048, 16, 2400, 1, 2, 4, 2]

            def getCapabilities(self):
                return CAPABILITIES

            def close(self):
                closed.append(True)

        self.useFixture(fixtures.MockPatchObject(
            libvirt, 'openReadOnly', lambda uri: Connection()))
        self.assertEqual(
            host.Machine(16, 2048, 'libvirt at test:///x',
                         ((2048, 600), (2 ** 20, 1024))),
            host.ask_libvirt('test:///x'))
        self.assertTrue(closed)

    def test_libvirt_that_ends_meanwhile(self):
        connection = mock.Mock()
        connection.getInfo.side_effect = libvirt.libvirtError('x')
        self.useFixture(fixtures.MockPatchObject(
            libvirt, 'openReadOnly', lambda uri: connection))
        self.assertIsNone(host.ask_libvirt('test:///x'))
        connection.close.assert_called_once_with()


# As libvirt 9 has it, with two NUMA nodes.
CAPABILITIES = '''
<capabilities><host><topology><cells num='2'>
  <cell id='0'>
    <memory unit='KiB'>1048576</memory>
    <pages unit='KiB' size='4'>262144</pages>
    <pages unit='KiB' size='2048'>100</pages>
    <pages unit='KiB' size='1048576'>1</pages>
  </cell>
  <cell id='1'>
    <memory unit='KiB'>1048576</memory>
    <pages unit='KiB' size='4'>262144</pages>
    <pages unit='KiB' size='2048'>200</pages>
  </cell>
</cells></topology></host></capabilities>'''


class PagesTest(base.TestCase):

    def test_given(self):
        found = host.parse(
            'cpus=4,memory=64Gi,hugepages-2Mi=4Gi,hugepages-1Gi=8Gi')
        self.assertEqual(((2048, 4096), (2 ** 20, 8192)), found.huge_mb)
        pages = host.pages(found, {2048: 2 ** 30})
        self.assertEqual((12288, ((2048, 1024), (2 ** 20, 0))),
                         (pages.machine_mb, pages.by_size))

    def test_given_as_something_else(self):
        for text in ('hugepages-x=4Gi', 'hugepages-2Mi=x', 'pages=1',
                     'hugepages-2Mi=1Gi,hugepages-2Mi=2Gi', 'hugepages-0=1'):
            exc = self.assertRaises(errors.Refused, host.parse,
                                    f'cpus=4,memory=64Gi,{text}')
            self.assertIn('--machine', str(exc))

    def test_kernel(self):
        folder = pathlib.Path(self.folder())
        for size_kb, number in ((64, 9), (2048, 512), (2 ** 20, 0),
                                (32768, 'x')):
            path = folder / f'hugepages-{size_kb}kB'
            path.mkdir()
            (path / 'nr_hugepages').write_text(f'{number}\n')
        self.assertEqual(((2048, 1024),), host._kernels_huge_mb(folder))
        self.assertEqual((), host._kernels_huge_mb(folder / 'none'))

    def test_libvirt_that_knows_no_cells(self):
        self.assertEqual((), host._huge_mb(
            '<capabilities><host></host></capabilities>'))


class AwaitTest(base.TestCase):

    def test_libvirt_that_comes_later(self):
        log = self.useFixture(fixtures.FakeLogger('nova_k8s'))
        self.useFixture(fixtures.MockPatchObject(host, '_WAIT', 0))
        answers = [None, None, None, 'it']
        self.useFixture(fixtures.MockPatchObject(
            host, 'ask_libvirt', lambda uri: answers.pop(0)))
        host.await_libvirt('test:///x')
        self.assertEqual([], answers)
        self.assertEqual(1, log.output.count('Waiting for libvirt'))
        answers.append('it')
        host.await_libvirt('test:///x')
        self.assertEqual(1, log.output.count('Waiting for libvirt'))


class StockTest(base.TestCase):

    MACHINE = host.Machine(8, 16384, 'given')

    def setUp(self):
        super().setUp()
        CONF([], project='nova', default_config_files=[],
             default_config_dirs=[])
        self.flags = self.useFixture(config_fixture.Config(CONF)).config

    def _vcpu(self):
        found = host.stock_inventory(self.MACHINE, CONF, 512)
        return found['VCPU']['total'] if 'VCPU' in found else 0

    def test_defaults(self):
        self.assertEqual({
            'VCPU': {'total': 8, 'reserved': 0, 'min_unit': 1, 'max_unit': 8,
                     'step_size': 1, 'allocation_ratio': 4.0},
            'MEMORY_MB': {'total': 16384, 'reserved': 512, 'min_unit': 1,
                          'max_unit': 16384, 'step_size': 1,
                          'allocation_ratio': 1.0},
        }, host.stock_inventory(self.MACHINE, CONF, 512))
        self.assertEqual(0, host.count_dedicated(self.MACHINE))

    def test_ratios_and_reserved(self):
        self.flags(cpu_allocation_ratio=1.5, ram_allocation_ratio=1.25,
                   reserved_host_cpus=2)
        found = host.stock_inventory(self.MACHINE, CONF, 1024)
        self.assertEqual(
            [(1.5, 2), (1.25, 1024)],
            [(found[name]['allocation_ratio'], found[name]['reserved'])
             for name in ('VCPU', 'MEMORY_MB')])

    def test_shared_set(self):
        for text, expected in (('0-3', 4), ('0-7,^2', 7), ('6-9', 2),
                               ('8-9', 0)):
            self.flags(cpu_shared_set=text, group='compute')
            self.assertEqual(expected, self._vcpu(), text)

    def test_dedicated_set(self):
        self.flags(cpu_dedicated_set='2-9', group='compute')
        self.assertEqual(0, self._vcpu())
        self.assertEqual(6, host.count_dedicated(self.MACHINE))

    def test_both_sets(self):
        self.flags(cpu_shared_set='0-1', cpu_dedicated_set='2-7',
                   group='compute')
        self.assertEqual(2, self._vcpu())
        self.assertEqual(6, host.count_dedicated(self.MACHINE))

    def test_sets_of_a_machine_larger_than_any(self):
        self.flags(cpu_shared_set='0-1', cpu_dedicated_set='2-7',
                   group='compute')
        found = host.parse('cpus=10E,memory=10E')
        self.assertEqual(2, host.stock_inventory(
            found, CONF, 512)['VCPU']['total'])
        self.assertEqual(6, host.count_dedicated(found))

    def test_malformed_sets(self):
        for name in ('cpu_shared_set', 'cpu_dedicated_set'):
            self.flags(cpu_shared_set=None, cpu_dedicated_set=None,
                       group='compute')
            self.flags(**{name: '3-1'}, group='compute')
            exc = self.assertRaises(errors.Refused, self._vcpu)
            self.assertIn('3-1', str(exc))
            self.assertTrue(base.one_line(exc), str(exc))

    def test_file_backed_memory(self):
        self.flags(file_backed_memory=4096, group='libvirt')
        self.assertEqual(4096, host.stock_inventory(
            self.MACHINE, CONF, 512)['MEMORY_MB']['total'])
