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

"""The DevStack plugin, run by bash against stand-ins for DevStack."""

import configparser
import json
import os
import pathlib
import re
import subprocess
import sys

import fixtures
import testtools
import yaml

TOP = pathlib.Path(__file__).resolve().parents[2]

# Every function of DevStack that the plugin calls. Each says what it was
# called with, one argument a line, and then an empty line.
STAND_INS = r'''
function record { printf '%s\n' "$@" '' >> "$CALLS"; }
function define_plugin { record define_plugin "$@"; }
function echo_summary { record echo_summary "$@"; }
function iniset { record iniset "$@"; }
function setup_develop { record setup_develop "$@"; }
function pip_uninstall { record pip_uninstall "$@"; }
function is_service_enabled { [[ ",$ENABLED," == *",$1,"* ]]; }
function warn { record warn "$@"; }
function die { record die "$@"; exit 1; }
'''

COMMAND = '#!/bin/sh\nprintf "%s\\n" {name} "$@" "" >> "$CALLS"\n'

PHASES = ('stack pre-install', 'stack install', 'stack post-config',
          'stack extra', 'stack test-config', 'unstack', 'clean')


class DevStack(fixtures.Fixture):
    """A folder as DevStack leaves it, and a way to run phases in it."""

    def _setUp(self):
        self.directory = pathlib.Path(
            self.useFixture(fixtures.TempDir()).path)
        self.conf_dir = self.directory / 'etc'
        self.conf_dir.mkdir()
        self.nova_conf = self.conf_dir / 'nova.conf'
        self.manifest = self.conf_dir / 'nova-k8s-pod.yaml'
        self._calls = self.directory / 'calls'
        for path in ('requirements/.venv/bin/edit-constraints',
                     'bin/nova-k8s'):
            command = self.directory / path
            command.parent.mkdir(parents=True)
            command.write_text(COMMAND.format(name=command.name))
            command.chmod(0o755)

    def run(self, *phases, check=True, enabled='n-api,n-cpu', **settings):
        """Run phases one after the other; return the calls they made."""
        self._calls.write_text('')
        environ = {
            'PATH': os.environ['PATH'], 'CALLS': str(self._calls),
            'ENABLED': enabled, 'DEST': '/opt/stack',
            'VIRT_DRIVER': 'libvirt',
            'NOVA_BIN_DIR': str(self.directory / 'bin'),
            'NOVA_CONF_DIR': str(self.conf_dir),
            'NOVA_CONF': str(self.nova_conf),
            'REQUIREMENTS_DIR': str(self.directory / 'requirements'),
            **settings}
        for phase in phases:
            # DevStack runs with errexit; phases do not share what a plugin
            # has set, as stack.sh, unstack.sh and clean.sh do not.
            done = subprocess.run(
                ['bash', '-e', '-c', STAND_INS +
                 'source devstack/settings; source devstack/plugin.sh '
                 + phase], cwd=TOP, env=environ, text=True,
                capture_output=True)
            if check and (done.returncode or done.stderr):
                raise AssertionError(f'{phase}: {done.returncode}: '
                                     f'{done.stderr}')
        calls = [call.split('\n') for call
                 in self._calls.read_text().split('\n\n') if call]
        return [call for call in calls if call[0] != 'define_plugin']

    def options(self, calls):
        """Return what iniset was called with, and write nova.conf of it."""
        parser = configparser.ConfigParser(interpolation=None)
        for call in calls:
            if call[0] == 'iniset':
                path, section, option, value = call[1:]
                if path != str(self.nova_conf):
                    raise AssertionError(path)
                if section != 'DEFAULT' and not parser.has_section(section):
                    parser.add_section(section)
                parser.set(section, option, value)
        with open(self.nova_conf, 'w') as out:
            parser.write(out)
        return {(section, option): value for section in parser
                for option, value in parser.items(section)
                if section == 'DEFAULT' or
                option not in parser.defaults()}


class PluginTest(testtools.TestCase):

    def setUp(self):
        super().setUp()
        self.devstack = self.useFixture(DevStack())

    def limits(self):
        pod = yaml.safe_load(self.devstack.manifest.read_text())
        return pod['spec']['containers'][0]['resources']['limits']

    def test_install(self):
        self.assertEqual([
            ['echo_summary', 'Installing nova-k8s'],
            ['edit-constraints',
             f'{self.devstack.directory}/requirements/upper-constraints.txt',
             '--', 'kubernetes'],
            ['setup_develop', '/opt/stack/nova-k8s'],
        ], self.devstack.run('stack install'))

    def test_name_is_where_devstack_looks_for_it(self):
        # setup_develop takes the third word of this line.
        lines = [line.split() for line
                 in (TOP / 'setup.cfg').read_text().splitlines()
                 if re.match('name.*=', line)]
        self.assertEqual([['name', '=', 'nova-k8s']], lines)

    def test_post_config_on_a_plain_devstack(self):
        calls = self.devstack.run('stack post-config')
        self.assertEqual({
            ('DEFAULT', 'compute_driver'): 'k8s.K8sLibvirtDriver',
            ('kubernetes', 'limits_from'): 'manifest',
            ('kubernetes', 'manifest'): str(self.devstack.manifest),
        }, self.devstack.options(calls))
        self.assertEqual({'cpu': '2', 'memory': '4Gi'}, self.limits())

    def test_post_config_with_a_manifest(self):
        manifest = self.devstack.directory / 'compute.yaml'
        manifest.write_text('')
        calls = self.devstack.run(
            'stack post-config', NOVA_K8S_MANIFEST=str(manifest),
            NOVA_K8S_CONTAINER='*', NOVA_K8S_POD_NAME='libvirt')
        self.assertEqual({
            ('DEFAULT', 'compute_driver'): 'k8s.K8sLibvirtDriver',
            ('kubernetes', 'container'): '*',
            ('kubernetes', 'limits_from'): 'manifest',
            ('kubernetes', 'manifest'): str(manifest),
            ('kubernetes', 'pod_name'): 'libvirt',
        }, self.devstack.options(calls))
        self.assertFalse(self.devstack.manifest.exists())

    def test_post_config_with_a_kubeconfig(self):
        kubeconfig = self.devstack.directory / 'kubeconfig'
        kubeconfig.write_text('')
        calls = self.devstack.run(
            'stack post-config', NOVA_K8S_KUBECONFIG=str(kubeconfig),
            NOVA_K8S_POD_SELECTOR='app.kubernetes.io/name=libvirt',
            NOVA_K8S_CONTAINER='libvirt', NOVA_K8S_NODE_NAME='Node1')
        self.assertEqual({
            ('DEFAULT', 'compute_driver'): 'k8s.K8sLibvirtDriver',
            ('kubernetes', 'container'): 'libvirt',
            ('kubernetes', 'kubeconfig'): str(kubeconfig),
            ('kubernetes', 'limits_from'): 'api',
            ('kubernetes', 'namespace'): 'openstack',
            ('kubernetes', 'node_name'): 'node1',
            ('kubernetes', 'pod_selector'): 'app.kubernetes.io/name=libvirt',
        }, self.devstack.options(calls))
        self.assertFalse(self.devstack.manifest.exists())

    def test_every_option_that_is_set_exists(self):
        from nova_k8s import conf

        known = {option.name for option in conf.OPTS}
        kubeconfig = self.devstack.directory / 'kubeconfig'
        kubeconfig.write_text('')
        for settings in ({}, {'NOVA_K8S_KUBECONFIG': str(kubeconfig)}):
            calls = self.devstack.run(
                'stack post-config', NOVA_K8S_POD_NAME='compute',
                NOVA_K8S_POD_SELECTOR='a=b', NOVA_K8S_CONTAINER='libvirt',
                **settings)
            self.assertLessEqual(
                {option for section, option in self.devstack.options(calls)
                 if section == 'kubernetes'}, known)

    def test_what_cannot_work_is_refused(self):
        for settings, message in (
                ({'VIRT_DRIVER': 'fake'}, 'VIRT_DRIVER=libvirt'),
                ({'NOVA_K8S_MANIFEST': '/none'}, 'cannot read /none'),
                ({'NOVA_K8S_KUBECONFIG': '/none'}, 'cannot read /none'),
                ({'NOVA_K8S_KUBECONFIG': '/dev/null'},
                 'NOVA_K8S_POD_SELECTOR or NOVA_K8S_POD_NAME')):
            last = self.devstack.run('stack post-config', check=False,
                                     **settings)[-1]
            self.assertEqual('die', last[0])
            self.assertIn(message, last[-1])

    def test_extra(self):
        self.assertEqual([
            ['echo_summary', 'What nova-k8s tells Nova'],
            ['nova-k8s', 'report', '--config-file',
             str(self.devstack.nova_conf)],
        ], self.devstack.run('stack extra'))

    def test_report_that_fails_does_not_end_devstack(self):
        (self.devstack.directory / 'bin' / 'nova-k8s').write_text(
            '#!/bin/sh\nexit 1\n')
        self.assertEqual('warn', self.devstack.run('stack extra')[-1][0])

    def test_unstack(self):
        self.devstack.run('stack post-config')
        self.assertEqual([], self.devstack.run('unstack'))
        self.assertTrue(self.devstack.manifest.exists())

    def test_clean(self):
        self.devstack.run('stack post-config')
        self.assertEqual([['pip_uninstall', 'nova-k8s']],
                         self.devstack.run('unstack', 'clean'))
        self.assertEqual([], list(self.devstack.conf_dir.iterdir()))

    def test_other_phases_do_nothing(self):
        self.assertEqual([], self.devstack.run(
            'stack pre-install', 'stack test-config'))

    def test_nothing_is_done_where_nova_compute_does_not_run(self):
        self.assertEqual([], self.devstack.run(*PHASES, enabled='n-api'))

    def test_twice_is_as_once(self):
        calls = self.devstack.run(*PHASES[:-2])
        manifest = self.devstack.manifest.read_text()
        self.assertEqual(calls, self.devstack.run(*PHASES[:-2]))
        self.assertEqual(manifest, self.devstack.manifest.read_text())
        self.assertEqual(self.devstack.run('clean'),
                         self.devstack.run('clean'))

    def test_a_changed_limit_is_written(self):
        self.devstack.run('stack post-config')
        self.devstack.run('stack post-config', NOVA_K8S_CPU_LIMIT='7500m',
                          NOVA_K8S_MEMORY_LIMIT='8Gi')
        self.assertEqual({'cpu': '7500m', 'memory': '8Gi'}, self.limits())

    def test_report_of_the_resulting_configuration(self):
        self.devstack.options(self.devstack.run(
            'stack post-config', NOVA_K8S_CPU_LIMIT='3'))
        done = subprocess.run(
            [sys.executable, '-m', 'nova_k8s.cmd.main', 'report',
             '--config-file', str(self.devstack.nova_conf),
             '--machine', 'cpus=64,memory=256Gi', '--format', 'json'],
            cwd=TOP, text=True, capture_output=True)
        self.assertEqual('', done.stderr)
        inventory = json.loads(done.stdout)['inventory']
        self.assertEqual(3, inventory['VCPU']['total'])
        self.assertEqual(4096, inventory['MEMORY_MB']['total'])

    def test_sample_sets_what_the_plugin_reads(self):
        sample = (TOP / 'devstack' / 'local.conf.sample').read_text()
        known = (TOP / 'devstack' / 'settings').read_text()
        names = {word.split('=')[0] for word in sample.split()
                 if word.startswith('NOVA_K8S_')}
        self.assertNotEqual(set(), names)
        self.assertEqual([], [name for name in sorted(names)
                              if f'{name}=' not in known])
