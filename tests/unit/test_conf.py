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

"""The options, and that each says what it is for."""

import os

import nova.conf
from oslo_config import cfg
from placement.schemas import inventory as inventory_schema

from nova_k8s import conf
from nova_k8s import errors
from nova_k8s.limits import sources
from nova_k8s.limits.sources import api
from nova_k8s.limits.sources import downward_api
from nova_k8s.limits.sources import manifest
from tests.unit import base

CONF = nova.conf.CONF


class ConfTest(base.TestCase):

    def test_defaults(self):
        options = self.conf().kubernetes
        self.assertEqual('api', options.limits_from)
        # The machine is reported only where that is asked for.
        self.assertEqual('error', options.unlimited)
        self.assertEqual('eviction', options.drain_on)
        for name in ('container', 'namespace', 'pod_name', 'pod_selector',
                     'node_name', 'hypervisor_hostname', 'kubeconfig',
                     'manifest'):
            self.assertIsNone(options[name], name)

    def test_registered_twice(self):
        found = self.conf()
        conf.register_opts(found)

    def test_every_option_has_help(self):
        for group, options in conf.list_opts():
            self.assertTrue(
                group.name in ('kubernetes', conf.DRAIN) and options)
            for option in options:
                self.assertTrue(option.help, option.name)

    def test_choices(self):
        found = self.conf()
        for name in ('limits_from', 'unlimited', 'drain_on'):
            self.assertRaises(ValueError, found.set_override, name, 'x',
                              group='kubernetes')
        self.assertRaises(ValueError, found.set_override, 'api_timeout', 0,
                          group='kubernetes')

    def test_overhead_factor(self):
        found = self.conf()
        for text in ('nan', 'inf', '-inf', '-0.1', '1e308', 'x'):
            self.assertRaises(ValueError, found.set_override,
                              'overhead_factor', text, group='kubernetes')
        for text, expected in (('0', 0), ('1.5', 1.5), ('1000', 1000)):
            self.assertEqual(expected, self.conf(
                overhead_factor=text).kubernetes.overhead_factor)

    def test_environment(self):
        # What gives every pod its own identity without a template.
        os.environ['OS_KUBERNETES__NODE_NAME'] = 'node-1'
        self.addCleanup(os.environ.pop, 'OS_KUBERNETES__NODE_NAME')
        self.assertEqual('node-1', self.conf().kubernetes.node_name)

    def test_file(self):
        path = os.path.join(self.folder(), 'nova.conf')
        with open(path, 'w', encoding='utf-8') as f:
            f.write('[kubernetes]\nlimits_from = manifest\nmanifest = /x\n'
                    'container = *\n')
        found = cfg.ConfigOpts()
        conf.register_opts(found)
        found([], default_config_files=[path])
        self.assertEqual('manifest', found.kubernetes.limits_from)
        self.assertEqual('/x', found.kubernetes.manifest)
        self.assertEqual('*', found.kubernetes.container)


class CheckTest(base.TestCase):

    def _check(self, text):
        path = self.folder() + '/nova.conf'
        with open(path, 'w', encoding='utf-8') as f:
            f.write(text)
        CONF([], project='nova', default_config_files=[path],
             default_config_dirs=[])
        self.addCleanup(CONF.reset)
        conf.register_opts(CONF)
        conf.check(CONF)

    def test_what_nova_and_placement_take(self):
        self._check('')
        self._check('[DEFAULT]\ncpu_allocation_ratio = 0.0\n'
                    'ram_allocation_ratio = 3.4e38\n')

    def test_ratios(self):
        for name in ('cpu_allocation_ratio', 'ram_allocation_ratio',
                     'initial_cpu_allocation_ratio',
                     'initial_ram_allocation_ratio'):
            for value in ('nan', 'inf', '3.5e38'):
                exc = self.assertRaises(errors.Refused, self._check,
                                        f'[DEFAULT]\n{name} = {value}')
                self.assertIn(f'[DEFAULT] {name} is ', str(exc))

    def test_largest_ratio_is_that_of_placement(self):
        properties = inventory_schema.BASE_INVENTORY_SCHEMA['properties']
        ratio = properties['allocation_ratio']
        self.assertEqual(ratio['maximum'], conf._LARGEST_RATIO)

    def test_every_option_of_ours(self):
        for option in conf.OPTS:
            if isinstance(option, (cfg.IntOpt, cfg.BoolOpt)):
                self.assertRaises(cfg.ConfigFileValueError, self._check,
                                  f'[kubernetes]\n{option.name} = x')
        for option in conf.DRAIN_OPTS:
            self.assertRaises(cfg.ConfigFileValueError, self._check,
                              f'[{conf.DRAIN}]\n{option.name} = x')


class SourceFromConfTest(base.TestCase):

    def test_each(self):
        for source, options in (
                (manifest, {'limits_from': 'manifest', 'manifest': '/x'}),
                (downward_api, {'limits_from': 'downward_api'})):
            self.assertIsInstance(sources.from_conf(self.conf(**options)),
                                  source.Source)

    def test_api(self):
        # Outside of a cluster it says so: it is the default that is meant.
        exc = self.assertRaises(errors.Refused, sources.from_conf,
                                self.conf())
        self.assertIn('service account', str(exc))
        self.assertTrue(hasattr(api, 'Source'))

    def test_option_of_the_source_is_missing(self):
        for limits_from, option in (('manifest', 'manifest'),
                                    ('downward_api', 'downward_api_dir')):
            exc = self.assertRaises(errors.Refused, sources.from_conf,
                                    self.conf(**{'limits_from': limits_from,
                                                 option: ''}))
            self.assertIn(f'[kubernetes] {option}', str(exc))
            self.assertIn(f'limits_from = {limits_from}', str(exc))

    def test_every_choice_has_a_source(self):
        choices = {opt.name: opt for opt in conf.OPTS}['limits_from']
        self.assertEqual(['api', 'manifest', 'downward_api'],
                         list(choices.type.choices))
