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


"""Whether the compute service is disabled, in every order of events."""

import dataclasses
import itertools
import pathlib
from unittest import mock

import fixtures
import hypothesis
from hypothesis import stateful
from hypothesis import strategies as st
from nova import exception

from nova_k8s import errors
from nova_k8s.kube import node
from nova_k8s.limits import messages
from nova_k8s.service import reasons
from nova_k8s.service import switch
from nova_k8s.util import worker
from tests.unit import base

NODE = 'kube-1'
GRACE = 60

CORDON, UNCORDON = 'cordon', 'uncordon'
DISABLE, ENABLE = 'admin disable', 'admin enable'
LOSS, RETURN = 'libvirt loss', 'libvirt return'
RESTART, OUTAGE = 'restart', 'API outage'
EVENTS = (CORDON, UNCORDON, DISABLE, ENABLE, LOSS, RETURN, RESTART, OUTAGE)

MAINTENANCE = reasons.Record(True, 'maintenance')
ENABLED = reasons.Record(False)
BY_CORDON = reasons.Record(True, 'AUTO: cordoned (Kubernetes node kube-1)')
BY_LIBVIRT = reasons.Record(True, 'AUTO: libvirt not connected')
BY_BOTH = reasons.Record(
    True, 'AUTO: cordoned, libvirt not connected (Kubernetes node kube-1)')


class Crash(BaseException):
    """nova-compute is killed."""


class World:
    """Nova's record, a node, libvirt, a disk, and nova-compute."""

    def __init__(self):
        self.record = reasons.Record(False)
        self.trait = False
        self.disk = None
        self.up = True
        self.node = node.Node(NODE, 'uid-1')
        self.connected = True
        self.budget = 'a budget'
        self.now = 1000.0
        self.told = []
        self.crash_at = None
        self.failures = 0
        self.uuid = 'service-1'
        self.before_write = None
        self.start()

    # What the Switch uses

    host = 'host-1'
    name = NODE

    def read(self):
        self._count('read')
        self.seen = self.record
        return self.record

    def write(self, record):
        self._count('before')
        if self.before_write:
            self.before_write()
        # As Nova does: what is to change, over whatever is there by now.
        for field in ('disabled', 'reason'):
            wanted = getattr(record, field)
            if wanted != getattr(self.seen, field):
                self.record = dataclasses.replace(
                    self.record, **{field: wanted})
        self.seen = self.record
        self._count('after')
        return self.record

    def report(self):
        self._count('report')
        self.trait = self.record.disabled

    def load(self, uuid):
        return self.disk and self.disk.get(uuid)

    def save(self, known, uuid):
        self._count('before')
        self.disk = {uuid: known}
        self._count('after')

    def latest(self):
        if not self.up:
            raise errors.Unreadable('API server: away')
        return self.node

    def watch(self, changed, stop):
        raise AssertionError('no threads here')

    def _count(self, what):
        if self.crash_at is not None:
            self.crash_at -= 1
            if self.crash_at < 0:
                self.crash_at = None
                raise Crash()
        if self.failures:
            self.failures -= 1
            raise exception.NovaException('no conductor')

    # What happens

    def start(self):
        # Nova's resource tracker does that when it starts.
        self.trait = self.record.disabled
        self.switch = switch.Switch(
            self, self, lambda: self.budget, self, GRACE,
            lambda line, node: self.told.append(line), lambda: self.now)
        if self.connected:
            self.switch.libvirt(True)

    def step(self):
        """Let nova-compute do what it wants to; return when it is done."""
        for _ in range(50):
            try:
                before = self.failures
                wait = self.switch.step()
            except Crash:
                self.start()
                self.switch.libvirt(self.connected)
                continue
            if self.failures == before:
                return wait
        raise AssertionError('it does not come to an end')

    def happen(self, event):
        getattr(self, '_' + event.replace(' ', '_').lower())()
        self.step()

    def _cordon(self):
        self.node = node.Node(NODE, 'uid-1', cordoned=True)

    def _uncordon(self):
        self.node = node.Node(NODE, 'uid-1')

    def _admin_disable(self):
        self.record, self.trait = MAINTENANCE, True
        self.switch.heard(False)

    def _admin_enable(self):
        self.record, self.trait = ENABLED, False
        self.switch.heard(True)

    def _libvirt_loss(self):
        self.connected = False
        self.switch.libvirt(False)

    def _libvirt_return(self):
        self.connected = True
        self.switch.libvirt(True)

    def _restart(self):
        self.start()

    def _api_outage(self):
        self.up = False

    def recover(self):
        self.up = True
        self.step()


# What the file calls the records.
STATES = {'enabled': ENABLED, 'maintenance': MAINTENANCE,
          'cordoned': BY_CORDON, 'libvirt': BY_LIBVIRT,
          'cordoned, libvirt': BY_BOTH}


def read_rows():
    """[(order, (state at its end, state after recovery))] of the file."""
    rows = []
    path = pathlib.Path(__file__).parent / 'orders.txt'
    for line in path.read_text(encoding='utf-8').splitlines():
        if line and not line.startswith('#'):
            order, *states = line.split(' -> ')
            rows.append((tuple(order.split(', ')),
                         (STATES[states[0]], STATES[states[-1]])))
    return rows


# The right final state of every order.
ROWS = dict(read_rows())

# The same by a rule, for the file itself. What counts is an administrator's
# last word, and of each reason whether it is there, and came before that word
# or after it.
NO, BEFORE, AFTER = 'not there', 'before', 'after'
FINAL = {
    # An administrator's last word, cordoned, libvirt lost
    (None, NO, NO): ENABLED,
    (None, NO, AFTER): BY_LIBVIRT,
    (None, AFTER, NO): BY_CORDON,
    (None, AFTER, AFTER): BY_BOTH,
    (DISABLE, NO, NO): MAINTENANCE,
    (DISABLE, NO, BEFORE): MAINTENANCE,
    (DISABLE, NO, AFTER): MAINTENANCE,
    (DISABLE, BEFORE, NO): MAINTENANCE,
    (DISABLE, BEFORE, BEFORE): MAINTENANCE,
    (DISABLE, BEFORE, AFTER): MAINTENANCE,
    (DISABLE, AFTER, NO): MAINTENANCE,
    (DISABLE, AFTER, BEFORE): MAINTENANCE,
    (DISABLE, AFTER, AFTER): MAINTENANCE,
    (ENABLE, NO, NO): ENABLED,
    (ENABLE, NO, BEFORE): ENABLED,
    (ENABLE, NO, AFTER): BY_LIBVIRT,
    (ENABLE, BEFORE, NO): ENABLED,
    (ENABLE, BEFORE, BEFORE): ENABLED,
    (ENABLE, BEFORE, AFTER): BY_LIBVIRT,
    (ENABLE, AFTER, NO): BY_CORDON,
    (ENABLE, AFTER, BEFORE): BY_CORDON,
    (ENABLE, AFTER, AFTER): BY_BOTH,
}


def last_word(order):
    """(an administrator's last word, when), or (None, -1)."""
    said = [(event, when) for when, event in enumerate(order)
            if event in (DISABLE, ENABLE)]
    return said[-1] if said else (None, -1)


def came(order, on, off):
    """When something came that is still there, or None."""
    when = None
    for index, event in enumerate(order):
        if event == off:
            when = None
        elif event == on and when is None:
            when = index
    return when


def expected(order, recovered):
    """The right final state, by the rule."""
    word, said = last_word(order)
    seen = order
    if OUTAGE in order:
        # What happens to the node meanwhile is not seen.
        away = order.index(OUTAGE)
        seen = order[:away]
    cordoned = came(seen, CORDON, UNCORDON)
    if recovered and (cordoned is None) != (
            came(order, CORDON, UNCORDON) is None):
        cordoned = len(order) if cordoned is None else None

    def relation(when):
        return NO if when is None else BEFORE if when < said else AFTER

    return FINAL[word, relation(cordoned),
                 relation(came(order, LOSS, RETURN))]


ORDERS = [order for length in (1, 2, 3)
          for order in itertools.product(EVENTS, repeat=length)]


class OrderTest(base.TestCase):
    """All orders of up to three events."""

    def setUp(self):
        super().setUp()
        self.useFixture(fixtures.FakeLogger('nova_k8s'))

    def _check(self, order, world):
        wrong = []
        for recovered in (False, True):
            if recovered:
                world.recover()
            right = ROWS[order][recovered]
            if (world.record, world.trait) != (right, right.disabled):
                wrong.append((order, recovered, world.record, right))
        return wrong

    def test_file_holds_all_orders_and_agrees_with_the_rule(self):
        self.assertEqual(584, len(ORDERS))
        self.assertEqual(
            [(order, (expected(order, False), expected(order, True)))
             for order in ORDERS], read_rows())
        self.assertEqual(set(STATES.values()),
                         {final for _, final in ROWS.values()})

    def test_all(self):
        wrong = []
        for order in ORDERS:
            world = World()
            world.step()
            for event in order:
                world.happen(event)
            wrong += self._check(order, world)
        self.assertEqual([], wrong)

    def test_all_with_a_crash_at_any_step(self):
        wrong, crashes = [], 0
        for order in ORDERS:
            for crash_at in itertools.count():
                world = World()
                world.step()
                world.crash_at = crash_at
                for event in order:
                    world.happen(event)
                if world.crash_at is not None:
                    # It has fewer steps than that.
                    break
                crashes += 1
                wrong += self._check(order, world)
        self.assertGreater(crashes, 3000)
        self.assertEqual([], wrong)

    def test_all_with_failures_of_nova(self):
        wrong = []
        for order in ORDERS:
            for failures in (1, 3):
                world = World()
                world.step()
                for event in order:
                    world.failures = failures
                    world.happen(event)
                    world.failures = 0
                wrong += self._check(order, world)
        self.assertEqual([], wrong)

    def test_each_change_is_told_once(self):
        for order in ORDERS:
            world = World()
            world.step()
            for event in order:
                before = world.record
                world.told.clear()
                world.happen(event)
                told = [line.reason for line in world.told]
                if event in (DISABLE, ENABLE):
                    self.assertEqual([], told)
                elif world.record == before:
                    self.assertIn(told, ([], ['ComputeServiceLeft']))
                elif world.record.disabled:
                    self.assertEqual(['ComputeServiceDisabled'], told)
                else:
                    self.assertEqual(['ComputeServiceEnabled'], told)
                world.step()
                self.assertLessEqual(len(world.told), 1)


class DownTest(base.TestCase):
    """An administrator acts between a crash and the next start."""

    def _crashed(self, *before, last=CORDON):
        """The worlds after a crash at each step of following an event."""
        for crash_at in itertools.count():
            world = World()
            world.step()
            for event in before:
                world.happen(event)
            getattr(world, f'_{last}')()
            world.crash_at = crash_at
            try:
                world.switch.step()
            except Crash:
                yield world
            else:
                return

    def test_disables(self):
        for world in self._crashed():
            world._admin_disable()
            world.happen(RESTART)
            self.assertEqual(MAINTENANCE, world.record)
            world.happen(UNCORDON)
            self.assertEqual(MAINTENANCE, world.record)

    def test_enables(self):
        outcomes = set()
        for world in self._crashed():
            disabled = world.record.disabled
            world._admin_enable()
            world.happen(RESTART)
            outcomes.add((disabled, world.record.disabled))
            if disabled:
                self.assertEqual(ENABLED, world.record)
            world.happen(UNCORDON)
            self.assertEqual(ENABLED, world.record)
            world.happen(CORDON)
            self.assertEqual(BY_CORDON, world.record)
        self.assertIn((True, False), outcomes)
        self.assertIn((False, True), outcomes)

    def test_cordoned_again(self):
        for world in self._crashed(CORDON, last=UNCORDON):
            world._cordon()
            world.happen(RESTART)
            self.assertEqual(BY_CORDON, world.record)

    def test_override_is_not_forgotten(self):
        # Enabled in spite of the lost connection, then the node is cordoned.
        for world in self._crashed(LOSS, ENABLE):
            world.happen(RESTART)
            self.assertEqual(BY_CORDON, world.record)
            world.happen(UNCORDON)
            self.assertEqual(ENABLED, world.record)

    def test_api_server_is_away_at_the_next_start(self):
        for world in self._crashed():
            written = world.record
            world.up = False
            world.happen(RESTART)
            if written.ours:
                self.assertEqual(BY_CORDON, world.record)
            world.recover()
            self.assertEqual(BY_CORDON, world.record)


class BetweenTest(base.TestCase):
    """An administrator's word between our read and our write."""

    def setUp(self):
        super().setUp()
        self.log = self.useFixture(fixtures.FakeLogger('nova_k8s'))

    def _worlds(self, word, late):
        """The worlds in which a word comes before each of the writes.

        :param late: whether it is heard only when all was written
        """
        for order in ((CORDON,), (LOSS,), (CORDON, UNCORDON), (LOSS, RETURN),
                      (CORDON, LOSS), (CORDON, LOSS, RETURN),
                      (LOSS, CORDON, UNCORDON)):
            for index in itertools.count():
                world = World()
                world.step()
                for event in order[:-1]:
                    world.happen(event)
                writes = itertools.count()
                before = world.record
                seen = []

                def speak():
                    if next(writes) == index:
                        seen.append(world.record)
                        getattr(world, '_' + word.replace(' ', '_'))()
                        if late:
                            world.switch._words.clear()

                world.before_write = speak
                world.happen(order[-1])
                world.before_write = None
                if not seen:
                    break
                if late:
                    world.switch.heard(word == ENABLE)
                    world.step()
                yield order, index, before, world

    def _test_disables(self, late):
        number = 0
        for order, index, _, world in self._worlds(DISABLE, late):
            number += 1
            for event in (None, UNCORDON, RETURN, CORDON, UNCORDON, RESTART):
                if event:
                    world.happen(event)
                self.assertTrue(
                    world.record.disabled and not world.record.ours,
                    (order, index, event, world.record))
                self.assertTrue(world.trait)
        self.assertGreater(number, 6)

    def test_disables(self):
        self._test_disables(late=False)
        self.assertIn('An administrator disabled the compute service of '
                      'host-1 while it was being written', self.log.output)

    def test_disables_and_is_heard_late(self):
        self._test_disables(late=True)

    def _test_enables(self, late):
        number = 0
        for order, index, before, world in self._worlds(ENABLE, late):
            if not before.disabled and index == 0:
                # It was enabled already: no word in spite of anything.
                continue
            number += 1
            for event in (None, RESTART):
                if event:
                    world.happen(event)
                self.assertEqual(ENABLED, world.record,
                                 (order, index, event))
                self.assertFalse(world.trait)
        self.assertGreater(number, 6)

    def test_enables(self):
        self._test_enables(late=False)

    def test_enables_and_is_heard_late(self):
        self._test_enables(late=True)

    def test_the_reason_is_kept_where_it_can_be(self):
        kept = [world.record for *_, world in self._worlds(DISABLE, False)]
        self.assertIn(MAINTENANCE, kept)
        self.assertIn(reasons.Record(True, reasons.OVERWRITTEN), kept)

    def test_a_failure_meanwhile_does_not_lose_the_word(self):
        world = World()
        world.happen(CORDON)

        def fail():
            world.before_write = None
            world._admin_disable()
            world.failures = 3

        world.before_write = fail
        world.happen(LOSS)
        self.assertEqual(reasons.Record(True, reasons.OVERWRITTEN),
                         world.record)

    def test_enabled_before_it_was_cordoned_and_is_heard_late(self):
        # As where Placement, which Nova tells first, is slow.
        world = World()
        world.step()
        world.happen(CORDON)
        world.switch.heard(True)
        world.step()
        self.assertEqual((BY_CORDON, True), (world.record, world.trait))
        world.happen(UNCORDON)
        self.assertEqual(ENABLED, world.record)

    def test_words_of_no_consequence(self):
        # Nova's deprecated API of hosts says so and writes nothing.
        world = World()
        world.step()
        for enabled in (False, True, False):
            world.switch.heard(enabled)
            world.step()
        self.assertEqual(ENABLED, world.record)


class AnewTest(base.TestCase):
    """The record of the service is deleted and made anew."""

    def _anew(self, world):
        world.uuid = 'service-2'
        world.record, world.trait = ENABLED, False

    def test_on_a_cordoned_node(self):
        world = World()
        world.step()
        world.happen(CORDON)
        self._anew(world)
        world.happen(RESTART)
        self.assertEqual((BY_CORDON, True), (world.record, world.trait))
        world.happen(UNCORDON)
        self.assertEqual(ENABLED, world.record)

    def test_while_nova_compute_runs(self):
        world = World()
        world.step()
        world.happen(CORDON)
        self._anew(world)
        world.happen(LOSS)
        self.assertEqual(BY_BOTH, world.record)

    def test_what_was_overridden_is_no_more(self):
        world = World()
        world.step()
        for event in (CORDON, ENABLE):
            world.happen(event)
        self.assertEqual(ENABLED, world.record)
        self._anew(world)
        world.happen(RESTART)
        self.assertEqual(BY_CORDON, world.record)


class StartTest(base.TestCase):
    """What is found at the first start of this driver."""

    def _start(self, record, disk=None, up=True, cordoned=False,
               connected=True):
        world = World()
        world.record, world.disk, world.up = record, disk, up
        if cordoned:
            world._cordon()
        world.connected = connected
        world.happen(RESTART)
        return world

    def test_disabled_by_novas_own_driver(self):
        lost = reasons.Record(True, 'AUTO: Connection to libvirt lost')
        self.assertEqual(ENABLED, self._start(lost).record)
        self.assertEqual(BY_LIBVIRT,
                         self._start(lost, connected=False).record)
        self.assertEqual(BY_CORDON, self._start(lost, cordoned=True).record)

    def test_disabled_by_config_option(self):
        new = reasons.Record(
            True, 'New compute service disabled due to config option.')
        self.assertEqual(new, self._start(new).record)
        self.assertEqual(new, self._start(new, cordoned=True).record)

    def test_disabled_without_a_reason(self):
        world = self._start(reasons.Record(True, None), cordoned=True)
        self.assertEqual(reasons.Record(True, None), world.record)

    def test_cordoned(self):
        self.assertEqual(BY_CORDON,
                         self._start(ENABLED, cordoned=True).record)

    def test_file_lost(self):
        self.assertEqual(BY_CORDON,
                         self._start(BY_CORDON, cordoned=True).record)
        self.assertEqual(BY_CORDON, self._start(BY_CORDON, up=False).record)
        world = self._start(BY_CORDON)
        self.assertEqual(ENABLED, world.record)

    def test_override_after_the_file_was_lost(self):
        world = self._start(BY_CORDON, cordoned=True)
        world.happen(ENABLE)
        world.happen(RESTART)
        self.assertEqual(ENABLED, world.record)

    def test_record_comes_later(self):
        log = self.useFixture(fixtures.FakeLogger('nova_k8s'))
        world = World()
        with mock.patch.object(
                world, 'read',
                side_effect=exception.ComputeHostNotFound(host='host-1')):
            self.assertEqual(1, world.switch.step())
            delay = world.switch.step()
            self.assertEqual(2, delay)
            # A node that changes would have it ask at once.
            self.assertIsInstance(delay, worker.Pause)
        self.assertNotIn('brought up to date', log.output)
        world.happen(CORDON)
        self.assertEqual(BY_CORDON, world.record)


class NodeTest(base.TestCase):
    """Readiness, and other reasons than the table's."""

    def setUp(self):
        super().setUp()
        self.log = self.useFixture(fixtures.FakeLogger('nova_k8s'))
        self.world = World()
        self.world.step()

    def _node(self, **fields):
        self.world.node = node.Node(NODE, 'uid-1', **fields)
        return self.world.step()

    def _shown(self):
        return self.world.record.reason

    def test_kubelet_restarts(self):
        self.assertEqual(GRACE, self._node(ready=False))
        self.world.now += GRACE - 1
        self.assertEqual(1, self.world.step())
        self.assertEqual(ENABLED, self.world.record)
        self.assertIsNone(self._node(ready=True))
        self.world.now += GRACE
        self.assertEqual(GRACE, self._node(ready=False))
        self.assertEqual([], self.world.told)

    def test_not_ready(self):
        self._node(ready=False)
        self.world.now += GRACE
        self.assertIsNone(self.world.step())
        self.assertEqual('AUTO: node not ready (Kubernetes node kube-1)',
                         self._shown())
        # A restart does not begin to wait again.
        self.world.happen(RESTART)
        self.assertTrue(self.world.record.disabled)
        self._node(ready=True)
        self.assertEqual(ENABLED, self.world.record)

    def test_shuts_down(self):
        self.assertIsNone(self._node(ready=False, shutting_down=True))
        self.assertEqual('AUTO: node shutting down (Kubernetes node kube-1)',
                         self._shown())
        self._node(ready=False)
        self.assertEqual('AUTO: node not ready (Kubernetes node kube-1)',
                         self._shown())
        self._node(ready=True)
        self.assertEqual(ENABLED, self.world.record)
        self.assertEqual(['ComputeServiceDisabled'] * 2 +
                         ['ComputeServiceEnabled'],
                         [line.reason for line in self.world.told])

    def test_another_change_of_the_node_ends_an_override(self):
        self.world.happen(CORDON)
        self.world.happen(ENABLE)
        self._node(cordoned=True, ready=False)
        self.assertEqual(ENABLED, self.world.record)
        self.world.now += GRACE
        self.world.step()
        self.assertEqual(
            'AUTO: cordoned, node not ready (Kubernetes node kube-1)',
            self._shown())

    def test_libvirt_does_not_end_an_override_of_the_node(self):
        for event in (CORDON, ENABLE, LOSS):
            self.world.happen(event)
        self.assertEqual(BY_LIBVIRT, self.world.record)
        self.world.happen(RESTART)
        self.world.happen(RETURN)
        self.assertEqual(ENABLED, self.world.record)
        self.assertIn('in spite of: cordoned', self.world.told[-1].text)

    def test_no_budget(self):
        self.world.budget = None
        self.world.step()
        self.assertEqual('AUTO: no budget', self._shown())
        self.world.happen(CORDON)
        self.assertEqual(
            'AUTO: cordoned, no budget (Kubernetes node kube-1)',
            self._shown())
        self.world.budget = 'another'
        self.world.step()
        self.assertEqual(BY_CORDON, self.world.record)

    def test_all_reasons_are_shown(self):
        self.world.budget = None
        self.world.happen(LOSS)
        self._node(cordoned=True, ready=False, shutting_down=True)
        self.assertEqual(
            'AUTO: node shutting down, cordoned, libvirt not connected, no '
            'budget (Kubernetes node kube-1)', self._shown())

    def test_administrator_is_told_of(self):
        self.world.happen(DISABLE)
        self.world.happen(CORDON)
        self.world.happen(UNCORDON)
        self.assertEqual(['ComputeServiceLeft'] * 2,
                         [line.reason for line in self.world.told])
        self.assertIn('maintenance', self.world.told[0].text)
        self.world.happen(LOSS)
        self.assertEqual(2, len(self.world.told))

    def test_problem_is_said_once(self):
        self.world.happen(OUTAGE)
        for _ in range(3):
            self.world.step()
        self.assertEqual(1, self.log.output.count('API server: away'))
        self.world.recover()
        self.assertEqual(2, self.log.output.count('are followed'))

    def test_nothing_is_asked_of_nova_while_nothing_changes(self):
        with mock.patch.object(self.world, 'read') as read:
            self.world.step()
        read.assert_not_called()

    def test_failure_is_said_once_and_tried_again(self):
        self.world._cordon()
        self.world.failures = 100
        self.assertEqual(
            [1, 2, 4, 8, 16, 30, 30],
            [self.world.switch.step() for _ in range(7)])
        self.assertEqual(1, self.log.output.count('no conductor'))
        self.world.failures = 0
        self.assertIsNone(self.world.switch.step())
        self.assertEqual(BY_CORDON, self.world.record)

    def test_neither_nova_nor_the_api_server_answer(self):
        self.world._cordon()
        self.world.failures = 100
        self.world.switch.step()
        self.world.up = False
        self.world.switch.step()
        self.world.failures = 0
        self.world.step()
        self.assertEqual(BY_CORDON, self.world.record)

    def test_grace_is_not_over_while_nothing_is_known(self):
        self.assertEqual(GRACE, self._node(ready=False))
        self.world.happen(OUTAGE)
        self.world.now += 10 * GRACE
        self.assertIsNone(self.world.step())
        # Nor just after it: all the nodes of a cloud would be disabled.
        self.world.up = True
        self.assertEqual(GRACE, self.world.step())
        self.assertEqual(ENABLED, self.world.record)
        self.world.now += GRACE
        self.world.step()
        self.assertTrue(self.world.record.disabled)

    def test_placement_fails(self):
        with mock.patch.object(self.world, 'report',
                               side_effect=RuntimeError('no placement')):
            self.world._cordon()
            self.assertEqual(1, self.world.switch.step())
            self.assertEqual(2, self.world.switch.step())
        self.assertEqual((BY_CORDON, False),
                         (self.world.record, self.world.trait))
        self.assertIsNone(self.world.switch.step())
        self.assertTrue(self.world.trait)
        self.assertEqual(1, len(self.world.told))

    def test_answer_of_a_write_is_lost(self):
        write = self.world.write

        def lost(record):
            write(record)
            raise RuntimeError('timed out')

        self.world._cordon()
        for _ in range(2):
            with mock.patch.object(self.world, 'write', lost):
                self.world.switch.step()
        self.world.switch.step()
        self.assertEqual((BY_CORDON, True),
                         (self.world.record, self.world.trait))
        self.assertEqual(['ComputeServiceDisabled'],
                         [line.reason for line in self.world.told])

    def test_administrator_comes_between_the_steps(self):
        write = self.world.write

        def then_disabled(record):
            found = write(record)
            self.world._admin_disable()
            return found

        self.world._cordon()
        with mock.patch.object(self.world, 'write', then_disabled):
            self.world.switch.step()
        self.assertEqual(MAINTENANCE, self.world.record)
        self.world.happen(UNCORDON)
        self.assertEqual(MAINTENANCE, self.world.record)


class ToldTest(base.TestCase):

    def test_lines_are_for_events(self):
        world = World()
        for event in (CORDON, UNCORDON, DISABLE, CORDON):
            world.happen(event)
        for line in world.told:
            self.assertEqual(messages.NORMAL, line.type)
            self.assertTrue(base.one_line(line.text))
            self.assertIn('host-1', line.text)


class Machine(stateful.RuleBasedStateMachine):
    """Longer orders, against a history of what was seen when."""

    def __init__(self):
        super().__init__()
        self.log = mock.patch.object(switch, 'LOG')
        self.log.start()
        self.world = World()
        self.world.step()
        self.time = 0
        self.word, self.said = None, 0
        self.seen, self.node_changed = frozenset(), 0
        self.came = {}

    def teardown(self):
        self.log.stop()

    def _see(self):
        """What nova-compute can see of the node now."""
        if not self.world.up:
            return
        node_ = self.world.node
        seen = set()
        if node_.cordoned:
            seen.add(node.CORDONED)
        if node_.shutting_down:
            seen.add(node.SHUTTING_DOWN)
        elif not node_.ready:
            seen.add(node.NOT_READY)
        if seen != self.seen:
            self.seen, self.node_changed = frozenset(seen), self.time

    def _happen(self, event):
        self.time += 1
        self._see()
        self.world.happen(event)

    @stateful.rule(event=st.sampled_from((CORDON, UNCORDON)))
    def node_spec(self, event):
        self.time += 1
        self.world.node = node.Node(
            NODE, 'uid-1', event == CORDON, self.world.node.ready,
            self.world.node.shutting_down)
        self._see()
        self.world.step()

    @stateful.rule(ready=st.booleans(), shutting_down=st.booleans())
    def node_status(self, ready, shutting_down):
        self.time += 1
        self.world.node = node.Node(
            NODE, 'uid-1', self.world.node.cordoned, ready,
            shutting_down and not ready)
        self._see()
        self._wait()

    def _wait(self):
        # That nothing happens before the grace is over has its own test.
        # Twice, because it begins anew after a crash.
        for _ in range(3):
            self.world.step()
            self.world.now += GRACE

    @stateful.rule(event=st.sampled_from((DISABLE, ENABLE)))
    def admin(self, event):
        self._happen(event)
        self.word, self.said = event, self.time

    @stateful.rule(event=st.sampled_from((LOSS, RETURN)))
    def libvirt(self, event):
        self._happen(event)
        self._other(reasons.LIBVIRT, event == LOSS)

    @stateful.rule(there=st.booleans())
    def budget(self, there):
        self.time += 1
        self.world.budget = 'a budget' if there else None
        self.world.step()
        self._other(reasons.NO_BUDGET, not there)

    def _other(self, reason, there):
        if there:
            self.came.setdefault(reason, self.time)
        else:
            self.came.pop(reason, None)

    @stateful.rule()
    def restart(self):
        self.time += 1
        self._see()
        self.world.happen(RESTART)
        self._wait()

    @stateful.rule(up=st.booleans())
    def api_server(self, up):
        self.time += 1
        self.world.up = up
        self._see()
        self._wait()

    @stateful.rule(at=st.integers(0, 12))
    def crash_soon(self, at):
        self.world.crash_at = at

    @stateful.rule(number=st.integers(1, 4))
    def nova_fails_soon(self, number):
        self.world.failures = number

    @stateful.invariant()
    def right(self):
        expected = {reason for reason, when in self.came.items()
                    if when > self.said or self.word != ENABLE}
        if self.node_changed > self.said or self.word != ENABLE:
            expected |= self.seen
        if self.word == DISABLE:
            right = MAINTENANCE
        elif expected:
            right = reasons.Record(
                True, reasons.describe(frozenset(expected), NODE))
        else:
            right = ENABLED
        world = self.world
        assert (world.record, world.trait) == (right, right.disabled), (
            world.record, world.trait, right)


class MachineTest(Machine.TestCase):
    settings = hypothesis.settings(
        hypothesis.settings.get_profile('unit'), max_examples=300,
        stateful_step_count=25)
