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

import os
import tempfile
from unittest import mock

import fixtures
import hypothesis
from hypothesis import stateful
from hypothesis import strategies
import nova.conf
from oslo_config import fixture as config_fixture

from nova_k8s import conf
from nova_k8s.drain import drainer
from nova_k8s.drain import guests
from nova_k8s.drain import plan
from nova_k8s import errors
from nova_k8s.kube import node
from nova_k8s.limits import budget
from nova_k8s.limits import watcher
from nova_k8s.service import reasons
from nova_k8s.util import worker
from tests.unit import base
from tests.unit.drain import simulated_nova

CONF = nova.conf.CONF

UP = node.Node('kube-1', 'uid')
SETTINGS = hypothesis.settings(
    max_examples=int(os.environ.get('NOVA_K8S_EXAMPLES', 200)),
    stateful_step_count=30)

CORDONED = node.Node('kube-1', 'uid', cordoned=True)


class NodeSource:

    name = 'kube-1'

    def __init__(self):
        self.node = UP
        self.listeners = []

    def latest(self):
        if not self.node:
            raise errors.Unreadable('the API server is away')
        return self.node

    def listen(self, changed):
        self.listeners.append(changed)


def limits(ending=False, workload=None, problem=None):
    return watcher.State(
        budget.Budget('Pod a/guests', 1000, 1, workload=workload,
                      deletion_time='2030-01-01T00:00:00Z' if ending
                      else None), problem)


class DrainerTest(base.TestCase):

    drain_on = 'eviction'

    def setUp(self):
        super().setUp()
        self.log = self.useFixture(fixtures.FakeLogger('nova_k8s'))
        self.clock = simulated_nova.Clock()
        self.nova = simulated_nova.Nova(self.clock)
        self.nova.check = self.nova.look
        self.source = NodeSource()
        self.state = limits()
        self.path = self.folder()
        self.slots = None
        self.lines, self.shown, self.switched = [], [], 0
        self.new()

    def new(self, nova=True):
        """nova-compute starts."""
        self.drainer = drainer.Drainer(
            self.nova if nova else None, 'a', plan.Policy(
                shut_off=plan.IGNORE), self.drain_on,
            lambda: self.state, self.source,
            drainer.File(self.path, 'a', 'kube-1'),
            lambda line, node: self.lines.append(line),
            self, self.slots, self.clock)
        self.drainer._switched = self.count

    def show(self, *shown):
        """Of the conditions."""
        self.shown.append(shown)

    def count(self):
        self.switched += 1

    def steps(self, seconds):
        end = self.clock() + seconds
        while self.clock() < end:
            wait = self.drainer.step()
            self.clock.wait(wait or 5)
        return wait

    def told(self):
        return [line.reason for line in self.lines]

    def test_eviction(self):
        for each in 'gh':
            self.nova.add(guests.Guest(each))
        self.assertIsNone(self.steps(1))
        self.assertEqual(frozenset(), self.drainer.reasons())
        self.state, self.source.node = limits(True), CORDONED
        # At once, from memory.
        self.assertEqual({reasons.DRAINING}, self.drainer.reasons())
        self.assertIn('the pod is being deleted', self.drainer.refusal())
        self.nova.set_host('a', enabled=False)
        self.assertIsNone(self.drainer.left)
        self.drainer.step()
        self.assertEqual(2, self.drainer.left)
        self.steps(60)
        self.assertEqual(0, self.drainer.left)
        self.assertEqual(['DrainStarted', 'GuestLeft', 'GuestLeft',
                          'Drained'], self.told())
        self.assertEqual((True, True, True), (
            self.switched == 1, self.shown[0][0], self.shown[-1][1]))
        # The pod is gone, and another one comes.
        self.state = watcher.State(None, 'not found')
        self.steps(30)
        self.assertEqual({reasons.DRAINING}, self.drainer.reasons())
        self.state, self.source.node = limits(), UP
        self.steps(30)
        self.assertEqual(frozenset(), self.drainer.reasons())
        self.assertIsNone(self.drainer.refusal())
        self.assertIsNone(self.drainer._engine)

    def test_a_workload_replaces_its_pods(self):
        self.nova.add(guests.Guest('g'))
        self.state = limits(True, 'DaemonSet libvirt')
        self.steps(30)
        self.assertEqual([], self.nova.asked)
        self.assertEqual([], self.lines)

    def test_what_was_kept_is_not_news(self):
        # The limits of a start without an API server.
        self.state = limits(True, problem='no answer')
        self.assertEqual(frozenset(), self.drainer.reasons())

    def test_a_restart_without_an_api_server(self):
        for each in 'gh':
            self.nova.add(guests.Guest(each))
        self.state, self.source.node = limits(True), CORDONED
        self.steps(3)
        self.state, self.source.node = limits(problem='no answer'), None
        self.new()
        self.assertEqual({reasons.DRAINING}, self.drainer.reasons())
        self.nova.set_host('a', enabled=False)
        self.steps(60)
        self.assertEqual(set(), self.nova.on('a'))
        self.assertEqual(2, len(self.nova.records))

    def test_uncordoned_and_restarted(self):
        for each in 'gh':
            self.nova.add(guests.Guest(each))
        self.state, self.source.node = limits(True), CORDONED
        self.steps(3)
        self.source.node = UP
        self.steps(30)
        self.assertEqual({'h'}, self.nova.on('a'))
        self.assertEqual('DrainCalledOff', self.told()[-1])
        self.new()
        self.steps(30)
        self.assertEqual({'h'}, self.nova.on('a'))
        self.assertTrue(self.drainer.refusal())

    def test_told_once(self):
        self.nova.add(guests.Guest('g', wish='skip'))
        self.state = limits(True)
        self.steps(200)
        self.assertEqual(['DrainStarted', 'GuestStays', 'DrainIncomplete'],
                         self.told())

    def test_a_guest_that_is_started_later(self):
        self.nova.add(guests.Guest('g', status='SHUTOFF', powered=False))
        self.state = limits(True)
        self.steps(30)
        self.assertEqual(['DrainStarted', 'Drained'], self.told())
        self.nova.change('g', status='ACTIVE', powered=True)
        self.steps(60)
        self.assertEqual(set(), self.nova.on('a'))

    def test_a_role_is_missing(self):
        self.nova.forbidden = True
        self.steps(1)
        # Before anything is drained.
        self.assertIn('If this node were drained now', self.log.output)
        self.state = limits(True)
        self.steps(300)
        self.assertEqual(['DrainStarted', 'DrainHindered'], self.told())
        self.nova.forbidden = False
        self.nova.add(guests.Guest('g'))
        self.steps(100)
        self.assertEqual(set(), self.nova.on('a'))

    def test_nova_is_away(self):
        self.nova.down = True
        self.state = limits(True)
        self.steps(100)
        self.assertEqual(['DrainStarted', 'DrainHindered'], self.told())

    def test_nothing_ends_the_thread(self):
        self.state = limits(True)
        self.nova.look = lambda host: 1 / 0
        delay = self.drainer.step()
        self.assertEqual(drainer.DENIED, delay)
        # The node, the limits and its own guests wake it all the time.
        self.assertIsInstance(delay, worker.Pause)
        self.assertIn('ZeroDivisionError', self.lines[-1].text)

    def test_turns(self):
        self.slots = mock.Mock(hold=lambda: self.clock() > 1100)
        self.new()
        self.nova.add(guests.Guest('g'))
        self.state = limits(True)
        self.steps(90)
        self.assertEqual([], self.nova.asked)
        self.assertEqual(['DrainStarted'], self.told())
        self.slots.release.assert_not_called()
        self.steps(60)
        self.assertEqual(set(), self.nova.on('a'))
        self.slots.release.assert_called_with()

    def test_without_an_account(self):
        self.new(nova=False)
        self.nova.add(guests.Guest('g'))
        self.state = limits(True)
        self.steps(100)
        self.assertEqual(['DrainHindered'], self.told())
        # Even so nothing comes.
        self.assertEqual({reasons.DRAINING}, self.drainer.reasons())

    def test_woken(self):
        self.drainer._conditions = mock.Mock()
        self.drainer.start(self.count)
        self.addCleanup(self.drainer.stop)
        self.assertEqual([self.drainer.wake], self.source.listeners)


class FileTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.log = self.useFixture(fixtures.FakeLogger('nova_k8s'))

    def test_round_trip(self):
        path = self.folder()
        found = drainer.File(path, 'a', 'kube-1')
        self.assertEqual(drainer.trigger.Seen(), found.load())
        seen = drainer.trigger.Seen('the pod is being deleted', True, True)
        found.save(seen)
        self.assertEqual(seen, drainer.File(path, 'a', 'kube-1').load())
        self.assertEqual(drainer.trigger.Seen(),
                         drainer.File(path, 'b', 'kube-1').load())

    def test_a_full_disk(self):
        drainer.File('/nowhere', 'a', 'k').save(drainer.trigger.Seen())
        self.assertIn('After a restart it will not be known',
                      self.log.output)


class FromConfTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.log = self.useFixture(fixtures.FakeLogger('nova_k8s'))

    def from_conf(self, source=True, **options):
        fixture = self.useFixture(config_fixture.Config(CONF))
        conf.register_opts(CONF)
        fixture.config(group='kubernetes', **options)
        return drainer.from_conf(
            CONF, 'a', limits, NodeSource() if source else None, None)

    def test_off(self):
        self.assertIsNone(self.from_conf(drain_on='never'))
        self.assertIsNone(self.from_conf(source=False))

    def test_no_account(self):
        self.assertIsNone(self.from_conf()._nova)
        self.assertIn('neither [kubernetes_drain] auth_type nor '
                      '[service_user] auth_type', self.log.output)

    def test_policy(self):
        self.assertEqual(plan.Policy(shut_off=plan.IGNORE),
                         self.from_conf()._policy)
        fixture = self.useFixture(config_fixture.Config(CONF))
        fixture.config(max_concurrent_live_migrations=3)
        fixture.config(shut_off='cold', attempts=5, migration_timeout=60,
                       group='kubernetes_drain')
        self.assertEqual(plan.Policy(3, 5, plan.COLD, 60),
                         self.from_conf()._policy)
        fixture.config(parallel=2, group='kubernetes_drain')
        self.assertEqual(2, self.from_conf()._policy.parallel)

    def test_account(self):
        fixture = self.useFixture(config_fixture.Config(CONF))
        for group in ('service_user', 'kubernetes_drain'):
            conf.register_opts(CONF)
            fixture.config(auth_type='none', group=group)
            self.assertIsNotNone(self.from_conf()._nova)


class Sequences(stateful.RuleBasedStateMachine):
    """Whatever happens in whichever order, guests are safe and it ends."""

    GUESTS = 4

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = simulated_nova.Clock()
        self.nova = simulated_nova.Nova(self.clock)
        self.nova.check = self.nova.look
        for each in range(self.GUESTS):
            self.nova.add(guests.Guest(f'g{each}', memory_mb=each))
        self.source = NodeSource()
        # As the API server has it, and as it was last seen.
        self.cordoned, self.pod = False, 'runs'
        self.api_server = True
        # What an administrator said last: None, 'disabled', 'enabled'.
        self.admin = None
        self.count = self.GUESTS
        self.start()

    def start(self):
        self.drainer = drainer.Drainer(
            self.nova, 'a', plan.Policy(shut_off=plan.IGNORE), 'eviction',
            lambda: self.limits, self.source,
            drainer.File(self.folder.name, 'a', 'kube-1'),
            lambda line, node: None, mock.Mock(), None, self.clock)
        self.due = 0
        self.look()

    def look(self):
        """See what the API server has, while it answers."""
        if self.api_server:
            self.source.node = CORDONED if self.cordoned else UP
            self.limits = (watcher.State(None, 'not found')
                           if self.pod == 'gone'
                           else limits(self.pod == 'ends'))
        else:
            self.source.node = None
            self.limits = limits(problem='no answer')
        self.due = 0
        self.follow()

    def follow(self):
        """As the service's switch does it."""
        enabled = not (self.cordoned or self.drainer.reasons())
        if self.admin:
            enabled = self.admin == 'enabled'
        self.nova.set_host('a', enabled=enabled)

    def go_on(self, seconds):
        end = self.clock() + seconds
        while self.clock() < end:
            if self.clock() >= self.due:
                wait = self.drainer.step()
                self.due = self.clock() + (wait or 10 ** 6)
            if self.pod == 'ends' and not self.running():
                # The kubelet ends it.
                self.pod = 'gone'
                self.look()
            self.nova.go_on()
            self.clock.wait(1)

    def running(self):
        return {each for each in self.nova.on('a')
                if self.nova.guests[each].powered}

    @stateful.rule()
    def cordon(self):
        self.cordoned = True
        self.look()

    @stateful.rule()
    def uncordon(self):
        self.cordoned = False
        if self.pod == 'gone':
            # The driver makes another one.
            self.pod = 'runs'
        self.look()

    @stateful.rule(cordoned=strategies.booleans())
    def evict(self, cordoned):
        # kubectl drain, or somebody who only deletes the pod.
        self.cordoned |= cordoned
        if self.pod == 'runs':
            self.pod = 'ends'
        self.look()

    @stateful.rule(what=strategies.sampled_from(
        (None, 'disabled', 'enabled')))
    def administrator(self, what):
        self.admin = what
        self.follow()

    @stateful.rule()
    def restart(self):
        self.nova.restart('a')
        self.start()

    @stateful.rule(there=strategies.booleans())
    def api_server_outage(self, there):
        self.api_server = there
        self.look()

    @stateful.rule(there=strategies.booleans())
    def nova_outage(self, there):
        self.nova.down = not there

    @stateful.rule(host=strategies.sampled_from('bc'),
                   up=strategies.booleans())
    def other_host(self, host, up):
        self.nova.set_host(host, up=up)

    @stateful.rule()
    def somebody_boots(self):
        """The scheduler takes a; the driver has the last word."""
        if not self.nova.hosts['a'].enabled or self.drainer.refusal():
            return
        if self.api_server:
            assert self.pod != 'ends'
        guest = guests.Guest(f'g{self.count}')
        self.nova.add(guest)
        self.count += 1

    @stateful.rule(seconds=strategies.sampled_from((1, 5, 20)))
    def time_passes(self, seconds):
        self.go_on(seconds)

    @stateful.invariant()
    def no_guest_is_stopped_or_lost(self):
        assert len(self.nova.guests) == len(self.nova.where) == self.count
        for each in self.nova.guests.values():
            assert each.status == 'ACTIVE' and each.powered
        assert all(what == 'live' for _, what, _ in self.nova.asked)

    @stateful.invariant()
    def one_at_a_time(self):
        assert sum(each.status in guests.UNDER_WAY for each
                   in self.nova.records.values()) <= 1

    @stateful.invariant()
    def the_pod_is_gone_only_when_no_guest_is_left(self):
        assert self.pod != 'gone' or not self.running()

    def teardown(self):
        """Once all is well again, a drain ends."""
        self.nova.down, self.api_server, self.admin = False, True, None
        for host in 'bc':
            self.nova.set_host(host, up=True)
        self.nova.broken.clear()
        self.uncordon()
        self.evict(True)
        for _ in range(200):
            if self.pod == 'gone':
                break
            self.go_on(10 * self.count)
        assert self.pod == 'gone' and not self.nova.on('a')
        self.folder.cleanup()


class SequencesTest(base.TestCase):

    def test_sequences(self):
        stateful.run_state_machine_as_test(Sequences, settings=SETTINGS)
