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

"""What of a pod and of its node decides on a wish."""

import copy

from nova_k8s.elastic import observed
from nova_k8s.elastic import values
from nova_k8s import errors
from tests.unit import base

Room = values.Room


def resources(cpu, memory):
    return {'cpu': cpu, 'memory': memory}


def pod(wished=('8', '16Gi'), actual=('4', '8Gi'), allocated=('6', '12Gi'),
        conditions=(), **metadata):
    return {
        'metadata': {'name': 'guests', 'namespace': 'openstack', 'uid': 'u',
                     'generation': 3, **metadata},
        'spec': {'containers': [{'name': 'guests', 'resources': {
            'limits': resources(*wished), 'requests': resources(*wished)}}]},
        'status': {
            'observedGeneration': 3, 'conditions': list(conditions),
            'containerStatuses': [{
                'name': 'guests',
                'resources': {'limits': resources(*actual)},
                'allocatedResources': resources(*allocated)}]}}


def pending(reason, message='no room', **fields):
    return {'type': 'PodResizePending', 'status': 'True', 'reason': reason,
            'message': message, **fields}


class SeeTest(base.TestCase):

    def see(self, body, container=None):
        return observed.see(body, container, 'Pod openstack/guests')

    def test_three_values(self):
        seen = self.see(pod())
        self.assertEqual(
            values.Pod(Room(16384, 8000), Room(12288, 6000),
                       Room(8192, 4000)), seen.pod)
        self.assertEqual(Room(8192, 4000), seen.pod.sure)
        self.assertEqual(Room(16384, 8000), seen.pod.held)
        self.assertEqual(('guests', 'u', False),
                         (seen.container, seen.uid, seen.busy))

    def test_what_is_not_told_is_not_there(self):
        body = pod()
        body['status']['containerStatuses'] = []
        self.assertEqual(Room(0, 0), self.see(body).pod.sure)

        # One of the two values alone, where the other is not told.
        body = pod()
        del body['status']['containerStatuses'][0]['allocatedResources']
        self.assertEqual(Room(8192, 4000), self.see(body).pod.sure)

    def test_deletion(self):
        self.assertFalse(self.see(pod()).ending)
        self.assertTrue(self.see(pod(
            deletionTimestamp='2026-01-01T00:00:00Z')).ending)

    def test_answers(self):
        for reason in ('Deferred', 'Infeasible'):
            seen = self.see(pod(conditions=[pending(reason)]))
            self.assertEqual((reason, 'no room', False),
                             (seen.pod.answer, seen.message, seen.no_cpu))
        old = pending('Deferred', observedGeneration=2)
        self.assertIsNone(self.see(pod(conditions=[old])).pod.answer)
        over = dict(pending('Deferred'), status='False')
        self.assertIsNone(self.see(pod(conditions=[over])).pod.answer)

    def test_static_cpu_manager(self):
        # The words of Kubernetes 1.37.
        text = ('Resize is infeasible for Guaranteed Pods alongside CPU '
                'Manager policy "static"')
        self.assertTrue(self.see(pod(
            conditions=[pending('Infeasible', text)])).no_cpu)

    def test_busy(self):
        self.assertTrue(self.see(pod(generation=4)).busy)
        self.assertTrue(self.see(pod(conditions=[
            {'type': 'PodResizeInProgress', 'status': 'True'}])).busy)

    def test_vertical_pod_autoscaler(self):
        self.assertFalse(self.see(pod()).vpa)
        self.assertTrue(self.see(pod(
            annotations={'vpaUpdates': 'Pod resources updated'})).vpa)

    def test_who_resized_it(self):
        seen = self.see(pod(managedFields=[
            {'manager': 'kubelet', 'subresource': 'status',
             'time': '2026-01-03T00:00:00Z'},
            {'manager': 'kubectl-patch', 'subresource': 'resize',
             'time': '2026-01-02T00:00:00Z'},
            {'manager': 'nova-compute', 'subresource': 'resize',
             'time': '2026-01-01T00:00:00Z'}]))
        self.assertEqual('kubectl-patch', seen.resized_by)

    def test_what_cannot_be_moved(self):
        two, burstable, whole, none = (pod() for _ in range(4))
        two['spec']['containers'].append({'name': 'other'})
        burstable['spec']['containers'][0]['resources']['requests']['cpu'] = 1
        whole['spec']['resources'] = {'limits': resources('8', '16Gi')}
        none['spec']['containers'][0]['resources'] = {}
        for body in (two, burstable, whole, none):
            exc = self.assertRaises(errors.Refused, self.see, body)
            self.assertTrue(base.one_line(exc))
            self.assertIn('Pod openstack/guests: [kubernetes] elastic needs',
                          str(exc))
        self.assertRaises(errors.Refused, self.see, pod(), 'another')
        self.see(pod(), '*')
        self.see(pod(), 'guests')

    def test_no_pod(self):
        whole = pod()
        for path in (('metadata',), ('spec',), ('status',),
                     ('spec', 'containers'), ('metadata', 'uid')):
            body = copy.deepcopy(whole)
            holder = body
            for name in path[:-1]:
                holder = holder[name]
            del holder[path[-1]]
            self.assertRaises(errors.Unreadable, self.see, body)
        for bad in (None, [], 'x', 3):
            self.assertRaises(errors.Unreadable, self.see,
                              dict(whole, status=bad))
        bad = pod(wished=('8', 'much'))
        exc = self.assertRaises(errors.Unreadable, self.see, bad)
        self.assertIn('not a Kubernetes quantity', str(exc))


class FreeTest(base.TestCase):

    NODE = resources('10', '100Gi')

    def free(self, *pods):
        return observed.free(self.NODE, pods)

    def one(self, cpu, memory, **spec):
        return {'spec': {'containers': [{'name': 'c', 'resources': {
            'requests': resources(cpu, memory)}}], **spec}, 'status': {}}

    def test_what_is_left(self):
        self.assertEqual(Room(102400, 10000), self.free())
        self.assertEqual(Room(102400 - 1024 - 512, 10000 - 1500),
                         self.free(self.one('1', '1Gi'),
                                   self.one('500m', '512Mi')))

    def test_never_below_nothing(self):
        self.assertEqual(Room(0, 9000), self.free(self.one('1', '200Gi')))

    def test_what_has_ended_counts_no_more(self):
        ended = dict(self.one('1', '1Gi'), status={'phase': 'Succeeded'})
        self.assertEqual(Room(102400, 10000), self.free(ended))

    def test_nothing_requested(self):
        self.assertEqual(Room(102400, 10000), self.free(
            {'spec': {'containers': [{'name': 'c'}]}}))

    def test_a_wish_counts_before_it_is_granted(self):
        self.assertEqual(Room(102400 - 16384, 2000), self.free(pod()))

    def test_what_is_given_back_counts_until_it_is(self):
        body = pod(wished=('2', '4Gi'))
        self.assertEqual(Room(102400 - 12288, 4000), self.free(body))

    def test_what_cannot_be_is_not_counted(self):
        body = pod(conditions=[pending('Infeasible')])
        self.assertEqual(Room(102400 - 12288, 4000), self.free(body))

    def test_the_pod_level_counts(self):
        body = self.one('1', '1Gi', resources={
            'requests': resources('3', '2Gi')})
        self.assertEqual(Room(102400 - 2048, 7000), self.free(body))

    def test_init_containers_and_overhead(self):
        body = self.one('1', '1Gi', initContainers=[
            {'name': 'once', 'resources': {
                'requests': resources('4', '512Mi')}},
            {'name': 'sidecar', 'restartPolicy': 'Always', 'resources': {
                'requests': resources('500m', '1Gi')}}],
            overhead=resources('100m', '1Mi'))
        self.assertEqual(Room(102400 - 2048 - 1, 10000 - 4100),
                         self.free(body))

    def test_a_part_of_a_unit_is_a_unit(self):
        self.assertEqual(Room(102399, 9999),
                         self.free(self.one('100u', '1k')))
