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

"""What a stolen token of a compute pod can do with the right to resize."""


from kubernetes import client
import testtools

from tests.functional import cluster
from tests.functional import control_plane
from tests import waiting


class ElasticPolicyTest(testtools.TestCase):

    def setUp(self):
        super().setUp()
        self.compute = self.useFixture(cluster.ComputePod(
            cpu='4', memory='8Gi', labels={'nova-k8s/elastic': 'on'}))
        self.compute.apply_elastic()
        self.plane = self.compute.plane
        self.kubeconfig = self.compute.kubeconfig()

    def wait_for(self, condition):
        waiting.until(condition, interval=0.2)

    def try_to(self, pod=None, kubeconfig=None, container='compute', **limits):
        pod = pod or self.compute.pod
        return self.patch(pod, {'spec': {'containers': [{
            'name': container,
            'resources': {'limits': limits, 'requests': limits}}]}},
            kubeconfig=kubeconfig)

    def patch(self, pod, body, kubeconfig=None):
        """Return what the API server says against it, '' for nothing.

        kubectl would read the subresource first, to which there is no right.
        """
        api = client.CoreV1Api(self.plane.client(kubeconfig or
                                                 self.kubeconfig))
        try:
            api.patch_namespaced_pod_resize(
                pod.metadata.name, self.compute.namespace, body,
                _content_type=control_plane.STRATEGIC)
        except client.ApiException as exc:
            return exc.body
        return ''

    def assert_denied(self, word, answer):
        self.assertIn(word, answer)

    def assert_allowed(self, answer):
        self.assertEqual('', answer)

    def assert_cannot(self, *args):
        result = self.plane.kubectl(*args, kubeconfig=self.kubeconfig,
                                    check=False)
        self.assertNotEqual(0, result.returncode)
        self.assertIn('orbidden', result.stderr)

    def annotate(self, *annotations):
        self.plane.kubectl('annotate', '--overwrite', 'node',
                           self.compute.node, *annotations)

    def test_between_the_bounds(self):
        for cpu, memory in (('8', '16Gi'), ('2', '4Gi'), ('2500m', '5000Mi'),
                            ('4', '8Gi')):
            self.assert_allowed(self.try_to(cpu=cpu, memory=memory))

    def test_beyond_the_bounds(self):
        for cpu, memory, word in (
                ('4', '16385Mi', 'memory'), ('4', '200Gi', 'memory'),
                ('8001m', '8Gi', 'cpu'), ('4', '4095Mi', 'memory'),
                ('1999m', '8Gi', 'cpu'), ('4', '1', 'memory')):
            result = self.try_to(cpu=cpu, memory=memory)
            self.assert_denied(f'{word} is beyond the bounds', result)

    def test_bounds_of_the_node(self):
        self.annotate('nova-k8s/elastic-max-memory=32Gi',
                      'nova-k8s/elastic-min-cpu=1')
        self.wait_for(lambda: not self.try_to(cpu='1', memory='32Gi'))
        self.assert_denied('memory is beyond', self.try_to(
            cpu='1', memory='33Gi'))
        # Lowered below what the pod has: it may come nearer, not go away.
        self.annotate('nova-k8s/elastic-max-memory=10Gi')
        self.assert_allowed(self.try_to(cpu='1', memory='20Gi'))
        self.wait_for(lambda: 'memory is beyond' in self.try_to(
            cpu='1', memory='21Gi'))
        self.assert_allowed(self.try_to(cpu='1', memory='19Gi'))

    def test_the_token_cannot_widen_the_bounds(self):
        for args in (('annotate', 'node', self.compute.node,
                      'nova-k8s/elastic-max-memory=1Ti'),
                     ('delete', 'validatingadmissionpolicy',
                      f'nova-k8s-elastic-{self.compute.namespace}')):
            self.assert_cannot(*args)

    def test_requests_are_limits(self):
        # On a pod that is not Guaranteed, or Kubernetes itself refuses.
        burstable = self.compute.create_pod(
            labels={'nova-k8s/elastic': 'on'},
            limits={'cpu': '4', 'memory': '8Gi'},
            requests={'cpu': '2', 'memory': '4Gi'})
        self.assert_denied('requests must be the limits', self.patch(
            burstable, {'spec': {'containers': [{
                'name': 'compute', 'resources': {
                    'limits': {'cpu': '5', 'memory': '9Gi'},
                    'requests': {'cpu': '1', 'memory': '1Gi'}}}]}}))

    def test_a_pod_without_the_label(self):
        other = self.compute.create_pod(labels={'app': 'other'})
        self.assert_denied('label nova-k8s/elastic=on may be', self.try_to(
            other, cpu='4', memory='9Gi'))

    def test_a_pod_with_a_name_alone(self):
        for name, labels in (
                (f'guests-{self.compute.node}', {'app': 'other'}),
                ('guests-other', {'app.kubernetes.io/name': 'guests'})):
            other = self.compute.create_pod(name=name, labels=labels)
            self.assert_denied('label nova-k8s/elastic=on may be',
                               self.try_to(other, cpu='4', memory='9Gi'))

    def test_a_pod_on_another_node(self):
        node = self.plane.create_node()
        other = self.plane.create_pod(
            self.compute.namespace, node, limits={'cpu': '4', 'memory': '8Gi'},
            labels={'nova-k8s/elastic': 'on'})
        self.assert_denied('node of the token', self.try_to(
            other, cpu='4', memory='9Gi'))

    def test_a_pod_of_several_containers(self):
        resources = {'limits': {'cpu': '4', 'memory': '8Gi'}}
        other = self.compute.create_pod(
            labels={'nova-k8s/elastic': 'on'}, limits=None, containers=[
                {'name': name, 'image': 'x', 'resources': resources}
                for name in ('one', 'two')])
        self.assert_denied('one container', self.try_to(
            other, container='two', cpu='4', memory='9Gi'))

    def test_a_token_without_a_node(self):
        free = self.plane.service_account_kubeconfig(
            self.compute.namespace, cluster.SERVICE_ACCOUNT)
        self.assert_denied('node of the token', self.try_to(
            kubeconfig=free, cpu='4', memory='9Gi'))

    def test_other_ways_to_change_a_pod(self):
        body = {'metadata': {'labels': {'a': 'b'}}}
        # Through the subresource, what it is not for stays as it is.
        self.patch(self.compute.pod, dict(body, spec={
            'containers': [{'name': 'compute', 'image': 'other'}]}))
        pod = self.plane.core.read_namespaced_pod(
            self.compute.pod.metadata.name, self.compute.namespace)
        self.assertEqual('compute', pod.spec.containers[0].image)
        self.assertNotIn('a', pod.metadata.labels)
        # What the base lets it do with pods, guests-policy.yaml bounds.
        for verb, what in (('update', 'pods/resize'), ('patch', 'nodes'),
                           ('get', 'secrets'), ('patch', 'pods/status'),
                           ('patch', 'pods/ephemeralcontainers')):
            # After a slash kubectl expects a name.
            resource, _, subresource = what.partition('/')
            result = self.plane.kubectl(
                'auth', 'can-i', verb, resource, '-n', self.compute.namespace,
                f'--subresource={subresource}', kubeconfig=self.kubeconfig,
                check=False)
            self.assertEqual('no', result.stdout.split()[0], (verb, what))

    def test_others_are_left_alone(self):
        self.assert_allowed(self.try_to(
            kubeconfig=self.plane.admin_kubeconfig, cpu='40',
            memory='100Gi'))
