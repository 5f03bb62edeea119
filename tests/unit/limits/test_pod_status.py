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

from nova_k8s import errors
from nova_k8s.limits import pod_spec
from tests.unit import base
from tests.unit.limits import test_pod_spec

FOUR, EIGHT = test_pod_spec.FOUR, test_pod_spec.EIGHT
IN_PROGRESS = test_pod_spec.IN_PROGRESS
container = test_pod_spec.container
pod = test_pod_spec.pod
sidecar = test_pod_spec.sidecar
status = test_pod_spec.status


class RunningTest(base.TestCase):
    """Limits of a container that does not run hold nothing yet."""

    RUNNING = {'name': 'a', 'state': {'running': {'startedAt': 'now'}}}
    CRASHED = {'name': 'a', 'state': {
        'waiting': {'reason': 'CrashLoopBackOff', 'message': 'back-off'}}}

    def _refused(self, present, *names, choice='a'):
        exc = self.assertRaises(errors.NotYet, pod_spec.parse, present,
                                choice, 'somewhere', running=True)
        for name in ('Pod openstack/compute (somewhere)', 'does not run',
                     *names):
            self.assertIn(name, str(exc))
        self.assertTrue(base.one_line(exc))
        # It says the same limits, where nobody minds.
        pod_spec.parse(present, choice)

    def test_runs(self):
        found = pod_spec.parse(
            pod(container('a', FOUR), statuses=[self.RUNNING]), 'a',
            running=True)
        self.assertEqual(4000, found.cpu_millicores)

    def test_sidecar_runs_before_the_pod_does(self):
        # nova-compute, in the same pod, reads its limits while it starts.
        present = pod(container('nova', FOUR), init=[sidecar('a', EIGHT)],
                      init_statuses=[self.RUNNING])
        present['status']['phase'] = 'Pending'
        found = pod_spec.parse(present, 'a', running=True)
        self.assertEqual(8000, found.cpu_millicores)

    def test_pod_that_no_kubelet_has_taken(self):
        present = pod(container('a', FOUR))
        present['status']['phase'] = 'Pending'
        self._refused(present, 'container a', 'the pod is Pending')

    def test_container_that_waits(self):
        self._refused(pod(container('a', FOUR), statuses=[self.CRASHED]),
                      'waiting: CrashLoopBackOff')

    def test_container_that_has_ended(self):
        self._refused(pod(container('a', FOUR), statuses=[
            {'name': 'a', 'state': {'terminated': {'reason': 'OOMKilled'}}}]),
            'terminated: OOMKilled')

    def test_another_container_that_runs_does_not_count(self):
        self._refused(pod(
            container('a', FOUR), container('b', FOUR),
            statuses=[self.CRASHED, dict(self.RUNNING, name='b')]))

    def test_rubbish(self):
        for state in (None, {}, {'waiting': None}, {'waiting': {}}):
            self._refused(pod(container('a', FOUR), statuses=[
                {'name': 'a', 'state': state}]))
        self.assertRaises(
            errors.Unreadable, pod_spec.parse,
            pod(container('a', FOUR),
                statuses=[{'name': 'a', 'state': 'running'}]),
            'a', running=True)

    def test_whole_pod(self):
        two = pod(container('a', FOUR), container('b', FOUR),
                  statuses=[self.CRASHED, dict(self.RUNNING, name='b')])
        pod_spec.parse(two, '*', running=True)
        two['status']['containerStatuses'].pop()
        self._refused(two, 'a, b', choice='*')


class ObservedTest(base.TestCase):
    """Whether the status may be believed, see growth."""

    def _parse(self, generation=3, observed=3, conditions=()):
        present = pod(container(limits=FOUR), statuses=[status(limits=FOUR)],
                      conditions=list(conditions))
        present['metadata']['generation'] = generation
        present['status']['observedGeneration'] = observed
        return pod_spec.parse(present)

    def test_settled(self):
        found = self._parse()
        self.assertEqual((3, None, None), (
            found.generation, found.resizing, found.unconfirmed))

    def test_wish_that_the_kubelet_has_not_seen(self):
        found = self._parse(4)
        self.assertIsNone(found.unconfirmed)
        for name in ('status.observedGeneration is 3',
                     'metadata.generation 4'):
            self.assertIn(name, found.resizing)

    def test_resize_in_progress(self):
        self.assertEqual('PodResizeInProgress', self._parse(
            conditions=[IN_PROGRESS]).resizing)
        self.assertIsNone(self._parse(
            conditions=[dict(IN_PROGRESS, status='False')]).resizing)

    def test_resize_that_the_kubelet_refuses(self):
        found = self._parse(conditions=[dict(
            IN_PROGRESS, reason='Error',
            message='cannot decrease memory limits')])
        self.assertEqual('cannot decrease memory limits', found.resize_error)
        self.assertEqual('PodResizeInProgress', found.resizing)
        self.assertEqual('?', self._parse(conditions=[dict(
            IN_PROGRESS, reason='Error')]).resize_error)
        self.assertIsNone(self._parse(
            conditions=[IN_PROGRESS]).resize_error)

    def test_kubelet_that_does_not_tell(self):
        for generation, observed in ((3, None), (None, None), (None, 3),
                                     ('3', '3'), (True, True)):
            found = self._parse(generation, observed)
            self.assertIn('observedGeneration', found.unconfirmed)
            self.assertIsNone(found.resizing)

    def test_manifest(self):
        found = pod_spec.parse(pod(container(limits=FOUR)))
        self.assertEqual((None, None, None), (
            found.generation, found.resizing, found.unconfirmed))


class DeletionTest(base.TestCase):

    def test_pod_that_is_being_deleted(self):
        present = pod(container(limits=FOUR))
        before = pod_spec.parse(present)
        self.assertFalse(before.terminating)
        # A request, and the grace period: the limits hold until then.
        present['metadata'].update(
            deletionTimestamp='2026-11-24T20:30:00Z',
            deletionGracePeriodSeconds=600)
        found = pod_spec.parse(present)
        self.assertTrue(found.terminating)
        self.assertEqual('2026-11-24T20:30:00Z', found.deletion_time)
        self.assertEqual(4000, found.cpu_millicores)
        self.assertNotEqual(before, found)

    def test_pod_that_is_being_deleted_by_what_is_no_time(self):
        for rubbish in (0, '', [], {'a': 1}):
            present = pod(container(limits=FOUR))
            present['metadata']['deletionTimestamp'] = rubbish
            found = pod_spec.parse(present)
            self.assertTrue(found.terminating)
            self.assertIsInstance(found.deletion_time, str)
