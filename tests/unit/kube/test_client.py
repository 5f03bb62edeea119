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
import os

import fixtures
from kubernetes import client
import testscenarios
import urllib3

from nova_k8s import errors
from nova_k8s.kube import client as kube_client
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

    def test_node_name(self):
        environ = {'NODE_NAME': 'b'}
        self.assertEqual('a', kube_client.node_name(
            self.conf(node_name='a'), environ))
        self.assertEqual('b', kube_client.node_name(
            self.conf(node_name=None), environ))
        for environ in ({}, {'NODE_NAME': ''}):
            self.assertIsNone(kube_client.node_name(
                self.conf(node_name=None), environ))


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
