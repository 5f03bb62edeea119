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

"""The guests' pod at a real API server: who may make it, and end it."""

import contextlib
import copy
import json
import os
import pathlib
import threading
import time

import fixtures
from kubernetes import client
import testtools
import yaml

from nova_k8s.confinement import controller
from nova_k8s.confinement import guests_pod
from nova_k8s import errors
from nova_k8s.kube import pods
from nova_k8s.kube import resize
from nova_k8s.limits.sources import api
from tests.functional import cluster
from tests import waiting

BASE = pathlib.Path(cluster.MANIFESTS) / 'base'
TEMPLATE = BASE / 'guests-pod.yaml'


class TestCase(testtools.TestCase):

    def setUp(self):
        super().setUp()
        self.compute = self.useFixture(cluster.ComputePod())
        self.plane = self.compute.plane
        self.core = self.plane.core
        self.namespace = self.compute.namespace
        self.node = self.compute.node
        self.name = f'guests-{self.node}'
        self.core.create_namespaced_config_map(self.namespace, {
            'metadata': {'name': 'guests'},
            'data': {'guests-pod.yaml': TEMPLATE.read_text()}})
        self.compute.apply('base/guests-policy.yaml')
        self.mine = client.CoreV1Api(
            self.plane.client(self.compute.kubeconfig()))
        self.wait_for_policies()

    def wait_for_policies(self):
        """They are in force a moment after they are made."""
        def in_force():
            body = self.manifest()
            body['spec']['containers'][0]['command'] = ['sh']
            try:
                self.create(body)
            except client.ApiException as exc:
                return exc.status == 422
        waiting.until(in_force)

        def in_force_for_others():
            pod = self.make(guests_pod.HELD)
            try:
                self.core.delete_namespaced_pod(
                    pod.metadata.name, self.namespace, dry_run='All',
                    grace_period_seconds=0)
            except client.ApiException as exc:
                return exc.status == 422
            finally:
                self.release(pod)
        waiting.until(in_force_for_others)

    def host(self):
        node = self.core.read_node(self.node)
        return guests_pod.Host(self.node, node.metadata.uid,
                               node.metadata.annotations or {},
                               node.status.allocatable)

    def manifest(self):
        return guests_pod.render(
            yaml.safe_load(TEMPLATE.read_text()), self.host(), self.name,
            self.namespace, 3600, 'T')

    def create(self, body, core=None, dry_run='All'):
        return (core or self.mine).create_namespaced_pod(
            self.namespace, body, dry_run=dry_run)

    def make(self, *annotations, held='8589934592'):
        """A guests' pod that runs, made by an administrator."""
        body = self.manifest()
        body['metadata']['annotations'] = dict.fromkeys(annotations, held)
        body['spec']['nodeName'] = self.node
        pod = self.core.create_namespaced_pod(self.namespace, body)
        return self.plane.set_pod_status(pod)

    def release(self, pod):
        self.core.patch_namespaced_pod(
            pod.metadata.name, self.namespace,
            {'metadata': {'annotations': {guests_pod.HELD: None}}})
        self.plane.remove_pod(pod)

    @contextlib.contextmanager
    def refused(self, text, status=422):
        try:
            yield
        except client.ApiException as exc:
            self.assertEqual(status, exc.status, exc.body)
            self.assertIn(text, json.loads(exc.body)['message'])
        else:
            self.fail(f'It was not refused: {text}')


class CreationTest(TestCase):
    """nova-compute makes this pod and no other."""

    def test_the_pod_of_the_template(self):
        pod = self.create(self.manifest())
        self.assertEqual('Guaranteed', pod.status.qos_class)
        self.assertEqual(self.name, pod.metadata.name)

    def test_of_another_size(self):
        self.core.patch_node(self.node, {'metadata': {'annotations': {
            'nova-k8s/guests-memory': '50%', 'nova-k8s/guests-cpu': '3',
            'nova-k8s/guests-hugepages-2Mi': '0'}}})
        limits = self.create(self.manifest()).spec.containers[
            0].resources.limits
        self.assertEqual({'cpu': '3', 'memory': '128Gi'}, limits)

    def deviations(self):
        """(what the refusal says, the pod) of each thing that is not it."""
        def change(text, *path, **fields):
            body = copy.deepcopy(self.manifest())
            holder = body
            for key in path:
                holder = holder[key]
            holder.update(fields)
            return text, body
        container = ('spec', 'containers', 0)
        security = (*container, 'securityContext')
        own = self.manifest()
        yield change('only the pod', 'metadata', name='guests-other')
        yield change('only the pod', 'metadata', name='x')
        yield change('one label', 'metadata', labels={
            'app.kubernetes.io/name': 'keystone'})
        yield change('one label', 'metadata', annotations={'a': 'b'})
        yield change('one label', 'metadata', finalizers=['x.y/z'])
        owner = own['metadata']['ownerReferences'][0]
        for owners in ([], [dict(owner, name='other')],
                       [dict(owner, controller=False)],
                       [owner, dict(owner, kind='Namespace', name='x',
                                    controller=False)]):
            yield change('owned by', 'metadata', ownerReferences=owners)
        yield change('node affinity', 'spec', nodeName=self.node)
        yield change('node affinity', 'spec', affinity=None)
        yield change('node affinity', 'spec', affinity={'nodeAffinity': {
            'requiredDuringSchedulingIgnoredDuringExecution': {
                'nodeSelectorTerms': [{'matchFields': [{
                    'key': 'metadata.name', 'operator': 'In',
                    'values': ['other']}]}]}}})
        other = dict(own['spec']['containers'][0], name='other')
        yield change('one container', 'spec', containers=[
            own['spec']['containers'][0], other])
        yield change('one container', 'spec', initContainers=[other])
        yield change('the image must be', *container, image='evil:1')
        yield change('the image must be', *container,
                     image='libvirt:2026.2x')
        for fields in ({'command': ['sh', '-c', 'x']}, {'command': None},
                       {'args': ['x']}, {'workingDir': '/'},
                       {'livenessProbe': {'exec': {'command': ['x']}}},
                       {'lifecycle': {'preStop': {'exec': {
                           'command': ['x']}}}}):
            yield change('nothing else', *container, **fields)
        secret = {'secretKeyRef': {'name': 's', 'key': 'k'}}
        env = own['spec']['containers'][0]['env']
        yield change('POD_UID', *container, env=[
            {'name': 'POD_UID', 'valueFrom': secret}])
        yield change('POD_UID', *container,
                     env=[*env, {'name': 'X', 'valueFrom': secret}])
        yield change('POD_UID', *container, envFrom=[
            {'secretRef': {'name': 's'}}])
        volumes = own['spec']['volumes']
        for more in ({'hostPath': {'path': '/'}}, {'secret': {
                'secretName': 's'}}):
            yield change('the volumes must be /sys', 'spec', volumes=[
                *volumes, {'name': 'more', **more}])
        yield change('the volumes must be /sys', 'spec', volumes=[
            volumes[0], {'name': 'cgroup', 'hostPath': {'path': '/'}}])
        yield change('the volumes must be /sys', 'spec', volumes=[
            {'name': 'script', 'configMap': {'name': 'nova-compute'}},
            volumes[1]])
        mounts = own['spec']['containers'][0]['volumeMounts']
        for fields in ({'readOnly': False}, {'mountPath': '/etc'},
                       {'subPath': 'x'}):
            yield change('mounted read-only', *container, volumeMounts=[
                mounts[0], dict(mounts[1], **fields)])
        for fields in ({'privileged': True,
                        'allowPrivilegeEscalation': None},
                       {'allowPrivilegeEscalation': True},
                       {'capabilities': {'drop': ['ALL'],
                                         'add': ['SYS_ADMIN']}},
                       {'capabilities': None}, {'runAsUser': 0},
                       {'readOnlyRootFilesystem': False},
                       {'procMount': 'Default'},
                       {'seccompProfile': {'type': 'Unconfined'}}):
            yield change('nothing is privileged', *security, **fields)
        for fields in ({'runAsUser': 0}, {'runAsNonRoot': None},
                       {'seccompProfile': None}, {'fsGroup': 1},
                       {'supplementalGroups': [0]}, {'runAsGroup': 0}):
            yield change('spec.securityContext', 'spec', 'securityContext',
                         **fields)
        # Which would be mounted as a volume.
        yield change('the volumes must be', 'spec',
                     automountServiceAccountToken=True)
        yield change('no token', 'spec', serviceAccountName='nova-compute')
        for fields in ({'hostNetwork': True}, {'hostPID': True},
                       {'hostIPC': True}, {'shareProcessNamespace': True},
                       {'resourceClaims': [{
                           'name': 'x', 'resourceClaimName': 'y'}]}):
            yield change('of the node', 'spec', **fields)
        yield change('of the node', *container, ports=[
            {'containerPort': 80}])
        for fields in ({'priorityClassName': None},
                       {'activeDeadlineSeconds': 5},
                       {'restartPolicy': 'Never'},
                       {'schedulingGates': [{'name': 'x.y/z'}]}):
            yield change('guests go last', 'spec', **fields)
        yield change('guests go last', *container, resources={
            'limits': {'cpu': '8', 'memory': '8Gi'},
            'requests': {'cpu': '8', 'memory': '1Gi'}})

    def test_no_deviation(self):
        for text, body in self.deviations():
            with self.refused(text):
                self.create(body)

    def test_no_pod_of_another_node(self):
        other = self.plane.create_node()
        pod = self.plane.set_pod_status(self.plane.create_pod(
            self.namespace, other, service_account='nova-compute'))
        theirs = client.CoreV1Api(self.plane.client(
            self.plane.service_account_kubeconfig(
                self.namespace, 'nova-compute', pod)))
        with self.refused('only the pod'):
            self.create(self.manifest(), theirs)
        # A token that is bound to no pod names no node.
        unbound = client.CoreV1Api(self.plane.client(
            self.plane.service_account_kubeconfig(
                self.namespace, 'nova-compute')))
        with self.refused('only the pod'):
            self.create(self.manifest(), unbound)

    def test_without_the_template_none(self):
        self.core.delete_namespaced_config_map('guests', self.namespace)

        def refused():
            try:
                self.create(self.manifest())
            except client.ApiException as exc:
                return 'no params found' in exc.body
        waiting.until(refused)


class ChangeTest(TestCase):

    def setUp(self):
        super().setUp()
        self.pod = self.make()

    def patch(self, body, name=None):
        return self.mine.patch_namespaced_pod(
            name or self.name, self.namespace, body, dry_run='All')

    def test_what_guests_hold(self):
        for value in ('5', '0', None):
            self.patch({'metadata': {'annotations': {
                guests_pod.HELD: value}}})

    def test_nothing_else(self):
        for body in ({'metadata': {'annotations': {'a': 'b'}}},
                     {'metadata': {'labels': {'a': 'b'}}},
                     {'metadata': {'labels': {
                         'app.kubernetes.io/name': 'x'}}},
                     {'metadata': {'finalizers': ['a.b/c']}},
                     {'metadata': {'ownerReferences': None}},
                     {'spec': {'containers': [{
                         'name': 'guests', 'image': 'evil:1'}]}},
                     {'spec': {'tolerations': [
                         *self.manifest()['spec']['tolerations'],
                         {'key': 'x', 'operator': 'Exists'}]}}):
            with self.refused('guests-held-memory alone'):
                self.patch(body)

    def test_no_other_pod(self):
        name = self.compute.pod.metadata.name
        with self.refused('only the pod'):
            self.patch({'metadata': {'annotations': {
                guests_pod.HELD: '1'}}}, name)
        with self.refused('only the pod'):
            self.mine.delete_namespaced_pod(name, self.namespace)

    def test_deletes_only_what_has_ended(self):
        with self.refused('has not ended'):
            self.mine.delete_namespaced_pod(self.name, self.namespace)
        self.plane.set_pod_status(self.pod, phase='Failed',
                                  reason='Terminated')
        self.mine.delete_namespaced_pod(self.name, self.namespace)
        waiting.until(lambda: not [
            each for each in self.core.list_namespaced_pod(
                self.namespace).items if each.metadata.name == self.name])

    def test_no_subresource(self):
        for call in (self.mine.create_namespaced_pod_eviction,
                     self.mine.patch_namespaced_pod_resize,
                     self.mine.patch_namespaced_pod_ephemeralcontainers):
            exc = self.assertRaises(client.ApiException, call, self.name,
                                    self.namespace, {})
            self.assertEqual(403, exc.status)


class HeldTest(TestCase):
    """What guests hold is not taken from them, whoever asks."""

    def setUp(self):
        super().setUp()
        # 8 GiB of 32.
        self.pod = self.make(guests_pod.HELD)

    def annotate(self, value):
        self.core.patch_namespaced_pod(
            self.name, self.namespace,
            {'metadata': {'annotations': {guests_pod.HELD: value}}})

    def resize(self, memory, cpu='8'):
        limits = {'memory': memory, 'cpu': cpu}
        self.plane.resize(self.pod, limits, limits, 'guests')

    def test_shrink_to_what_they_hold(self):
        self.resize('8Gi')
        with self.refused('guests hold 8192Mi of this pod\'s memory, and '
                          '8191Mi is less'):
            self.resize('8191Mi')

    def test_growth_and_cpu(self):
        self.annotate(str(40 << 30))
        self.resize('33Gi')
        self.resize('33Gi', cpu='4')
        with self.refused('Move guests to other nodes first'):
            self.resize('32Gi')

    def test_without_guests(self):
        for value in ('0', None):
            self.annotate(value)
            self.resize('1Gi')
            self.resize('2Gi')

    def test_deletion_that_does_not_wait(self):
        for grace in (0, 1, 3599):
            with self.refused('guests run in this pod'):
                self.core.delete_namespaced_pod(
                    self.name, self.namespace, grace_period_seconds=grace)
            with self.refused('guests run in this pod'):
                self.core.delete_collection_namespaced_pod(
                    self.namespace, grace_period_seconds=grace,
                    label_selector='app.kubernetes.io/name=guests')
        done = self.plane.kubectl(
            '-n', self.namespace, 'delete', 'pod', self.name, '--force',
            check=False)
        self.assertIn('guests run in this pod', done.stderr)

    def test_deletion_that_waits(self):
        self.core.delete_namespaced_pod(self.name, self.namespace)
        pod = self.core.read_namespaced_pod(self.name, self.namespace)
        self.assertEqual(3600, pod.metadata.deletion_grace_period_seconds)
        with self.refused('guests run in this pod'):
            self.core.delete_namespaced_pod(
                self.name, self.namespace, grace_period_seconds=0)
        # The kubelet, when all has ended.
        self.plane.remove_pod(self.pod)

    def evict(self, name=None, **options):
        name = name or self.name
        self.core.create_namespaced_pod_eviction(name, self.namespace, {
            'apiVersion': 'policy/v1', 'kind': 'Eviction',
            'metadata': {'name': name},
            **({'deleteOptions': options} if options else {})})

    def test_eviction_that_does_not_wait(self):
        for grace in (0, 3599):
            with self.refused('guests run in this pod'):
                self.evict(gracePeriodSeconds=grace)
        self.assertIsNone(self.core.read_namespaced_pod(
            self.name, self.namespace).metadata.deletion_timestamp)

    def test_eviction_that_waits(self):
        self.evict()
        self.assertIsNotNone(self.core.read_namespaced_pod(
            self.name, self.namespace).metadata.deletion_timestamp)

    def test_eviction_without_guests(self):
        self.annotate('0')

        def evicted():
            try:
                self.evict(gracePeriodSeconds=5)
            except client.ApiException as exc:
                # It hears of the annotation a moment later.
                return exc.status != 422
            return True
        waiting.until(evicted)

    def test_eviction_of_another_pod(self):
        self.evict(self.compute.pod.metadata.name, gracePeriodSeconds=0)


class ElasticTest(TestCase):
    """The guests' pod of the base with the component elastic beside it."""

    def setUp(self):
        super().setUp()
        self.compute.apply_elastic()
        self.connect = lambda: self.plane.client(self.compute.kubeconfig())
        self.pods = pods.Pod(self.connect, self.namespace, self.name, 10)

    def run_it(self, body):
        """What the driver makes, once scheduler and kubelet have it."""
        self.create(body, dry_run=None)
        self.core.create_namespaced_pod_binding(
            self.name, self.namespace,
            {'metadata': {'name': self.name},
             'target': {'apiVersion': 'v1', 'kind': 'Node',
                        'name': self.node}}, _preload_content=False)
        return self.plane.set_pod_status(
            self.core.read_namespaced_pod(self.name, self.namespace))

    def resize(self, cpu, memory, body=None):
        """As elastic.mover does it."""
        return resize.wish(self.connect, body or self.pods.read(), 'guests',
                           {'cpu': cpu, 'memory': memory}, 10)

    def manifest_of(self, **first):
        return guests_pod.render(
            yaml.safe_load(TEMPLATE.read_text()), self.host(), self.name,
            self.namespace, 3600, 'T', first)

    def test_made_grown_and_shrunk(self):
        pod = self.run_it(self.manifest_of(cpu='2000m', memory='4096Mi'))
        self.assertEqual('Guaranteed', pod.status.qos_class)
        generation = self.resize('6', '12Gi')
        self.assertEqual(pod.metadata.generation + 1, generation)
        exc = self.assertRaises(resize.Refusal, self.resize, '6', '17Gi')
        self.assertEqual('Policy', exc.reason)
        self.assertIn('memory is beyond the bounds', exc.text)
        # A shrink, of what guests held before they left.
        uid = pod.metadata.uid
        self.pods.annotate(uid, {guests_pod.HELD: str(10 << 30)})
        exc = self.assertRaises(resize.Refusal, self.resize, '6', '8Gi')
        self.assertEqual('Policy', exc.reason)
        self.assertIn('guests hold 10240Mi', exc.text)
        body = self.pods.annotate(uid, {guests_pod.HELD: str(8 << 30)})
        self.resize('4', '8Gi', body)
        # Whoever has looked before looks again.
        self.assertRaises(resize.Changed, self.resize, '4', '9Gi', body)

    def test_with_the_label(self):
        """Who has put it into the template is not refused."""
        body = self.manifest()
        body['metadata']['labels']['nova-k8s/elastic'] = 'off'
        with self.refused('one label'):
            self.create(body)
        body['metadata']['labels']['nova-k8s/elastic'] = 'on'
        self.run_it(body)
        self.resize('4', '8Gi')

    def test_what_guests_hold_is_written_before(self):
        self.run_it(self.manifest_of(cpu='6', memory='12Gi'))
        keeper = controller.from_conf(self.compute.conf(
            pod_name=None, guests_pod=str(TEMPLATE)), {},
            f'{self.useFixture(fixtures.TempDir()).path}/guests-pod.json')
        held = 8 << 30
        keeper.connect(self.pods.read, lambda: held, dict, None, None)
        keeper.refresh(self.pods.read())
        # By less than what is news else.
        held = (8 << 30) - (256 << 20)
        before = self.pods.read()
        keeper.reconcile(before)
        self.assertRaises(resize.Refusal, self.resize, '6', '8000Mi')
        began = time.monotonic()
        after = keeper.refresh(before)
        # Once a second at most.
        self.assertGreater(time.monotonic() - began, 0.5)
        self.resize('6', '8000Mi', after)


class ControllerTest(TestCase):
    """The driver's part of it, with the rights of etc/kubernetes."""

    def setUp(self):
        super().setUp()
        self.folder = self.useFixture(fixtures.TempDir()).path
        self.file = f'{self.folder}/guests-pod.json'
        self.held = None
        self.controller = self.new_controller()

    def new_controller(self, **options):
        conf = self.compute.conf(**{
            'pod_name': None, 'guests_pod': str(TEMPLATE),
            'guests_pod_grace': 3600, **options})
        found = controller.from_conf(conf, {}, self.file)
        found.connect(self.read, lambda: self.held, dict, None, None)
        return found

    def read(self):
        found = self.mine.list_namespaced_pod(
            self.namespace, field_selector=f'metadata.name={self.name}').items
        return self.plane.admin.sanitize_for_serialization(
            found[0]) if found else None

    def step(self):
        """The phase, after looking until nothing more is to do."""
        return self.controller.reconcile(self.read())

    def bind(self):
        """What the scheduler does, and the kubelet."""
        self.core.create_namespaced_pod_binding(
            self.name, self.namespace,
            {'metadata': {'name': self.name},
             'target': {'apiVersion': 'v1', 'kind': 'Node',
                        'name': self.node}}, _preload_content=False)
        pod = self.core.read_namespaced_pod(self.name, self.namespace)
        return self.plane.set_pod_status(pod)

    def record(self):
        with open(self.file, encoding='utf-8') as f:
            return json.load(f)

    def test_made_and_told(self):
        self.assertEqual('missing', self.step())
        pod = self.core.read_namespaced_pod(self.name, self.namespace)
        self.assertEqual(
            self.core.read_node(self.node).metadata.uid,
            pod.metadata.owner_references[0].uid)
        self.assertEqual('pending', self.step())
        self.assertFalse(os.path.exists(self.file))
        pod = self.bind()
        self.assertEqual('runs', self.step())
        self.assertEqual(
            {'uid': pod.metadata.uid, 'name': self.name,
             'namespace': self.namespace, 'container': 'guests'},
            self.record())
        self.assertEqual(0o644, os.stat(self.file).st_mode & 0o777)
        self.assertEqual(frozenset(), self.controller.reasons())
        # A restart changes nothing.
        self.controller = self.new_controller()
        self.assertEqual('runs', self.step())
        self.assertEqual(pod.metadata.uid, self.read()['metadata']['uid'])

    def test_its_limits_count_once_it_runs(self):
        source = api.from_conf(self.compute.conf(
            pod_name=None, guests_pod=str(TEMPLATE)), {})
        self.assertRaises(errors.Refused, source.read)
        self.step()
        self.assertRaises(errors.NotYet, source.read)
        self.bind()
        budget = source.read()
        self.assertEqual((8000, 32 << 30),
                         (budget.cpu_millicores, budget.memory_bytes))
        self.assertIn(self.name, budget.source)

    def test_not_on_a_cordoned_node(self):
        for cordoned in (True, False):
            self.core.patch_node(
                self.node, {'spec': {'unschedulable': cordoned}})
            self.assertEqual('missing', self.step())
            self.assertEqual(cordoned, self.read() is None)

    def test_a_drained_node(self):
        self.step()
        pod = self.bind()
        self.held = 7 << 30
        self.step()
        self.core.patch_node(self.node, {'spec': {'unschedulable': True}})
        self.core.create_namespaced_pod_eviction(
            self.name, self.namespace, {'metadata': {'name': self.name}})
        self.assertEqual('ends', self.step())
        self.assertEqual({guests_pod.ENDING}, self.controller.reasons())
        self.held = 0
        self.step()
        self.assertEqual('0', self.read()['metadata']['annotations'][
            guests_pod.HELD])
        self.plane.remove_pod(pod)
        self.assertEqual('missing', self.step())
        self.assertIsNone(self.read())
        self.core.patch_node(self.node, {'spec': {'unschedulable': False}})
        self.step()
        self.assertNotEqual(pod.metadata.uid, self.read()['metadata']['uid'])

    def test_what_guests_hold(self):
        self.step()
        self.bind()
        for held, expected in ((None, None), (5 << 30, 5 << 30),
                               (5 << 30, 5 << 30), (6 << 30, 6 << 30),
                               ((6 << 30) - 1, 6 << 30), (1, 1), (0, 0)):
            self.held = held
            self.step()
            self.assertEqual(
                None if expected is None else str(expected),
                (self.read()['metadata'].get('annotations') or {}).get(
                    guests_pod.HELD))

    def test_after_a_shutdown_of_the_machine(self):
        self.step()
        pod = self.bind()
        self.plane.set_pod_status(pod, phase='Failed', reason='Terminated')
        self.assertEqual('ended', self.step())
        waiting.until(lambda: self.read() is None)
        self.step()
        self.assertNotEqual(pod.metadata.uid, self.read()['metadata']['uid'])

    def test_made_by_somebody_else(self):
        self.controller = self.new_controller(
            guests_pod=None, pod_name=self.name)
        self.assertEqual('missing', self.step())
        self.assertIsNone(self.read())
        pod = self.make()
        self.assertEqual('runs', self.step())
        self.assertEqual(pod.metadata.uid, self.record()['uid'])

    def test_a_template_that_is_not_allowed(self):
        path = f'{self.folder}/template.yaml'
        with open(path, 'w', encoding='utf-8') as f:
            f.write(TEMPLATE.read_text().replace('ALL', 'KILL'))
        self.controller = self.new_controller(guests_pod=path)
        exc = self.assertRaises(errors.Refused, self.step)
        self.assertIn('nothing is privileged', str(exc))
        self.assertNotIn('\n', str(exc))

    def test_start_waits_until_it_runs(self):
        thread = threading.Thread(
            target=self.controller.await_pod, daemon=True,
            args=(False, False, lambda: True))
        thread.start()
        waiting.until(self.read)
        thread.join(0.5)
        self.assertTrue(thread.is_alive())
        self.bind()
        thread.join(10)
        self.assertFalse(thread.is_alive())
        self.assertTrue(os.path.exists(self.file))
