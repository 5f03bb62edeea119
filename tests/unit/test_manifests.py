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
import os
import pathlib
import re

import nova.conf
import testtools
import yaml

from nova_k8s.cmd import files
from nova_k8s import conf
from nova_k8s.confinement import guests_pod

CONF = nova.conf.CONF
conf.register_opts(CONF)

TOP = pathlib.Path(__file__).resolve().parents[2]
BASE = TOP / 'etc' / 'kubernetes' / 'base'
OVERLAYS = TOP / 'etc' / 'kubernetes' / 'overlays'
SIDECAR = OVERLAYS / 'sidecar'
CONFIG_FROM_CLUSTER = OVERLAYS / 'config-from-cluster'
LIVE_MIGRATION_TCP = OVERLAYS / 'live-migration-tcp'
CERT_MANAGER = TOP / 'etc' / 'kubernetes' / 'cert-manager'


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
        self.guests = load(BASE / 'guests-pod.yaml')[0]['spec']

    def containers(self):
        for spec in (self.libvirt, self.compute, self.job, self.sidecar):
            yield from [*spec.get('initContainers', []),
                        *spec.get('containers', [])]

    def test_requests_are_limits(self):
        for each in self.containers():
            resources = each['resources']
            self.assertEqual({'cpu', 'memory'}, set(resources['limits']))
            self.assertEqual(resources['limits'], resources['requests'])

    def test_images_name_no_registry(self):
        for each in [*self.containers(), *self.guests['containers']]:
            self.assertThat(each['image'], testtools.matchers.MatchesRegex(
                '^[a-z0-9-]+:[a-z0-9.]+$'))

    def test_guests_survive_a_resize(self):
        for each in (self.guests['containers'][0],
                     self.sidecar['initContainers'][0]):
            self.assertEqual(
                {'cpu': 'NotRequired', 'memory': 'NotRequired'},
                {policy['resourceName']: policy['restartPolicy']
                 for policy in each['resizePolicy']})

    def mounts(self, container, spec):
        """{path in the container: (volume, mount)}."""
        volumes = {each['name']: each for each in
                   [*self.compute['volumes'], *spec['volumes']]}
        return {mount['mountPath']: (volumes[mount['name']], mount)
                for mount in container['volumeMounts']}

    def test_machined_is_out_of_reach(self):
        for spec, container in (
                (self.libvirt, self.libvirt['containers'][0]),
                (self.sidecar, self.sidecar['initContainers'][0])):
            for target, (volume, _) in self.mounts(container, spec).items():
                path = volume.get('hostPath', {}).get('path', '/none')
                for mounted in (target, path):
                    for kept_out in ('/run/dbus', '/run/systemd'):
                        self.assertFalse(
                            pathlib.PurePath(kept_out).is_relative_to(mounted)
                            or pathlib.PurePath(mounted).is_relative_to(
                                kept_out), target)

    def test_guests_of_a_sidecar_stay_in_its_container(self):
        # Without this, libvirt puts them into cgroups of its own.
        line = 'cgroup_controllers = []'
        self.assertIn(line, (SIDECAR / 'qemu.conf').read_text().splitlines())
        self.assertNotIn(line, (BASE / 'qemu.conf').read_text())

    def test_qemu_is_nobody_else(self):
        for path in (BASE, SIDECAR):
            lines = (path / 'qemu.conf').read_text().splitlines()
            self.assertIn('user = "qemu"', lines)
            self.assertIn('group = "kvm"', lines)
        made = (TOP / 'Containerfile').read_text()
        self.assertIn('useradd --uid 42425 --gid qemu --groups kvm ', made)
        self.assertIn('unix_sock_group = "nova"',
                      (BASE / 'libvirtd.conf').read_text())

    def test_whoever_asks_libvirt_is_in_its_group(self):
        lines = (BASE / 'libvirtd.conf').read_text().splitlines()
        for line in ('auth_unix_ro = "none"', 'unix_sock_ro_perms = "0770"',
                     'auth_unix_rw = "none"', 'unix_sock_rw_perms = "0770"'):
            self.assertIn(line, lines)

    def test_guests_outlive_libvirt(self):
        # With a PID namespace of its own, they would not.
        self.assertIs(True, self.libvirt['hostPID'])
        self.assertEqual(
            ['bash', '/etc/libvirt/libvirt.sh'],
            self.libvirt['containers'][0]['command'][:2])
        mounts = self.mounts(self.libvirt['containers'][0], self.libvirt)
        for path in ('/run/libvirt', '/var/lib/libvirt', '/etc/libvirt/qemu',
                     '/var/cache/libvirt', '/run/nova-k8s', '/var/lib/nova'):
            self.assertEqual(path, mounts[path][0]['hostPath']['path'])

    def test_nova_compute_sees_guests_and_tells_of_their_pod(self):
        self.assertIs(True, self.compute['hostPID'])
        mounts = self.mounts(self.compute['containers'][0], self.compute)
        volume, mount = mounts['/node/cgroup']
        self.assertEqual('/sys/fs/cgroup', volume['hostPath']['path'])
        self.assertIs(True, mount['readOnly'])
        folder = os.path.dirname(guests_pod.UID_FILE)
        volume, mount = mounts[folder]
        self.assertEqual(folder, volume['hostPath']['path'])
        self.assertNotIn('readOnly', mount)
        made, = self.compute['initContainers']
        self.assertIn(folder, made['command'])

    def test_pods_may_be_replaced_at_any_time(self):
        for path in (BASE / 'libvirt.yaml', BASE / 'nova-compute.yaml'):
            workload = load(path)[0]
            self.assertEqual('DaemonSet', workload['kind'])
            self.assertEqual('10%', workload['spec']['updateStrategy'][
                'rollingUpdate']['maxUnavailable'])
            labels = workload['spec']['template']['metadata']['labels']
            self.assertEqual(
                labels, workload['spec']['selector']['matchLabels'])

    def test_guests_of_a_sidecar_end_when_you_say_so(self):
        self.assertEqual(
            {'$patch': 'replace', 'type': 'OnDelete'},
            load(SIDECAR / 'nova-compute.yaml')[0]['spec']['updateStrategy'])

    def test_nova_ends_before_its_pod(self):
        timeout = int(options(BASE / 'nova.conf')['DEFAULT'][
            'graceful_shutdown_timeout'])
        self.assertGreater(
            self.compute['terminationGracePeriodSeconds'], timeout)

    def test_sidecar_is_the_container_of_the_base(self):
        sidecar, = self.sidecar['initContainers']
        base = self.libvirt['containers'][0]
        self.assertEqual('Always', sidecar.pop('restartPolicy'))
        # Guests are in it, and libvirt.sh is not needed.
        own = ('command', 'resources', 'resizePolicy', 'startupProbe')
        for each in (sidecar, base):
            for field in own:
                each.pop(field, None)
            each['volumeMounts'] = [
                dict(mount, name=mount['name'].replace('libvirt-config',
                                                       'config'))
                for mount in each['volumeMounts']
                if mount.get('subPath') != 'libvirt.sh' and
                mount['name'] != 'guests']
        self.assertEqual(base, sidecar)
        volumes = {each['name']: each for each in self.compute['volumes']}
        for each in self.sidecar['volumes']:
            name = each['name'].replace('libvirt-config', 'config')
            volumes[name] = dict(each, name=name)
        for each in self.libvirt['volumes']:
            self.assertEqual(each, volumes[each['name']])

    def test_what_is_waited_for_is_there(self):
        labels = load(BASE / 'nova-compute.yaml')[0]['spec']['template'][
            'metadata']['labels']
        wait, = [each for each in self.job['initContainers']
                 if each['name'].startswith('wait-for-')]
        dependency, = [json.loads(each['value']) for each in wait['env']
                       if each['name'] == 'DEPENDENCY_POD_JSON']
        self.assertEqual(labels, dependency[0]['labels'])

    def test_the_template_is_where_the_driver_reads_it(self):
        path = pathlib.PurePath(
            options(BASE / 'limits.conf')['kubernetes']['guests_pod'])
        config, = [each for each in self.compute['volumes']
                   if each['name'] == 'config']
        mounted, = [each for each in
                    self.compute['containers'][0]['volumeMounts']
                    if each['name'] == 'config']
        found = [item for source in config['projected']['sources']
                 if source.get('configMap', {}).get('name') == 'guests'
                 for item in source['configMap']['items']]
        self.assertEqual([{'key': 'guests-pod.yaml', 'path': path.name}],
                         found)
        self.assertEqual(mounted['mountPath'], str(path.parent))

    def test_volumes_hold_what_is_mounted(self):
        kustomization = load(BASE / 'kustomization.yaml')[0]
        generated = {
            each['name']: {name.split('=')[0] for name in each['files']}
            for each in (kustomization['configMapGenerator'] +
                         kustomization['secretGenerator'])}
        sources = [
            source for volume in self.compute['volumes']
            for source in volume.get('projected', {}).get('sources', [])]
        self.assertEqual(4, len(sources))
        for source in sources:
            each = source.get('configMap') or source['secret']
            self.assertLessEqual({item['key'] for item in each['items']},
                                 generated[each['name']])
        self.assertEqual(generated['libvirt'], {
            mount['subPath'] for mount
            in self.libvirt['containers'][0]['volumeMounts']
            if 'subPath' in mount})
        script, = [each for each in self.guests['volumes']
                   if 'configMap' in each]
        self.assertLessEqual(
            {item['key'] for item in script['configMap']['items']},
            generated[script['configMap']['name']])


class LiveMigrationTest(testtools.TestCase):

    def setUp(self):
        super().setUp()
        self.libvirt = pod_spec(BASE / 'libvirt.yaml')
        volume, = [each for each in self.libvirt['volumes']
                   if each['name'] == 'certificates']
        self.secrets = {source['secret']['name']: source['secret']
                        for source in volume['projected']['sources']}

    def test_pods_start_without_certificates(self):
        self.assertEqual({'libvirt-tls', 'qemu-tls'}, set(self.secrets))
        for secret in self.secrets.values():
            self.assertIs(True, secret['optional'])
        # A file that is mounted by itself would stay as it is.
        mount, = [each for each in
                  self.libvirt['containers'][0]['volumeMounts']
                  if each['name'] == 'certificates']
        self.assertNotIn('subPath', mount)

    def test_guests_read_no_key_of_libvirtd(self):
        for name, secret in self.secrets.items():
            for item in secret['items']:
                if item['key'] == 'tls.key':
                    self.assertEqual(
                        0o400 if name == 'libvirt-tls' else 0o444,
                        item['mode'])

    def test_both_ends_have_the_same_address(self):
        compute = pod_spec(BASE / 'nova-compute.yaml')['containers'][0]
        sidecar = pod_spec(SIDECAR / 'nova-compute.yaml')['initContainers'][0]
        inbound, = [each['valueFrom'] for each in compute['env'] if
                    each['name'] ==
                    'OS_LIBVIRT__LIVE_MIGRATION_INBOUND_ADDR']
        for container in self.libvirt['containers'][0], sidecar:
            listens, = [each['valueFrom'] for each in container['env']
                        if each['name'] == 'LISTEN_ADDR']
            self.assertEqual(inbound, listens)

    def test_nothing_is_plain(self):
        nova_conf = options(BASE / 'nova.conf')['libvirt']
        self.assertEqual('tls', nova_conf['live_migration_scheme'])
        self.assertEqual('true', nova_conf['live_migration_with_native_tls'])
        lines = (BASE / 'libvirtd.conf').read_text().splitlines()
        self.assertIn('listen_tls = 1', lines)
        self.assertIn('listen_tcp = 0', lines)
        for path in BASE, SIDECAR:
            self.assertIn('migrate_tls_x509_verify = 1',
                          (path / 'qemu.conf').read_text().splitlines())

    def test_the_tcp_overlay_differs_in_how_it_listens(self):
        def lines(path):
            return {line for line in (path / 'libvirtd.conf'
                                      ).read_text().splitlines()
                    if not line.startswith('#')}

        base, tcp = lines(BASE), lines(LIVE_MIGRATION_TCP)
        self.assertEqual(
            {'listen_tls = 0', 'listen_tcp = 1', 'auth_tcp = "none"'},
            tcp - base)
        self.assertEqual(
            {'listen_tls = 1', 'listen_tcp = 0', 'auth_tls = "none"',
             'tls_no_sanity_certificate = 1'}, base - tcp)

    def test_cert_manager_makes_what_is_mounted(self):
        authorities = set()
        for name in 'libvirt', 'qemu':
            objects = {(each['kind'], each['metadata']['name']): each['spec']
                       for each in load(CERT_MANAGER / f'{name}.yaml')}
            made = objects['Certificate', f'{name}-tls']
            self.assertIn(made['secretName'], self.secrets)
            self.assertLessEqual({'server auth', 'client auth'},
                                 set(made['usages']))
            # libvirt refuses a certificate without one.
            self.assertTrue(made['commonName'])
            issuer = objects['Issuer', made['issuerRef']['name']]
            authority = issuer['ca']['secretName']
            self.assertIs(True, objects['Certificate', f'{name}-ca']['isCA'])
            self.assertEqual(
                authority, objects['Certificate', f'{name}-ca']['secretName'])
            # Its key is mounted nowhere.
            self.assertNotIn(authority, self.secrets)
            authorities.add(authority)
        self.assertEqual(2, len(authorities))


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
            ['ready.py', 'guests-pod.yaml'],
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
        self.assertEqual([], self.names('--dir'))
        written, = [each['value'] for each in self.container['env']
                    if each['name'] == files.RUN_DIR]
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
                if section in ('nova_sys_admin', 'nova_k8s_guests',
                               'vif_plug_ovs_privileged',
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
