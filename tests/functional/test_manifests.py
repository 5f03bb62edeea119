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

"""A real API server takes the manifests, and they say what they need."""

import pathlib
import time

import fixtures
from kubernetes import client
import nova.conf
import testtools
import yaml

from nova_k8s import conf
from nova_k8s.limits.sources import api
from tests.functional import cluster
from tests.functional import control_plane
from tests.functional import test_control_plane

CONF = nova.conf.CONF
conf.register_opts(CONF)

TOP = pathlib.Path(__file__).resolve().parents[2]
BASE = TOP / 'etc' / 'kubernetes' / 'base'
SIDECAR = TOP / 'etc' / 'kubernetes' / 'overlays' / 'sidecar'

NAME = 'app.kubernetes.io/name'
ENFORCE = 'pod-security.kubernetes.io/enforce'

wait_for = test_control_plane.wait_for


class TestCase(testtools.TestCase):

    def setUp(self):
        super().setUp()
        self.plane = control_plane.shared(kwok=True)
        self.core = self.plane.core
        self.namespace = control_plane.unique('openstack')

    def render(self, path):
        """The objects of a kustomization, in this test's namespace."""
        text = self.plane.kubectl('kustomize', str(path)).stdout
        # In the policies, which name users.
        text = text.replace(':openstack:', f':{self.namespace}:')
        objects = list(yaml.safe_load_all(text))
        for each in objects:
            if each['kind'] == 'Namespace':
                each['metadata']['name'] = self.namespace
            for holder in (each['metadata'], *each.get('subjects', [])):
                if holder.get('namespace') == 'openstack':
                    holder['namespace'] = self.namespace
        return objects

    def apply(self, objects, **kwargs):
        # strict: the API server refuses a field that it does not know, or
        # that is there twice.
        return self.plane.kubectl(
            'apply', '--validate=strict', '-f', '-',
            stdin=yaml.safe_dump_all(objects), **kwargs)

    def deploy(self, path):
        objects = self.render(path)
        self.apply([each for each in objects if each['kind'] == 'Namespace'])
        self.plane.create_service_account(self.namespace, 'default')
        self.apply(objects)
        return objects

    def pods(self, name):
        return self.core.list_namespaced_pod(
            self.namespace, label_selector=f'{NAME}={name}').items

    def bind(self, name, node):
        """Do what a scheduler would; return the pod as it was."""
        pod = wait_for(lambda: self.pods(name))[0]
        self.bind_pod(pod, node)
        return pod

    def bind_pod(self, pod, node):
        self.core.create_namespaced_pod_binding(
            pod.metadata.name, self.namespace,
            {'metadata': {'name': pod.metadata.name},
             'target': {'apiVersion': 'v1', 'kind': 'Node', 'name': node}},
            _preload_content=False)

    def wait_until_ready(self, name):
        def ready():
            for pod in self.pods(name):
                for each in pod.status.conditions or []:
                    if each.type == 'Ready' and each.status == 'True':
                        return pod
        return wait_for(ready)


class ApplyTest(TestCase):

    def _test_pods(self, path, names):
        self.deploy(path)
        node = self.plane.create_node(
            kwok=True, labels={'openstack-compute-node': 'enabled'})
        for name in names:
            self.bind(name, node)
            pod = self.wait_until_ready(name)
            self.assertEqual('Guaranteed', pod.status.qos_class)
        self.bind('nova-cell-mapping', node)
        batch = client.BatchV1Api(self.plane.admin)
        wait_for(lambda: batch.read_namespaced_job(
            'nova-cell-mapping', self.namespace).status.succeeded)
        return node

    def test_base(self):
        self._test_pods(BASE, ('libvirt', 'nova-compute'))

    def test_sidecar(self):
        self._test_pods(SIDECAR, ('nova-compute',))
        self.assertEqual([], self.pods('libvirt'))

    def test_validation_is_strict(self):
        objects = self.render(BASE)
        self.apply(objects[:1])
        deployment = [each for each in objects
                      if each['metadata']['name'] == 'libvirt' and
                      each['kind'] == 'Deployment'][0]
        deployment['spec']['template']['spec']['hostNetwrok'] = True
        done = self.apply([deployment], check=False)
        self.assertNotEqual(0, done.returncode)
        self.assertIn('hostNetwrok', done.stderr)

    def test_apply_leaves_the_number_of_replicas_alone(self):
        objects = self.deploy(BASE)
        apps = client.AppsV1Api(self.plane.admin)
        for name in ('libvirt', 'nova-compute'):
            self.plane.kubectl('-n', self.namespace, 'scale',
                               f'deployment/{name}', '--replicas=3')
        self.apply(objects)
        for name in ('libvirt', 'nova-compute'):
            self.assertEqual(3, apps.read_namespaced_deployment(
                name, self.namespace).spec.replicas)


class RolloutTest(TestCase):
    """A new libvirt waits for a node without guests."""

    def running(self):
        """{node: version} of the pods of libvirt that run."""
        return {pod.spec.node_name:
                pod.metadata.annotations and
                pod.metadata.annotations.get('version')
                for pod in self.pods('libvirt')
                if pod.status.phase == 'Running' and
                not pod.metadata.deletion_timestamp}

    def waiting(self, version):
        return [pod for pod in self.pods('libvirt') if
                not pod.spec.node_name and
                (pod.metadata.annotations or {}).get('version') == version]

    def test_guests_stay_until_a_node_is_free(self):
        self.deploy(BASE)
        nodes = [self.plane.create_node(kwok=True) for _ in range(2)]
        self.plane.kubectl('-n', self.namespace, 'scale',
                           'deployment/libvirt', '--replicas=2')
        wait_for(lambda: len(self.waiting(None)) == 2)
        for pod, node in zip(self.waiting(None), nodes):
            self.bind_pod(pod, node)
        wait_for(lambda: self.running() == dict.fromkeys(nodes))

        self.plane.kubectl(
            '-n', self.namespace, 'patch', 'deployment/libvirt', '--patch',
            '{"spec": {"template": {"metadata": {"annotations": '
            '{"version": "new"}}}}}')
        new, = wait_for(lambda: self.waiting('new'))
        # The rollout goes no further: nobody frees a node.
        time.sleep(2)
        self.assertEqual(dict.fromkeys(nodes), self.running())
        self.assertEqual(1, len(self.waiting('new')))

        old = [pod for pod in self.pods('libvirt')
               if pod.spec.node_name == nodes[0]][0]
        self.core.delete_namespaced_pod(old.metadata.name, self.namespace)
        wait_for(lambda: self.running() == {nodes[1]: None})
        self.bind_pod(new, nodes[0])
        wait_for(lambda: self.running() == {nodes[0]: 'new', nodes[1]: None})
        # One for the node that comes next, and no more of the old ones.
        wait_for(lambda: len(self.waiting('new')) == 1 and
                 not self.waiting(None))
        self.assertEqual({nodes[0]: 'new', nodes[1]: None}, self.running())


class SecurityLevelTest(TestCase):
    """Each pod is admitted at the level it needs and at none below."""

    def refusal(self, level, path, name):
        """Why a pod is not admitted to a namespace; None where it is."""
        namespace = self.plane.create_namespace(labels={ENFORCE: level})
        for account in ('nova-compute', 'nova-cell-mapping'):
            self.plane.create_service_account(namespace, account)
        template = [each['spec']['template'] for each in self.render(path)
                    if each['kind'] in ('Deployment', 'Job') and
                    each['metadata']['name'] == name][0]
        try:
            self.core.create_namespaced_pod(
                namespace, {'metadata': {'generateName': name + '-'},
                            'spec': template['spec']}, dry_run='All')
        except client.ApiException as exc:
            self.assertEqual(403, exc.status)
            return exc.body
        return None

    def test_namespace_enforces_privileged(self):
        namespace = [each for each in self.render(BASE)
                     if each['kind'] == 'Namespace'][0]
        self.assertEqual({ENFORCE: 'privileged'},
                         namespace['metadata']['labels'])

    def test_libvirt_is_privileged(self):
        self.assertIsNone(self.refusal('privileged', BASE, 'libvirt'))
        reason = self.refusal('baseline', BASE, 'libvirt')
        self.assertIn('privileged (container \\"libvirt\\"', reason)
        self.assertIn('hostPath volumes', reason)
        self.assertIn('host namespaces (hostNetwork=true)', reason)

    def test_nova_compute_is_on_the_node_but_not_privileged(self):
        self.assertIsNone(self.refusal('privileged', BASE, 'nova-compute'))
        reason = self.refusal('baseline', BASE, 'nova-compute')
        self.assertIn('host namespaces (hostNetwork=true)', reason)
        self.assertIn('hostPath volumes', reason)
        # These two, and nothing else that an unprivileged pod does not have.
        self.assertIn('\\"NET_ADMIN\\", \\"SYS_ADMIN\\"', reason)
        self.assertNotIn('privileged (container', reason)

    def test_sidecar_is_privileged(self):
        self.assertIsNone(self.refusal('privileged', SIDECAR, 'nova-compute'))
        self.assertIn('privileged (container \\"libvirt\\"', self.refusal(
            'baseline', SIDECAR, 'nova-compute'))

    def test_cell_mapping_is_restricted(self):
        self.assertIsNone(
            self.refusal('restricted', BASE, 'nova-cell-mapping'))


class RightsTest(TestCase):
    """nova-compute can do its work with its rights, and nothing else."""

    def allowed(self, namespace, account='nova-compute'):
        return cluster.allowed(
            self.plane, namespace, self.plane.service_account_kubeconfig(
                self.namespace, account))

    def test_nova_compute(self):
        # That these are the rights it needs: test_cordon.AnswerTest.
        objects = self.deploy(BASE)
        granted = {namespace: set() for namespace in
                   (self.namespace, 'default', None)}
        for each in objects:
            if each['kind'] in ('Role', 'ClusterRole') and (
                    'cell-mapping' not in each['metadata']['name']):
                granted[each['metadata'].get('namespace')] |= {
                    (verb, resource) for rule in each['rules']
                    for verb in rule['verbs']
                    for resource in rule['resources']}
        everywhere = granted.pop(None)
        self.assertTrue(everywhere)
        for namespace, rights in granted.items():
            self.assertTrue(rights)
            self.assertEqual(rights | everywhere, self.allowed(namespace))
        self.assertEqual(everywhere, self.allowed('kube-system'))

    def test_cell_mapping(self):
        self.deploy(BASE)
        self.assertEqual(
            {('get', 'pods'), ('list', 'pods')},
            self.allowed(self.namespace, 'nova-cell-mapping'))
        self.assertEqual(
            set(), self.allowed('default', 'nova-cell-mapping'))

    def _test_limits(self, path, pod_name, limits_conf):
        objects = self.deploy(path)
        node = self.plane.create_node(kwok=True)
        pod = self.bind(pod_name, node)
        self.wait_until_ready(pod_name)
        config = self.useFixture(fixtures.TempDir()).join('limits.conf')
        with open(config, 'w') as out:
            out.write(limits_conf(objects))
        CONF([], project='nova', default_config_files=[config])
        self.addCleanup(CONF.reset)
        CONF.set_override('kubeconfig',
                          self.plane.service_account_kubeconfig(
                              self.namespace, 'nova-compute'), 'kubernetes')
        self.addCleanup(CONF.clear_override, 'kubeconfig', 'kubernetes')
        source = api.from_conf(CONF, {
            'NODE_NAME': node, 'POD_NAME': pod.metadata.name,
            'POD_NAMESPACE': self.namespace})
        budget = source.read()
        self.assertEqual((8000, 32 * 1024 ** 3),
                         (budget.cpu_millicores, budget.memory_bytes))
        self.assertIn('container libvirt', budget.source)
        self.assertEqual(node, budget.node_name)

    @staticmethod
    def _limits_conf(objects):
        return [each['data']['limits.conf'] for each in objects
                if each['kind'] == 'ConfigMap' and
                'limits.conf' in each['data']][0]

    def test_limits_of_the_base(self):
        self._test_limits(BASE, 'libvirt', self._limits_conf)

    def test_limits_of_the_sidecar(self):
        self._test_limits(SIDECAR, 'nova-compute', self._limits_conf)


class ReportTest(TestCase):
    """The manifests are the example that nova-k8s report reads."""

    def test_both_tell_the_same(self):
        from nova_k8s.limits import budget
        from nova_k8s.limits.sources import manifest

        found = [manifest.Source(str(BASE / 'libvirt.yaml')).read()]
        path = self.useFixture(fixtures.TempDir()).join('sidecar.yaml')
        with open(path, 'w') as out:
            yaml.safe_dump_all(self.render(SIDECAR), out)
        found.append(manifest.Source(path, 'libvirt', 'nova-compute').read())
        for each in found:
            self.assertIsInstance(each, budget.Budget)
            self.assertEqual((8000, 32 * 1024 ** 3),
                             (each.cpu_millicores, each.memory_bytes))
            self.assertEqual(each.cpu_millicores, each.cpu_request_millicores)
            self.assertEqual(each.memory_bytes, each.memory_request_bytes)
