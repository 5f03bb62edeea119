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

"""The values for OpenStack-Helm have the names that its charts have."""

import configparser
import pathlib
import tempfile

import nova.conf
from oslo_rootwrap import filters
import testtools
import yaml

from nova_k8s.accounting import privileged as guests
from nova_k8s import conf
from nova_k8s.confinement import privileged as guest_slice
from nova_k8s.limits import budget
from nova_k8s.limits.sources import manifest

CONF = nova.conf.CONF
conf.register_opts(CONF)

HERE = pathlib.Path(__file__).resolve().parent
VALUES = HERE.parents[1] / 'etc' / 'openstack-helm' / 'values.yaml'


def unknown(values, *charts, path=''):
    """The paths in values that none of the charts has."""
    found = []
    for name, value in values.items():
        inside = [chart[name] for chart in charts
                  if isinstance(chart, dict) and name in chart]
        if not inside:
            found.append(f'{path}{name}')
        elif isinstance(value, dict) and None not in inside:
            found += unknown(value, *inside, path=f'{path}{name}.')
    return found


def leaves(values, path=()):
    if not isinstance(values, dict):
        return [path]
    return [leaf for name, value in values.items()
            for leaf in leaves(value, (*path, name))]


def has(chart, path):
    """Whether a chart does something with a path."""
    for name in path:
        if chart is None:
            return True
        if name not in chart:
            return False
        chart = chart[name]
    return True


def daemonset(values):
    """What kubectl writes of the chart's DaemonSet, as far as it matters."""
    return yaml.safe_dump({'apiVersion': 'v1', 'kind': 'List', 'items': [{
        'apiVersion': 'apps/v1', 'kind': 'DaemonSet',
        'metadata': {'name': 'libvirt-libvirt-default',
                     'namespace': 'openstack'},
        'spec': {'template': {'spec': {
            'initContainers': [{'name': 'init', 'resources': {}}],
            'containers': [{
                'name': 'libvirt',
                'resources': values['pod']['resources']['libvirt'],
            }]}}}}]})


class FiltersTest(testtools.TestCase):
    """What rootwrap lets nova-compute start as root."""

    def setUp(self):
        super().setUp()
        parser = configparser.RawConfigParser()
        parser.read(VALUES.with_name('nova-k8s.filters'))
        self.filters = []
        for _, text in parser.items('Filters'):
            name, path, user, *arguments = text.split(', ')
            self.assertEqual('RegExpFilter', name)
            self.filters.append(filters.RegExpFilter(path, user, *arguments))

    def lets(self, context, config='/etc/nova/nova.conf'):
        return sum(each.match([
            'privsep-helper', '--config-file', config, '--privsep_context',
            context, '--privsep_sock_path', '/tmp/tmpx1/privsep.sock'])
            for each in self.filters)

    def test_helpers(self):
        for context in (guests.guests_pctxt, guest_slice.slice_pctxt):
            self.assertEqual(1, self.lets(context.pypath), context.pypath)

    def test_nothing_else(self):
        context = guest_slice.slice_pctxt.pypath
        self.assertFalse(self.lets('nova.privsep.sys_admin_pctxt'))
        self.assertFalse(self.lets(context, '/etc/../tmp/nova.conf'))
        self.assertFalse(self.lets(context, '/tmp/nova.conf'))


class ValuesTest(testtools.TestCase):

    def setUp(self):
        super().setUp()
        self.text = VALUES.read_text()
        self.values = yaml.safe_load(self.text)
        self.charts = yaml.safe_load(
            (HERE / 'openstack_helm_keys.yaml').read_text())

    def unknown(self, values):
        return unknown(values,
                       *(each['keys'] for each in self.charts.values()))

    def test_charts_have_these_keys(self):
        self.assertEqual([], self.unknown(self.values))

    def test_a_wrong_key_is_found(self):
        self.values['pod']['resources']['nova_compute'] = {}
        self.values['pod']['resources']['compute']['limit'] = {}
        self.values['config'] = {}
        self.assertEqual(
            ['pod.resources.compute.limit', 'pod.resources.nova_compute',
             'config'], self.unknown(self.values))

    def test_one_chart_does_not_take_what_is_meant_for_the_other(self):
        both = [path for path in leaves(self.values)
                if all(has(each['keys'], path)
                       for each in self.charts.values())]
        self.assertEqual([('pod', 'resources', 'enabled')], both)

    def test_versions_are_named(self):
        for name, chart in self.charts.items():
            self.assertIn(f'{name} {chart["version"]}', self.text)

    def test_options_exist(self):
        for section, options in self.values['conf']['nova'].items():
            group = CONF if section == 'DEFAULT' else CONF[section]
            self.assertEqual(
                [], [name for name in options if name not in group])

    def test_manifest_is_where_it_is_mounted(self):
        mounts = self.values['pod']['mounts']['nova_compute']['nova_compute']
        mount, = mounts['volumeMounts']
        volume, = mounts['volumes']
        self.assertEqual(volume['name'], mount['name'])
        self.assertNotIn('subPath', mount)
        path = self.values['conf']['nova']['kubernetes']['manifest']
        self.assertEqual(f'{mount["mountPath"]}/libvirt.yaml', path)

    def test_the_daemonset_that_results_is_read(self):
        with tempfile.NamedTemporaryFile('w', suffix='.yaml') as out:
            out.write(daemonset(self.values))
            out.flush()
            found = manifest.Source(
                out.name,
                self.values['conf']['nova']['kubernetes']['container']).read()
        self.assertIsInstance(found, budget.Budget)
        self.assertEqual((48000, 192 * 1024 ** 3),
                         (found.cpu_millicores, found.memory_bytes))
        self.assertEqual(found.cpu_millicores, found.cpu_request_millicores)
        self.assertEqual(found.memory_bytes, found.memory_request_bytes)
