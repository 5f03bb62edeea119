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

import dataclasses

from nova_k8s.drain import evacuation
from nova_k8s.drain import guests
from nova_k8s.drain import nova_api
from nova_k8s.drain import plan
from tests.unit import base

G = guests.Guest
POLICY = plan.Policy()

# Status, task, what is said of it, shut_off: what happens, and a part of why.
# The order is that of the page on operations.
TABLE = [
    ('ACTIVE', None, None, 'stays', 'live', ''),
    ('ACTIVE', None, 'live', 'stays', 'live', ''),
    ('ACTIVE', None, 'cold', 'stays', 'cold', ''),
    ('ACTIVE', None, 'stop', 'stays', 'stop', ''),
    ('ACTIVE', None, 'skip', 'stays', 'stays', 'says skip'),
    ('ACTIVE', None, 'lvie', 'stays', 'stays', 'says lvie, which is none of'),
    ('ACTIVE', None, None, 'cold', 'live', ''),
    ('PAUSED', None, None, 'stays', 'live', ''),
    ('PAUSED', None, 'live', 'stays', 'live', ''),
    ('PAUSED', None, 'cold', 'stays', 'stays', 'Nova does not do to a guest'),
    ('PAUSED', None, 'stop', 'stays', 'stays', 'Nova does not do to a guest'),
    ('PAUSED', None, 'skip', 'stays', 'stays', 'says skip'),
    ('SHUTOFF', None, None, 'stays', 'stays', 'is shut off'),
    ('SHUTOFF', None, None, 'ignore', 'stays', 'is shut off'),
    ('SHUTOFF', None, None, 'cold', 'cold', ''),
    ('SHUTOFF', None, 'live', 'cold', 'stays', 'is shut off'),
    ('SHUTOFF', None, 'stop', 'stays', 'stays', 'is shut off'),
    ('SHUTOFF', None, 'cold', 'stays', 'cold', ''),
    ('SHUTOFF', None, 'skip', 'cold', 'stays', 'says skip'),
    ('SUSPENDED', None, None, 'cold', 'stays', 'resume it'),
    ('SUSPENDED', None, 'live', 'stays', 'stays', 'resume it'),
    ('RESCUE', None, None, 'stays', 'stays', 'unrescue it'),
    ('RESCUE', None, 'cold', 'stays', 'stays', 'unrescue it'),
    ('SHELVED', None, None, 'cold', 'stays', 'shelved_offload_time'),
    ('VERIFY_RESIZE', None, None, 'stays', 'stays', 'confirm or revert it'),
    ('SOFT_DELETED', None, None, 'stays', 'stays', 'reclaim_instance'),
    ('ERROR', None, None, 'cold', 'stays', 'in ERROR: disk is full'),
    ('ERROR', None, 'stop', 'stays', 'stays', 'in ERROR: disk is full'),
    ('UNKNOWN', None, None, 'stays', 'stays', 'status is UNKNOWN'),
    ('BUILD', None, None, 'stays', 'waits', 'being built'),
    ('BUILD', 'spawning', None, 'stays', 'waits', 'spawning'),
    ('REBOOT', 'rebooting', None, 'stays', 'waits', 'rebooting'),
    ('HARD_REBOOT', 'reboot_started_hard', None, 'stays', 'waits', 'hard'),
    ('PASSWORD', 'updating_password', None, 'stays', 'waits', 'password'),
    ('REBUILD', 'rebuilding', None, 'stays', 'waits', 'rebuilding'),
    ('RESIZE', 'resize_prep', None, 'stays', 'waits', 'resize_prep'),
    ('REVERT_RESIZE', 'resize_reverting', None, 'stays', 'waits', 'revert'),
    ('MIGRATING', 'migrating', None, 'stays', 'waits', 'migrating'),
    ('ACTIVE', 'powering-off', 'skip', 'stays', 'waits', 'powering-off'),
    ('ACTIVE', 'image_snapshot', None, 'stays', 'waits', 'image_snapshot'),
    ('ACTIVE', 'deleting', None, 'stays', 'waits', 'deleting'),
    ('ERROR', 'deleting', None, 'stays', 'waits', 'deleting'),
]


def record(id, guest='g', status='running', source='a', dest='b', **fields):
    return guests.Migration(id=id, guest=guest, status=status, source=source,
                            dest=dest, **fields)


def view(*found, migrations=(), elsewhere=()):
    return guests.View('a', found, tuple(migrations),
                       {each.id: each for each in elsewhere})


def whats(verdicts):
    return {each.guest.id: each.what for each in verdicts}


class OutcomeTest(base.TestCase):

    def test_table(self):
        for status, task, wish, shut_off, what, why in TABLE:
            with self.subTest(status=status, task=task, wish=wish,
                              shut_off=shut_off):
                found = plan.outcome(
                    G('g', status=status, task=task, wish=wish,
                      fault='disk is full'),
                    dataclasses.replace(POLICY, shut_off=shut_off))
                self.assertEqual(what, found[0])
                self.assertIn(why, found[1])

    def test_nothing_is_stopped_unless_asked(self):
        for status, task, wish, shut_off, what, _ in TABLE:
            if what == plan.STOP:
                self.assertEqual(plan.STOP, wish)
            if what == plan.COLD:
                self.assertIn(plan.COLD, (wish, shut_off))

    def test_an_error_without_a_fault(self):
        self.assertIn('no fault given', plan.outcome(
            G('g', status='ERROR'), POLICY)[1])


class JudgeTest(base.TestCase):

    def judge(self, seen, tries=None, now=100, hold=None, **policy):
        return plan.judge(seen, tries or {}, plan.Policy(**policy), now, hold)

    def test_one_at_a_time_the_smallest_first(self):
        found = self.judge(view(G('big', memory_mb=2), G('small',
                                                         memory_mb=1)))
        self.assertEqual({'big': 'waits', 'small': 'live'}, whats(found))

    def test_side_by_side_the_largest_first(self):
        found = self.judge(view(*(G(str(mb), memory_mb=mb)
                                  for mb in (1, 2, 3))), parallel=2)
        self.assertEqual({'1': 'waits', '2': 'live', '3': 'live'},
                         whats(found))

    def test_what_is_under_way_counts(self):
        # Whoever asked for it, and whichever way it goes.
        for kind in (guests.LIVE_MIGRATION, guests.MIGRATION, guests.RESIZE):
            found = self.judge(view(G('g', task='migrating'), G('h'),
                                    migrations=[record(1, kind=kind)]))
            self.assertEqual({'g': 'moves', 'h': 'waits'}, whats(found))

    def test_what_was_asked_for_counts_before_it_is_seen(self):
        seen = view(G('g'), G('h'))
        tries = {'g': plan.asked(plan.Try(), plan.LIVE, seen, G('g'), 100)}
        self.assertEqual({'g': 'moves', 'h': 'waits'},
                         whats(self.judge(seen, tries)))

    def test_attempts_and_backoff(self):
        known = plan.Try()
        for failures, pause in ((1, 10), (2, 20), (3, None)):
            known = plan.failed(known, 'no valid host', 100)
            verdict, = self.judge(view(G('g')), {'g': known})
            if pause is None:
                self.assertEqual(('failed', 'no valid host'),
                                 (verdict.what, verdict.why))
                self.assertFalse(verdict.open)
                continue
            self.assertEqual('waits', verdict.what)
            self.assertIn('no valid host', verdict.why)
            verdict, = self.judge(view(G('g')), {'g': known}, now=100 + pause)
            self.assertEqual(('live', f'attempt {failures + 1} of 3'),
                             (verdict.what, verdict.why))

    def test_the_pause_has_a_bound(self):
        known = plan.failed(plan.Try(failures=50), '', 0)
        self.assertEqual(plan.LAST_RETRY, known.not_before)

    def test_once_more_when_something_changed(self):
        tries = {'g': plan.Try(failures=3, not_before=900),
                 'h': plan.Try(failures=1, not_before=900)}
        found = plan.relent(tries, POLICY, 100)
        self.assertEqual(plan.Try(failures=2, not_before=100), found['g'])
        self.assertEqual(tries['h'], found['h'])

    def test_called_off(self):
        found = self.judge(
            view(G('g', task='migrating'), G('h'), G('i', status='ERROR'),
                 migrations=[record(1)]), hold='the node is uncordoned')
        self.assertEqual({'g': 'moves', 'h': 'stays', 'i': 'stays'},
                         whats(found))
        self.assertEqual('the node is uncordoned', found[1].why)

    def test_abort(self):
        seen = view(G('g', task='migrating'), migrations=[record(7)])
        tries, _ = plan.settle(seen, {}, 100)
        self.assertEqual('moves', self.judge(seen, tries, now=160,
                                             timeout=60)[0].what)
        verdict, = self.judge(seen, tries, now=161, timeout=60)
        self.assertEqual(('abort', 7), (verdict.what, verdict.migration.id))
        tries['g'] = plan.asked(tries['g'], plan.ABORT, seen, G('g'), 161)
        self.assertEqual('moves', self.judge(seen, tries, now=171,
                                             timeout=60)[0].what)

    def test_a_queued_one_is_not_aborted(self):
        seen = view(G('g', task='migrating'),
                    migrations=[record(7, status='queued')])
        tries, _ = plan.settle(seen, {}, 0)
        tries, _ = plan.settle(seen, tries, 1000)
        self.assertEqual('moves', self.judge(seen, tries, now=1000,
                                             timeout=60)[0].what)

    def test_ignored(self):
        off = G('off', status='SHUTOFF')
        for shut_off, counts in (('stays', True), ('ignore', False)):
            verdict, = self.judge(view(off), shut_off=shut_off)
            self.assertEqual(('stays', counts),
                             (verdict.what, verdict.counts))
        verdict, = self.judge(view(G('g', wish='skip')), shut_off='ignore')
        self.assertTrue(verdict.counts)

    def test_what_comes_is_waited_for(self):
        coming = record(1, source='b', dest='a')
        verdict, = self.judge(view(
            migrations=[coming], elsewhere=[G('g', task='migrating')]))
        self.assertEqual('waits', verdict.what)
        # What a crash left behind is not.
        self.assertEqual((), self.judge(view(migrations=[coming])))
        self.assertEqual((), self.judge(view(migrations=[coming],
                                             elsewhere=[G('g')])))

    def test_the_source_is_still_cleaned_up(self):
        # The guest runs at the destination before Nova is done here.
        before = view(G('g', task='migrating'), migrations=[record(1)])
        tries, _ = plan.settle(before, {}, 100)
        after = view(migrations=[record(1)])
        tries, _ = plan.settle(after, tries, 101)
        self.assertEqual({'g': 'moves'}, whats(self.judge(after, tries,
                                                          now=101)))
        # Not for ever: the record may never be ended.
        tries, _ = plan.settle(after, tries, 200)
        self.assertEqual((), self.judge(after, tries, now=200))

    def test_confirm(self):
        moved = record(1, status='finished', kind=guests.MIGRATION)
        for guest, shut_off, what in (
                (G('g', wish='cold'), 'stays', 'confirm'),
                (G('g', powered=False), 'cold', 'confirm'),
                # Of these, others are to decide.
                (G('g', powered=True), 'cold', 'stays'),
                (G('g', powered=False), 'stays', 'stays')):
            guest = dataclasses.replace(guest, status='VERIFY_RESIZE')
            verdict, = self.judge(view(migrations=[moved],
                                       elsewhere=[guest]), shut_off=shut_off)
            self.assertEqual(what, verdict.what)
        resized = dataclasses.replace(moved, kind=guests.RESIZE)
        verdict, = self.judge(view(migrations=[resized], elsewhere=[
            G('g', status='VERIFY_RESIZE', wish='cold')]))
        self.assertEqual('stays', verdict.what)
        # Confirmed, reverted or deleted since.
        self.assertEqual((), self.judge(view(migrations=[moved])))
        self.assertEqual((), self.judge(view(migrations=[moved], elsewhere=[
            G('g', status='ACTIVE')])))


class SettleTest(base.TestCase):

    def after(self, seen, known, now=200):
        tries, broken = plan.settle(seen, {'g': known}, now)
        return tries.get('g', plan.Try()), broken

    def test_a_migration_that_fails(self):
        for status in ('error', 'failed', 'cancelled'):
            known = plan.Try(asked='live', asked_at=190, after=6)
            seen = view(G('g'), migrations=[record(7, status=status)])
            self.assertEqual((known, [('g', seen.migrations[0])]),
                             self.after(seen, known))

    def test_one_that_failed_before_is_none_of_ours(self):
        known = plan.Try(asked='live', asked_at=190, after=7)
        seen = view(G('g'), migrations=[record(7, status='error')])
        self.assertEqual((known, []), self.after(seen, known))

    def test_while_nova_cleans_up_it_has_not_failed(self):
        known = plan.Try(asked='live', asked_at=190)
        seen = view(G('g', task='migrating'),
                    migrations=[record(7, status='error')])
        self.assertEqual((known, []), self.after(seen, known))

    def test_nothing_is_to_be_seen_of_it(self):
        known = plan.Try(asked='live', asked_at=190)
        self.assertEqual((known, []), self.after(view(G('g')), known))
        self.assertEqual((known, [('g', None)]),
                         self.after(view(G('g')), known, now=221))

    def test_it_came_back(self):
        known = plan.Try(asked='live', asked_at=100, failures=1)
        seen = view(G('g'), migrations=[record(7, status='completed')])
        self.assertIsNone(self.after(seen, known)[0].asked)
        # Or one list was made before the end and the other one after it.
        known = dataclasses.replace(known, asked_at=190)
        self.assertEqual('live', self.after(seen, known)[0].asked)

    def test_stopped(self):
        known = plan.Try(asked='stop', asked_at=190)
        self.assertEqual((plan.Try(asked_at=190), []), self.after(
            view(G('g', status='SHUTOFF')), known))

    def test_what_others_began_is_ours_when_it_fails(self):
        tries, _ = plan.settle(view(
            G('g', task='migrating'), migrations=[record(7)]), {}, 100)
        seen = view(G('g'), migrations=[record(7, status='error')])
        self.assertEqual([('g', seen.migrations[0])],
                         plan.settle(seen, tries, 101)[1])

    def test_forgotten_when_gone(self):
        self.assertEqual(({}, []), plan.settle(
            view(G('h')), {'g': plan.Try(failures=1)}, 100))


class EvacuationTest(base.TestCase):

    TABLE = [
        ('ACTIVE', None, 'evacuate', ''),
        ('SHUTOFF', None, 'evacuate', ''),
        ('ERROR', None, 'evacuate', ''),
        ('PAUSED', None, 'stays', 'set --state error'),
        ('SUSPENDED', None, 'stays', 'set --state error'),
        ('RESCUE', None, 'stays', 'set --state error'),
        ('SHELVED', None, 'stays', 'set --state error'),
        ('VERIFY_RESIZE', None, 'stays', 'set --state error'),
        ('BUILD', None, 'stays', 'delete it'),
        ('MIGRATING', 'migrating', 'stays', 'migrating cannot end'),
        ('REBOOT', 'rebooting', 'stays', 'rebooting cannot end'),
    ]

    def test_table(self):
        for status, task, what, why in self.TABLE:
            found = evacuation.outcome(G('g', status=status, task=task))
            self.assertEqual(what, found[0], status)
            self.assertIn(why, found[1])

    def test_a_migration_of_a_dead_node_never_ends(self):
        seen = view(G('g', status='MIGRATING', task='migrating'), G('h'),
                    migrations=[record(1)])
        tries, broken = evacuation.settle(seen, {}, 100)
        self.assertEqual(({}, []), (tries, broken))
        self.assertEqual(
            {'g': 'stays', 'h': 'evacuate'},
            whats(evacuation.judge(seen, tries, POLICY, 100)))

    def test_slots(self):
        seen = view(
            G('g', task='rebuilding'), G('h'), G('i'),
            migrations=[record(1, status='accepted',
                               kind=guests.EVACUATION)])
        self.assertEqual(
            {'g': 'moves', 'h': 'evacuate', 'i': 'waits'},
            whats(evacuation.judge(seen, {}, plan.Policy(parallel=2), 1)))

    def test_it_is_done_when_the_guest_is_rebuilt(self):
        # Nova has it on its new host as soon as that begins.
        begun = record(1, status='pre-migrating', kind=guests.EVACUATION)
        for task, left in (('rebuild_spawning', ['moves']), (None, [])):
            found = evacuation.judge(view(
                migrations=[begun], elsewhere=[G('g', task=task)]), {},
                POLICY, 1)
            self.assertEqual(left, [each.what for each in found])

    def test_too_many(self):
        for up, down, refused in ((2, 0, False), (1, 1, False), (1, 2, True),
                                  (0, 1, True)):
            found = evacuation.too_many(
                [nova_api.Service(str(each), str(each), up=each < up)
                 for each in range(up + down)])
            self.assertEqual(refused, found is not None)
        self.assertIn('1 of 1 compute services are down', found)

    def test_uncleaned(self):
        kept = [record(each, status=status, kind=guests.EVACUATION)
                for each, status in enumerate(
                    ('accepted', 'pre-migrating', 'done'))]
        other = [record(9, status='completed', kind=guests.EVACUATION),
                 record(10, status='error', kind=guests.EVACUATION),
                 record(11, status='done', kind=guests.EVACUATION,
                        source='b', dest='a'),
                 record(12, status='running')]
        self.assertEqual(tuple(kept), evacuation.uncleaned(
            view(migrations=kept + other)))
