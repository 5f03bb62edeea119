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
from nova_k8s.confinement import controller
from nova_k8s.confinement import guests_pod
from nova_k8s.kube import node as nodes
from nova_k8s.limits.sources import api
from tests.functional import cluster
from tests.functional import control_plane
from tests import waiting

CONF = nova.conf.CONF
conf.register_opts(CONF)

TOP = pathlib.Path(__file__).resolve().parents[2]
BASE = TOP / 'etc' / 'kubernetes' / 'base'
OVERLAYS = TOP / 'etc' / 'kubernetes' / 'overlays'
SIDECAR = OVERLAYS / 'sidecar'
CONFIG_FROM_CLUSTER = OVERLAYS / 'config-from-cluster'
LIVE_MIGRATION_TCP = OVERLAYS / 'live-migration-tcp'

NAME = 'app.kubernetes.io/name'
ENFORCE = 'pod-security.kubernetes.io/enforce'


def meant_for(pod, node):
    """Whether it may be there: a DaemonSet says so by node affinity."""
    affinity = pod.spec.affinity
    return not affinity or affinity.node_affinity.\
        required_during_scheduling_ignored_during_execution.\
        node_selector_terms[0].match_fields[0].values == [node]


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
        for before in (':openstack:', 'metadata.name: openstack'):
            text = text.replace(before, before.replace('openstack',
                                                       self.namespace))
        objects = list(yaml.safe_load_all(text))
        for each in objects:
            if each['kind'] == 'Namespace':
                each['metadata']['name'] = self.namespace
            for holder in (each['metadata'], *each.get('subjects', [])):
                if holder.get('namespace') == 'openstack':
                    holder['namespace'] = self.namespace
            param = each.get('spec', {}).get('paramRef')
            if param:
                param['namespace'] = self.namespace
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

    def compute_node(self):
        """Make a node; the DaemonSets make pods for no other."""
        node = self.plane.create_node(
            kwok=True, labels={'openstack-compute-node': 'enabled'})
        self.addCleanup(self.remove_node, node)
        # That it is not ready yet; the controller that takes it away does
        # not run.
        self.core.patch_node(node, {'spec': {'taints': None}})
        return node

    def remove_node(self, node):
        try:
            self.core.delete_node(node)
        except client.ApiException as exc:
            self.assertEqual(404, exc.status)

    def bind(self, name, node):
        """Do what a scheduler would; return the pod as it was."""
        pod = waiting.until(lambda: [each for each in self.pods(name)
                                     if meant_for(each, node)])[0]
        self.bind_pod(pod, node)
        return pod

    def bind_pod(self, pod, node):
        self.core.create_namespaced_pod_binding(
            pod.metadata.name, self.namespace,
            {'metadata': {'name': pod.metadata.name},
             'target': {'apiVersion': 'v1', 'kind': 'Node', 'name': node}},
            _preload_content=False)

    def make(self, node):
        """What the driver does; and the scheduler, which is not here."""
        found = nodes.from_dict(self.plane.admin.sanitize_for_serialization(
            self.core.read_node(node)))
        body = guests_pod.render(
            controller.read_template(str(BASE / 'guests-pod.yaml')),
            guests_pod.Host(node, found.uid, found.annotations,
                            found.allocatable),
            f'guests-{node}', self.namespace, 3600, 'T')
        pod = self.core.create_namespaced_pod(self.namespace, body)
        self.bind_pod(pod, node)
        return pod

    def wait_until_ready(self, name):
        def ready():
            for pod in self.pods(name):
                for each in pod.status.conditions or []:
                    if each.type == 'Ready' and each.status == 'True':
                        return pod
        return waiting.until(ready)


class ApplyTest(TestCase):

    def _test_pods(self, path, names):
        self.deploy(path)
        node = self.compute_node()
        for name in names:
            self.bind(name, node)
            pod = self.wait_until_ready(name)
            self.assertEqual('Guaranteed', pod.status.qos_class)
        self.bind('nova-cell-mapping', node)
        batch = client.BatchV1Api(self.plane.admin)
        waiting.until(lambda: batch.read_namespaced_job(
            'nova-cell-mapping', self.namespace).status.succeeded)
        return node

    def test_base(self):
        self._test_pods(BASE, ('libvirt', 'nova-compute'))
        self.assertEqual({'libvirt', 'nova-compute'}, {
            each.metadata.name for each in
            client.AppsV1Api(self.plane.admin).list_namespaced_daemon_set(
                self.namespace).items})

    def test_config_from_cluster(self):
        self._test_pods(CONFIG_FROM_CLUSTER, ('libvirt', 'nova-compute'))

    def test_live_migration_tcp(self):
        self._test_pods(LIVE_MIGRATION_TCP, ('libvirt', 'nova-compute'))
        for name, variable in (('libvirt', 'LISTEN_NETWORK'),
                               ('nova-compute', 'MIGRATION_NETWORK')):
            spec = self.pods(name)[0].spec
            source, = [each.value_from.config_map_key_ref
                       for each in spec.containers[0].env
                       if each.name == variable]
            self.assertEqual(
                '192.0.2.0/24', self.core.read_namespaced_config_map(
                    source.name, self.namespace).data[source.key])

    def test_sidecar(self):
        self._test_pods(SIDECAR, ('nova-compute',))
        self.assertEqual([], self.pods('libvirt'))

    def test_validation_is_strict(self):
        objects = self.render(BASE)
        self.apply(objects[:1])
        workload = [each for each in objects
                    if each['metadata']['name'] == 'libvirt' and
                    each['kind'] == 'DaemonSet'][0]
        workload['spec']['template']['spec']['hostNetwrok'] = True
        done = self.apply([workload], check=False)
        self.assertNotEqual(0, done.returncode)
        self.assertIn('hostNetwrok', done.stderr)


class GuestsPodTest(TestCase):
    """Nothing but its end ends a guests' pod."""

    def setUp(self):
        super().setUp()
        self.deploy(BASE)
        self.nodes = [self.compute_node() for _ in range(2)]
        for node in self.nodes:
            self.make(node)
        self.before = waiting.until(lambda: self.running(2))

    def running(self, number):
        """{name: uid} of the guests' pods that run, once there are so many."""
        found = {pod.metadata.name: pod.metadata.uid
                 for pod in self.pods('guests')
                 if pod.status.phase == 'Running' and
                 not pod.metadata.deletion_timestamp}
        return found if len(found) == number else None

    def assertStay(self, number=2):
        """Whatever the control plane has to do, it has done by then."""
        time.sleep(2)
        found = self.running(number)
        self.assertIsNotNone(found)
        self.assertEqual(
            self.before, {name: found[name] for name in self.before})

    def test_changed_templates_and_restarts(self):
        for name in ('libvirt', 'nova-compute'):
            waiting.until(lambda: len(self.pods(name)) == 2)
            self.plane.kubectl('-n', self.namespace, 'rollout', 'restart',
                               f'daemonset/{name}')
        objects = self.render(BASE)
        for each in objects:
            if each['metadata']['name'] == 'guests':
                each['data'] = {name: text + '\n# Changed.\n'
                                for name, text in each['data'].items()}
        self.apply(objects)
        self.assertStay()

    def test_deletion_of_libvirt_and_nova(self):
        for name in ('libvirt', 'nova-compute'):
            self.plane.kubectl('-n', self.namespace, 'delete',
                               f'daemonset/{name}')
        self.assertStay()

    def test_nodes_that_come(self):
        self.make(self.compute_node())
        waiting.until(lambda: self.running(3))
        self.assertStay(3)

    def test_cordon(self):
        for node in self.nodes:
            self.plane.kubectl('cordon', node)
        self.assertStay()
        for node in self.nodes:
            self.plane.kubectl('uncordon', node)
        self.assertStay()

    def test_a_node_that_is_removed_takes_its_own_along(self):
        self.core.delete_node(self.nodes[0])
        waiting.until(lambda: self.running(1))
        self.assertEqual([f'guests-{self.nodes[1]}'], list(self.running(1)))

    def test_drain_needs_no_force_and_waits(self):
        name = f'guests-{self.nodes[0]}'
        self.core.patch_namespaced_pod(name, self.namespace, {'metadata': {
            # KWOK ends a pod at once, the kubelet would wait.
            'finalizers': ['nova-k8s.test/guests'],
            'annotations': {guests_pod.HELD: '1'}}})
        done = self.plane.kubectl(
            'drain', self.nodes[0], '--ignore-daemonsets', '--timeout=3s',
            check=False)
        self.assertNotEqual(0, done.returncode)
        self.assertIn(f'error when waiting for pod "{name}"', done.stderr)
        pod = self.core.read_namespaced_pod(name, self.namespace)
        self.assertIsNotNone(pod.metadata.deletion_timestamp)
        # The last guest has left.
        self.core.patch_namespaced_pod(name, self.namespace, {'metadata': {
            'finalizers': None, 'annotations': {guests_pod.HELD: '0'}}})
        self.plane.kubectl(
            'drain', self.nodes[0], '--ignore-daemonsets', '--timeout=30s')


class SecurityLevelTest(TestCase):
    """Each pod is admitted at the level it needs and at none below."""

    def refusal(self, level, path, name):
        """Why a pod is not admitted to a namespace; None where it is."""
        namespace = self.plane.create_namespace(labels={ENFORCE: level})
        for account in ('nova-compute', 'nova-cell-mapping'):
            self.plane.create_service_account(namespace, account)
        template = [each['spec']['template'] for each in self.render(path)
                    if each['kind'] in ('DaemonSet', 'Job') and
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
        self.assertIn('host namespaces (hostNetwork=true, hostPID=true)',
                      reason)

    def test_nova_compute_is_on_the_node_but_not_privileged(self):
        self.assertIsNone(self.refusal('privileged', BASE, 'nova-compute'))
        reason = self.refusal('baseline', BASE, 'nova-compute')
        self.assertIn('host namespaces (hostNetwork=true, hostPID=true)',
                      reason)
        self.assertIn('hostPath volumes', reason)
        # These, and nothing else that an unprivileged pod does not have.
        self.assertIn('\\"NET_ADMIN\\", \\"SYS_ADMIN\\", '
                      '\\"SYS_PTRACE\\"', reason)
        self.assertNotIn('privileged (container', reason)

    def test_sidecar_is_privileged(self):
        self.assertIsNone(self.refusal('privileged', SIDECAR, 'nova-compute'))
        self.assertIn('privileged (container \\"libvirt\\"', self.refusal(
            'baseline', SIDECAR, 'nova-compute'))

    def test_guests_pod_sees_cgroups_and_no_more(self):
        self.assertIn('hostPath volumes', self._guests_pod('baseline'))
        self.assertNotIn(
            'privileged', self._guests_pod('baseline').replace(
                'baseline', ''))
        self._guests_pod('privileged')

    def _guests_pod(self, level):
        namespace = self.plane.create_namespace(labels={ENFORCE: level})
        spec = controller.read_template(
            str(BASE / 'guests-pod.yaml'))['spec']
        try:
            self.core.create_namespaced_pod(
                namespace, {'metadata': {'name': 'guests-x'}, 'spec': spec},
                dry_run='All')
        except client.ApiException as exc:
            self.assertEqual(403, exc.status)
            return exc.body
        return None

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

    def _test_limits(self, path, bind, pod_name, expected):
        objects = self.deploy(path)
        node = self.compute_node()
        pod = bind(node)
        self.wait_until_ready(pod_name)
        config = self.useFixture(fixtures.TempDir()).join('limits.conf')
        with open(config, 'w') as out:
            out.write(self._limits_conf(objects))
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
        self.assertIn(expected, budget.source)
        self.assertEqual(node, budget.node_name)

    @staticmethod
    def _limits_conf(objects):
        return [each['data']['limits.conf'] for each in objects
                if each['kind'] == 'ConfigMap' and
                'limits.conf' in each['data']][0]

    def test_limits_of_the_base(self):
        self._test_limits(BASE, self.make, 'guests', '/guests-')

    def test_limits_of_the_sidecar(self):
        self._test_limits(
            SIDECAR, lambda node: self.bind('nova-compute', node),
            'nova-compute', 'container libvirt')


class ReportTest(TestCase):
    """The manifests are the example that nova-k8s report reads."""

    def test_both_tell_the_same(self):
        from nova_k8s.limits import budget
        from nova_k8s.limits.sources import manifest

        found = [manifest.Source(str(BASE / 'guests-pod.yaml')).read()]
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
