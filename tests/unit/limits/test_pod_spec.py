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

"""What a pod may use: the table of precedence, and rubbish."""

import json

import hypothesis
from hypothesis import strategies as st
import testscenarios

from nova_k8s import errors
from nova_k8s.limits import pod_spec
from tests.unit import base

load_tests = testscenarios.load_tests_apply_scenarios

MI = 2 ** 20
GI = 2 ** 30


def amounts(cpu=None, memory=None, **others):
    found = {'cpu': cpu, 'memory': memory}
    found.update((name.replace('_', '-'), value)
                 for name, value in others.items())
    return {name: value for name, value in found.items() if value is not None}


def resources(limits=None, requests=None):
    return {name: value for name, value in (('limits', limits),
                                            ('requests', requests))
            if value is not None}


def container(name='libvirt', limits=None, requests=None, **fields):
    return dict({'name': name, 'resources': resources(limits, requests)},
                **fields)


def sidecar(name='log', limits=None, requests=None):
    return container(name, limits, requests, restartPolicy='Always')


def status(name='libvirt', limits=None, requests=None):
    """Of a running container; its requests are part of the status too."""
    return {'name': name, 'state': {'running': {}},
            'resources': resources(limits, requests)}


def pending(reason, value='True'):
    return {'type': 'PodResizePending', 'status': value, 'reason': reason,
            'observedGeneration': 1}


IN_PROGRESS = {'type': 'PodResizeInProgress', 'status': 'True'}


def pod(*containers, init=(), statuses=None, init_statuses=None,
        conditions=None, level=None, level_status=None, **spec):
    """A pod; level is what stands in spec.resources."""
    found = {'apiVersion': 'v1', 'kind': 'Pod',
             'metadata': {'namespace': 'openstack', 'name': 'compute'},
             'spec': dict(spec, containers=list(containers)), 'status': {}}
    if init:
        found['spec']['initContainers'] = list(init)
    if level is not None:
        found['spec']['resources'] = level
    for name, value in (('containerStatuses', statuses),
                        ('initContainerStatuses', init_statuses),
                        ('conditions', conditions),
                        ('resources', level_status)):
        if value is not None:
            found['status'][name] = value
    if conditions:
        found['metadata']['generation'] = 1
    return found


FOUR = amounts('4', '8Gi')
EIGHT = amounts('8', '16Gi')
LIMITS_4 = dict(cpu_millicores=4000, memory_bytes=8 * GI)
LIMITS_8 = dict(cpu_millicores=8000, memory_bytes=16 * GI)

# name: (pod, [kubernetes] container, what of the Budget is expected)
PRECEDENCE = {
    # One container.
    'the only container': (
        pod(container(limits=FOUR)), None, LIMITS_4),
    'the only container, named': (
        pod(container(limits=FOUR)), 'libvirt', LIMITS_4),
    'one of two, not the daemon with its small limit': (
        pod(container('nova', amounts('1', '1Gi')), container(limits=FOUR)),
        'libvirt', LIMITS_4),
    'fractions of a core and of a MiB': (
        pod(container(limits=amounts('7500m', '1.5Mi'))), None,
        dict(cpu_millicores=7500, memory_bytes=3 * MI // 2)),
    'less than a millicore and a byte is nothing': (
        pod(container(limits=amounts('0.9m', '900m'))), None,
        dict(cpu_millicores=0, memory_bytes=0, missing=())),
    'numbers instead of strings': (
        pod(container(limits=amounts(4, 8589934592))), None, LIMITS_4),
    'without an object for the status': (
        {'kind': 'Pod', 'spec': {'containers': [container(limits=FOUR)]}},
        None, LIMITS_4),
    'null for the status and what else may be left out': (
        {'kind': 'Pod', 'metadata': None, 'status': None,
         'spec': {'containers': [container(limits=FOUR, requests=None)],
                  'initContainers': None, 'resources': None}},
        None, LIMITS_4),

    # Init containers.
    'a restartable init container': (
        pod(container(limits=EIGHT), init=[sidecar('libvirt-2', FOUR)]),
        'libvirt-2', LIMITS_4),
    'a restartable init container as its status says': (
        pod(container(), init=[sidecar('libvirt-2', EIGHT)],
            init_statuses=[status('libvirt-2', FOUR)]),
        'libvirt-2', LIMITS_4),
    'plain init containers are not counted as containers': (
        pod(container(limits=FOUR), init=[container('init', EIGHT)]),
        None, LIMITS_4),
    'nor by *': (
        pod(container(limits=FOUR), init=[container('init')]),
        '*', LIMITS_4),

    # The whole pod. QEMU is in one of its containers, all of it, and the
    # kernel enforces the limit of that one: the sum was offered once.
    'the most that one container may use': (
        pod(container('libvirt', amounts('8', '32Gi')),
            container('nova', amounts('1', '2Gi'))), '*',
        dict(cpu_millicores=8000, memory_bytes=32 * GI)),
    'of sidecars too': (
        pod(container('a', amounts('1', '2Gi')),
            init=[sidecar('b', FOUR)]), '*', LIMITS_4),
    'resource by resource, in *': (
        pod(container('a', amounts('4', '2Gi')),
            container('b', amounts('3', '8Gi'))), '*', LIMITS_4),
    'the largest container shrinks': (
        pod(container('a', amounts('1', '2Gi')),
            container('b', FOUR),
            statuses=[status('a', amounts('5', '9Gi')),
                      status('b', amounts('9', '18Gi'))]), '*', LIMITS_4),
    'a container without limits leaves none': (
        pod(container('a', FOUR), container('b', amounts(memory='1Gi'))),
        '*', dict(cpu_millicores=None, memory_bytes=8 * GI, missing=(
            'spec.containers[b].resources.limits.cpu',))),
    'several without': (
        pod(container('a', amounts('1')), container('b')),
        '*', dict(cpu_millicores=None, memory_bytes=None, missing=(
            'spec.containers[b].resources.limits.cpu',
            'spec.containers[a].resources.limits.memory',
            'spec.containers[b].resources.limits.memory'))),
    'a sidecar without': (
        pod(container('a', FOUR), init=[sidecar('b')]),
        '*', dict(cpu_millicores=None, memory_bytes=None, missing=(
            'spec.initContainers[b].resources.limits.cpu',
            'spec.initContainers[b].resources.limits.memory'))),

    # Resources at the level of the pod.
    'the limit of the pod is that of its containers without': (
        pod(container('a', amounts('1', '1Gi')), container('b'),
            level=resources(FOUR)), '*', LIMITS_4),
    'the limit of the pod for one resource, a container for the other': (
        pod(container('a', amounts('9', '2Gi')),
            container('b', amounts('9', '8Gi')),
            level=resources(amounts('4'))), '*', LIMITS_4),
    'no container may use the limit of the pod': (
        pod(container('a', FOUR), container('b', amounts('1', '1Gi')),
            level=resources(EIGHT)), '*', LIMITS_4),
    'the limit of the pod caps its container': (
        pod(container(limits=EIGHT), level=resources(FOUR)),
        None, LIMITS_4),
    'the limit of the pod is that of a container without': (
        pod(container('a'), container('b', FOUR), level=resources(EIGHT)),
        'a', LIMITS_8),
    'the smaller limit of a container holds below that of the pod': (
        pod(container(limits=FOUR), level=resources(EIGHT)),
        None, LIMITS_4),
    'the status of the pod is no limit that nobody set': (
        pod(container(limits=FOUR), level_status=resources(
            amounts('1', '1Gi'))), '*', LIMITS_4),
    'a pod that grows': (
        pod(container('a'), level=resources(EIGHT),
            level_status=resources(FOUR)), '*', LIMITS_4),
    'a pod that shrinks': (
        pod(container('a'), level=resources(FOUR),
            level_status=resources(EIGHT)), '*', LIMITS_4),
    'a pod whose growth is deferred': (
        pod(container('a'), level=resources(EIGHT),
            level_status=resources(FOUR), conditions=[pending('Deferred')]),
        '*', LIMITS_4),
    'a pod whose shrink is deferred': (
        pod(container('a'), level=resources(FOUR),
            level_status=resources(EIGHT), conditions=[pending('Deferred')]),
        '*', LIMITS_8),

    # A resize.
    'a growth counts when it is actual': (
        pod(container(limits=EIGHT), statuses=[status(limits=FOUR)]),
        None, LIMITS_4),
    'a shrink counts when it is wished': (
        pod(container(limits=FOUR), statuses=[status(limits=EIGHT)]),
        None, LIMITS_4),
    'resource by resource': (
        pod(container(limits=amounts('4', '16Gi')),
            statuses=[status(limits=amounts('8', '8Gi'))]), None, LIMITS_4),
    'done': (
        pod(container(limits=EIGHT), statuses=[status(limits=EIGHT)]),
        None, LIMITS_8),
    'a growth in progress': (
        pod(container(limits=EIGHT), statuses=[status(limits=FOUR)],
            conditions=[IN_PROGRESS]), None, LIMITS_4),
    'a shrink in progress': (
        pod(container(limits=FOUR), statuses=[status(limits=EIGHT)],
            conditions=[IN_PROGRESS]), None, LIMITS_4),
    'a growth that is deferred': (
        pod(container(limits=EIGHT), statuses=[status(limits=FOUR)],
            conditions=[pending('Deferred')]), None, LIMITS_4),
    'a shrink that is deferred is no wish': (
        pod(container(limits=FOUR), statuses=[status(limits=EIGHT)],
            conditions=[pending('Deferred')]), None, LIMITS_8),
    'a shrink that is infeasible is no wish': (
        pod(container(limits=FOUR), statuses=[status(limits=EIGHT)],
            conditions=[IN_PROGRESS, pending('Infeasible')]),
        None, LIMITS_8),
    'a condition that may be about a wish that was replaced': (
        # As an older kubelet writes it: seen after a growth that is deferred,
        # before the kubelet has seen the shrink.
        pod(container(limits=FOUR), statuses=[status(limits=EIGHT)],
            conditions=[{'type': 'PodResizePending', 'status': 'True',
                         'reason': 'Deferred'}]), None, LIMITS_4),
    'a condition that is over': (
        pod(container(limits=FOUR), statuses=[status(limits=EIGHT)],
            conditions=[pending('Deferred', 'False')]), None, LIMITS_4),
    'a reason that is not known is a wish': (
        pod(container(limits=FOUR), statuses=[status(limits=EIGHT)],
            conditions=[pending('Whatever')]), None, LIMITS_4),
    'a condition about a wish that was replaced': (
        dict(pod(container(limits=FOUR), statuses=[status(limits=EIGHT)],
                 conditions=[dict(pending('Deferred'),
                                  observedGeneration=2)]),
             metadata={'namespace': 'openstack', 'name': 'compute',
                       'generation': 3}), None, LIMITS_4),
    'a condition about the present wish': (
        dict(pod(container(limits=FOUR), statuses=[status(limits=EIGHT)],
                 conditions=[dict(pending('Deferred'),
                                  observedGeneration=3)]),
             metadata={'namespace': 'openstack', 'name': 'compute',
                       'generation': 3}), None, LIMITS_8),
    'a limit that is added to a running container': (
        pod(container(limits=FOUR), statuses=[status(limits={})]),
        None, LIMITS_4),
    'a limit that is added, and deferred': (
        pod(container(limits=FOUR), statuses=[status(limits={})],
            conditions=[pending('Deferred')]),
        None, dict(cpu_millicores=None, memory_bytes=None)),
    'a limit that is taken away holds while it is actual': (
        pod(container(), statuses=[status(limits=FOUR)]), None, LIMITS_4),

    # A status that is not there.
    'a container that has not started': (
        pod(container(limits=FOUR),
            statuses=[{'name': 'libvirt', 'state': {'waiting': {}}}]),
        None, LIMITS_4),
    'the status of another container': (
        pod(container(limits=EIGHT), statuses=[status('nova', FOUR)]),
        None, LIMITS_8),
    'allocatedResources are requests and no limits': (
        pod(container(limits=EIGHT),
            statuses=[{'name': 'libvirt', 'allocatedResources': FOUR}]),
        None, LIMITS_8),
    'a request above the limit in a status, as in a resize': (
        pod(container(limits=EIGHT, requests=EIGHT),
            statuses=[status(limits=FOUR, requests=EIGHT)]),
        None, LIMITS_4),

    # No limit.
    'no limits': (
        pod(container()), None, dict(
            cpu_millicores=None, memory_bytes=None, missing=(
                'spec.containers[libvirt].resources.limits.cpu',
                'spec.containers[libvirt].resources.limits.memory'))),
    'no resources': (
        pod({'name': 'libvirt'}), None,
        dict(cpu_millicores=None, memory_bytes=None)),
    'no limit of memory': (
        pod(container(limits=amounts('4'))), None, dict(
            cpu_millicores=4000, memory_bytes=None, missing=(
                'spec.containers[libvirt].resources.limits.memory',))),
    'a limit of 0 is none': (
        pod(container(limits=amounts('0', '0'))), None, dict(
            cpu_millicores=None, memory_bytes=None, missing=(
                'spec.containers[libvirt].resources.limits.cpu (0, which '
                'Kubernetes takes for none)',
                'spec.containers[libvirt].resources.limits.memory (0, which '
                'Kubernetes takes for none)'))),
    'a limit of 0 at the level of the pod is none': (
        pod(container(limits=FOUR), level=resources(amounts('0', '0'))),
        '*', LIMITS_4),
    'a limit of 0 in the status is none': (
        pod(container(limits=FOUR), statuses=[status(
            limits=amounts('0', '0'))]), None, LIMITS_4),
    'a container without a name': (
        pod({'resources': {}}), None, dict(missing=(
            'spec.containers[0].resources.limits.cpu',
            'spec.containers[0].resources.limits.memory'))),

    # Requests.
    'requests': (
        pod(container(limits=FOUR, requests=amounts('1500m', '1Gi'))), None,
        dict(LIMITS_4, cpu_request_millicores=1500,
             memory_request_bytes=GI)),
    'a request that is not set is the limit': (
        pod(container(limits=FOUR, requests=amounts('1'))), None,
        dict(cpu_request_millicores=1000, memory_request_bytes=8 * GI)),
    'a request equal to its limit': (
        pod(container(limits=FOUR, requests=amounts('4000m', '8192Mi'))),
        None, dict(LIMITS_4, cpu_request_millicores=4000)),
    'a request of 0': (
        pod(container(limits=FOUR, requests=amounts('0'))), None,
        dict(cpu_request_millicores=0)),
    'requests of several containers': (
        pod(container('a', FOUR, amounts('1')),
            init=[sidecar('b', FOUR, amounts('500m'))]), '*',
        dict(cpu_millicores=4000, cpu_request_millicores=1000,
             memory_request_bytes=8 * GI)),
    'the request of the pod wins over those of its containers': (
        pod(container('a', FOUR, amounts('1')),
            level=resources(EIGHT, amounts('2', '4Gi'))), '*',
        dict(LIMITS_4, cpu_request_millicores=2000,
             memory_request_bytes=4 * GI)),
    'the request of the pod beside its limit, for a container of neither': (
        pod(container('a'), container('b', FOUR),
            level=resources(EIGHT, amounts('2', '4Gi'))), 'a',
        dict(LIMITS_8, cpu_request_millicores=2000,
             memory_request_bytes=4 * GI)),
    'the limit of the pod without any request': (
        pod(container('a'), level=resources(EIGHT)), '*',
        dict(LIMITS_8, cpu_request_millicores=8000,
             memory_request_bytes=16 * GI)),
    'the limit of the pod, and requests of some containers': (
        pod(container('a', requests=amounts('1', '1Gi')), container('b'),
            level=resources(EIGHT)), '*',
        dict(LIMITS_8, cpu_request_millicores=1000,
             memory_request_bytes=GI)),
    'the same, for a container of neither': (
        pod(container('a', requests=amounts('1', '1Gi')), container('b'),
            level=resources(EIGHT)), 'b',
        dict(LIMITS_8, cpu_request_millicores=1000,
             memory_request_bytes=GI)),
    'the limit of the pod for one resource, a request for the other': (
        pod(container('a', amounts('2'), amounts('1')),
            level=resources(amounts(memory='8Gi'))), '*',
        dict(cpu_millicores=2000, cpu_request_millicores=1000,
             memory_bytes=8 * GI, memory_request_bytes=8 * GI)),
    'no limit and no request': (
        pod(container()), None,
        dict(cpu_request_millicores=None, memory_request_bytes=None)),

    # Huge pages and ephemeral storage.
    'huge pages by size': (
        pod(container(limits=amounts('4', '8Gi', hugepages_2Mi='4Mi',
                                     hugepages_1Gi='2Gi'))), None,
        dict(LIMITS_4, hugepages=(('1Gi', 2 * GI), ('2Mi', 4 * MI)))),
    'the most huge pages; a container without has none': (
        pod(container('a', amounts('1', '2Gi', hugepages_2Mi='4Mi')),
            container('b', amounts('3', '6Gi', hugepages_2Mi='2Mi')),
            init=[sidecar('c', amounts('1', '1Gi'))]), '*',
        dict(hugepages=(('2Mi', 4 * MI),), missing=())),
    'huge pages of the pod': (
        pod(container('a', amounts('1', '2Gi', hugepages_2Mi='4Mi')),
            level=resources(amounts('4', '8Gi', hugepages_2Mi='8Mi'))), '*',
        dict(hugepages=(('2Mi', 8 * MI),))),
    'huge pages of the pod, for a container that names none': (
        pod(container('a'),
            level=resources(amounts('4', '8Gi', hugepages_2Mi='8Mi'))), 'a',
        dict(hugepages=(('2Mi', 8 * MI),))),
    'huge pages of the pod, for a container that names fewer': (
        pod(container('a', amounts('1', '2Gi', hugepages_2Mi='4Mi')),
            level=resources(amounts('4', '8Gi', hugepages_2Mi='8Mi'))), 'a',
        dict(hugepages=(('2Mi', 4 * MI),))),
    'no huge pages': (
        pod(container(limits=amounts('4', '8Gi', hugepages_2Mi='0'))), None,
        dict(hugepages=())),
    'ephemeral storage': (
        pod(container(limits=amounts('4', '8Gi', ephemeral_storage='1Gi'))),
        None, dict(ephemeral_storage_bytes=GI)),
    'ephemeral storage is not missed': (
        pod(container('a', amounts('1', '2Gi', ephemeral_storage='1Gi')),
            container('b', amounts('3', '6Gi'))), '*',
        dict(cpu_millicores=3000, memory_bytes=6 * GI,
             ephemeral_storage_bytes=None, missing=())),
    'other resources are left alone': (
        pod(container(limits=amounts('4', '8Gi', **{
            'nvidia.com/gpu': '1', 'devices.kubevirt.io/kvm': '1'}))),
        None, LIMITS_4),

    # The rest.
    'the name of the node': (
        pod(container(limits=FOUR), nodeName='node-1'), None,
        dict(node_name='node-1')),
    'no name of the node': (
        pod(container(limits=FOUR), nodeName=''), None,
        dict(node_name=None)),
}

# name: (pod, [kubernetes] container, the exception, what it must name)
REFUSED = {
    'several containers and none named': (
        pod(container('a', FOUR), container('b', FOUR),
            init=[sidecar('c', FOUR)]), None, errors.Refused,
        ['Pod openstack/compute', '[kubernetes] container', 'a, b, c']),
    'an unknown container': (
        pod(container('a', FOUR), init=[sidecar('c', FOUR)]), 'b',
        errors.Refused,
        ['Pod openstack/compute', '[kubernetes] container',
         'no container b', 'a, c']),
    'a plain init container': (
        pod(container('a', FOUR), init=[container('i', FOUR)]), 'i',
        errors.Refused,
        ['spec.initContainers[i]', '[kubernetes] container', 'of a']),
    'a growth that is not accepted, of a container that does not run': (
        pod(container(limits=EIGHT),
            statuses=[{'name': 'libvirt', 'state': {'waiting': {}}}],
            conditions=[pending('Infeasible')]),
        None, errors.Unreadable, ['libvirt', 'Infeasible']),
    'no containers': (
        pod(), None, errors.Unreadable, ['spec.containers']),
    'no containers but init ones': (
        pod(init=[container('i', FOUR)]), '*', errors.Unreadable,
        ['spec.containers']),
    'no spec': (
        {'kind': 'Pod'}, None, errors.Unreadable, ['spec.containers']),
    'rubbish for a limit': (
        pod(container(limits=amounts('4 cores', '8Gi'))), None,
        errors.Unreadable,
        ['spec.containers[libvirt].resources.limits.cpu', "'4 cores'"]),
    'rubbish for a limit of another container': (
        pod(container('a', FOUR), container('b', requests=amounts('x'))),
        'a', errors.Unreadable,
        ['spec.containers[b].resources.requests.cpu', "'x'"]),
    'rubbish for a limit at the level of the pod': (
        pod(container(limits=FOUR), level=resources(amounts(memory='8GB'))),
        None, errors.Unreadable, ['spec.resources.limits.memory', "'8GB'"]),
    'rubbish in the status': (
        pod(container(limits=FOUR), statuses=[status(limits=amounts('x'))]),
        None, errors.Unreadable,
        ['status of spec.containers[libvirt].resources.limits.cpu']),
    'null for a limit': (
        pod(container(limits={'cpu': None})), None, errors.Unreadable,
        ['spec.containers[libvirt].resources.limits.cpu', 'None']),
    'a negative limit': (
        pod(container(limits=amounts('-4', '8Gi'))), None, errors.Unreadable,
        ['spec.containers[libvirt].resources.limits.cpu', "'-4'",
         'negative']),
    'a request above its limit': (
        pod(container(limits=FOUR, requests=amounts('4001m'))), None,
        errors.Unreadable,
        ['spec.containers[libvirt].resources.requests.cpu', '4.001']),
    'a request above its limit at the level of the pod': (
        pod(container(limits=FOUR), level=resources(
            FOUR, amounts(memory='9Gi'))), None, errors.Unreadable,
        ['spec.resources.requests.memory']),
    'a part of a huge page': (
        pod(container(limits=amounts('4', '8Gi', hugepages_2Mi='3Mi'))),
        None, errors.Unreadable,
        ['spec.containers[libvirt].resources.limits.hugepages-2Mi',
         "'3Mi'"]),
    'huge pages of no size': (
        pod(container(limits=amounts('4', '8Gi', hugepages_0='3Mi'))),
        None, errors.Unreadable, ['hugepages-0']),
    'huge pages of rubbish': (
        pod(container(limits=amounts('4', '8Gi', hugepages_big='3Mi'))),
        None, errors.Unreadable, ['hugepages-big']),
    'a resource that is a number': (
        pod(container(limits={1: '2'})), None, errors.Unreadable,
        ['spec.containers[libvirt].resources.limits', '1']),
    'a list for the limits': (
        pod(container(limits=['4'])), None, errors.Unreadable,
        ['spec.containers[libvirt].resources.limits', "['4']"]),
    'a string for the containers': (
        {'spec': {'containers': 'libvirt'}}, None, errors.Unreadable,
        ['spec.containers', "'libvirt'"]),
    'a string for a container': (
        pod('libvirt'), None, errors.Unreadable, ['spec.containers[0]']),
    'a string for a status': (
        pod(container(limits=FOUR), statuses=['libvirt']), None,
        errors.Unreadable, ['status.containerStatuses[0]']),
    'a string for a condition': (
        pod(container(limits=FOUR), conditions=['Ready']), None,
        errors.Unreadable, ['status.conditions[0]']),
    'a string for the metadata': (
        {'metadata': 'compute', 'spec': {'containers': [container()]}},
        None, errors.Unreadable, ['metadata']),
    'null for the pod': (
        None, None, errors.Unreadable, ['spec.containers']),
    'a list for the pod': ([1], None, errors.Unreadable, ['[1]']),
}


class PrecedenceTest(base.TestCase):

    scenarios = [(name, {'pod': row[0], 'choice': row[1],
                         'expected': row[2]})
                 for name, row in PRECEDENCE.items()]

    def test_precedence(self):
        # As it comes from the API server.
        pod = json.loads(json.dumps(self.pod))
        found = pod_spec.parse(pod, self.choice)
        self.assertEqual(self.expected, {
            field: getattr(found, field) for field in self.expected})
        self.assertEqual(self.pod, pod)


class RefusedTest(base.TestCase):

    scenarios = [(name, {'pod': row[0], 'choice': row[1],
                         'expected': row[2], 'names': row[3]})
                 for name, row in REFUSED.items()]

    def test_refused(self):
        exc = self.assertRaises(self.expected, pod_spec.parse, self.pod,
                                self.choice, 'somewhere')
        for name in [*self.names, 'somewhere']:
            self.assertIn(name, str(exc))
        # Nor what would offer more than the kernel enforces.
        self.assertNotIn('*', str(exc))
        self.assertTrue(base.one_line(exc))


class BudgetTest(base.TestCase):

    def test_source_names_the_object(self):
        two = pod(container(limits=FOUR), container('b', limits=FOUR))
        self.assertEqual(
            'Pod openstack/compute, container b (/a/file)',
            pod_spec.parse(two, 'b', '/a/file').source)
        self.assertEqual(
            'Pod openstack/compute, all containers',
            pod_spec.parse(two, '*').source)

    def test_describe(self):
        for obj, expected in (
                ({}, 'Pod ?'),
                ({'metadata': {'name': 'a'}}, 'Pod a'),
                ({'metadata': {'generateName': 'a-'}}, 'Pod a-'),
                ({'kind': 'DaemonSet',
                  'metadata': {'namespace': 'b', 'name': 'a'}},
                 'DaemonSet b/a')):
            self.assertEqual(expected, pod_spec.describe(obj))

    def test_what_scripts_get_to_see(self):
        found = pod_spec.parse(pod(container(limits=amounts(
            '4', '8Gi', hugepages_2Mi='4Mi', ephemeral_storage='1Gi'))))
        self.assertEqual(
            {'cpu_millicores': 4000, 'memory_bytes': 8 * GI,
             'hugepages': {'2Mi': 4 * MI}, 'ephemeral_storage_bytes': GI,
             'source': 'Pod openstack/compute, container libvirt'},
            json.loads(json.dumps(found.as_dict())))

    def test_is_frozen(self):
        # It is handed from one thread to another.
        found = pod_spec.parse(pod(container(limits=FOUR)))
        self.assertRaises(AttributeError, setattr, found,
                          'cpu_millicores', 1)
        hash(found)

    def test_is_another_only_when_it_says_something_else(self):
        before = pod_spec.parse(pod(container(limits=FOUR)))
        self.assertEqual(before, pod_spec.parse(
            pod(container(limits=amounts('4000m', '8192Mi')),
                statuses=[status(limits=FOUR)])))
        self.assertNotEqual(before, pod_spec.parse(
            pod(container(limits=EIGHT))))


# As much of a pod as finds the deep places, with rubbish in all of them.
KEYS = st.sampled_from([
    'metadata', 'name', 'namespace', 'generateName', 'kind', 'spec',
    'status', 'containers', 'initContainers', 'containerStatuses',
    'initContainerStatuses', 'conditions', 'type', 'reason', 'resources',
    'limits', 'requests', 'cpu', 'memory', 'hugepages-2Mi', 'hugepages-',
    'hugepages-1n', 'ephemeral-storage', 'restartPolicy', 'nodeName',
    'deletionTimestamp', 'generation', 'observedGeneration', 'phase',
    'state', 'running'])
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(),
    st.sampled_from(['0', '1', '4', '500m', '8Gi', '1e999999999',
                     '1e-999999999', '0.000000000000000000000000000001',
                     '9' * 50 + '.' + '9' * 50, 'Always', 'a', 'b', 'True',
                     'PodResizePending', 'Deferred']))
JSON = st.recursive(LEAVES, lambda inner: st.one_of(
    st.lists(inner, max_size=3),
    st.dictionaries(KEYS | LEAVES, inner, max_size=4)), max_leaves=12)
AMOUNTS = JSON | st.dictionaries(KEYS, LEAVES, max_size=4)
RESOURCES = JSON | st.fixed_dictionaries(
    {}, optional={'limits': AMOUNTS, 'requests': AMOUNTS})
CONTAINERS = JSON | st.lists(JSON | st.fixed_dictionaries(
    {'name': st.sampled_from('ab') | JSON},
    optional={'resources': RESOURCES,
              'restartPolicy': st.just('Always') | JSON}), max_size=3)
PODS = JSON | st.fixed_dictionaries({}, optional={
    'metadata': JSON,
    'spec': JSON | st.fixed_dictionaries(
        {'containers': CONTAINERS},
        optional={'initContainers': CONTAINERS, 'resources': RESOURCES,
                  'nodeName': JSON}),
    'status': JSON | st.fixed_dictionaries({}, optional={
        'containerStatuses': CONTAINERS,
        'initContainerStatuses': CONTAINERS, 'resources': RESOURCES,
        'conditions': JSON})})


class RubbishTest(base.TestCase):

    @hypothesis.settings(
        max_examples=300,
        suppress_health_check=[hypothesis.HealthCheck.too_slow])
    @hypothesis.given(PODS, st.none() | st.sampled_from(['a', '*']))
    def test_a_budget_or_one_of_our_errors(self, pod, choice):
        try:
            found = pod_spec.parse(pod, choice)
        except errors.LimitsError:
            return
        for amount in (found.cpu_millicores, found.memory_bytes,
                       found.ephemeral_storage_bytes):
            self.assertTrue(amount is None or amount >= 0, found)

    @hypothesis.given(
        *[st.none() | st.integers(0, 2 ** 40)] * 4,
        st.sampled_from([None, 'Deferred', 'Infeasible']))
    def test_never_more_than_the_kernel_gives(
            self, wished, actual, pod_wished, pod_actual, reason):
        def limit(value):
            return None if value is None else resources({'memory': value})

        running = pod(
            dict(container('a'), resources=limit(wished)),
            statuses=[{'name': 'a', 'resources': limit(actual)}],
            level=limit(pod_wished), level_status=limit(pod_actual),
            conditions=[pending(reason)] if reason else None)
        for choice in ('a', '*'):
            try:
                found = pod_spec.parse(running, choice).memory_bytes
            except errors.Unreadable:
                # Nothing says what is in force.
                self.assertTrue(reason and (
                    wished and actual is None or
                    pod_wished and pod_actual is None))
                continue
            if found is not None:
                self.assertIn(found, {wished, actual, pod_wished,
                                      pod_actual})
            if actual and pod_wished is None:
                self.assertIsNotNone(found)
                self.assertLessEqual(found, actual)
            if wished and pod_wished is None and not reason:
                self.assertLessEqual(found, wished)
            if pod_wished and pod_actual:
                self.assertLessEqual(found, pod_actual)
