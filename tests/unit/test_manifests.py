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

"""What the manifests in etc/kubernetes promise, read from the files."""

import configparser
import json
import pathlib
import re

import nova.conf
import testtools
import yaml

from nova_k8s import conf

CONF = nova.conf.CONF
conf.register_opts(CONF)

TOP = pathlib.Path(__file__).resolve().parents[2]
BASE = TOP / 'etc' / 'kubernetes' / 'base'
OVERLAYS = TOP / 'etc' / 'kubernetes' / 'overlays'
SIDECAR = OVERLAYS / 'sidecar'
CONFIG_FROM_CLUSTER = OVERLAYS / 'config-from-cluster'


def load(path):
    return list(yaml.safe_load_all(path.read_text()))


def pod_spec(path):
    return load(path)[0]['spec']['template']['spec']


def options(path):
    """{section: {option: value}} of a file in the style of nova.conf."""
    parser = configparser.ConfigParser(
        interpolation=None, default_section='none')
    parser.read(path)
    return {name: dict(parser[name]) for name in parser if name != 'none'}


class PodsTest(testtools.TestCase):

    def setUp(self):
        super().setUp()
        self.libvirt = pod_spec(BASE / 'libvirt.yaml')
        self.compute = pod_spec(BASE / 'nova-compute.yaml')
        self.job = pod_spec(BASE / 'cell-mapping.yaml')
        self.sidecar = pod_spec(SIDECAR / 'nova-compute.yaml')

    def containers(self):
        for spec in (self.libvirt, self.compute, self.job, self.sidecar):
            for each in [*spec.get('initContainers', []),
                         *spec.get('containers', [])]:
                if '$patch' not in each:
                    yield each

    def test_requests_are_limits(self):
        for each in self.containers():
            resources = each['resources']
            self.assertEqual({'cpu', 'memory'}, set(resources['limits']))
            self.assertEqual(resources['limits'], resources['requests'])

    def test_images_name_no_registry(self):
        for each in self.containers():
            self.assertThat(each['image'], testtools.matchers.MatchesRegex(
                '^[a-z0-9-]+:[a-z0-9.]+$'))

    def test_guests_survive_a_resize(self):
        for each in (self.libvirt['containers'][0],
                     self.sidecar['initContainers'][1]):
            self.assertEqual(
                {'cpu': 'NotRequired', 'memory': 'NotRequired'},
                {policy['resourceName']: policy['restartPolicy']
                 for policy in each['resizePolicy']})

    def test_guests_stay_in_the_container_of_libvirt(self):
        # Without this, libvirt puts them into cgroups of its own.
        self.assertIn('cgroup_controllers = []',
                      (BASE / 'qemu.conf').read_text().splitlines())
        for spec, prefix in ((self.libvirt, ''), (self.sidecar, 'libvirt-')):
            volumes = {each['name']: each for each in
                       [*self.compute['volumes'], *spec['volumes']]}
            container, = [
                each for each in [*spec.get('initContainers', []),
                                  *spec.get('containers', [])]
                if each.get('command', [''])[0] == 'libvirtd']
            mounts = {each['mountPath']: each
                      for each in container['volumeMounts']}
            self.assertEqual(
                (prefix + 'config', 'qemu.conf'),
                (mounts['/etc/libvirt/qemu.conf']['name'],
                 mounts['/etc/libvirt/qemu.conf']['subPath']))
            self.assertEqual({'name': 'libvirt'},
                             volumes[prefix + 'config']['configMap'])
            # The node's cgroups, and the way to its systemd, which would
            # move guests too.
            for each in mounts.values():
                path = volumes[each['name']].get('hostPath', {}).get('path')
                for mounted in (each['mountPath'], path or '/none'):
                    for kept_out in ('/sys/fs/cgroup', '/run/dbus',
                                     '/run/systemd'):
                        self.assertFalse(
                            pathlib.PurePath(kept_out).is_relative_to(mounted)
                            or pathlib.PurePath(mounted).is_relative_to(
                                kept_out), each)

    def test_a_rollout_spares_guests_and_not_daemons(self):
        for path, strategy in (
                (BASE / 'nova-compute.yaml',
                 {'maxSurge': 0, 'maxUnavailable': 1}),
                (BASE / 'libvirt.yaml',
                 {'maxSurge': 1, 'maxUnavailable': 0}),
                (SIDECAR / 'nova-compute.yaml',
                 {'maxSurge': 1, 'maxUnavailable': 0})):
            self.assertEqual(
                strategy, load(path)[0]['spec']['strategy']['rollingUpdate'])

    def test_one_pod_on_each_node(self):
        for path in (BASE / 'libvirt.yaml', BASE / 'nova-compute.yaml'):
            deployment = load(path)[0]['spec']
            self.assertNotIn('replicas', deployment)
            template = deployment['template']
            term, = template['spec']['affinity']['podAntiAffinity'][
                'requiredDuringSchedulingIgnoredDuringExecution']
            self.assertEqual('kubernetes.io/hostname', term['topologyKey'])
            self.assertEqual(template['metadata']['labels'],
                             term['labelSelector']['matchLabels'])
            self.assertEqual(template['metadata']['labels'],
                             deployment['selector']['matchLabels'])

    def test_nova_ends_before_its_pod(self):
        timeout = int(options(BASE / 'nova.conf')['DEFAULT'][
            'graceful_shutdown_timeout'])
        self.assertGreater(
            self.compute['terminationGracePeriodSeconds'], timeout)

    def test_sidecar_is_the_container_of_the_base(self):
        deleted, sidecar = self.sidecar['initContainers']
        self.assertEqual('delete', deleted['$patch'])
        self.assertEqual('wait-for-libvirt', deleted['name'])
        self.assertEqual('Always', sidecar.pop('restartPolicy'))
        for mount in sidecar['volumeMounts']:
            mount['name'] = mount['name'].replace('libvirt-config', 'config')
        self.assertEqual(self.libvirt['containers'][0], sidecar)
        volumes = {each['name']: each for each in self.compute['volumes']}
        for each in self.sidecar['volumes']:
            volumes[each['name'].replace('libvirt-config', 'config')] = dict(
                each, name=each['name'].replace('libvirt-config', 'config'))
        for each in self.libvirt['volumes']:
            self.assertEqual(each, volumes[each['name']])

    def test_what_is_waited_for_is_there(self):
        names = {
            path: load(path)[0]['spec']['template']['metadata']['labels']
            for path in (BASE / 'libvirt.yaml', BASE / 'nova-compute.yaml')}
        for spec in (self.compute, self.job):
            wait = [each for each in spec['initContainers']
                    if each['name'].startswith('wait-for-')][0]
            dependency, = [json.loads(each['value']) for each in wait['env']
                           if each['name'] == 'DEPENDENCY_POD_JSON']
            self.assertIn(dependency[0]['labels'], names.values())

    def test_the_pod_that_is_selected_is_libvirts(self):
        limits = options(BASE / 'limits.conf')['kubernetes']
        labels = load(BASE / 'libvirt.yaml')[0]['spec']['template'][
            'metadata']['labels']
        self.assertEqual(
            labels, dict([limits['pod_selector'].split('=')]))
        self.assertEqual(self.libvirt['containers'][0]['name'],
                         limits['container'])

    def test_volumes_hold_what_is_mounted(self):
        kustomization = load(BASE / 'kustomization.yaml')[0]
        generated = {
            each['name']: {name.split('=')[0] for name in each['files']}
            for each in (kustomization['configMapGenerator'] +
                         kustomization['secretGenerator'])}
        sources = [
            source for volume in self.compute['volumes']
            for source in volume.get('projected', {}).get('sources', [])]
        for source in sources:
            each = source.get('configMap') or source['secret']
            self.assertEqual(generated[each['name']],
                             {item['key'] for item in each['items']})
        self.assertEqual({'libvirtd.conf', 'qemu.conf'}, {
            mount['subPath'] for mount
            in self.libvirt['containers'][0]['volumeMounts']
            if 'subPath' in mount})
        self.assertEqual({'libvirtd.conf', 'qemu.conf'}, generated['libvirt'])


class ConfigFromClusterTest(testtools.TestCase):

    def setUp(self):
        super().setUp()
        self.compute = pod_spec(CONFIG_FROM_CLUSTER / 'nova-compute.yaml')
        self.container, = self.compute['containers']

    def names(self, option):
        command = self.container['command']
        return [after for word, after in zip(command, command[1:])
                if word == option]

    def test_it_mounts_no_nova_conf(self):
        volume, = [each for each in self.compute['volumes']
                   if each['name'] == 'config']
        self.assertEqual('replace', volume['$patch'])
        self.assertEqual(
            ['ready.py'],
            [item['path'] for source in volume['projected']['sources']
             for item in source['configMap']['items']])

    def test_the_rights_are_those_to_its_objects(self):
        role = load(CONFIG_FROM_CLUSTER / 'rbac.yaml')[0]
        self.assertEqual(
            {('configmaps',): self.names('--config-map'),
             ('secrets',): self.names('--secret')},
            {tuple(rule['resources']): rule['resourceNames']
             for rule in role['rules']})
        for rule in role['rules']:
            self.assertEqual(['get', 'list', 'watch'], rule['verbs'])
        # They are made without a hash, and with the files of the base.
        made = load(CONFIG_FROM_CLUSTER / 'kustomization.yaml')[0]
        for kind, option in (('configMapGenerator', '--config-map'),
                             ('secretGenerator', '--secret')):
            each, = made[kind]
            self.assertEqual(self.names(option), [each['name']])
            self.assertTrue(each['options']['disableNameSuffixHash'])
            self.assertEqual('merge', each['behavior'])

    def test_all_look_into_the_folder_that_is_written(self):
        written, = self.names('--dir')
        mounts = {each['mountPath'] for each
                  in self.container['volumeMounts']}
        self.assertIn(written, mounts)
        for probe in ('startupProbe', 'readinessProbe'):
            self.assertIn(f'{written}/current',
                          self.container[probe]['exec']['command'])
        base = options(BASE / 'nova.conf')
        found = options(CONFIG_FROM_CLUSTER / 'privsep.conf')
        self.assertEqual({section for section in base
                          if 'helper_command' in base[section]}, set(found))
        for section, helper in found.items():
            self.assertEqual(
                base[section]['helper_command'].replace(
                    '--config-file /etc/nova/nova.conf',
                    f'--config-dir {written}/current'),
                helper['helper_command'])
        # It has the last word.
        self.assertGreater('privsep.conf', 'nova.conf')


class ConfigurationTest(testtools.TestCase):

    def test_every_option_exists(self):
        import nova.virt.libvirt.driver  # noqa: F401

        # Not Nova's: oslo.service and oslo.messaging register them late, and
        # have them in the same place in all of their releases.
        late = {'graceful_shutdown_timeout', 'rpc_ping_enabled'}
        for path in (BASE / 'nova.conf', BASE / 'limits.conf',
                     SIDECAR / 'limits.conf'):
            for section, found in options(path).items():
                if section in ('nova_sys_admin', 'vif_plug_ovs_privileged',
                               'privsep_osbrick', 'oslo_concurrency'):
                    continue
                group = CONF if section == 'DEFAULT' else CONF[section]
                self.assertEqual(
                    [], [name for name in found
                         if name not in group and name not in late])

    def test_no_credentials_are_in_the_tree(self):
        for name in ('credentials.conf', 'cell-mapping-credentials.conf'):
            for section, found in options(BASE / name).items():
                for option, value in found.items():
                    if option == 'password':
                        self.assertEqual('CHANGE-ME', value)
                    secret = re.search('://[^:/@]+:([^@]+)@', value)
                    if secret:
                        self.assertEqual('CHANGE-ME', secret[1])
