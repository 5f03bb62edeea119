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

"""The drivers of oslo.config, against a real API server and etcd."""

import json
import os
import stat
import subprocess
import sys
import time
from unittest import mock

import etcd3gw
from etcd3gw import exceptions
from etcd3gw import utils
import fixtures
from kubernetes import client
from oslo_config import cfg
import testtools
import yaml

from nova_k8s.config import api
from nova_k8s.config import definitions
from nova_k8s.config import folder
from tests.functional import certificates
from tests.functional import cluster
from tests.functional import control_plane
from tests.functional import fault_proxy
from tests.functional import test_config_run
from tests.functional import test_control_plane
from tests import waiting

OPTIONS = [cfg.StrOpt('host'), cfg.BoolOpt('debug'), cfg.StrOpt('password'),
           cfg.MultiStrOpt('pci'), cfg.IntOpt('workers', default=4)]


class TestCase(testtools.TestCase):

    def setUp(self):
        super().setUp()
        self.plane = control_plane.shared()
        self.namespace = self.plane.create_namespace()
        self.directory = self.useFixture(fixtures.TempDir()).path

    def create(self, name, secret=False, **data):
        body = {'metadata': {'name': name}}
        if secret:
            self.plane.core.create_namespaced_secret(
                self.namespace, {**body, 'stringData': data})
        else:
            self.plane.core.create_namespaced_config_map(
                self.namespace, {**body, 'data': data})

    def load(self, *args, **sources):
        """Load a configuration with sources: {group: options}."""
        try:
            return self._load(*args, **sources)
        except SystemExit as exc:
            # It would end the runner, with all tests that are to come.
            self.fail(exc.code)

    def _load(self, args=(), opts=OPTIONS, **sources):
        environ = {'OS_DEFAULT__CONFIG_SOURCE': ','.join(sources)}
        for group, options in sources.items():
            for name, value in options.items():
                environ[f'OS_{group.upper()}__{name.upper()}'] = str(value)
        conf = cfg.ConfigOpts()
        conf.register_opts(opts)
        with mock.patch.dict(os.environ, environ):
            conf(list(args), project='nova', prog='nova-compute',
                 default_config_files=[], default_config_dirs=[])
        return conf

    def kubernetes(self, *config_maps, **options):
        return {'driver': 'kubernetes', 'namespace': self.namespace,
                'config_maps': ','.join(config_maps),
                'kubeconfig': self.plane.admin_kubeconfig, **options}

    def refusal(self, *args, **sources):
        """Return the one line with which a service ends."""
        line = self.assertRaises(SystemExit, self._load, *args, **sources).code
        self.assertEqual(1, len(line.splitlines()))
        return line


class PrecedenceTest(TestCase):
    """What wins over what; the documentation has the same list."""

    def test_all(self):
        self.create('a', **{'z.conf': '[DEFAULT]\nhost = a\npci = 1\n'})
        self.create('b', **{'1.conf': '[DEFAULT]\nhost = b1\npci = 2\n'
                                      'pci = 3\n'})
        conf = self.load(cluster=self.kubernetes('a', 'b'))
        self.assertEqual('b1', conf.host)
        self.assertEqual(['1', '2', '3'], conf.pci)
        self.plane.core.patch_namespaced_config_map(
            'b', self.namespace, {'data': {
                '2.conf': '[DEFAULT]\nhost = b2\n'}})
        self.assertEqual(
            'b2', self.load(cluster=self.kubernetes('a', 'b')).host)
        self.plane.core.patch_namespaced_config_map(
            'b', self.namespace, {'data': {'DEFAULT.host': 'option\n'}})
        conf = self.load(cluster=self.kubernetes('a', 'b'))
        self.assertEqual('option', conf.host)
        self.assertEqual(
            f'ConfigMap {self.namespace}/b, key DEFAULT.host',
            conf.get_location('host').detail)
        # The order of the names is the caller's.
        self.assertEqual(
            'a', self.load(cluster=self.kubernetes('b', 'a')).host)

        self.create('s', secret=True, **{'x.conf': '[DEFAULT]\nhost = s\n'})
        secret = self.kubernetes('a', 'b', secrets='s')
        self.assertEqual('s', self.load(cluster=secret).host)
        # The first source wins.
        self.assertEqual('a', self.load(
            first=self.kubernetes('a'), second=secret).host)
        path = os.path.join(self.directory, 'nova.conf')
        with open(path, 'w') as out:
            out.write('[DEFAULT]\nhost = file\npci = 4\npci = 5\n')
        args = ['--config-file', path]
        self.assertEqual('file', self.load(args, cluster=secret).host)
        # Also of several values, those of one way to set them.
        self.assertEqual(['4', '5'], self.load(args, cluster=secret).pci)
        self.assertEqual(['1'], self.load(
            first=self.kubernetes('a'), second=secret).pci)
        opts = [cfg.StrOpt('host'), cfg.IntOpt('workers', default=4)]
        with mock.patch.dict(os.environ, OS_DEFAULT__HOST='environment'):
            conf = self.load(args, opts=opts, cluster=secret)
            self.assertEqual('environment', conf.host)
            named = ['--host', 'command line']
            # oslo.config takes it for one of the file, then.
            self.assertEqual('environment', self.load_cli(
                opts, [*args, *named], cluster=secret).host)
            conf = self.load_cli(opts, named, cluster=secret)
            self.assertEqual(('command line', 4), (conf.host, conf.workers))
        self.assertEqual('command line', self.load_cli(
            opts, [*args, *named], cluster=secret).host)
        # A file that is named after it.
        self.assertEqual('file', self.load_cli(
            opts, [*named, *args], cluster=secret).host)

    def load_cli(self, opts, args, **sources):
        """Load a configuration whose options are on its command line, too."""
        conf = cfg.ConfigOpts()
        conf.register_cli_opts(opts)
        with mock.patch.object(cfg, 'ConfigOpts', lambda: conf):
            return self.load(args, (), **sources)

    def test_files_that_config_run_writes(self):
        """Among themselves they are as a source's."""
        self.create('a', **{'z.conf': '[DEFAULT]\nhost = a\npci = 1\n'})
        self.create('b', **{'1.conf': '[DEFAULT]\nhost = b1\npci = 2\n',
                            '2.conf': '[DEFAULT]\nhost = b2\ndebug = 1\n',
                            'DEFAULT.host': 'option'})
        self.create('s', secret=True, **{'x.conf': '[DEFAULT]\nhost = s\n'})
        written = folder.Folder(os.path.join(self.directory, 'written'))
        for config_maps, secrets, host in (
                (['a', 'b'], [], 'option'), (['b', 'a'], [], 'a'),
                (['a', 'b'], ['s'], 's'), (['b'], ['s'], 's')):
            with api.Reader(self.plane.admin_kubeconfig, 10) as reader:
                written.start(reader.documents(self.namespace, config_maps,
                                               secrets))
            of_files = self.load(['--config-dir', written.config_dir])
            of_source = self.load(cluster=self.kubernetes(
                *config_maps, secrets=','.join(secrets)))
            self.assertEqual(host, of_files.host)
            for option in OPTIONS:
                self.assertEqual(of_source[option.dest],
                                 of_files[option.dest])


class RightsTest(TestCase):
    """With the rights of the overlay to its two objects, and no others."""

    def setUp(self):
        super().setUp()
        self.compute = self.useFixture(cluster.ComputePod())
        self.namespace = self.compute.namespace
        self.compute.apply('overlays/config-from-cluster/rbac.yaml')
        self.create('nova-compute', **{'DEFAULT.host': 'a'})
        self.create('nova-compute-credentials', secret=True,
                    **{'DEFAULT.password': 'very-secret'})
        self.create('other', **{'DEFAULT.host': 'a'})
        self.create('other', secret=True, **{'DEFAULT.password': 'b'})
        self.core = client.CoreV1Api(
            self.plane.client(self.compute.kubeconfig()))

    def source(self, *config_maps, **options):
        return self.kubernetes(*config_maps, **{
            'kubeconfig': self.compute.kubeconfig(), **options})

    def test_they_suffice(self):
        conf = self.load(cluster=self.source(
            'nova-compute', secrets='nova-compute-credentials'))
        self.assertEqual(('a', 'very-secret'), (conf.host, conf.password))

    def test_they_are_enforced(self):
        def ask(verb, kind, **query):
            return getattr(self.core, f'{verb}_namespaced_{kind}')(
                namespace=self.namespace, **query)
        for kind, name in (('config_map', 'nova-compute'),
                           ('secret', 'nova-compute-credentials')):
            one = f'metadata.name={name}'
            self.assertEqual(1, len(ask(
                'list', kind, field_selector=one).items))
            ask('list', kind, field_selector=one, watch=True,
                timeout_seconds=1, _preload_content=False)
            for query in ({}, {'field_selector': 'metadata.name=other'}):
                with test_control_plane.refusal(403):
                    ask('list', kind, **query)
                with test_control_plane.refusal(403):
                    ask('list', kind, watch=True, _preload_content=False,
                        **query).read()
            with test_control_plane.refusal(403):
                ask('read', kind, name='other')
            with test_control_plane.refusal(403):
                ask('patch', kind, name=name, body={})
            with test_control_plane.refusal(403):
                ask('delete', kind, name=name)

    def test_a_right_that_is_missing_is_named(self):
        line = self.refusal(cluster=self.source('nova-compute', 'other'))
        for words in ('nova-compute does not start: [cluster] ConfigMap '
                      f'{self.namespace}/other: API server ',
                      f'403: configmaps "other" is forbidden: User "system:'
                      f'serviceaccount:{self.namespace}:nova-compute" cannot '
                      f'get resource "configmaps"'):
            self.assertIn(words, line)


class StartTest(TestCase):
    """What cannot be read ends the service, unless somebody said otherwise."""

    def setUp(self):
        super().setUp()
        self.create('nova', **{'DEFAULT.host': 'a'})
        self.create('cred', secret=True, **{'DEFAULT.password': 'very-secret'})
        self.compute = self.useFixture(cluster.ComputePod())
        self.proxy = self.useFixture(fault_proxy.FaultProxy(self.plane))
        self.plane.kubectl(
            '-n', self.namespace, 'create', 'rolebinding', 'view',
            '--clusterrole=admin', f'--serviceaccount='
            f'{self.compute.namespace}:{cluster.SERVICE_ACCOUNT}')
        self.wait_for_rights(
            f'{self.compute.namespace}:{cluster.SERVICE_ACCOUNT}')

    def wait_for_rights(self, account):
        # The API server hears of a binding a moment later.
        waiting.until(lambda: 'yes' in self.plane.kubectl(
            '-n', self.namespace, 'auth', 'can-i', 'get', 'configmaps',
            f'--as=system:serviceaccount:{account}', check=False).stdout,
            f'the right of {account}')

    def source(self, *config_maps, **options):
        return self.kubernetes(*config_maps, **{
            'kubeconfig': self.compute.kubeconfig(self.proxy), 'timeout': 2,
            **options})

    def cached(self, **options):
        return self.source('nova', cache_dir=os.path.join(
            self.directory, 'cache'), **options)

    def test_nothing_is_kept_by_default(self):
        self.load(cluster=self.source('nova'))
        self.proxy.cut()
        self.assertIn(
            f'[cluster] ConfigMap {self.namespace}/nova: API server '
            f'{self.proxy.url}: ', self.refusal(cluster=self.source('nova')))

    def test_last_good_read(self):
        self.load(cluster=self.cached())
        path = os.path.join(self.directory, 'cache',
                            'nova-compute-cluster.json')
        self.assertEqual(0o600, stat.S_IMODE(os.stat(path).st_mode))
        self.proxy.cut()
        with self.assertLogs('nova_k8s.config.cache', 'WARNING') as logs:
            self.assertEqual('a', self.load(cluster=self.cached()).host)
        self.assertRegex(
            logs.output[0], f'The configuration is that of 20.*Z: ConfigMap '
            f'{self.namespace}/nova: API server {self.proxy.url}: ')
        # Logging is not yet set up when a service starts.
        done = self.start(self.cached())
        self.assertEqual('started\n', done.stdout)
        self.assertRegex(done.stderr, 'The configuration is that of 20.*Z: ')
        # Of other objects nothing is known.
        self.refusal(cluster={**self.cached(), 'config_maps': 'other'})
        os.chmod(path, 0o644)
        self.assertIn(f'{path}: it must belong to',
                      self.refusal(cluster=self.cached()))

    def test_secrets_have_a_switch_of_their_own(self):
        self.load(cluster=self.cached(secrets='cred'))
        path = os.path.join(self.directory, 'cache',
                            'nova-compute-cluster.json')
        with open(path) as kept:
            self.assertNotIn('very-secret', kept.read())
        self.proxy.cut()
        self.assertIn('cache_secrets',
                      self.refusal(cluster=self.cached(secrets='cred')))
        self.proxy.restore()
        source = self.cached(secrets='cred', cache_secrets=True)
        self.load(cluster=source)
        self.proxy.cut()
        self.assertEqual('very-secret', self.load(cluster=source).password)

    def test_an_answer_is_no_outage(self):
        self.load(cluster=self.cached())
        self.plane.core.delete_namespaced_config_map('nova', self.namespace)
        self.assertIn('404: configmaps "nova" not found',
                      self.refusal(cluster=self.cached()))

    def test_one_request_for_each_object(self):
        self.create('more', **{f'DEFAULT.option_{i}': 'x' for i in range(50)})
        proxy = self.useFixture(fault_proxy.FaultProxy(self.plane, tls=True))
        conf = self.load(cluster=self.source(
            'nova', 'more', secrets='cred', kubeconfig=self.compute.kubeconfig(
                proxy)))
        for option in OPTIONS:
            conf[option.dest]
        path = f'/api/v1/namespaces/{self.namespace}'
        self.assertEqual(
            [('GET', f'{path}/configmaps/nova'),
             ('GET', f'{path}/configmaps/more'),
             ('GET', f'{path}/secrets/cred')],
            [tuple(each) for each in proxy.requests])

    def test_not_required(self):
        with self.assertLogs('nova_k8s.config.source', 'WARNING') as logs:
            conf = self.load(
                node=self.source('nova', 'node', required=False),
                cluster=self.source('nova'))
        self.assertEqual('a', conf.host)
        self.assertIn('[node] is left out, as it is not required: ConfigMap '
                      f'{self.namespace}/node: ', logs.output[0])

    def test_what_is_no_configuration(self):
        for data, words in (
                ({'nova.conf': 'password = x\n'}, 'line 1: Section must be'),
                ({'nova.conf': '[DEFAULT]\nvery-secret\n'}, 'line 2: No '),
                ({'README': 'x'}, "key 'README': it is neither a file"),
                ({'a.b': 'x\n\ny'}, 'key a.b: an empty line ends a value')):
            for secret in (False, True):
                name = control_plane.unique('broken')
                self.create(name, secret, **data)
                source = (self.source('nova', secrets=name) if secret else
                          self.source(name))
                line = self.refusal(cluster=source)
                self.assertIn(words, line)
                self.assertIn(name, line)
                self.assertNotIn('very-secret', line)

    def test_options_of_the_source(self):
        self.assertIn('[cluster] neither config_maps nor secrets is set',
                      self.refusal(cluster=self.source()))
        self.assertIn('timeout', self.refusal(
            cluster=self.source('nova', timeout='soon')))
        self.assertIn('kubeconfig /nowhere', self.refusal(
            cluster=self.source('nova', kubeconfig='/nowhere')))

    def test_a_value_of_the_wrong_kind(self):
        self.create('wrong', **{'DEFAULT.workers': 'many'})
        conf = self.load(cluster=self.source('wrong'))
        exc = self.assertRaises(cfg.ConfigFileValueError, getattr, conf,
                                'workers')
        self.assertIn(f'workers from ConfigMap {self.namespace}/wrong, key '
                      f'DEFAULT.workers is not valid', str(exc))
        self.create('wrong', secret=True, **{'DEFAULT.workers': 'very-secret'})
        conf = self.load(cluster=self.source('nova', secrets='wrong'))
        exc = self.assertRaises(cfg.ConfigFileValueError, getattr, conf,
                                'workers')
        self.assertNotIn('very-secret', str(exc))

    def test_secrets_are_masked_in_the_log(self):
        # Also an option that nobody marked as one.
        opts = [cfg.StrOpt('password')]
        conf = self.load(opts=opts,
                         cluster=self.source('nova', secrets='cred'))
        with self.assertLogs('test', 'INFO') as logs:
            import logging
            conf.log_opt_values(logging.getLogger('test'), logging.INFO)
        said = '\n'.join(logs.output)
        self.assertIn('password', said)
        self.assertNotIn('very-secret', said)

    def test_in_a_pod(self):
        """With a service account's files and the environment of a pod."""
        folder = self.plane.service_account_volume(
            os.path.join(self.directory, 'account'), self.namespace,
            'default')
        self.plane.kubectl(
            '-n', self.namespace, 'create', 'rolebinding', 'default',
            '--clusterrole=admin', f'--serviceaccount={self.namespace}:'
            'default')
        host, port = self.plane.url.removeprefix('https://').split(':')
        self.wait_for_rights(f'{self.namespace}:default')
        with mock.patch('nova_k8s.config.api._SERVICE_ACCOUNT', folder), \
                mock.patch.dict(os.environ, KUBERNETES_SERVICE_HOST=host,
                                KUBERNETES_SERVICE_PORT=port):
            conf = self.load(cluster={'driver': 'kubernetes',
                                      'config_maps': 'nova'})
        self.assertEqual('a', conf.host)

    def test_a_program_ends_with_one_line(self):
        self.proxy.cut()
        done = self.start(self.source('nova'))
        self.assertEqual((1, ''), (done.returncode, done.stdout))
        self.assertTrue(done.stderr.startswith(
            'nova-compute does not start: [cluster] '), done.stderr)
        self.assertEqual(1, len(done.stderr.splitlines()))

    def start(self, source):
        """Start a program that does nothing but load its options."""
        return subprocess.run(
            [sys.executable, '-c',
             'from oslo_config import cfg; cfg.CONF([], project="nova", '
             'prog="nova-compute"); cfg.CONF.config_source; print("started")'],
            text=True, capture_output=True, env={
                **test_config_run.ENVIRONMENT,
                'OS_DEFAULT__CONFIG_SOURCE': 'cluster',
                **{f'OS_CLUSTER__{name.upper()}': str(value)
                   for name, value in source.items()}})


class Etcd(fixtures.Fixture):
    """An etcd of its own, with TLS, client certificates and users."""

    def _setUp(self):
        self.directory = self.useFixture(fixtures.TempDir()).path
        self.authority = certificates.Authority(self.directory)
        certificate, key = self.authority.issue('server', 'etcd')
        holders = [control_plane.reserve_port() for _ in range(2)]
        self.port, peer = (each.getsockname()[1] for each in holders)
        for each in holders:
            each.close()
        self.url = f'https://127.0.0.1:{self.port}'
        process = subprocess.Popen(
            [os.path.join(control_plane.binaries('etcd'), 'etcd'),
             '--data-dir', os.path.join(self.directory, 'data'),
             '--listen-client-urls', self.url,
             '--advertise-client-urls', self.url,
             '--listen-peer-urls', f'http://127.0.0.1:{peer}',
             '--initial-advertise-peer-urls', f'http://127.0.0.1:{peer}',
             '--initial-cluster', f'default=http://127.0.0.1:{peer}',
             '--cert-file', certificate, '--key-file', key,
             '--client-cert-auth', '--trusted-ca-file', self.authority.path,
             '--unsafe-no-fsync'],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        # etcd's gateway refuses users with a certificate that has a name.
        self.certificate, self.key = self.authority.issue('client', None)
        self.client = etcd3gw.client(
            host='127.0.0.1', port=self.port, protocol='https',
            ca_cert=self.authority.path, cert_key=self.key,
            cert_cert=self.certificate, timeout=5)
        # Authorities of the environment would replace this one.
        self.client.session.trust_env = False
        deadline = time.monotonic() + waiting.PATIENCE
        while True:
            try:
                self.client.status()
                break
            except exceptions.Etcd3Exception:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def post(self, path, **body):
        return self.client.post(self.client.get_url(path), json=body)

    def enable_users(self):
        """Have root, and nova who may read what is below /nova/."""
        self.post('/auth/user/add', name='root', password='r')
        self.post('/auth/role/add', name='root')
        self.post('/auth/user/grant', user='root', role='root')
        self.post('/auth/user/add', name='nova', password='very-secret')
        self.post('/auth/role/add', name='nova')
        encode = utils._encode
        self.post('/auth/role/grant', name='nova', perm={
            'permType': 'READ', 'key': encode('/nova/'),
            'range_end': encode('/nova0')})
        self.post('/auth/user/grant', user='nova', role='nova')
        self.post('/auth/enable')


class EtcdTest(TestCase):

    def setUp(self):
        super().setUp()
        host, port = self.plane.etcd_url.removeprefix('http://').split(':')
        self.etcd = etcd3gw.client(host=host, port=int(port), timeout=5)
        self.prefix = f'/{control_plane.unique("nova")}'

    def source(self, **options):
        return {'driver': 'etcd', 'endpoint': self.plane.etcd_url,
                'prefix': self.prefix, **options}

    def put(self, **options):
        for key, value in options.items():
            self.etcd.put(f'{self.prefix}/{key}', value)

    def test_options(self):
        self.put(**{'DEFAULT/host': 'a${workers}', 'DEFAULT/workers': '7',
                    'DEFAULT/pci/0': 'x', 'DEFAULT/pci/1': 'y'})
        # Another's.
        self.etcd.put(f'{self.prefix}-other/DEFAULT/debug', 'true')
        conf = self.load(etcd=self.source(endpoint=self.plane.etcd_url.replace(
            '//', '//user:very-secret@')))
        self.assertEqual(('a7', 7, ['x', 'y'], None),
                         (conf.host, conf.workers, conf.pci, conf.debug))
        self.assertEqual(
            f'etcd {self.plane.etcd_url}, key {self.prefix}/DEFAULT/host',
            conf.get_location('host').detail)

    def test_what_is_no_option(self):
        self.put(**{'DEFAULT/host': 'a', 'nova.conf': '[DEFAULT]\n'})
        self.assertIn(f"key '{self.prefix}/nova.conf': it is not "
                      f"{self.prefix}/<group>/<option>",
                      self.refusal(etcd=self.source()))

    def test_nothing(self):
        self.assertIn(f'there is no key below {self.prefix}/',
                      self.refusal(etcd=self.source()))

    def test_nobody(self):
        with control_plane.reserve_port() as holder:
            url = 'http://127.0.0.1:%d' % holder.getsockname()[1]
            self.assertIn(f'[etcd] etcd {url}, prefix {self.prefix}/: ',
                          self.refusal(etcd=self.source(endpoint=url)))

    def test_tls_and_users(self):
        etcd = self.useFixture(Etcd())
        etcd.client.put('/nova/DEFAULT/host', 'a')
        tls = {'driver': 'etcd', 'endpoint': etcd.url, 'prefix': '/nova',
               'ca_file': etcd.authority.path, 'timeout': 5,
               'cert_file': etcd.certificate, 'key_file': etcd.key}
        self.assertEqual('a', self.load(etcd=tls).host)
        without = {name: value for name, value in tls.items()
                   if name not in ('cert_file', 'key_file')}
        self.assertIn(f'etcd {etcd.url}', self.refusal(etcd=without))
        etcd.enable_users()
        user = {**tls, 'user': 'nova', 'password': 'very-secret'}
        self.assertEqual('a', self.load(etcd=user).host)
        line = self.refusal(etcd={**user, 'password': 'wrong-one'})
        self.assertIn('authentication failed', line)
        self.assertNotIn('wrong-one', line)
        self.assertIn('permission denied',
                      self.refusal(etcd={**user, 'prefix': '/other'}))


class OptionListsTest(TestCase):
    """Every option of a service is the same from a file and the cluster."""

    def test_nova(self):
        self._test('nova-compute', 600, ('libvirt', 'virt_type'),
                   ('kubernetes', 'container'))

    def test_placement(self):
        self._test('placement-manage', 100,
                   ('placement_database', 'sync_on_startup'))

    def test_glance(self):
        self._test('glance-api', 400, ('DEFAULT', 'image_size_cap'),
                   ('glance_store', 'default_store'))

    def _test(self, program, at_least, *some):
        known = definitions.for_service(program)
        # A list that cannot be loaded is left out.
        self.assertEqual([], [each for each in some if not known.find(*each)])
        text, _ = sample(known)
        path = os.path.join(self.directory, 'all.conf')
        with open(path, 'w') as out:
            out.write(text)
        self.create('all', **{'all.conf': text})
        # Registering an option leaves marks in it.
        with_file = self._values(program, ['--config-file', path], {})
        default = self._values(program, [], {})
        self.assertGreater(len([
            each for each in default if with_file[each] != default[each]]),
            at_least)
        self.assertEqual(with_file, self._values(
            program, [], {'cluster': self.kubernetes('all')}))
        prefix = f'/{control_plane.unique("all")}'
        host, port = self.plane.etcd_url.removeprefix('http://').split(':')
        etcd = etcd3gw.client(host=host, port=int(port), timeout=5)
        for group, name, value in parsed(text):
            etcd.put(f'{prefix}/{group}/{name}', value)
        self.assertEqual(with_file, self._values(program, [], {'etcd': {
            'driver': 'etcd', 'endpoint': self.plane.etcd_url,
            'prefix': prefix}}))

    def _values(self, program, args, sources):
        known = definitions.for_service(program)
        conf = cfg.ConfigOpts()
        known.register(conf)
        with mock.patch.object(cfg, 'ConfigOpts', lambda: conf):
            loaded = self.load(args, (), **sources)
        found = {}
        for (group, dest), opt in known.opts.items():
            if isinstance(opt, cfg.SubCommandOpt) or dest == 'config_source':
                continue
            try:
                value = (loaded[group] if group else loaded)[dest]
            except cfg.ConfigFileValueError as exc:
                value = type(exc).__name__
            found[group, dest] = value
        return found


def sample(known):
    """Return an INI text that sets each option, and how many those are."""
    sections, count = {}, 0
    for (group, dest), opt in known.opts.items():
        if isinstance(opt, cfg.SubCommandOpt) or dest == 'config_source':
            continue
        kind = type(opt.type).__name__
        choices = getattr(opt.type, 'choices', None)
        value = list(choices)[-1] if choices else {
            'Boolean': 'true' if not opt.default else 'false',
            'Integer': str(getattr(opt.type, 'max', None) or 10 ** 3),
            'Port': '8080', 'Float': '1', 'List': 'a,b', 'Dict': 'a:b,c:d',
            'URI': 'http://a/b', 'IPAddress': '10.0.0.1',
            'HostAddress': 'a.example', 'Range': '1-2'}.get(kind, 'a b "c"')
        sections.setdefault(group or 'DEFAULT', []).append(
            f'{dest} = {value}')
        count += 1
    return '\n'.join('\n'.join([f'[{name}]', *lines]) for name, lines
                     in sections.items()) + '\n', count


def parsed(text):
    group = None
    for line in text.splitlines():
        if line.startswith('['):
            group = line[1:-1]
        else:
            name, _, value = line.partition(' = ')
            yield group, name, value


class CommandsTest(TestCase):

    def nova_k8s(self, *arguments, check=True, **environ):
        done = subprocess.run(
            [sys.executable, '-m', 'nova_k8s.cmd.main', 'config', *arguments],
            text=True, capture_output=True, timeout=120,
            env={**test_config_run.ENVIRONMENT, **environ})
        if check:
            self.assertEqual(0, done.returncode, done.stderr)
        return done

    def environ(self, **options):
        source = self.kubernetes('nova', secrets='nova-credentials',
                                 **options)
        return {'OS_DEFAULT__CONFIG_SOURCE': 'cluster',
                **{f'OS_CLUSTER__{name.upper()}': str(value)
                   for name, value in source.items()}}

    def test_from_a_file_to_a_diff(self):
        path = os.path.join(self.directory, 'nova.conf')
        with open(path, 'w') as out:
            out.write('[DEFAULT]\nmy_ip = 10.0.0.1\n'
                      'transport_url = rabbit://nova:very-secret@rabbit/\n'
                      '[libvirt]\ncpu_mode = custom\ncpu_models = a,b\n'
                      '[nonsense]\nx = very-secret\n')
        done = self.nova_k8s('import', path, '--namespace', self.namespace)
        self.assertIn('does not know them: [nonsense] x', done.stderr)
        config_map, secret = yaml.safe_load_all(done.stdout)
        self.assertEqual(('ConfigMap', 'Secret'),
                         (config_map['kind'], secret['kind']))
        self.assertNotIn('very-secret', str(config_map))
        self.plane.kubectl('apply', '-f', '-', stdin=done.stdout)

        environ = self.environ(cache_dir=self.directory)
        shown = self.nova_k8s('show', **environ)
        self.assertNotIn('very-secret', shown.stdout)
        for line in ('transport_url = ****  # Secret '
                     f'{self.namespace}/nova-credentials, key nova.conf',
                     'cpu_mode = custom  # ConfigMap '
                     f'{self.namespace}/nova, key nova.conf',
                     'my_ip = 10.0.0.2  # OS_DEFAULT__MY_IP'):
            if 'OS_' in line:
                self.assertIn(line, self.nova_k8s(
                    'show', OS_DEFAULT__MY_IP='10.0.0.2', **environ).stdout)
            else:
                self.assertIn(line, shown.stdout)
        # Looking keeps nothing.
        self.assertEqual(['nova.conf'], os.listdir(self.directory))
        refused = self.nova_k8s('diff', check=False, **environ)
        self.assertEqual(1, refused.returncode)
        self.assertIn('set cache_dir', refused.stderr)

        # The service starts.
        with mock.patch.dict(os.environ, environ):
            cfg.ConfigOpts()([], project='nova', prog='nova-compute',
                             default_config_files=[])
        self.assertEqual('', self.nova_k8s('diff', **environ).stdout)
        self.plane.core.patch_namespaced_config_map(
            'nova', self.namespace, {'data': {
                'DEFAULT.reserved_host_disk_mb': '7',
                # Which a Secret wins over.
                'DEFAULT.transport_url': 'fake:/'}})
        done = self.nova_k8s('diff', '--format', 'json', **environ)
        self.assertEqual([{
            'group': 'DEFAULT', 'name': 'reserved_host_disk_mb', 'old': 0,
            'new': 7, 'restart': True, 'where': f'ConfigMap {self.namespace}/'
            f'nova, key DEFAULT.reserved_host_disk_mb'}],
            json.loads(done.stdout))
        self.assertIn('Secrets are not compared', done.stderr)
        # Nothing changes where something else wins.
        self.assertEqual('', self.nova_k8s(
            'diff', OS_DEFAULT__RESERVED_HOST_DISK_MB='0', **environ).stdout)

    def test_what_nobody_knows(self):
        self.create('nova', **{'nonsense.x': 'very-secret'})
        self.create('nova-credentials', secret=True, **{'DEFAULT.host': 'a'})
        shown = self.nova_k8s('show', **self.environ()).stdout
        self.assertIn(f'[nonsense]\nx = ****  # ConfigMap {self.namespace}/'
                      f'nova, key nonsense.x; no option of the service\n',
                      shown)
        self.assertNotIn('[cluster]', shown)
        self.assertNotIn('very-secret', shown)

    def test_report_with_a_source(self):
        """As in a pod whose nova-compute has config_source."""
        self.create('nova', **{
            'kubernetes.limits_from': 'manifest',
            'kubernetes.manifest': os.path.join(self.directory, 'pod.yaml')})
        self.create('nova-credentials', secret=True, **{
            'DEFAULT.reserved_host_memory_mb': '700'})
        with open(os.path.join(self.directory, 'pod.yaml'), 'w') as out:
            out.write(test_config_run.POD)
        environ = {**test_config_run.ENVIRONMENT, **self.environ(
            cache_dir=self.directory + '/cache')}
        report = [sys.executable, '-m', 'nova_k8s.cmd.main', 'report',
                  '--machine', 'cpus=8,memory=16Gi', '--format', 'json']
        done = subprocess.run(report, text=True, capture_output=True,
                              timeout=120, env=environ)
        self.assertEqual(0, done.returncode, done.stderr)
        memory = json.loads(done.stdout)['inventory']['MEMORY_MB']
        self.assertEqual((4096, 700), (memory['total'], memory['reserved']))
        # Whoever looks keeps nothing.
        self.assertFalse(os.path.exists(self.directory + '/cache'))
        self.plane.core.delete_namespaced_config_map('nova', self.namespace)
        done = subprocess.run(report, text=True, capture_output=True,
                              timeout=120, env=environ)
        self.assertEqual((1, ''), (done.returncode, done.stdout))
        self.assertIn(f'[cluster] ConfigMap {self.namespace}/nova: ',
                      done.stderr)
        self.assertEqual(1, len(done.stderr.splitlines()), done.stderr)
