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

"""nova-k8s report, as it is called."""

import contextlib
import io
import json
import logging
import os
import re
import sys
from unittest import mock
import warnings

import fixtures
import libvirt
import nova.conf
from oslo_config import cfg
import testscenarios
import yaml

from nova_k8s.cmd import main
from nova_k8s.cmd import report
from nova_k8s import conf
from nova_k8s import errors
from nova_k8s.kube import client as kube_client
from nova_k8s.limits import budget
from nova_k8s.limits import checkpoint
from tests.unit import api_server
from tests.unit import base

load_tests = testscenarios.load_tests_apply_scenarios

CONF = nova.conf.CONF
GI = 2 ** 30
MACHINE = ('--machine', 'cpus=64,memory=256Gi')


def workload(name='compute', kind='Deployment', container='libvirt',
             cpu='7500m', memory='16Gi', **requests):
    limits = {'cpu': cpu, 'memory': memory}
    spec = {'containers': [{'name': container, 'resources': {
        'limits': {k: v for k, v in limits.items() if v},
        'requests': requests}}]}
    return {'kind': kind, 'metadata': {'name': name, 'namespace': 'a'},
            'spec': spec if kind == 'Pod' else {'template': {'spec': spec}}}


def running():
    """A pod as the API server shows it."""
    found = workload(kind='Pod')
    found['status'] = {'phase': 'Running', 'containerStatuses': [
        {'name': 'libvirt', 'state': {'running': {}}}]}
    return found


class ReportTestBase(base.TestCase):

    def setUp(self):
        super().setUp()
        conf.register_opts(CONF)
        base.forget_override(CONF, 'reserved_host_memory_mb')
        self.addCleanup(self._forget)

    @staticmethod
    def _forget():
        CONF.reset()
        for name in ('limits_from', 'manifest', 'container'):
            CONF.clear_override(name, group='kubernetes')

    def run_report(self, *args):
        """Return (status, stdout, stderr)."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main.main(['report', *args])
        return status, out.getvalue(), err.getvalue()

    def succeed(self, *args):
        status, out, err = self.run_report(*args)
        self.assertEqual((0, ''), (status, err))
        return out

    def fail_with(self, *names, args=()):
        status, out, err = self.run_report(*args)
        self.assertEqual((1, ''), (status, out))
        line, = err.splitlines()
        for name in ['nova-k8s: ', *names]:
            self.assertIn(name, line)

    def file(self, text, name='file'):
        path = os.path.join(self.folder(), name)
        with open(path, 'w', encoding='utf-8') as f:
            f.write(text)
        return path

    def manifest(self, *documents):
        return self.file(yaml.safe_dump_all(documents or [workload()]))

    def nova_conf(self, default='', **options):
        return self.file('[DEFAULT]\n%s\n[kubernetes]\n%s' % (
            default, '\n'.join(f'{k} = {v}' for k, v in options.items())))


class FormatTest(ReportTestBase):

    def _check(self, found):
        self.assertEqual(
            ['machine', 'budget', 'inventory', 'memory', 'cpus',
             'warnings', 'notes'], list(found))
        self.assertEqual([{
            'pages': 'ordinary', 'machine_mb': 2 ** 18, 'limit_mb': 16384,
            'offered_mb': 16384}], found['memory'])
        self.assertEqual({'cpus': 64, 'memory_mb': 2 ** 18,
                          'source': 'given'}, found['machine'])
        self.assertEqual(
            ['cpu_millicores', 'memory_bytes', 'hugepages',
             'ephemeral_storage_bytes', 'source'], list(found['budget']))
        self.assertEqual(7500, found['budget']['cpu_millicores'])
        self.assertEqual(16 * GI, found['budget']['memory_bytes'])
        self.assertIn('Deployment a/compute', found['budget']['source'])
        self.assertEqual(
            {'VCPU': {'total': 7, 'reserved': 0, 'min_unit': 1,
                      'max_unit': 7, 'step_size': 1, 'allocation_ratio': 4.0},
             'MEMORY_MB': {'total': 16384, 'reserved': 256, 'min_unit': 1,
                           'max_unit': 16384, 'step_size': 1,
                           'allocation_ratio': 1.0}}, found['inventory'])
        self.assertEqual([], found['warnings'])
        memory, ratio = found['notes']
        self.assertIn('reserved_memory_mb = auto', memory)
        for word in ('VCPU and MEMORY_MB', 'cpu_allocation_ratio',
                     'ram_allocation_ratio', 'nova-k8s status'):
            self.assertIn(word, ratio)

    def test_no_notes(self):
        found = json.loads(self.succeed(
            '--manifest', self.manifest(), *MACHINE, '--format', 'json',
            '--config-file', self.nova_conf(
                'cpu_allocation_ratio = 2.0\nram_allocation_ratio = 1.0',
                reserved_memory_mb='256')))
        self.assertEqual([], found['notes'])

    def test_ratio_that_placement_may_have_another_of(self):
        for options, classes in (
                ('initial_cpu_allocation_ratio = 1.0', 'VCPU and MEMORY_MB'),
                # As for Nova: not set.
                ('cpu_allocation_ratio = 0.0', 'VCPU and MEMORY_MB'),
                ('cpu_allocation_ratio = 1.0', 'MEMORY_MB')):
            note, = json.loads(self.succeed(
                '--manifest', self.manifest(), *MACHINE, '--format', 'json',
                '--config-file', self.nova_conf(
                    options, reserved_memory_mb='256')))['notes']
            self.assertIn(f'The ratio of {classes} is that of a new', note)

    def test_json(self):
        self._check(json.loads(self.succeed(
            '--manifest', self.manifest(), *MACHINE, '--format', 'json')))

    def test_yaml(self):
        self._check(yaml.safe_load(self.succeed(
            '--manifest', self.manifest(), *MACHINE, '--format', 'yaml')))

    def test_table(self):
        path = self.manifest(workload(cpu='7500m', memory='16Gi'))
        out = self.succeed('--manifest', path, *MACHINE)
        # The path is whole, however narrow the terminal.
        self.assertIn(f'Deployment a/compute, container libvirt ({path})',
                      out)
        rows = [line.replace('│', ' ').split() for line in out.splitlines()]
        self.assertIn(['VCPU', '64', '7', '7', '0', '4.0', '28'], rows)
        self.assertIn(['MEMORY_MB', '262144', '16384', '16384', '256', '1.0',
                       '16128'], rows)
        self.assertIn('Machine: given', out)
        self.assertNotIn('Warning', out)
        self.assertIn('reserved_memory_mb = auto', out)
        out = self.succeed('--manifest', path, *MACHINE, '--config-file',
                           self.nova_conf(reserved_memory_mb='300'))
        self.assertNotIn('auto', out)

    def test_flavors_in_80_columns(self):
        path = self.manifest(workload(cpu='512', memory='4000Gi'))
        with fixtures.EnvironmentVariable('COLUMNS', '80'):
            out = self.succeed(
                '--manifest', path, '--machine', 'cpus=512,memory=4096Gi',
                '--flavor', '128,1048576', '--flavor', '1,512')
        # Of what people read in tables, no word is cut.
        self.assertNotIn('…', out)
        rows = [[cell.strip() for cell in re.split('[│┃]', line)[1:-1]]
                for line in out.splitlines()]
        self.assertIn(['vCPUs', 'memory', 'overhead', 'fit', 'bounded by',
                       'left over'], rows)
        self.assertIn(['vCPUs', 'memory', 'placed', 'need', 'limit',
                       'estimate'], rows)
        stock = [row for row in rows if row[:2] == ['1', '512 MiB']][1]
        self.assertEqual(['4096000 MiB', 'fits'], stock[-2:])
        # It cannot be known whether the kernel ends a guest.
        self.assertIn('What a guest costs is an estimate', out)

    def test_warnings(self):
        path = self.manifest({
            'kind': 'Pod', 'metadata': {'name': 'a'}, 'spec': {
                'containers': [{'name': 'b', 'resources': {
                    'limits': {'cpu': '65', 'memory': '256Mi'},
                    'requests': {'cpu': '1'}}}]}})
        args = ('--manifest', path, *MACHINE)
        warnings = json.loads(self.succeed(
            *args, '--format', 'json'))['warnings']
        for line, name in zip(warnings, (
                'resources.requests.cpu', 'the machine has 64',
                'nothing is left'), strict=True):
            self.assertIn(name, line)
        out = self.succeed(*args).splitlines()
        self.assertEqual([f'Warning: {line}' for line in warnings], out[-3:])

    def test_markup_is_text(self):
        # Nothing of what a manifest holds is an instruction to the terminal.
        out = self.succeed('--manifest', self.manifest(
            workload('[red]x[/red]')), *MACHINE)
        self.assertIn('[red]x[/red]', out)


class ManifestTest(ReportTestBase):

    def test_several_documents(self):
        path = self.manifest(
            {'kind': 'ConfigMap', 'metadata': {'name': 'a'}},
            workload('api', container='nova-api', cpu='1', memory='1Gi'),
            workload('libvirt', 'DaemonSet', cpu='8', memory='8Gi'), None)
        self.fail_with('[kubernetes] pod_name', 'Deployment a/api',
                       'DaemonSet a/libvirt',
                       args=('--manifest', path, *MACHINE))
        found = json.loads(self.succeed(
            '--manifest', path, *MACHINE, '--container', 'libvirt',
            '--format', 'json'))
        self.assertEqual(8, found['inventory']['VCPU']['total'])
        # Of two, the option says which.
        self._forget()
        found = json.loads(self.succeed(
            '--manifest', path, *MACHINE, '--format', 'json',
            '--config-file', self.nova_conf(pod_name='api')))
        self.assertEqual(1, found['inventory']['VCPU']['total'])

    def test_whole_pod(self):
        path = self.manifest({
            'kind': 'Pod', 'metadata': {'name': 'a'}, 'spec': {
                'containers': [
                    {'name': name, 'resources': {
                        'limits': {'cpu': '2', 'memory': '1Gi'}}}
                    for name in ('b', 'c')]}})
        found = json.loads(self.succeed(
            '--manifest', path, '--container', '*', *MACHINE, '--format',
            'json'))
        # Guests are in one of the two.
        self.assertEqual(2, found['inventory']['VCPU']['total'])

    def test_wins_over_nova_conf(self):
        found = json.loads(self.succeed(
            '--manifest', self.manifest(), *MACHINE, '--format', 'json',
            '--config-file', self.nova_conf(
                'cpu_allocation_ratio = 1.0', limits_from='downward_api',
                manifest='/none')))
        record = found['inventory']['VCPU']
        self.assertEqual((7, 1.0),
                         (record['total'], record['allocation_ratio']))

    def test_manifest_from_nova_conf(self):
        found = json.loads(self.succeed(
            *MACHINE, '--format', 'json', '--config-file', self.nova_conf(
                limits_from='manifest', manifest=self.manifest())))
        self.assertEqual(7, found['inventory']['VCPU']['total'])


class HugePagesTest(ReportTestBase):

    def test_both_kinds(self):
        pod = workload()
        container, = pod['spec']['template']['spec']['containers']
        container['resources']['limits'].update({'hugepages-2Mi': '8Gi'})
        args = ('--manifest', self.manifest(pod), '--machine',
                'cpus=64,memory=256Gi,hugepages-2Mi=4Gi,hugepages-1Gi=64Gi')
        found = json.loads(self.succeed(*args, '--format', 'json'))
        self.assertEqual(16384 + 4096,
                         found['inventory']['MEMORY_MB']['total'])
        self.assertEqual(
            [('ordinary', 2 ** 18 - 68 * 1024, 16384, 16384),
             ('2Mi', 4096, 8192, 4096), ('1Gi', 65536, 0, 0)],
            [tuple(each.values()) for each in found['memory']])
        self.assertEqual(1, len(found['warnings']))
        self.assertIn('hugepages-2Mi allows 8192 MiB', found['warnings'][0])
        text = self.succeed(*args)
        for part in ('MEMORY_MB by size of pages', 'ordinary', '1Gi'):
            self.assertIn(part, text)


class MachineTest(ReportTestBase):

    def _machine(self):
        return json.loads(self.succeed(
            '--manifest', self.manifest(), '--format', 'json'))['machine']

    def test_here(self):
        with mock.patch.object(libvirt, 'openReadOnly',
                               side_effect=libvirt.libvirtError('x')):
            self.assertIn('no libvirt answers', self._machine()['source'])

    def test_libvirt(self):
        connection = mock.Mock()
        connection.getInfo.return_value = ['x86_64', 2048, 16]
        connection.getCapabilities.return_value = (
            '<capabilities><host></host></capabilities>')
        with mock.patch.object(libvirt, 'openReadOnly',
                               return_value=connection):
            self.assertEqual(
                {'cpus': 16, 'memory_mb': 2048,
                 'source': 'libvirt at qemu:///system'}, self._machine())


class ErrorTest(ReportTestBase):

    def _manifest(self, *names, documents=(), args=()):
        self.fail_with(*names, args=(
            '--manifest', self.manifest(*documents), *MACHINE, *args))

    def test_machine(self):
        for text in ('x', ''):
            self._manifest('--machine', args=('--machine', text))

    def test_no_manifest(self):
        # As of a variable of the shell that is not set: no other source.
        self.fail_with('[kubernetes] manifest is not set', args=(
            '--manifest', '', '--config-file', self.nova_conf(
                limits_from='downward_api')))

    def test_manifest_is_read_without_the_configuration_of_this_machine(self):
        with mock.patch.object(cfg, 'find_config_files', self.fail), \
                mock.patch.object(cfg, 'find_config_dirs', self.fail):
            self.succeed('--manifest', self.manifest(), *MACHINE)

    def test_container_of_a_volume(self):
        folder = self.folder()
        for name, number in (('cpu_millicores', 4000),
                             ('memory_bytes', 8 * GI)):
            with open(os.path.join(folder, name), 'w',
                      encoding='utf-8') as f:
                f.write(str(number))
        path = self.nova_conf(limits_from='downward_api',
                              downward_api_dir=folder)
        self.succeed('--config-file', path, *MACHINE)
        self.fail_with('--container', 'downward_api', args=(
            '--config-file', path, *MACHINE, '--container', 'x'))

    def test_no_such_file(self):
        self.fail_with('/none', 'No such file',
                       args=('--manifest', '/none'))

    def test_no_yaml(self):
        self.fail_with('not YAML', args=('--manifest', self.file('a: b: c')))

    def test_no_limit(self):
        self._manifest('limits.memory', '[kubernetes] unlimited',
                       documents=[workload(memory=None)])

    def test_no_limit_and_that_is_wanted(self):
        path = self.manifest(workload(memory=None))
        out = self.succeed('--manifest', path, *MACHINE, '--config-file',
                           self.nova_conf(unlimited='host'))
        self.assertIn('none', out)

    def test_below_one_core(self):
        # The API server makes a whole core of it; less is never too much.
        for cpu in ('999m', '0.9999'):
            self._manifest('below one core', documents=[workload(cpu=cpu)])

    def test_container(self):
        self._manifest('[kubernetes] container', 'libvirt',
                       args=('--container', 'x'))

    def test_below_what_is_reserved(self):
        self._manifest('reserved_memory_mb',
                       documents=[workload(memory='255Mi')])
        self._manifest(
            'reserved_host_memory_mb', args=(
                '--config-file', self.nova_conf(
                    'reserved_host_memory_mb = 16385')))

    def test_config_file(self):
        self.fail_with('/none', args=('--config-file', '/none'))

    def test_config_file_that_is_none(self):
        binary = os.path.join(self.folder(), 'binary')
        with open(binary, 'wb') as f:
            f.write(b'\xff\xfe')
        for path in (binary, self.folder()):
            self._manifest('--config-file', path,
                           args=('--config-file', path))

    def test_overhead_factor(self):
        for value in ('nan', 'inf', '-1', '1e308'):
            self._manifest('overhead_factor', args=(
                '--config-file', self.nova_conf(overhead_factor=value)))

    def test_allocation_ratio(self):
        for value in ('nan', 'inf', '1e300'):
            for more in ((), ('--format', 'json'), ('--flavor', '1,512')):
                self._manifest('cpu_allocation_ratio', args=(
                    '--config-file', self.nova_conf(
                        f'cpu_allocation_ratio = {value}'), *more))

    def test_reserve_ahead(self):
        self._manifest('reserve_ahead', args=(
            '--config-file', self.nova_conf(reserve_ahead=-1)))

    def test_stdout_is_closed(self):
        # Python has none, then.
        err = io.StringIO()
        with contextlib.redirect_stderr(err), \
                mock.patch.object(sys, 'stdout', None):
            status = main.main(['report', '--manifest', self.manifest()])
        self.assertEqual((1, 'nova-k8s: stdout is closed\n'),
                         (status, err.getvalue()))

    def test_output_that_takes_no_umlaut(self):
        args = ('--manifest', self.manifest(workload('\xe4')), *MACHINE)
        with io.TextIOWrapper(io.BytesIO(), 'ascii') as out:
            status, err = self._write_to(out, args)
        self.assertEqual(1, status)
        self.assertEqual(
            "nova-k8s: stdout: '\\xe4' cannot be written in ascii; set "
            "PYTHONIOENCODING=utf-8\n", err)

    def test_name_that_no_output_takes(self):
        path = self.file(json.dumps(workload('\ud800')))
        with io.TextIOWrapper(io.BytesIO(), 'utf-8') as out:
            self.assertEqual((0, ''), self._write_to(
                out, ('--manifest', path, *MACHINE)))

    def test_disk_is_full(self):
        args = ('--manifest', self.manifest(), *MACHINE)
        # Its end flushes what is left, as that of Python does.
        with open('/dev/full', 'w', encoding='utf-8') as out:
            status, err = self._write_to(out, args)
        self.assertEqual(
            (1, 'nova-k8s: stdout: No space left on device\n'), (status, err))

    def _write_to(self, out, args):
        """Return (status, stderr)."""
        err = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            return main.main(['report', *args]), err.getvalue()

    def test_warnings_of_libraries(self):
        def warn(*_args):
            warnings.warn('very wide', FutureWarning)
            raise errors.Refused('because')

        with mock.patch.object(report, 'report', warn):
            self._manifest('because')

    def test_options(self):
        for name in ('limits_from', 'unlimited'):
            self.fail_with(name, args=(
                '--config-file', self.nova_conf(**{
                    'limits_from': 'manifest', 'manifest': self.manifest(),
                    name: 'x'})))

    def test_options_of_nova(self):
        for line in ('reserved_host_memory_mb = x', '[compute]\n'
                     'cpu_shared_set = 3-1'):
            self.fail_with(args=(
                '--manifest', self.manifest(), *MACHINE,
                '--config-file', self.nova_conf(line)))

    def test_usage(self):
        with contextlib.redirect_stderr(io.StringIO()):
            for args in ([], ['x'], ['report', '--format', 'x']):
                exc = self.assertRaises(SystemExit, main.main, args)
                self.assertEqual(2, exc.code)


class ApiTest(ReportTestBase):

    def setUp(self):
        super().setUp()
        self.server = self.useFixture(api_server.ApiServer())
        self.state_path = self.folder()
        self.args = ('--config-file', self.nova_conf(
            f'state_path = {self.state_path}\nhost = h',
            kubeconfig=self.file(yaml.safe_dump({
                'kind': 'Config', 'apiVersion': 'v1', 'current-context': 'a',
                'clusters': [{'name': 'a', 'cluster': {
                    'server': self.server.url}}],
                'users': [{'name': 'a', 'user': {'token': 'very-secret'}}],
                'contexts': [{'name': 'a', 'context': {
                    'cluster': 'a', 'user': 'a'}}]})),
            namespace='a', pod_name='compute', api_timeout=1),
            *MACHINE, '--format', 'json')

    def test_pod_that_is_being_deleted(self):
        pod = running()
        pod['metadata']['deletionTimestamp'] = '2026-11-24T20:30:00Z'
        self.server.will_list(pod)
        found = json.loads(self.succeed(*self.args))
        for record in found['inventory'].values():
            self.assertEqual(record['total'], record['reserved'])
        self.assertEqual(7, found['inventory']['VCPU']['total'])
        self.assertIn('2026-11-24T20:30:00Z', found['warnings'][0])

    def test_pod_that_does_not_run(self):
        self.server.will_list(workload(kind='Pod'))
        self.fail_with('container libvirt does not run', args=self.args)

    def test_cgroup_that_allows_less(self):
        folder = self.folder()
        for name, text in (('cgroup.controllers', ''),
                           ('memory.max', str(2 ** 31))):
            with open(f'{folder}/{name}', 'w', encoding='utf-8') as f:
                f.write(text)
        self.server.will_list(running())
        CONF.set_override('pod_cgroup', folder, 'kubernetes')
        self.addCleanup(CONF.clear_override, 'pod_cgroup', 'kubernetes')
        found = json.loads(self.succeed(*self.args))
        self.assertEqual(2048, found['inventory']['MEMORY_MB']['total'])
        self.assertIn(f'{folder}/memory.max', found['warnings'][0])

    def test_read(self):
        pod = running()
        self.server.will_list(pod)
        found = json.loads(self.succeed(*self.args))
        self.assertEqual('Pod a/compute, container libvirt (API server)',
                         found['budget']['source'])
        self.assertEqual([], found['warnings'])

    def test_refused(self):
        self.server.will_refuse(403, 'pods is forbidden')
        self.fail_with('pods is forbidden', self.server.url, args=self.args)

    def test_reason_that_was_only_logged(self):
        with open(os.path.join(self.state_path, 'nova-k8s-budget.json'), 'w',
                  encoding='utf-8') as f:
            f.write('rubbish')

        def refuse(*_args):
            logging.getLogger().error('exec: process\nreturned 1')
            logging.getLogger('urllib3').error('noise')
            raise errors.Unreadable('401: Unauthorized')

        with mock.patch.object(kube_client, 'api_client', refuse):
            self.fail_with('401: Unauthorized; exec: process returned 1',
                           args=self.args)
        self._forget()
        self.server.will_refuse(503, 'try later')
        self.fail_with('try later; ', 'nova-k8s-budget.json is ignored',
                       args=self.args)

    def test_stale(self):
        self.server.will_list(running())
        self.succeed(*self.args)
        checkpoint.save(CONF, budget.Budget('Pod a/compute', 3000, GI))
        self._forget()
        self.server.will_refuse(503, 'try later')
        found = json.loads(self.succeed(*self.args))
        self.assertEqual(3, found['inventory']['VCPU']['total'])
        line, = found['warnings']
        self.assertTrue(line.startswith('stale: '), line)
        for name in ('try later', self.server.url):
            self.assertIn(name, line)

    def test_writes_nothing(self):
        # It may run beside nova-compute, or as another user.
        self.server.will_list(running())
        self.succeed(*self.args)
        self.assertEqual([], os.listdir(self.state_path))

    def test_no_secrets(self):
        log = self.useFixture(fixtures.FakeLogger())
        self.server.will_refuse(401, 'because')
        found = self.run_report(*self.args)
        self.assertIn('because', found[2])
        self.assertNotIn('very-secret', ''.join(map(str, found)))
        self.assertNotIn('very-secret', log.output)
