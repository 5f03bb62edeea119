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

"""The control plane and the fault proxy of the tests do what they say."""

import contextlib
import errno
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time
from unittest import mock

import fixtures
from kubernetes import client
from kubernetes import watch
import testtools

from tests.functional import control_plane
from tests.functional import fault_proxy
from tests import waiting

LIMITS = {'cpu': '4', 'memory': '8Gi'}
NODE_NAME = 'authentication.kubernetes.io/node-name'


@contextlib.contextmanager
def refusal(code):
    """Expect the API server to refuse with a status."""
    try:
        yield
    except client.ApiException as failure:
        if failure.status != code:
            raise
    else:
        raise AssertionError('It was not refused.')


class TestCase(testtools.TestCase):

    def setUp(self):
        super().setUp()
        self.plane = control_plane.shared()
        self.core = self.plane.core


class ControlPlaneTest(TestCase):

    def setUp(self):
        super().setUp()
        self.namespace = self.plane.create_namespace()

    def test_what_a_kubelet_writes_is_read(self):
        node = self.plane.create_node(labels={'rack': 'r1'})
        pod = self.plane.create_pod(self.namespace, node, limits=LIMITS)
        self.assertEqual('Pending', pod.status.phase)
        self.plane.set_pod_status(pod)
        pod = self.core.read_namespaced_pod(pod.metadata.name, self.namespace)
        self.assertEqual('Running', pod.status.phase)
        actual = pod.status.container_statuses[0]
        self.assertEqual('compute', actual.name)
        self.assertEqual(LIMITS, actual.resources.limits)
        self.assertEqual(LIMITS, actual.allocated_resources)
        kinds = {condition.type: condition.status
                 for condition in pod.status.conditions}
        self.assertEqual('True', kinds['Ready'])
        node = self.core.read_node(node)
        self.assertEqual('r1', node.metadata.labels['rack'])
        self.assertEqual('64', node.status.allocatable['cpu'])
        self.assertIsNone(node.spec.taints)

    def test_a_kubelet_cannot_write_for_another_node(self):
        mine, other = self.plane.create_node(), self.plane.create_node()
        pod = self.plane.create_pod(self.namespace, mine, limits=LIMITS)
        with refusal(403):
            self.plane.kubelet(other).patch_namespaced_pod_status(
                pod.metadata.name, self.namespace,
                {'status': {'phase': 'Failed'}},
                _content_type=control_plane.STRATEGIC)
        with refusal(403):
            self.plane.kubelet(other).patch_node_status(
                mine, {'status': {'capacity': {'cpu': '1'}}},
                _content_type=control_plane.STRATEGIC)

    def test_a_resize_is_a_wish_first(self):
        node = self.plane.create_node()
        pod = self.plane.create_pod(self.namespace, node, limits=LIMITS)
        self.plane.set_pod_status(pod)
        grown = {'cpu': '6', 'memory': '12Gi'}
        self.plane.resize(pod, limits=grown, requests=grown)
        self.plane.set_pod_status(
            pod, {'compute': {'resources': {'limits': LIMITS}}},
            {'PodResizePending': {'reason': 'Deferred'}})
        pod = self.core.read_namespaced_pod(pod.metadata.name, self.namespace)
        self.assertEqual(grown, pod.spec.containers[0].resources.limits)
        self.assertEqual(
            LIMITS, pod.status.container_statuses[0].resources.limits)
        self.assertIn('PodResizePending', [
            condition.type for condition in pod.status.conditions])
        pod = self.plane.set_pod_status(pod)
        self.assertEqual(
            grown, pod.status.container_statuses[0].resources.limits)
        self.assertNotIn('PodResizePending', [
            condition.type for condition in pod.status.conditions])

    def test_a_resize_cannot_change_the_qos_class(self):
        pod = self.plane.create_pod(
            self.namespace, self.plane.create_node(), limits=LIMITS)
        with refusal(422):
            self.plane.resize(pod, requests={'cpu': '1'})

    def test_a_kubelet_removes_a_pod(self):
        pod = self.plane.create_pod(
            self.namespace, self.plane.create_node(), limits=LIMITS)
        self.plane.remove_pod(pod)
        with refusal(404):
            self.core.read_namespaced_pod(pod.metadata.name, self.namespace)

    def test_a_service_account_may_do_nothing_at_first(self):
        self.plane.create_service_account(self.namespace, 'compute')
        path = self.plane.service_account_kubeconfig(
            self.namespace, 'compute')
        with refusal(403):
            client.CoreV1Api(self.plane.client(path)).list_namespaced_pod(
                self.namespace)
        self.plane.kubectl(
            '-n', self.namespace, 'create', 'role', 'reader',
            '--verb=get,list,watch', '--resource=pods')
        self.plane.kubectl(
            '-n', self.namespace, 'create', 'rolebinding', 'reader',
            '--role=reader',
            '--serviceaccount=%s:compute' % self.namespace)
        # Authorizers learn of a binding through a watch.
        done = waiting.until(lambda: not self.plane.kubectl(
            '-n', self.namespace, 'get', 'pods', kubeconfig=path,
            check=False).returncode)
        self.assertTrue(done)

    def test_a_bound_token_names_its_node(self):
        node = self.plane.create_node()
        self.plane.create_service_account(self.namespace, 'compute')
        pod = self.plane.create_pod(self.namespace, node, limits=LIMITS,
                                    service_account='compute')
        token = self.plane.token(self.namespace, 'compute', pod)
        review = client.AuthenticationV1Api(
            self.plane.admin).create_token_review(
                {'spec': {'token': token}})
        self.assertTrue(review.status.authenticated)
        self.assertEqual([node], review.status.user.extra[NODE_NAME])
        self.assertEqual(
            'system:serviceaccount:%s:compute' % self.namespace,
            review.status.user.username)
        free = self.plane.token(self.namespace, 'compute')
        review = client.AuthenticationV1Api(
            self.plane.admin).create_token_review({'spec': {'token': free}})
        self.assertNotIn(NODE_NAME, review.status.user.extra)

    def test_a_volume_is_renewed_as_a_kubelet_does(self):
        directory = os.path.join(self.useFixture(fixtures.TempDir()).path,
                                 'serviceaccount')
        self.plane.service_account_volume(directory, self.namespace,
                                          'default')
        with open(os.path.join(directory, 'token')) as token:
            first = token.read()
        before = os.readlink(os.path.join(directory, '..data'))
        # Tokens of the same second are the same.
        time.sleep(1.1)
        self.plane.service_account_volume(directory, self.namespace,
                                          'default')
        with open(os.path.join(directory, 'token')) as token:
            self.assertNotEqual(first, token.read())
        self.assertNotEqual(
            before, os.readlink(os.path.join(directory, '..data')))
        with open(os.path.join(directory, 'namespace')) as namespace:
            self.assertEqual(self.namespace, namespace.read())
        self.assertEqual({'token', 'ca.crt', 'namespace', '..data'},
                         {name for name in os.listdir(directory)
                          if name == '..data' or not name.startswith('..')})

    def test_kubectl_tells_why_it_failed(self):
        failure = self.assertRaises(
            AssertionError, self.plane.kubectl, 'get', 'node', 'missing')
        self.assertIn('"missing" not found', str(failure))


class KwokTest(TestCase):
    """What needs controllers and many pods."""

    def setUp(self):
        super().setUp()
        control_plane.shared(kwok=True)
        self.namespace = self.plane.create_namespace()
        self.apps = client.AppsV1Api(self.plane.admin)

    def deploy(self, node):
        """Have a Deployment on a node, and return its Running pod."""
        labels = {'app': 'compute'}
        self.apps.create_namespaced_deployment(self.namespace, {
            'metadata': {'name': 'compute'},
            'spec': {
                'replicas': 1, 'selector': {'matchLabels': labels},
                'template': {
                    'metadata': {'labels': labels},
                    # There is no scheduler.
                    'spec': {'nodeName': node, 'containers': [
                        {'name': 'compute', 'image': 'compute'}]}}}})

        def running():
            for pod in self.core.list_namespaced_pod(self.namespace).items:
                if pod.status.phase == 'Running':
                    return pod
        return waiting.until(running)

    def test_cordon_and_drain(self):
        node = self.plane.create_node(kwok=True)
        pod = self.deploy(node)
        self.plane.kubectl('cordon', node)
        self.assertTrue(self.core.read_node(node).spec.unschedulable)
        # Its successor has to go somewhere else, which a scheduler would see
        # to.
        self.apps.patch_namespaced_deployment(
            'compute', self.namespace, {'spec': {'replicas': 0,
                                                 'paused': True}},
            _content_type=control_plane.STRATEGIC)
        self.plane.kubectl('drain', node, '--timeout=120s')
        with refusal(404):
            self.core.read_namespaced_pod(pod.metadata.name, self.namespace)
        self.plane.kubectl('uncordon', node)
        self.assertFalse(self.core.read_node(node).spec.unschedulable)

    def test_a_disruption_budget_refuses(self):
        policy = client.PolicyV1Api(self.plane.admin)
        pod = self.deploy(self.plane.create_node(kwok=True))
        policy.create_namespaced_pod_disruption_budget(self.namespace, {
            'metadata': {'name': 'compute'},
            'spec': {'minAvailable': 1,
                     'selector': {'matchLabels': {'app': 'compute'}}}})
        waiting.until(lambda: policy.read_namespaced_pod_disruption_budget(
            'compute', self.namespace).status.observed_generation)
        with refusal(429):
            self.core.create_namespaced_pod_eviction(
                pod.metadata.name, self.namespace,
                {'metadata': {'name': pod.metadata.name}})
        policy.delete_namespaced_pod_disruption_budget(
            'compute', self.namespace)

        def evicted():
            # The API server learns of the deletion through a watch.
            with contextlib.suppress(client.ApiException):
                self.core.create_namespaced_pod_eviction(
                    pod.metadata.name, self.namespace,
                    {'metadata': {'name': pod.metadata.name}})
                return True
        waiting.until(evicted)


class OutageTest(TestCase):

    def test_data_outlives_an_outage(self):
        namespace = self.plane.create_namespace()
        url = self.plane.url
        self.plane.stop_api_server()
        try:
            with testtools.ExpectedException(ConnectionRefusedError):
                socket.create_connection(('127.0.0.1', self.plane.port), 5)
        finally:
            self.plane.start_api_server()
        self.assertEqual(url, self.plane.url)
        self.core.read_namespace(namespace)

    def test_a_server_that_hangs(self):
        self.plane.pause_api_server()
        try:
            # The kernel accepts in its place.
            socket.create_connection(('127.0.0.1', self.plane.port),
                                     5).close()
            with testtools.ExpectedException(TimeoutError):
                raw = socket.create_connection(
                    ('127.0.0.1', self.plane.port), 5)
                self.addCleanup(raw.close)
                raw.settimeout(0.5)
                ssl._create_unverified_context().wrap_socket(raw)
        finally:
            self.plane.resume_api_server()
        self.core.list_namespace(limit=1)


class PortTest(testtools.TestCase):

    def test_nobody_else_gets_a_port_that_is_held(self):
        held = control_plane.reserve_port()
        self.addCleanup(held.close)
        port = held.getsockname()[1]
        free = control_plane.reserve_port()
        other = free.getsockname()[1]
        free.close()
        with mock.patch('random.SystemRandom') as generator:
            # Another worker of the tests that happens to choose the same.
            generator.return_value.randrange.side_effect = [port, other]
            found = control_plane.reserve_port()
        self.addCleanup(found.close)
        self.assertEqual(other, found.getsockname()[1])
        held.listen()
        found.listen()


class StartTest(testtools.TestCase):
    """Starting and ending, each with a control plane of its own."""

    def test_start_and_end(self):
        control_plane.binaries('etcd', 'kube-apiserver')
        started = time.monotonic()
        plane = control_plane.ControlPlane()
        plane.setUp()
        try:
            took = time.monotonic() - started
            pids = [process._process.pid for process in plane._processes]
            plane.create_pod(plane.create_namespace(), plane.create_node())
            # Something else ends in an outage, and is there afterwards.
            os.kill(pids[-1], signal.SIGKILL)
            plane.stop_api_server()
            plane.start_api_server()
            plane._processes[-1].check()
            pids += [process._process.pid for process in plane._processes]
            self.assertEqual(5, len(set(pids)))
        finally:
            started = time.monotonic()
            plane.cleanUp()
        ended = time.monotonic() - started
        self.addDetail('times', testtools.content.text_content(
            'start %.1f s, end %.1f s' % (took, ended)))
        self.assertEqual([], [pid for pid in pids if _alive(pid)])
        self.assertFalse(os.path.exists(plane.directory))

    def test_logs_tell_why_a_start_failed(self):
        control_plane.binaries('etcd', 'kube-apiserver')
        plane = control_plane.ControlPlane(
            api_server_flags=['--no-such-flag'])
        failure = self.assertRaises(
            fixtures.MultipleExceptions, plane.setUp)
        self.assertIsInstance(failure.args[0][1], control_plane.StartError)
        self.assertIn('no-such-flag', str(failure.args[0][1]))
        details = failure.args[-1][1].args[0]
        self.assertIn('no-such-flag',
                      details['kube-apiserver.log'].as_text())
        self.assertIn('etcd.log', details)

    def test_a_killed_test_run_leaves_nothing(self):
        control_plane.binaries('etcd', 'kube-apiserver')
        script = textwrap.dedent('''
            import os, signal, threading
            from tests.functional import control_plane
            plane = control_plane.ControlPlane(controllers=None)
            # In a thread that ends: nothing may depend on that one.
            thread = threading.Thread(target=plane.setUp)
            thread.start()
            thread.join()
            plane.core.list_node()
            print(plane.directory, *[process._process.pid
                                     for process in plane._processes])
            ''')
        run = subprocess.Popen(
            [sys.executable, '-c', script + 'import sys; '
             'sys.stdout.flush(); os.kill(os.getpid(), signal.SIGKILL)'],
            stdout=subprocess.PIPE, text=True,
            cwd=control_plane.BUILD.parents[2])
        # Not communicate(): its end is what comes last.
        directory, *pids = run.stdout.readline().split()
        run.stdout.close()
        self.assertEqual(-9, run.wait(60))
        self.assertEqual(2, len(pids))
        waiting.until(lambda: not any(_alive(int(pid)) for pid in pids))
        waiting.until(lambda: not os.path.exists(directory))

    def test_what_is_missing_skips_but_not_in_ci(self):
        empty = self.useFixture(fixtures.TempDir()).path
        self.useFixture(fixtures.EnvironmentVariable(
            'KUBEBUILDER_ASSETS', empty))
        self.useFixture(fixtures.EnvironmentVariable('CI'))
        skip = self.assertRaises(self.skipException,
                                 control_plane.binaries, 'etcd', 'kwok')
        self.assertIn('%s, where etcd, kwok is missing' % empty, str(skip))
        self.useFixture(fixtures.EnvironmentVariable('CI', 'true'))
        self.assertRaises(AssertionError, control_plane.binaries, 'etcd')
        self.useFixture(fixtures.EnvironmentVariable('KUBEBUILDER_ASSETS'))
        self.useFixture(fixtures.EnvironmentVariable('XDG_CACHE_HOME', empty))
        failure = self.assertRaises(AssertionError,
                                    control_plane.binaries, 'etcd')
        self.assertIn('tools/kubernetes/build', str(failure))

    def test_a_missing_kubectl_skips(self):
        self.useFixture(fixtures.EnvironmentVariable('CI'))
        with mock.patch('shutil.which', return_value=None):
            skip = self.assertRaises(self.skipException,
                                     control_plane.find_kubectl)
        self.assertIn('test-requirements.txt', str(skip))


def _alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class ProxyTest(TestCase):
    """Each fault, as a client sees it."""

    tls = False

    def setUp(self):
        super().setUp()
        self.namespace = self.plane.create_namespace()
        self.plane.create_service_account(self.namespace, 'compute')
        self.plane.kubectl(
            'create', 'clusterrole', self.namespace,
            '--verb=get,list,watch', '--resource=pods,serviceaccounts')
        self.plane.kubectl(
            'create', 'clusterrolebinding', self.namespace,
            '--clusterrole=' + self.namespace,
            '--serviceaccount=%s:compute' % self.namespace)
        self.proxy = self.useFixture(
            fault_proxy.FaultProxy(self.plane, tls=self.tls))
        self.api = self.make_api()
        waiting.until(self.reaches)

    def make_api(self):
        configuration = client.Configuration()
        configuration.host = self.proxy.url
        configuration.ssl_ca_cert = self.proxy.ca_file
        configuration.retries = False
        configuration.api_key = {'authorization': 'Bearer ' + self.plane.token(
            self.namespace, 'compute')}
        return client.CoreV1Api(client.ApiClient(configuration))

    def read(self):
        return self.api.read_namespaced_service_account(
            'compute', self.namespace, _request_timeout=2)

    def reaches(self):
        try:
            return self.read().metadata.name == 'compute'
        except client.ApiException as failure:
            # The binding is not known everywhere yet.
            if failure.status != 403:
                raise
            return False

    def assertFails(self, *reasons):
        try:
            self.read()
        except Exception as failure:
            text = '%r %s' % (failure, failure)
        else:
            self.fail('nothing failed')
        self.assertTrue(any(reason in text for reason in reasons),
                        '%s has none of %s' % (text, reasons))

    def assertRecovers(self):
        self.proxy.restore()
        self.assertEqual('compute', self.read().metadata.name)

    def test_cut(self):
        self.proxy.cut()
        waiting.until(lambda: not self.proxy.open_connections)
        with testtools.ExpectedException(ConnectionRefusedError):
            socket.create_connection(('127.0.0.1', self.proxy.port), 5)
        self.assertFails('[Errno %d]' % errno.ECONNREFUSED)
        self.assertRecovers()

    def test_drop(self):
        self.proxy.drop()
        waiting.until(lambda: not self.proxy.open_connections)
        before = self.proxy.connections
        with contextlib.suppress(Exception):
            # The pool's connection is gone.
            self.read()
        self.read()
        self.assertGreater(self.proxy.connections, before)

    def test_stall(self):
        before = self.proxy.connections
        self.proxy.stall()
        started = time.monotonic()
        self.assertFails('Timeout', 'timed out')
        self.assertGreater(time.monotonic() - started, 1.9)
        # A new one is accepted and gets nothing either.
        raw = socket.create_connection(('127.0.0.1', self.proxy.port), 5)
        self.addCleanup(raw.close)
        waiting.until(lambda: self.proxy.connections > before)
        raw.settimeout(0.5)
        raw.sendall(b'hello')
        self.assertRaises(TimeoutError, raw.recv, 1)
        self.assertRecovers()

    def test_a_stalled_connection_goes_on(self):
        self.proxy.stall()
        timer = threading.Timer(0.5, self.proxy.restore)
        timer.start()
        self.addCleanup(timer.join)
        self.assertEqual('compute', self.read().metadata.name)

    def test_a_watch_goes_through_without_delay(self):
        node = self.plane.create_node()
        pod = self.plane.create_pod(self.namespace, node, limits=LIMITS)
        version = pod.metadata.resource_version
        seen = []

        def follow():
            for event in watch.Watch().stream(
                    self.api.list_namespaced_pod, self.namespace,
                    resource_version=version, timeout_seconds=30):
                seen.append(time.monotonic())
                return
        thread = threading.Thread(target=follow)
        thread.start()
        self.addCleanup(thread.join)
        time.sleep(0.3)
        written = time.monotonic()
        self.plane.set_pod_status(pod)
        thread.join(10)
        self.assertEqual(1, len(seen))
        self.assertLess(seen[0] - written, 1)

    def test_corrupt(self):
        self.proxy.corrupt()
        # On the connection that there is, and on a new one.
        self.assertFails('SSL', 'BadStatusLine')
        self.assertFails('SSL', 'BadStatusLine')
        self.assertRecovers()

    def test_count(self):
        connections = self.proxy.connections
        up, down = self.proxy.bytes_to_server, self.proxy.bytes_to_client
        answer = self.api.api_client.call_api(
            'GET', self.proxy.url + '/api/v1/namespaces/%s/pods'
            % self.namespace,
            {'Authorization': self.api.api_client.configuration.api_key[
                'authorization']})
        size = len(answer.read())
        # The one connection of the pool is used again.
        self.assertEqual(connections, self.proxy.connections)
        self.assertGreater(self.proxy.bytes_to_server - up, 500)
        passed = self.proxy.bytes_to_client - down
        self.assertGreater(passed, size)
        self.assertLess(passed, size + 1000)


class TlsProxyTest(ProxyTest):
    """The same, and what needs a look at the requests."""

    tls = True

    def test_answers(self):
        for code in (403, 410, 429, 500):
            self.proxy.answer('serviceaccounts/compute$', code, times=1,
                              headers={'Retry-After': '1'})
            failure = self.assertRaises(client.ApiException, self.read)
            self.assertEqual(code, failure.status)
            self.assertEqual(code, json.loads(failure.body)['code'])
            self.assertEqual('1', failure.headers['Retry-After'])
            self.read()
        self.proxy.answer('^GET .*serviceaccounts', 500)
        self.assertRaises(client.ApiException, self.read)
        # Others get through, also with a body that is passed on.
        self.api.list_namespaced_pod(self.namespace)
        review = client.AuthorizationV1Api(
            self.api.api_client).create_self_subject_access_review({'spec': {
                'resourceAttributes': {'verb': 'get', 'resource': 'pods'}}})
        self.assertTrue(review.status.allowed)
        self.assertRaises(client.ApiException, self.read)
        self.proxy.forget_answers()
        self.read()

    def test_a_body_that_is_answered_goes_nowhere(self):
        self.proxy.answer('^POST ', 500)
        for _ in range(2):
            failure = self.assertRaises(
                client.ApiException, self.api.create_namespaced_config_map,
                self.namespace, {'data': {'much': 'x' * 100000}})
            self.assertEqual(500, failure.status)
        self.read()

    def test_rubbish_that_is_http(self):
        self.proxy.answer('serviceaccounts', 200, body='<html>no</html>')
        self.assertFails('JSONDecodeError')
        self.proxy.forget_answers()
        self.read()

    def test_a_watch_ends_with_410(self):
        self.proxy.answer('watch=true', 410, event=True)
        failure = self.assertRaises(
            client.ApiException, list, watch.Watch().stream(
                self.api.list_namespaced_pod, self.namespace,
                resource_version='1', timeout_seconds=5))
        self.assertEqual(410, failure.status)

    def test_requests_are_told(self):
        self.read()
        self.assertEqual(
            ('GET', '/api/v1/namespaces/%s/serviceaccounts/compute'
             % self.namespace), tuple(self.proxy.requests[-1]))

    def test_another_authority(self):
        old = self.proxy.ca_file
        new = self.proxy.change_ca()
        self.assertNotEqual(old, new)
        with contextlib.suppress(Exception):
            # The pool's connection is gone, which may be noticed first.
            self.read()
        self.assertFails('CERTIFICATE_VERIFY_FAILED')
        self.api = self.make_api()
        self.read()
