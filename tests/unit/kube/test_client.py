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

"""The client for the API server, who we are, and errors in words."""

import http.client
import json
import os
import subprocess
import sys

import fixtures
from kubernetes import client
import testscenarios
import urllib3

from nova_k8s import errors
from nova_k8s.kube import client as kube_client
from tests.unit import api_server
from tests.unit import base

load_tests = testscenarios.load_tests_apply_scenarios

KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{name: a, cluster: {server: 'https://api.example:6443'}}]
users: [{name: a, user: {token: secret}}]
contexts: [{name: a, context: {cluster: a, user: a}}]
current-context: a
"""


class ApiClientTest(base.TestCase):

    def test_kubeconfig(self):
        path = os.path.join(self.folder(), 'config')
        with open(path, 'w', encoding='utf-8') as f:
            f.write(KUBECONFIG)
        found = kube_client.api_client(
            self.conf(kubeconfig=path)).configuration
        self.assertEqual('https://api.example:6443', found.host)
        self.assertIs(False, found.retries)

    def test_is_not_the_default_of_the_client(self):
        # Another user of the client in this process keeps his own.
        before = client.Configuration.get_default_copy().host
        self.test_kubeconfig()
        self.assertEqual(
            before, client.Configuration.get_default_copy().host)

    def test_neither_cluster_nor_kubeconfig(self):
        exc = self.assertRaises(
            errors.Refused, kube_client.api_client, self.conf())
        for name in ('[kubernetes] kubeconfig', 'limits_from = manifest'):
            self.assertIn(name, str(exc))
        self.assertTrue(base.one_line(exc))


class BadKubeconfigTest(base.TestCase):

    scenarios = [(name, {'text': text}) for name, text in (
        ('not there', None),
        ('empty', ''),
        ('no YAML', 'a: b: c'),
        ('binary', '\0\1\2'),
        ('a string', 'rubbish'),
        ('a list', '[]'),
        ('a number', '1'),
        ('of another kind', '{kind: Pod}'),
        ('no current context', KUBECONFIG.replace('current', 'x')),
        ('no such context', KUBECONFIG.replace('-context: a', '-context: b')),
        ('no such cluster', KUBECONFIG.replace('cluster: a', 'cluster: b')),
        ('no clusters', KUBECONFIG.replace('clusters:', 'x:')),
        ('clusters are a number', KUBECONFIG.replace(
            "[{name: a, cluster: {server: 'https://api.example:6443'}}]",
            '1')),
        ('a certificate that is not there', KUBECONFIG.replace(
            '{server:', '{certificate-authority: /none, server:')))]

    def test_refused(self):
        path = os.path.join(self.folder(), 'config')
        if self.text is not None:
            with open(path, 'w', encoding='utf-8') as f:
                f.write(self.text)
        exc = self.assertRaises(errors.Refused, kube_client.api_client,
                                self.conf(kubeconfig=path))
        self.assertIn(f'[kubernetes] kubeconfig {path}', str(exc))
        self.assertTrue(base.one_line(exc), str(exc))


class NamesTest(base.TestCase):

    def test_namespace(self):
        path = os.path.join(self.folder(), 'namespace')
        with open(path, 'w', encoding='utf-8') as f:
            f.write('c\n')
        self.useFixture(fixtures.MockPatchObject(
            kube_client, '_NAMESPACE_FILE', path))
        environ = {'POD_NAMESPACE': 'b'}
        self.assertEqual('a', kube_client.namespace(
            self.conf(namespace='a'), environ))
        self.assertEqual('b', kube_client.namespace(
            self.conf(namespace=None), environ))
        self.assertEqual(
            'c', kube_client.namespace(self.conf(namespace=None), {}))

        os.unlink(path)
        exc = self.assertRaises(errors.Refused, kube_client.namespace,
                                self.conf(namespace=None), {})
        for name in ('[kubernetes] namespace', 'POD_NAMESPACE'):
            self.assertIn(name, str(exc))

    def test_pod_name(self):
        self.useFixture(fixtures.MockPatch(
            'socket.gethostname', return_value='c'))
        environ = {'POD_NAME': 'b'}
        self.assertEqual('a', kube_client.pod_name(
            self.conf(pod_name='a'), environ))
        self.assertEqual('b', kube_client.pod_name(
            self.conf(pod_name=None), environ))
        self.assertEqual(
            'c', kube_client.pod_name(self.conf(pod_name=None), {}))

    def test_guests_pod(self):
        environ = {'NODE_NAME': 'kube-1', 'POD_NAME': 'nova-compute-x'}
        for options, expected in (
                ({}, None), ({'guests_pod': '/t'}, 'guests-kube-1'),
                ({'pod_name': 'guests-kube-1'}, 'guests-kube-1'),
                ({'pod_name': 'guests-kube-2'}, None),
                ({'guests_pod': '/t', 'limits_from': 'manifest'}, None),
                ({'guests_pod': '/t', 'pod_selector': 'a=b'}, None)):
            conf = self.conf(**{'guests_pod': None, 'pod_name': None,
                                'limits_from': 'api', 'pod_selector': None,
                                **options})
            self.assertEqual(expected, kube_client.guests_pod(conf, environ),
                             options)
            self.assertIsNone(kube_client.guests_pod(conf, {}))
            if expected:
                self.assertEqual(expected,
                                 kube_client.pod_name(conf, environ))

    def test_node_name(self):
        environ = {'NODE_NAME': 'b'}
        self.assertEqual('a', kube_client.node_name(
            self.conf(node_name='a'), environ))
        self.assertEqual('b', kube_client.node_name(
            self.conf(node_name=None), environ))
        for environ in ({}, {'NODE_NAME': ''}):
            self.assertIsNone(kube_client.node_name(
                self.conf(node_name=None), environ))


class CallTest(base.TestCase):

    # What it asks for, and whether the client has loaded what it does not
    # need for it.
    PROGRAM = """
import sys
from kubernetes import client
from nova_k8s.kube import client as kube_client
core = 'kubernetes.client.api.core_v1_api'
before = core in sys.modules
api = client.ApiClient(client.Configuration(host=sys.argv[1]))
kube_client.call(api, 'GET', '/api/v1/pods', timeout=5)
print(before, core in sys.modules)
"""

    def setUp(self):
        super().setUp()
        self.server = self.useFixture(api_server.ApiServer())
        self.api = client.ApiClient(
            client.Configuration(host=self.server.url))

    def test_path(self):
        for expected, arguments in (
                ('/api/v1/nodes', ('v1', 'nodes')),
                ('/api/v1/namespaces/a/pods/b', ('v1', 'pods', 'a', 'b')),
                ('/apis/policy/v1/namespaces/a%2Fb/poddisruptionbudgets',
                 ('policy/v1', 'poddisruptionbudgets', 'a/b'))):
            self.assertEqual(expected, kube_client.path(*arguments))

    def test_query_and_answer(self):
        self.server.will_answer({'some': 'thing'})
        answer = kube_client.call(
            self.api, 'GET', '/api/v1/pods', timeout=5,
            field_selector='metadata.name=a', label_selector='b=c')
        self.assertEqual({'some': 'thing'}, json.loads(answer.data))
        self.assertEqual([('/api/v1/pods', {
            'fieldSelector': 'metadata.name=a', 'labelSelector': 'b=c'})],
            self.server.requests)

    def test_body(self):
        kube_client.call(self.api, 'POST', '/api/v1/pods', {'some': 'thing'},
                         timeout=5)
        self.assertEqual([{'some': 'thing'}], self.server.bodies)

    def test_refusal(self):
        self.server.will_refuse(409, 'it is there')
        exc = self.assertRaises(
            client.ApiException, kube_client.call, self.api, 'POST',
            '/api/v1/pods', {'some': 'thing'}, timeout=5)
        self.assertEqual(409, exc.status)
        self.assertIn('409: it is there', kube_client.explain(exc, 'host'))

    def test_not_all_of_kubernetes_is_loaded(self):
        before, after = subprocess.run(
            [sys.executable, '-c', self.PROGRAM, self.server.url],
            check=True, stdout=subprocess.PIPE, text=True).stdout.split()
        if before == 'True':
            self.skipTest('kubernetes before 37 loads all of it anyway')
        self.assertEqual('False', after)


class ExplainTest(base.TestCase):

    def _explain(self, exc):
        found = kube_client.explain(exc, 'https://api')
        self.assertIn('https://api', found)
        self.assertEqual(1, len(found.splitlines()))
        return found

    def test_status_of_the_api_server(self):
        exc = client.ApiException(403, 'Forbidden')
        exc.body = '{"message": "pods is forbidden: User \\"a\\" cannot"}'
        self.assertIn('403: pods is forbidden: User "a" cannot',
                      self._explain(exc))

    def test_something_else_answers(self):
        for body in (None, '', '<html>', '[]', 'null', '1', '{}', b'\xff'):
            exc = client.ApiException(502, 'Bad Gateway')
            exc.body = body
            self.assertIn('502: Bad Gateway', self._explain(exc))

    def test_tls(self):
        # The client has a status of 0 for it, and several lines.
        self.assertIn('SSLError', self._explain(client.ApiException(
            0, 'SSLError\ncertificate verify failed')))

    def test_tls_as_older_clients_have_it(self):
        try:
            try:
                raise client.ApiException(status=0, reason='SSLError\nexpired')
            except client.ApiException as exc:
                exc.body.decode('utf-8')
        except AttributeError as exc:
            self.assertIn('SSLError expired', self._explain(exc))

    def test_reason_of_a_repetition(self):
        self.assertIn('because', self._explain(
            urllib3.exceptions.MaxRetryError(
                None, '/', OSError('because'))))

    def test_token_with_a_line_break(self):
        connection = http.client.HTTPConnection('api')
        connection.putrequest('GET', '/')
        exc = self.assertRaises(ValueError, connection.putheader,
                                'authorization', 'Bearer very-secret\n')
        self.assertIn('very-secret', str(exc))
        found = self._explain(exc)
        self.assertNotIn('very-secret', found)
        for name in ('line break', 'tokenFile', 'kubeconfig'):
            self.assertIn(name, found)

    def test_user_and_password_in_the_url(self):
        for url, expected in (
                ('https://api:6443', 'https://api:6443'),
                ('http://user:pw@api', 'http://api'),
                ('http://user:p/w@api', 'http://api'),
                ('http://user:p@w@api/x', 'http://api/x'),
                ('user:pw@api', 'api')):
            for text in ('no route', f'Failed to parse: {url}'):
                found = kube_client.explain(ValueError(text), url)
                self.assertIn(f'API server {expected}: ', found)
                self.assertNotIn('user', found)

    def test_user_that_the_api_server_names(self):
        exc = client.ApiException(403, 'Forbidden')
        exc.body = '{"message": "User \\"https://iss#a@b\\" cannot list"}'
        self.assertIn('"https://iss#a@b"', self._explain(exc))

    def test_any_other(self):
        self.assertIn('no route', self._explain(OSError('no\nroute')))
