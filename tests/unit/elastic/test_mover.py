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

"""The worker that moves the boundary, with a Kubernetes of dicts."""

import os

import fixtures

from nova_k8s.elastic import mover
from nova_k8s.elastic import values
from nova_k8s.elastic import wish
from nova_k8s import errors
from nova_k8s.kube import node as kube_node
from nova_k8s.kube import resize
from tests.unit import base
from tests.unit.elastic import test_observed

Room = values.Room

SETTINGS = values.Settings(
    smallest=Room(4096, 2000), largest=Room(65536, 32000),
    headroom=Room(8192, 4000), spare=Room(4096, 2000),
    step=Room(1024, 1000), idle=600)

SMALL = ('4', '8Gi')


def amounts(room):
    return (f'{room.cpu_millicores}m', f'{room.memory_mb}Mi')


class MoverTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.log = self.useFixture(fixtures.FakeLogger('nova_k8s'))
        self.begin()

    def begin(self):
        self.pod = test_observed.pod(SMALL, SMALL, SMALL)
        self.node = kube_node.Node('node1', 'u', allocatable={
            'cpu': '64', 'memory': '256Gi'})
        self.used = Room(0, 0)
        self.allocated = Room(0, 0)
        self.order = []
        self.told = []
        self.said = []
        self.failure = None
        self.drained = None
        self.path = os.path.join(self.folder(), 'elastic')
        self.mover = mover.Mover(SETTINGS, None, mover.Ways(
            pod=lambda: self.pod, node=lambda: self.node,
            neighbours=lambda: [], drained=lambda: self.drained,
            demand=self.demand, usages=self.usages,
            changed=lambda: self.told.append(self.mover.cap),
            publish=self.publish, held=self.held, resize=self.resize),
            self.said.append, self.path)

    def demand(self, allocated):
        return self.used.most(allocated)

    def usages(self):
        self.order.append('usages')
        return self.allocated

    def publish(self):
        # A guest that is on its way is let in meanwhile.
        self.assertFalse(self.mover.decided)
        self.order.append(('publish', self.mover.cap))

    def held(self, pod):
        self.order.append('held')
        return dict(pod, written=True)

    def resize(self, pod, container, resources):
        self.asked = pod
        self.assertEqual(self.mover.cap is not None, self.mover.decided)
        self.order.append(('resize', resources))
        if self.failure:
            raise self.failure

    def kubelet(self, **fields):
        """Show what was wished last, in spec and status."""
        room = self.mover._mine
        self.pod = test_observed.pod(*[amounts(room)] * 3, **fields)

    def reasons(self):
        return [line.reason for line in self.said]

    def grown(self):
        self.used = Room(4096, 2000)
        self.mover._move(0)
        self.kubelet()
        self.mover._move(1)
        self.order.clear()
        self.said.clear()
        self.told.clear()

    def test_it_grows(self):
        self.used = Room(4096, 2000)
        self.mover._move(100)
        self.assertEqual([('resize', {'memory': '12288Mi', 'cpu': '6000m'})],
                         self.order)
        self.assertEqual(['GuestsPodGrows'], self.reasons())
        self.assertIn('guests hold 4096 MiB and 2000 millicores; the pod '
                      'wishes 12288 MiB and 6000 millicores, before 8192',
                      self.said[0].text)
        # Nothing more until the pod shows it.
        self.assertEqual(1, self.mover._move(101))
        self.kubelet()
        self.mover._move(103)
        self.assertEqual(1, len(self.order))
        self.assertEqual(3, self.mover.seconds)

    def test_only_what_differs_is_asked_for(self):
        self.used = Room(4096, 0)
        self.mover._move(100)
        self.assertEqual([('resize', {'memory': '12288Mi'})], self.order)

    def test_a_wish_that_is_lost_is_wished_again(self):
        self.used = Room(4096, 2000)
        self.mover._move(100)
        self.mover._move(100 + mover.LOST)
        self.assertEqual(2, len(self.order))

    def test_it_shrinks_after_the_report(self):
        self.grown()
        self.used = Room(0, 0)
        self.mover._move(10)
        self.mover._move(9 + SETTINGS.idle)
        self.assertEqual([], self.order)
        self.mover._move(10 + SETTINGS.idle)
        small = Room(8192, 4000)
        self.assertEqual(
            [('publish', small), 'usages', 'held',
             ('resize', {'memory': '8192Mi', 'cpu': '4000m'})], self.order)
        # The pod with what guests hold: the other one is there no more.
        self.assertTrue(self.asked['written'])
        self.assertEqual(['GuestsPodShrinks'], self.reasons())
        # Until the pod itself says so.
        self.assertEqual(small, self.mover.cap)
        self.kubelet()
        self.mover._move(11 + SETTINGS.idle)
        self.assertIsNone(self.mover.cap)

    def test_a_guest_that_is_on_its_way_keeps_its_room(self):
        self.grown()
        self.used = Room(0, 0)
        self.mover._move(10)
        self.allocated = Room(9000, 1000)
        self.mover._move(10 + SETTINGS.idle)
        self.assertEqual([('publish', Room(8192, 4000)), 'usages', 'held'],
                         self.order)
        self.assertIsNone(self.mover.cap)
        self.assertEqual([None], self.told)
        self.assertEqual([], self.reasons())

    def test_refused(self):
        self.used = Room(4096, 2000)
        self.failure = resize.Refusal('Quota', 'Pod a/b: exceeded quota')
        for now in (100, 101, 200, 99 + mover.REST):
            self.mover._move(now)
        self.assertEqual(1, len(self.order))
        self.assertEqual(['ElasticRests'], self.reasons())
        self.assertIn('Quota: Pod a/b: exceeded quota', self.said[0].text)
        self.mover._move(100 + mover.REST)
        self.assertEqual(2, len(self.order))
        # Said once.
        self.assertEqual(['ElasticRests'], self.reasons())
        self.failure = None
        self.mover._move(100 + 2 * mover.REST)
        self.assertEqual(['ElasticRests', 'GuestsPodGrows'], self.reasons())

    def test_a_shrink_that_is_refused_is_reported_no_more(self):
        self.grown()
        self.used = Room(0, 0)
        self.mover._move(10)
        self.failure = resize.Refusal('Policy', 'no')
        self.mover._move(10 + SETTINGS.idle)
        self.assertEqual([None], self.told)
        self.assertIsNone(self.mover.cap)

    def test_a_shrink_that_may_have_been_done_stays_reported(self):
        self.lose()
        self.assertEqual(1, self.mover._move(11 + SETTINGS.idle))
        # It was not: once more.
        self.failure = None
        self.mover._move(20 + SETTINGS.idle)
        self.assertEqual('resize', self.order[-1][0])

    def lose(self):
        """Ask for a shrink, and not hear whether it was taken."""
        self.grown()
        self.used = Room(0, 0)
        self.mover._move(10)
        self.failure = errors.Unreadable('Pod a/b: timed out')
        self.assertRaises(errors.Unreadable, self.mover._move,
                          10 + SETTINGS.idle)
        self.assertEqual(Room(8192, 4000), self.mover.cap)
        self.order.clear()

    def test_what_keeps_it_still_lifts_a_cap_that_is_lost(self):
        def off():
            self.node = kube_node.Node('node1', 'u', annotations={
                'nova-k8s/elastic': 'off'})

        def vpa():
            self.pod['metadata']['annotations'] = {'vpaUpdates': 'x'}

        def drain():
            self.drained = 'node1 is being drained'

        def delete():
            self.pod['metadata']['deletionTimestamp'] = 'now'

        for happens in (off, vpa, drain, delete):
            self.begin()
            self.lose()
            happens()
            # It may have been taken, and the pod may show it yet.
            self.assertEqual(1, self.mover._move(11 + SETTINGS.idle))
            self.assertEqual(Room(8192, 4000), self.mover.cap)
            self.mover._move(10 + SETTINGS.idle + mover.LOST)
            self.assertIsNone(self.mover.cap)
            self.assertEqual(([], [None]), (self.order, self.told))

    def test_what_fails_before_the_wish_lifts_the_cap(self):
        def fails(*args):
            raise error
        for error in (errors.NotWritten('Placement'), OSError('no')):
            for way in ('publish', 'usages', 'held'):
                self.begin()
                self.grown()
                self.used = Room(0, 0)
                self.mover._move(10)
                self.mover._ways = mover.dataclasses.replace(
                    self.mover._ways, **{way: fails})
                self.assertRaises(type(error), self.mover._move,
                                  10 + SETTINGS.idle)
                self.assertIsNone(self.mover.cap)

    def test_the_pod_has_changed_while_that_was_written(self):
        self.grown()
        self.used = Room(0, 0)
        self.mover._move(10)
        self.mover._ways = mover.dataclasses.replace(
            self.mover._ways, held=lambda pod: None)
        self.assertEqual(mover.RETRY, self.mover._move(10 + SETTINGS.idle))
        self.assertEqual([('publish', Room(8192, 4000)), 'usages'],
                         self.order)
        self.assertIsNone(self.mover.cap)

    def test_a_failure_that_nobody_thought_of_keeps_a_cap_that_is_in_use(
            self):
        self.lose()
        self.mover._ways = mover.dataclasses.replace(
            self.mover._ways, pod=lambda: 1 / 0)
        self.mover._step()
        self.assertEqual(Room(8192, 4000), self.mover.cap)

    def test_a_pod_that_ends_or_is_drained_is_left_alone(self):
        self.used = Room(4096, 2000)
        self.pod['metadata']['deletionTimestamp'] = '2026-01-01T00:00:00Z'
        self.mover._move(0)
        del self.pod['metadata']['deletionTimestamp']
        self.drained = 'node1 is being drained: the node is cordoned'
        self.mover._move(1)
        self.assertEqual(([], []), (self.order, self.reasons()))
        self.assertFalse(self.mover.resting)
        self.drained = None
        self.mover._move(2)
        self.assertEqual(['GuestsPodGrows'], self.reasons())

    def test_what_nobody_looked_at_was_not_idle(self):
        self.grown()
        self.used = Room(0, 0)
        self.mover._move(10)
        self.drained = 'node1 is being drained'
        self.mover._move(20)
        self.drained = None
        self.mover._move(10 + SETTINGS.idle)
        self.assertEqual([], self.order)
        self.mover._move(10 + 2 * SETTINGS.idle)
        self.assertEqual(['GuestsPodShrinks'], self.reasons())

    def test_others_are_told_what_the_pod_shows(self):
        self.mover._move(0)
        self.told.clear()
        self.mover._move(1)
        self.assertEqual([], self.told)
        self.pod = test_observed.pod(SMALL, SMALL, ('3', '8Gi'))
        self.mover._move(2)
        self.assertEqual([None], self.told)

    def test_another_one_was_faster(self):
        self.used = Room(4096, 2000)
        self.failure = resize.Changed('409')
        self.assertEqual(mover.RETRY, self.mover._move(100))
        self.assertEqual([], self.reasons())
        self.failure = None
        self.mover._move(105)
        self.assertEqual(['GuestsPodGrows'], self.reasons())

    def test_somebody_else_resizes(self):
        self.grown()
        self.pod = test_observed.pod(
            *[('3', '10Gi')] * 3, managedFields=[
                {'manager': 'kubectl-patch', 'subresource': 'resize'}])
        self.used = Room(9000, 2000)
        for now in (10, 20, 10000):
            self.mover._move(now)
        self.assertEqual([], self.order)
        self.assertEqual(['ElasticRests'], self.reasons())
        self.assertIn('kubectl-patch resized the pod to 10240 MiB',
                      self.said[0].text)

    def test_vertical_pod_autoscaler(self):
        self.pod['metadata']['annotations'] = {'vpaUpdates': 'x'}
        self.used = Room(4096, 2000)
        self.mover._move(0)
        self.assertEqual([], self.order)
        self.assertIn('Vertical Pod Autoscaler', self.said[0].text)

    def test_off_at_this_node(self):
        self.node = kube_node.Node('node1', 'u', annotations={
            'nova-k8s/elastic': 'off'})
        self.used = Room(4096, 2000)
        self.mover._move(0)
        self.assertEqual([], self.order)

    def test_another_pod_begins_anew(self):
        self.grown()
        self.pod = test_observed.pod(SMALL, SMALL, SMALL, uid='other')
        self.mover._move(20)
        self.assertEqual([('resize', {'memory': '12288Mi', 'cpu': '6000m'})],
                         self.order)

    def answered(self, message, reason='Infeasible'):
        big = ('6', '12Gi')
        self.pod = test_observed.pod(big, SMALL, SMALL, conditions=[
            test_observed.pending(reason, message)])

    def test_static_cpu_manager(self):
        self.used = Room(4096, 2000)
        self.mover._move(0)
        self.answered('infeasible alongside CPU Manager policy "static"')
        self.mover._move(1)
        self.assertEqual(['GuestsPodGrows', 'ElasticMemoryOnly'],
                         self.reasons()[:2])
        self.assertEqual(('resize', {'cpu': '4000m'}), self.order[-1])
        self.pod = test_observed.pod(('4', '12Gi'), ('4', '12Gi'),
                                     ('4', '12Gi'))
        self.order.clear()
        self.mover._move(2)
        self.assertEqual([], self.order)
        self.used = Room(5000, 4000)
        self.mover._move(3)
        self.assertEqual(('resize', {'memory': '13312Mi'}), self.order[-1])

    def test_deferred_is_said_once(self):
        self.used = Room(4096, 2000)
        self.mover._move(0)
        self.answered('no room', 'Deferred')
        for now in (1, 2, 3):
            self.mover._move(now)
        self.assertEqual(['GuestsPodGrows', 'ResizeDeferred'],
                         self.reasons())

    def test_what_containers_need_is_not_known(self):
        def fails():
            raise errors.Unreadable('pods on node node1: 403')
        self.mover._ways = mover.dataclasses.replace(
            self.mover._ways, neighbours=fails)
        self.used = Room(4096, 2000)
        self.mover._move(0)
        self.kubelet()
        # It may have just started.
        self.mover._move(mover.LONGEST - 1)
        self.assertEqual(['GuestsPodGrows'], self.reasons())
        for now in (0, 1):
            self.mover._move(mover.LONGEST + now)
        self.assertEqual(['GuestsPodGrows', 'ElasticRests'], self.reasons())

    def test_outage(self):
        def fails():
            raise errors.Unreadable('API server away')
        self.mover._ways = mover.dataclasses.replace(
            self.mover._ways, pod=fails)
        for _ in range(3):
            self.assertEqual(mover.RETRY, self.mover._step())
        # It may have just started.
        self.assertEqual(([], []), (self.order, self.reasons()))
        self.useFixture(fixtures.MockPatchObject(mover, 'LONGEST', 0))
        for _ in range(3):
            self.mover._step()
        self.assertEqual(([], ['ElasticRests']),
                         (self.order, self.reasons()))

    def test_what_nobody_thought_of(self):
        self.mover._ways = mover.dataclasses.replace(
            self.mover._ways, pod=lambda: 1 / 0)
        self.assertEqual(mover.RETRY, self.mover._step())
        self.assertIn('Could not move the boundary', self.log.output)

    def test_status(self):
        self.grown()
        kept = mover.load(self.conf_of(os.path.dirname(self.path)), 'u')
        self.assertIsNone(kept)
        os.rename(self.path, os.path.join(os.path.dirname(self.path),
                                          'k8s_elastic.json'))
        kept = mover.load(self.conf_of(os.path.dirname(self.path)), 'u')
        self.assertEqual([12288, 6000], kept['wished'])
        self.assertEqual([4096, 2000], kept['used'])
        self.assertEqual('what is free for guests is right', kept['why'])

    def conf_of(self, folder):
        class Conf:
            state_path = folder
        return Conf

    def test_haste_is_shorter_than_a_rest(self):
        self.assertLess(wish.HASTE, mover.REST)
