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

"""What the mover looks at in a running compute node."""

import os
import threading
import types
from unittest import mock

import fixtures
import hypothesis
from hypothesis import strategies as st

from nova_k8s.accounting import accounts
from nova_k8s.accounting import claims
from nova_k8s.accounting import overhead
from nova_k8s.confinement import controller
from nova_k8s.elastic import mover
from nova_k8s.elastic import values
from nova_k8s.elastic import ways
from nova_k8s import errors
from nova_k8s.kube import node as kube_node
from tests.unit import base
from tests.unit.elastic import simulated_node
from tests.unit.elastic import test_observed

Room = values.Room


class WaysTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.told = True
        self.woken = []
        self.reported = types.SimpleNamespace(
            cap=None, is_told=lambda: self.told, ratio=lambda name: 2.0)
        self.accounts = accounts.Accounts(
            None, None, types.SimpleNamespace(mb=100), None, None)
        self.accounts._ledger.add('a', overhead.Need(1024, 50, 1024))
        self.accounts._ledger.complete = True
        self.pod = {}
        self.written = lambda body: body
        self.client = mock.Mock()
        self.client.get.return_value = mock.Mock(
            status_code=200, json=lambda: {
                'usages': {'MEMORY_MB': 3072, 'VCPU': 4}})
        self.tracker = types.SimpleNamespace(
            compute_nodes={'node1': types.SimpleNamespace(
                uuid='u', vcpus_used=3)}, reportclient=self.client)

    def elastic(self, **options):
        conf = self.conf(elastic=True, elastic_max='65536:32', **options)
        with mock.patch.object(ways.instance_overhead, 'settings_from',
                               return_value=overhead.Settings()):
            # Where it is kept is Nova's affair.
            with mock.patch.object(ways.mover, 'path', return_value='/none'):
                return ways.from_conf(
                    conf, types.SimpleNamespace(pod=self.read), None,
                    self.accounts, self.reported, self.tracker,
                    lambda: self.woken.append(1), None, lambda: None,
                    lambda body: self.written(body))

    def read(self):
        if isinstance(self.pod, Exception):
            raise self.pod
        return self.pod

    def test_off(self):
        self.assertIsNone(ways.from_conf(self.conf(), None))

    def test_needs_an_api_server(self):
        exc = self.assertRaises(
            errors.Refused, ways.from_conf,
            self.conf(elastic=True, limits_from='manifest'), None)
        self.assertIn('limits_from = api', str(exc))

    def test_demand(self):
        found = self.elastic()
        self.assertEqual(Room(1024 + 50 + 100, 1500),
                         found._demand(Room()))
        # Placement has more, which is on its way.
        self.assertEqual(Room(1174 + 2048, 2000),
                         found._demand(found._usages()))
        self.client.get.assert_called_once_with(
            '/resource_providers/u/usages', version='1.26')

    def test_placement_does_not_answer(self):
        self.client.get.return_value = mock.Mock(status_code=500, text='no')
        self.assertRaises(errors.NotWritten, self.elastic()._usages)

    def test_before_the_first_audit(self):
        self.tracker.compute_nodes.clear()
        self.assertRaises(errors.Unreadable, self.elastic()._demand, Room())

    def test_before_all_guests_are_counted(self):
        self.accounts._ledger.complete = False
        self.assertRaises(errors.Unreadable, self.elastic()._demand, Room())

    def test_while_nova_counts_anew(self):
        """Nova begins at 0, under its lock."""
        found, begun, end, seen = self.elastic(), *(
            threading.Event() for _ in range(2)), []
        compute_node, = self.tracker.compute_nodes.values()

        def audit():
            before = self.accounts._ledger.clear()
            compute_node.vcpus_used = 0
            begun.set()
            end.wait(10)
            compute_node.vcpus_used = 3
            self.accounts._ledger.restore(before)

        threads = [
            threading.Thread(target=claims.locked, args=(audit,)),
            threading.Thread(
                target=lambda: seen.append(found._demand(Room())))]
        threads[0].start()
        begun.wait(10)
        threads[1].start()
        threads[1].join(0.3)
        end.set()
        for each in threads:
            each.join(10)
        self.assertEqual([Room(1174, 1500)], seen)

    def test_nova_is_told_the_least(self):
        found = self.elastic()
        self.assertIsNone(found.cap())
        self.pod = test_observed.pod(
            wished=('8', '16Gi'), actual=('4', '8Gi'),
            allocated=('3', '12Gi'))
        self.assertEqual(Room(8192, 3000), found.cap())
        found.mover.cap = Room(4096, 5000)
        self.assertEqual(Room(4096, 3000), found.cap())
        # Whoever is let in may use more, until it is decided.
        self.assertEqual(Room(8192, 3000), self.reported.claim_cap())
        found.mover.decided = True
        self.assertEqual(Room(4096, 3000), self.reported.claim_cap())
        # The API server is away.
        self.pod = errors.Unreadable('no')
        self.assertEqual(Room(4096, 3000), found.cap())
        found.mover.cap = None
        self.assertEqual(Room(8192, 3000), found.cap())

    def test_what_guests_hold_is_written(self):
        found, body = self.elastic(), test_observed.pod()
        after = test_observed.pod(resourceVersion='5')
        self.written = lambda pod: after
        self.assertIs(after, found._held(body))
        for after in (None, test_observed.pod(generation=4),
                      test_observed.pod(uid='v'),
                      test_observed.pod(deletionTimestamp='now')):
            self.assertIsNone(found._held(body))
        found._annotate = None
        self.assertIs(body, found._held(body))

    def test_it_waits_until_placement_is_told(self):
        found = self.elastic()
        self.assertIsNone(self.reported.cap())
        found.mover.cap = Room(4096, 2000)
        self.assertEqual(Room(4096, 2000), self.reported.cap())
        found._have_published()
        self.assertEqual([1], self.woken)
        self.told = False
        self.useFixture(fixtures.MockPatchObject(ways, 'PATIENCE', 0.1))
        self.assertRaises(errors.NotWritten, found._have_published)
        # More than before waits for nobody.
        found.mover.cap = None
        found._have_published()

    def test_no_node_is_followed(self):
        found = self.elastic()
        self.assertIsNone(found._node())
        self.assertIsNone(found._neighbours)


class FirstTest(base.TestCase):
    """What a guests' pod that is made starts with."""

    def first(self, needs=(), vcpus=0, annotations=(), ratio=None,
              **options):
        conf = self.conf(**{
            'elastic': True, 'elastic_max': '65536:32',
            'elastic_headroom': '8192:4', 'elastic_min': '4096:2',
            'elastic_step': '1024:1', **options})
        node = kube_node.Node('node1', 'u', annotations=dict(annotations),
                              allocatable={'cpu': '64', 'memory': '256Gi'})
        seen = mock.Mock(wraps=conf, kubernetes=conf.kubernetes,
                         cpu_allocation_ratio=None,
                         initial_cpu_allocation_ratio=ratio)
        with mock.patch.object(ways.instance_overhead, 'settings_from',
                               return_value=overhead.Settings()):
            return ways.first(seen, lambda: (needs, vcpus), 100, node)

    def test_the_minimum(self):
        self.assertEqual({'memory': '4096Mi', 'cpu': '2000m'}, self.first())
        # There is no container of nothing.
        self.assertEqual({'memory': '1024Mi', 'cpu': '1000m'},
                         self.first(elastic_min='0:0'))

    def test_what_guests_hold(self):
        self.assertEqual(
            {'memory': '7168Mi', 'cpu': '6000m'},
            self.first([overhead.Need(7000, 50, 7000)], 6))
        self.assertEqual(
            {'memory': '7168Mi', 'cpu': '2000m'},
            self.first([overhead.Need(7000, 50, 7000)], 6, ratio=4.0))
        # More than there may be: they are there.
        self.assertEqual(
            {'memory': '70150Mi', 'cpu': '40000m'},
            self.first([overhead.Need(70000, 50, 70000)], 40))

    def test_bounds_of_the_node(self):
        self.assertEqual({'memory': '6144Mi', 'cpu': '2000m'}, self.first(
            annotations={'nova-k8s/elastic-min-memory': '6Gi'}))

    def test_not_elastic(self):
        self.assertIsNone(self.first(elastic=False))
        self.assertIsNone(self.first(
            annotations={'nova-k8s/elastic': 'off'}))


class OrderTest(base.TestCase):
    """Boots, deletes, events of the watch and answers, in any order."""

    # What others do, also while the mover waits for them.
    OTHERS = st.one_of(
        st.tuples(st.sampled_from((
            'deliver', 'catch_up', 'publish', 'allocate', 'enforce', 'tell',
            'claim', 'annotate'))),
        st.tuples(st.just('schedule'), st.builds(
            Room, st.integers(1, 12000),
            st.integers(1, 6).map(lambda cores: 1000 * cores))))

    EVENTS = st.one_of(
        OTHERS,
        st.tuples(st.sampled_from((
            'see', 'see', 'move', 'leave', 'away', 'lost', 'audit', 'drain',
            'delete'))),
        st.tuples(st.just('wait'), st.sampled_from((1, mover.LOST, 600))),
        st.tuples(st.just('contain'), st.builds(
            Room, st.integers(0, 40000), st.integers(0, 20000))))

    # Guests that come, and go; what happens before room that is idle is given
    # back, meanwhile, and then.
    ROUNDS = st.lists(st.tuples(
        st.integers(0, 3), st.integers(0, 3),
        st.lists(EVENTS, max_size=2), st.lists(OTHERS, max_size=5),
        st.lists(EVENTS, max_size=8)), min_size=1, max_size=3)

    def setUp(self):
        super().setUp()
        self.path = os.path.join(self.folder(), 'elastic')

    def start(self):
        self.now, self.shrinks, self.meanwhile = 0.0, [], []
        self.node = simulated_node.Node(
            Room(49152, 24000), Room(8192, 4000), self.others)
        conf = self.conf(elastic=True, elastic_max='65536:32',
                         elastic_headroom='4096:2', elastic_min='4096:2',
                         elastic_step='1024:1', elastic_idle=600)
        self.keeper = controller.Controller(self.node, None, None, 0)
        self.keeper._held = self.node.accounts.held_bytes
        with mock.patch.object(ways.instance_overhead, 'settings_from',
                               return_value=overhead.Settings()), (
                mock.patch.object(ways.mover, 'path',
                                  return_value=self.path)), (
                mock.patch.object(ways.resize, 'wish', self.node.resize)):
            self.found = ways.from_conf(
                conf, self.node, None, self.node.accounts, self.node,
                types.SimpleNamespace(compute_nodes={'a': self.node}),
                self.others, lambda line: None,
                lambda: self.node.drained, self.keeper.refresh)
        self.found.mover._ways = mover.dataclasses.replace(
            self.found.mover._ways, usages=self.node.asked_for_usages)
        self.node.publish()

    def others(self):
        """One of those things happens of which the mover sees nothing."""
        if self.meanwhile:
            self.happen(*self.meanwhile.pop(0))

    def happen(self, what, *args):
        node = self.node
        if what == 'wait':
            self.now += args[0]
            if node.unanswered:
                # The watch is not that late, or says so.
                while node.queue:
                    node.deliver()
        elif what == 'see':
            # The mover, before whoever follows the limits.
            node.deliver()
            self.move()
        elif what == 'move':
            self.move()
        elif what == 'annotate':
            if not node.away:
                self.keeper._annotate(node.delivered)
        elif what == 'claim':
            # Whom Placement has sent here finds room.
            self.assertIsNone(node.claim())
        else:
            getattr(node, what)(*args)
        self.check()

    def move(self):
        node, before = self.node, len(self.node.resizes)
        forbidden = (node.drained or
                     node.delivered['metadata'].get('deletionTimestamp') or
                     not node.accounts._ledger.complete)
        try:
            self.found.mover._move(self.now)
        except (errors.LimitsError, errors.NotWritten):
            pass
        for wished, room, told, usages in node.resizes[before:]:
            self.assertFalse(forbidden)
            if not room.covers(wished):
                # First the report, then the pod.
                self.assertTrue(room.covers(told))
                self.assertTrue(room.covers(usages))
                self.shrinks.append(self.now)

    def settle(self):
        """Have everybody do what he has to, until there is no more."""
        node = self.node
        node.calm()
        for _ in range(3):
            for each in ('allocate', 'enforce', 'tell'):
                self.happen(each)
            while node.queue:
                self.happen('deliver')
            for each in ('catch_up', 'publish', 'move', 'annotate'):
                self.happen(each)
            self.now += 5

    def check(self):
        node = self.node
        least = node.spec.least(node.allocated).least(node.kernel)
        self.assertTrue(least.covers(node.bounded(self.found.cap())))
        self.assertTrue(least.covers(node.told))
        # Those that are here keep what they have.
        self.assertTrue(least.covers(node.used()))

    def round(self, come, go, before, meanwhile, after):
        node = self.node
        self.settle()
        for _ in range(come):
            self.happen('schedule', Room(6000, 3000))
            self.happen('claim')
            self.settle()
        for _ in range(go):
            self.happen('leave')
        self.move()
        self.now += 600
        for each in before:
            self.happen(*each)
        self.meanwhile = list(meanwhile)
        self.move()
        self.meanwhile = []
        for each in after:
            self.happen(*each)
        if node.deleted:
            # It is gone, and another one is made: that is another test.
            return False
        return True

    @hypothesis.settings(max_examples=int(
        os.environ.get('NOVA_K8S_EXAMPLES', 60)))
    @hypothesis.given(ROUNDS)
    # The pod shows a shrink, and the limits do not say so yet.
    @hypothesis.example([(2, 2, [], [], [('see',), ('publish',)])])
    # The mover looks again before the pod shows it.
    @hypothesis.example([(2, 2, [], [], [('move',), ('publish',)])])
    # A guest comes that was sent here before Placement had less.
    @hypothesis.example([(2, 2, [], [
        ('schedule', Room(9000, 1000)), ('claim',)], [])])
    @hypothesis.example([(2, 2, [], [
        ('schedule', Room(9000, 1000))], [('claim',)])])
    # It ends, is drained, or nothing is counted when room has been idle.
    @hypothesis.example([(2, 2, [('delete',), ('see',)], [], [])])
    @hypothesis.example([(2, 2, [('drain',)], [], [])])
    @hypothesis.example([(2, 2, [('audit',)], [], [])])
    # The answer to a shrink is lost.
    @hypothesis.example([(2, 2, [('lost',)], [], [
        ('wait', mover.LOST), ('drain',), ('move',)])])
    def test_any_order(self, rounds):
        self.start()
        with mock.patch.object(controller, 'SETTLE', 0):
            if all(self.round(*each) for each in rounds):
                self.settle()
                self.now += mover.LOST
                self.settle()
                self.assertIsNone(self.found.mover.cap)
        # It does not flap.
        for one, two in zip(self.shrinks, self.shrinks[1:]):
            self.assertGreaterEqual(two - one, 600)
