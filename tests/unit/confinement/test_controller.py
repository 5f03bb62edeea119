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

"""The guests' pod of a node, kept; more in tests/functional."""

import json
import os
import pathlib
import threading
import types
from unittest import mock

import fixtures

from nova_k8s.confinement import controller
from nova_k8s.confinement import guests_pod
from nova_k8s import errors
from nova_k8s.kube import node as nodes
from tests.unit import base

TEMPLATE = str(pathlib.Path(__file__).resolve().parents[3] / 'etc' /
               'kubernetes' / 'base' / 'guests-pod.yaml')


class Pod:
    """As kube.pods.Pod, of a cluster that does at once what it is told."""

    namespace, name = 'openstack', 'guests-kube-1'

    def __str__(self):
        return f'Pod {self.namespace}/{self.name}'

    def __init__(self):
        self.body = None
        self.problem = None
        self.calls = []

    def read(self):
        if self.problem:
            raise self.problem
        return self.body

    def create(self, body):
        self.calls.append('create')
        self.body = dict(body, metadata=dict(body['metadata'], uid='u1'),
                         status={'phase': 'Running'})

    def remove(self, body):
        self.calls.append('remove')
        self.body = None

    def annotate(self, uid, annotations):
        self.calls.append(annotations)
        self.body['metadata'].setdefault('annotations', {}).update(
            annotations)
        return self.body


class Node:

    cordoned = False

    def ask(self):
        return nodes.Node('kube-1', 'n1', cordoned=self.cordoned)


class ControllerTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.log = self.useFixture(fixtures.FakeLogger('nova_k8s'))
        self.pod, self.node = Pod(), Node()
        self.file = f'{self.folder()}/guests-pod.json'
        self.held = None
        self.found = controller.Controller(
            self.pod, self.node, TEMPLATE, 60, self.file)
        self.found.connect(self.pod.read, lambda: self.held, dict, None,
                           None)

    def test_in_one_step_each(self):
        self.assertEqual(controller.SOON, self.found._step())
        self.assertEqual(controller.LATER, self.found._step())
        with open(self.file, encoding='utf-8') as f:
            self.assertEqual({'uid': 'u1', 'name': 'guests-kube-1',
                              'namespace': 'openstack'}, json.load(f))
        self.held = 5
        self.found._step()
        self.found._step()
        self.assertEqual(['create', {guests_pod.HELD: '5'}], self.pod.calls)

    def test_what_it_starts_with(self):
        nodes_seen = []

        def first(node):
            nodes_seen.append(node.name)
            return {'cpu': '3000m', 'memory': '5Gi'}

        self.found = controller.Controller(
            self.pod, self.node, TEMPLATE, 60, self.file, first=first)
        self.found.reconcile(None)
        self.assertEqual(['kube-1'], nodes_seen)
        self.assertEqual(
            {'cpu': '3000m', 'memory': '5Gi'}, self.pod.body['spec'][
                'containers'][0]['resources']['limits'])

    def refresh(self, held, known):
        self.held = held
        self.pod.body = {'metadata': {'uid': 'u1', 'annotations': dict(
            {guests_pod.HELD: known} if known else {})}}
        return self.found.refresh(self.pod.body)

    def test_before_a_shrink_it_is_written_to_the_byte(self):
        for held, known in ((96, '100'), (0, '100'), (101, '100'),
                            (5, None), (5, 'x')):
            with mock.patch.object(controller, 'SETTLE', 0):
                after = self.refresh(held, known)
            self.assertEqual(
                str(held), after['metadata']['annotations'][guests_pod.HELD])
        self.assertEqual(5, len(self.pod.calls))

    def test_what_is_right_or_not_known_is_not_written(self):
        self.assertIs(self.refresh(100, '100'), self.pod.body)
        self.assertIs(self.refresh(None, '100'), self.pod.body)
        self.assertEqual([], self.pod.calls)

    def test_no_more_than_one_write_a_second(self):
        clock, slept = [100.0], []

        def sleep(seconds):
            slept.append(seconds)
            clock[0] += seconds

        # Not that of all.
        self.useFixture(fixtures.MockPatchObject(
            controller, 'time', types.SimpleNamespace(
                monotonic=lambda: clock[0], sleep=sleep)))
        self.refresh(1, '2')
        clock[0] += 0.25
        self.held = 5
        self.found._annotate(self.pod.body)
        self.refresh(1, '2')
        clock[0] += 9
        self.refresh(1, '2')
        self.assertEqual([0, 0.75, 1, 0], slept)

    def test_the_file_is_written_again(self):
        self.found.reconcile(None)
        self.found.reconcile(self.pod.body)
        before = os.stat(self.file).st_ino
        self.found.reconcile(self.pod.body)
        self.assertEqual(before, os.stat(self.file).st_ino)
        os.unlink(self.file)
        self.found.reconcile(self.pod.body)
        self.assertTrue(os.path.exists(self.file))

    def await_pod(self, known=False, kept=False, answers=lambda: True):
        return self.found.await_pod(known, kept, answers)

    def test_a_folder_that_is_not_there(self):
        self.found = controller.Controller(
            self.pod, self.node, TEMPLATE, 60, '/none/guests-pod.json')
        self.found.reconcile(None)
        exc = self.assertRaises(errors.Refused, self.await_pod, True, True)
        self.assertIn('/none/guests-pod.json: No such file', str(exc))

    def test_start_without_an_api_server(self):
        self.pod.problem = errors.Unreadable('away')
        self.assertEqual('away', self.await_pod(kept=True))
        self.assertEqual('away', self.await_pod(known=True))
        self.assertRaises(errors.Unreadable, self.await_pod)

    def test_start_without_the_right_to_make_it(self):
        self.pod.create = self.refuse
        self.assertRaises(errors.Refused, self.await_pod, kept=True)
        self.assertEqual('no such right', self.await_pod(known=True))
        # It is in the line of whoever starts without it.
        self.found._step()
        self.assertNotIn('no such right', self.log.output)

    def test_start_with_a_pod_that_does_not_run(self):
        self.useFixture(fixtures.MockPatchObject(controller, 'PATIENCE', 2))
        self.pod.create(self.pending())
        self.assertEqual(
            'Pod openstack/guests-kube-1 holds no guests yet: no room',
            self.await_pod(known=True))
        self.assertEqual(1, self.log.output.count('no room'))

    def test_start_while_a_new_pod_comes(self):
        self.assertIsNone(self.await_pod(known=True))
        self.assertEqual(['create'], self.pod.calls)

    def test_start_without_libvirt(self):
        self.pod.create = self.refuse
        answers = iter((False, False, True))
        self.assertEqual('no such right', self.await_pod(
            known=True, answers=lambda: next(answers)))
        self.assertEqual(1, self.log.output.count('Waiting for libvirt'))

    def pending(self):
        self.useFixture(fixtures.MockPatchObject(
            guests_pod, 'phase', lambda body: (guests_pod.PENDING, 'no room')))
        return {'metadata': {}}

    def test_start_on_a_cordoned_node(self):
        self.node.cordoned = True
        thread = threading.Thread(
            target=self.await_pod, daemon=True)
        thread.start()
        thread.join(1.5)
        self.assertTrue(thread.is_alive())
        self.assertEqual(1, self.log.output.count('kubectl uncordon kube-1'))
        self.node.cordoned = False
        thread.join(10)
        self.assertFalse(thread.is_alive())
        self.assertEqual(['create'], self.pod.calls)

    def test_a_problem_is_told_once(self):
        self.pod.create = self.refuse
        for _ in range(3):
            self.assertEqual(controller.SOON, self.found._step())
        self.assertEqual(1, self.log.output.count('no such right'))

    @staticmethod
    def refuse(body):
        raise errors.Refused('no such right')

    def test_what_is_known_of_its_end_stays(self):
        self.found.reconcile(None)
        self.pod.body['metadata']['deletionTimestamp'] = 'now'
        self.assertEqual({guests_pod.ENDING}, self.found.reasons())
        self.pod.problem = errors.Unreadable('away')
        self.assertEqual({guests_pod.ENDING}, self.found.reasons())


class FromConfTest(base.TestCase):

    def from_conf(self, environ=(), **options):
        return controller.from_conf(self.conf(namespace='x', **options),
                                    dict(environ))

    def test_none(self):
        self.assertIsNone(self.from_conf())
        self.assertIsNone(self.from_conf(pod_name='guests-b', node_name='a'))

    def test_made_by_whom(self):
        for options in ({'guests_pod': TEMPLATE},
                        {'pod_name': 'guests-a'}):
            found = self.from_conf({'NODE_NAME': 'a', 'POD_NAME': 'nova-1'},
                                   **options)
            self.assertEqual('Pod x/guests-a', str(found._pod))
            self.assertEqual(options.get('guests_pod'), found._template)

    def test_contradictions(self):
        for options in ({'pod_name': 'guests-a'}, {'pod_selector': 'a=b'},
                        {'limits_from': 'manifest'}):
            exc = self.assertRaises(
                errors.Refused, self.from_conf, guests_pod=TEMPLATE,
                node_name='a', **options)
            self.assertIn(list(options)[0], str(exc))
        self.assertIn('node_name', str(self.assertRaises(
            errors.Refused, self.from_conf, guests_pod=TEMPLATE)))
        self.assertIn('/none', str(self.assertRaises(
            errors.Refused, self.from_conf, guests_pod='/none',
            node_name='a')))
