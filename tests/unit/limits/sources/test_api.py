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

"""Limits from the API server, over HTTP."""

import socket
import threading
import time

from kubernetes import client
import testscenarios

from nova_k8s import errors
from nova_k8s.limits.sources import api
from tests.unit import api_server
from tests.unit import base

load_tests = testscenarios.load_tests_apply_scenarios

GI = 2 ** 30


def pod(name='compute', phase='Running', deleted=False, cpu='4'):
    metadata = {'namespace': 'openstack', 'name': name}
    if deleted:
        metadata['deletionTimestamp'] = '2026-01-01T00:00:00Z'
    return {'apiVersion': 'v1', 'kind': 'Pod', 'metadata': metadata,
            'spec': {'nodeName': 'node-1', 'containers': [
                {'name': 'libvirt', 'resources': {
                    'limits': {'cpu': cpu, 'memory': '8Gi'}}}]},
            'status': {'phase': phase, 'containerStatuses': [
                {'name': 'libvirt', 'state': {'running': {}}
                 if phase == 'Running' else {'waiting': {}}}]}}


class ApiTestBase(base.TestCase):

    def setUp(self):
        super().setUp()
        self.server = self.useFixture(api_server.ApiServer())

    def source(self, url=None, **options):
        configuration = client.Configuration()
        configuration.host = url or self.server.url
        configuration.retries = False
        options = dict({'name': 'compute', 'timeout': 5}, **options)
        return api.Source(lambda: client.ApiClient(configuration),
                          'openstack', **options)

    def refused(self, expected, *names, **options):
        exc = self.assertRaises(expected, self.source(**options).read)
        for name in names:
            self.assertIn(name, str(exc))
        self.assertTrue(base.one_line(exc), str(exc))


class ByNameTest(ApiTestBase):

    def test_read(self):
        self.server.will_list(pod())
        found = self.source().read()
        self.assertEqual(4000, found.cpu_millicores)
        self.assertEqual(8 * GI, found.memory_bytes)
        self.assertEqual('node-1', found.node_name)
        self.assertEqual(
            'Pod openstack/compute, container libvirt (API server)',
            found.source)

    def test_asks_for_no_more_than_it_needs(self):
        self.server.will_list(pod())
        self.source().read()
        self.assertEqual(
            [('/api/v1/namespaces/openstack/pods',
              {'fieldSelector': 'metadata.name=compute'})],
            self.server.requests)

    def test_fields_that_the_client_does_not_know(self):
        found = pod()
        found['spec']['fromTheFuture'] = {'a': 1}
        found['spec']['resources'] = {'limits': {'cpu': '2'}}
        self.server.will_list(found)
        self.assertEqual(2000, self.source().read().cpu_millicores)

    def test_container(self):
        self.server.will_list(pod())
        self.refused(errors.Refused, '[kubernetes] container', 'libvirt',
                     container='nova')

    def test_not_there(self):
        self.server.will_list()
        self.refused(errors.Refused, 'Pod openstack/compute',
                     '[kubernetes] pod_name', 'POD_NAME')

    def test_finished(self):
        for phase in ('Succeeded', 'Failed'):
            self.server.will_list(pod(phase=phase))
            self.refused(errors.Refused, 'Pod openstack/compute')

    def test_terminating(self):
        # Guests run in it until it is gone.
        self.server.will_list(pod(deleted=True))
        found = self.source().read()
        self.assertEqual(4000, found.cpu_millicores)
        self.assertTrue(found.terminating)

    def test_does_not_run_yet(self):
        self.server.will_list(pod(phase='Pending'))
        self.refused(errors.NotYet, 'Pod openstack/compute (API server)',
                     'container libvirt does not run')

    def test_limits_of_rubbish(self):
        self.server.will_list(pod(cpu='many'))
        self.refused(errors.Unreadable, 'Pod openstack/compute', "'many'",
                     'spec.containers[libvirt].resources.limits.cpu')

    def test_forbidden(self):
        message = ('pods is forbidden: User "system:serviceaccount:a:b" '
                   'cannot list resource "pods" in API group "" in the '
                   'namespace "openstack"')
        self.server.will_refuse(403, message)
        self.refused(errors.Unreadable, 'Pod openstack/compute',
                     self.server.url, '403', message)

    def test_refused_otherwise(self):
        for status in (400, 401, 404, 429, 500, 503):
            self.server.will_refuse(status, 'because')
            self.refused(errors.Unreadable, self.server.url, str(status),
                         'because')

    def test_refused_without_a_message(self):
        for body in (b'', b'<html>\nBad\nGateway\n', b'[]', b'null',
                     b'{"message": null}'):
            self.server.will_answer(body, 502)
            self.refused(errors.Unreadable, self.server.url, '502')

    def test_refused_with_a_message_of_several_lines(self):
        self.server.will_refuse(500, 'one\ntwo')
        self.refused(errors.Unreadable, 'one two')

    def test_redirected(self):
        # To a page for signing in, say.
        self.server.will_answer({}, 302)
        self.refused(errors.Unreadable, self.server.url, '302')

    def test_timeout(self):
        self.server.will_hang()
        began = time.monotonic()
        self.refused(errors.Unreadable, 'Pod openstack/compute',
                     self.server.url, timeout=0.1)
        self.assertLess(time.monotonic() - began, 20)

    def test_connection_refused(self):
        with socket.socket() as unused:
            unused.bind(('127.0.0.1', 0))
            url = 'http://127.0.0.1:%d' % unused.getsockname()[1]
            self.refused(errors.Unreadable, url, '[Errno 111]', url=url)

    def test_connection_dropped(self):
        with socket.create_server(('127.0.0.1', 0)) as server:
            def drop():
                server.accept()[0].close()

            thread = threading.Thread(target=drop, daemon=True)
            thread.start()
            url = 'http://127.0.0.1:%d' % server.getsockname()[1]
            self.refused(errors.Unreadable, url, url=url)
            thread.join(5)

    def test_no_such_host(self):
        # .invalid is never asked of the network's name servers' owners, and
        # where there is no name server at all the answer is the same.
        self.refused(errors.Unreadable, 'api.invalid',
                     url='http://api.invalid:1')

    def test_tls_where_there_is_none(self):
        url = self.server.url.replace('http:', 'https:')
        self.refused(errors.Unreadable, url, url=url)

    def test_recovers(self):
        source = self.source()
        self.server.will_refuse(500, 'because')
        self.assertRaises(errors.Unreadable, source.read)
        self.server.will_list(pod())
        self.assertEqual(4000, source.read().cpu_millicores)


class RubbishTest(ApiTestBase):

    # A name with a zero byte in it is no name for the runner of tests.
    scenarios = [(ascii(body)[2:-1][:40] or 'empty',
                  {'body': body}) for body in (
        b'', b' ', b'rubbish', b'<html>', b'\xff\xfe', b'\0', b'null', b'1',
        b'true', b'"items"', b'[]', b'{}', b'{"items": [',
        b'{"items": []}', b'{"items": [], "metadata": null}',
        b'{"items": [], "metadata": {}}',
        b'[' * 100000, b'{"items": ' + b'9' * 5000 + b'}')]
    scenarios += [('items: ' + items, {'body': (
        '{"metadata": {"resourceVersion": "1"}, "items": %s}' % items
    ).encode()}) for items in (
        'null', '1', '"pods"', '[null]', '[1]', '["pod"]', '[[]]', '[{}]',
        '[{}, {}]', '[{"metadata": null}, {"metadata": null}]',
        '[{"metadata": 1}, {"metadata": "a"}]',
        '[{"metadata": {}, "status": null}]',
        '[{"metadata": {}, "status": 1}]',
        '[{"metadata": {}, "status": {"phase": []}}]',
        '[{"metadata": {}, "spec": 1}]')]

    def test_unreadable(self):
        # Or refused, but never anything else.
        self.server.will_answer(self.body)
        exc = self.assertRaises(errors.LimitsError, self.source().read)
        self.assertTrue(base.one_line(exc), str(exc))


class BySelectorTest(ApiTestBase):

    def source(self, url=None, **options):
        return super().source(url, selector='application=libvirt',
                              node='node-1', **options)

    def test_asks_for_this_node_only(self):
        self.server.will_list(pod('libvirt-x7k2p'))
        self.assertEqual(4000, self.source().read().cpu_millicores)
        self.assertEqual(
            [('/api/v1/namespaces/openstack/pods',
              {'fieldSelector': 'spec.nodeName=node-1',
               'labelSelector': 'application=libvirt'})],
            self.server.requests)

    def test_none(self):
        self.server.will_list()
        self.refused(
            errors.Refused, 'application=libvirt', 'openstack', 'node-1',
            'pod_selector', 'node_name')

    def test_several(self):
        self.server.will_list(pod('b'), pod('a'))
        self.refused(
            errors.Refused, 'application=libvirt',
            '(Pod openstack/a, Pod openstack/b)', '[kubernetes] pod_selector')

    def test_rolling_update(self):
        self.server.will_list(pod('old', deleted=True), pod('new', cpu='2'))
        found = self.source().read()
        self.assertEqual(2000, found.cpu_millicores)
        self.assertIn('openstack/new', found.source)

    def test_finished_ones_do_not_count(self):
        self.server.will_list(pod('a', 'Failed'), pod('b', 'Succeeded'),
                              pod('c', cpu='2'))
        self.assertEqual(2000, self.source().read().cpu_millicores)

    def test_several_that_end(self):
        self.server.will_list(pod('a', deleted=True), pod('b', deleted=True))
        self.refused(errors.Refused, 'openstack/a', 'openstack/b')

    def test_several_beside_one_that_ends(self):
        self.server.will_list(pod('a', deleted=True), pod('b'), pod('c'))
        self.refused(errors.Refused, 'openstack/b, Pod openstack/c')


KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{name: a, cluster: {server: '%s'}}]
users: [{name: a, user: {token: secret}}]
contexts: [{name: a, context: {cluster: a, user: a}}]
current-context: a
"""


class FromConfTest(ApiTestBase):

    def _source(self, environ=None, **options):
        path = self.folder() + '/kubeconfig'
        with open(path, 'w', encoding='utf-8') as f:
            f.write(KUBECONFIG % self.server.url)
        options = dict({'kubeconfig': path, 'namespace': 'openstack'},
                       **options)
        return api.from_conf(self.conf(**options), environ or {})

    def test_by_name(self):
        self.server.will_list(pod())
        self._source(pod_name='compute', container='libvirt').read()
        self.assertEqual({'fieldSelector': 'metadata.name=compute'},
                         self.server.requests[0][1])

    def test_by_environment(self):
        self.server.will_list(pod())
        self._source({'POD_NAME': 'x', 'POD_NAMESPACE': 'y'},
                     namespace=None).read()
        self.assertEqual(
            [('/api/v1/namespaces/y/pods',
              {'fieldSelector': 'metadata.name=x'})], self.server.requests)

    def test_by_selector(self):
        self.server.will_list(pod())
        self._source({'NODE_NAME': 'n'}, pod_selector='a=b',
                     pod_name='x').read()
        self.assertEqual({'fieldSelector': 'spec.nodeName=n',
                          'labelSelector': 'a=b'},
                         self.server.requests[0][1])

    def test_selector_needs_the_node(self):
        exc = self.assertRaises(errors.Refused, self._source,
                                pod_selector='a=b')
        for name in ('pod_selector', 'NODE_NAME', '[kubernetes] node_name'):
            self.assertIn(name, str(exc))

    def test_container(self):
        self.server.will_list(pod())
        source = self._source(container='x')
        self.assertRaises(errors.Refused, source.read)

    def test_watch_ends(self):
        self.server.will_list(pod())
        stop = threading.Event()
        thread = threading.Thread(
            target=self._source().watch, args=(lambda: None, stop))
        thread.start()
        stop.set()
        thread.join(5)
        self.assertFalse(thread.is_alive())
