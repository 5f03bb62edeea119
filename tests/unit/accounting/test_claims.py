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

"""The gate on Nova's claims."""

import types
from unittest import mock

import fixtures
import hypothesis
from hypothesis import strategies as st
from nova.compute import claims as nova_claims
from nova import exception
from nova import objects

from nova_k8s.accounting import claims
from nova_k8s.accounting import ledger as ledgers
from nova_k8s.accounting import overhead
from tests.unit import base

objects.register_all()

SMALL = overhead.Need(512, 60, 512)


class RefusalTest(base.TestCase):

    def test_refusal(self):
        for limit, others, number, refused in (
                (672, 100, 0, False), (671, 100, 0, True),
                (1244, 100, 1, False), (1243, 100, 1, True),
                (0, 0, 0, True), (100, 200, 3, True), (None, 100, 9, False)):
            reason = claims.find_refusal(
                limit, others, [SMALL] * number, SMALL)
            self.assertEqual(refused, reason is not None, (limit, number))

    def test_says_that_there_is_no_limit_to_fit_in(self):
        reason = claims.find_refusal(0, 100, [SMALL], SMALL)
        for text in ('no limits of the pod', 'nothing new is placed'):
            self.assertIn(text, reason)

    def test_says_the_arithmetic(self):
        reason = claims.find_refusal(1243, 100, [SMALL], SMALL)
        for figure in ('571 MiB', '1243 MiB', '100 MiB', '572 MiB',
                       '512 MiB of memory', '60 MiB', '1 guests'):
            self.assertIn(figure, reason)


HUGE = overhead.Need(0, 60, 512, huge=((2048, 512),))


class PagesRefusalTest(base.TestCase):

    def refusal(self, pages_mb, needs=(), need=HUGE):
        return claims.find_pages_refusal(pages_mb, needs, need)

    def test_of_its_own_size(self):
        for has, number, refused in ((512, 0, False), (511, 0, True),
                                     (1024, 1, False), (1023, 1, True)):
            reason = self.refusal({2048: has, 2 ** 20: 4096}, [HUGE] * number)
            self.assertEqual(refused, reason is not None, (has, number))
        self.assertIn('huge pages of 2048 KiB', reason)
        for figure in ('511 MiB', '1023 MiB', 'have 512 MiB', 'needs 512'):
            self.assertIn(figure, reason)

    def test_none(self):
        for pages_mb in ({}, {2048: 0}, {2 ** 20: 4096}):
            self.assertIsNotNone(self.refusal(pages_mb))
        # Nobody knows what there is; or it takes none.
        self.assertIsNone(self.refusal(None))
        self.assertIsNone(self.refusal({}, need=SMALL))

    def test_size_that_is_not_chosen(self):
        some = overhead.Need(0, 60, 512, huge=((overhead.ANY_HUGE, 512),))
        self.assertIsNone(self.refusal({2048: 512}, need=some))
        self.assertIsNotNone(self.refusal({2048: 511}, need=some))
        self.assertIsNotNone(self.refusal({2048: 512}, [some]))

    def test_ordinary_memory_is_another(self):
        # Guests in huge pages leave the memory limit to others, but for
        # their cost; nothing of what they left is for huge pages.
        self.assertIsNone(claims.find_refusal(632, 0, [HUGE], SMALL))
        self.assertIsNotNone(claims.find_refusal(631, 0, [HUGE], SMALL))
        self.assertIsNone(self.refusal({2048: 512}, [SMALL] * 9))

    SIZES = st.sampled_from((2048, 2 ** 20, 2 ** 24))

    @hypothesis.given(
        st.dictionaries(SIZES, st.integers(0, 4096)), st.integers(1, 8192),
        st.lists(st.tuples(
            st.integers(0, 1024), st.integers(0, 64), SIZES | st.none(),
            st.integers(1, 1024))))
    def test_neither_takes_of_the_other(self, pages_mb, limit_mb, guests):
        admitted = []
        for memory_mb, cost_mb, size_kb, huge_mb in guests:
            need = overhead.Need(
                0 if size_kb else memory_mb, cost_mb, memory_mb,
                huge=((size_kb, huge_mb),) if size_kb else ())
            if not (claims.find_refusal(limit_mb, 0, admitted, need) or
                    self.refusal(pages_mb, admitted, need)):
                admitted.append(need)
        self.assertLessEqual(ledgers.used_mb(admitted), limit_mb)
        for size_kb, mb in ledgers.huge_mb(admitted).items():
            self.assertLessEqual(mb, pages_mb.get(size_kb, 0))


class GuardTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.stock = mock.Mock()
        self.useFixture(fixtures.MockPatchObject(
            nova_claims.Claim, '_claim_test',
            lambda claim, node, limits=None: self.stock(node, limits)))
        self.tracker = types.SimpleNamespace(build_failed=mock.Mock())
        self.failed = self.tracker.build_failed
        self.admit = mock.Mock(return_value=None)
        claims.guard(self.tracker, self.admit)
        claims.count_no_refusals(self.tracker)

    def claim(self):
        return nova_claims.Claim(
            None, mock.MagicMock(), 'node', self.tracker, mock.sentinel.node,
            None, limits={'a': 1})

    def test_nova_is_asked_first(self):
        self.claim()
        self.stock.assert_called_once_with(mock.sentinel.node, {'a': 1})
        self.stock.side_effect = exception.ComputeResourcesUnavailable(
            reason='NUMA')
        self.assertRaises(exception.ComputeResourcesUnavailable, self.claim)
        self.assertEqual(1, self.admit.call_count)

    def test_refused(self):
        self.admit.return_value = 'too large'
        exc = self.assertRaises(exception.ComputeResourcesUnavailable,
                                self.claim)
        self.assertIn('too large', str(exc))

    def test_twice_is_once(self):
        claims.guard(self.tracker, self.admit)
        self.claim()
        self.assertEqual(1, self.admit.call_count)

    def test_other_trackers_are_left_alone(self):
        self.tracker = types.SimpleNamespace()
        self.admit.return_value = 'too large'
        self.claim()
        self.admit.assert_not_called()

    def test_refusal_is_no_failed_build(self):
        self.admit.return_value = 'too large'
        self.assertRaises(exception.ComputeResourcesUnavailable, self.claim)
        self.tracker.build_failed('node')
        self.failed.assert_not_called()
        # The next one is one.
        self.tracker.build_failed('node')
        self.failed.assert_called_once_with('node')

    def test_failure_after_the_claim_is_one(self):
        self.admit.return_value = 'too large'
        self.assertRaises(exception.ComputeResourcesUnavailable, self.claim)
        self.admit.return_value = None
        self.claim()
        self.tracker.build_failed('node')
        self.failed.assert_called_once_with('node')


class Tracker:
    """As much of Nova's resource tracker as is followed."""

    def __init__(self):
        self.compute_nodes = {'node': mock.Mock(memory_mb=4096)}

    def _get_usage_dict(self, object_or_dict, instance, **updates):
        usage = ({} if isinstance(object_or_dict, objects.Flavor)
                 else {'numa_topology': 'pages'})
        return {'memory_mb': 512, **usage, **updates}

    def _update_usage(self, usage, nodename, sign=1):
        pass

    def _update_usage_from_instances(self, context, instances, nodename):
        for instance in instances:
            self._update_usage(
                self._get_usage_dict(instance, instance), nodename)
        return instances

    def _ensure_compute_id_for_instances(self, context, instances, node):
        pass

    def _update_usage_from_migrations(self, context, migrations, nodename):
        pass


class FollowTest(base.TestCase):

    def test_counts_as_nova(self):
        ledger = ledgers.Ledger()
        tracker = Tracker()
        seen = []

        def need_of(instance, flavor, numa_topology):
            seen.append((flavor, numa_topology))
            return SMALL

        used_mb = mock.Mock(return_value=1000)
        claims.follow(tracker, ledger, need_of, used_mb)
        instance = mock.Mock(uuid='a')
        tracker._update_usage(
            tracker._get_usage_dict(instance, instance), 'node')
        flavor = objects.Flavor()
        tracker._update_usage(
            tracker._get_usage_dict(flavor, instance, numa_topology=None),
            'node', sign=1)
        self.assertEqual([(instance.flavor, 'pages'), (flavor, None)], seen)
        self.assertEqual(2, len(ledger.needs(0)))
        tracker._update_usage(
            tracker._get_usage_dict(flavor, instance), 'node', sign=-1)
        self.assertEqual(1, len(ledger.needs(0)))
        self.assertEqual([], tracker._update_usage_from_instances(
            None, [], 'node'))
        self.assertEqual([], ledger.needs(0))
        # What Nova counted in between is replaced, once for many guests.
        record = tracker.compute_nodes['node']
        self.assertEqual((1000, 3096),
                         (record.memory_mb_used, record.free_ram_mb))
        used_mb.reset_mock()
        used_mb.return_value = 4096
        tracker._update_usage_from_instances(
            None, [mock.Mock(uuid=str(i)) for i in range(9)], 'node')
        used_mb.assert_called_once_with()
        self.assertEqual((4096, 0),
                         (record.memory_mb_used, record.free_ram_mb))

    def test_audit_that_fails(self):
        first, second = mock.Mock(uuid='a'), mock.Mock(uuid='b')
        coming = overhead.Need(1024, 70, 1024)
        for name in ('_update_usage_from_instances',
                     '_ensure_compute_id_for_instances',
                     '_update_usage_from_migrations'):
            ledger, tracker = ledgers.Ledger(), Tracker()
            stock, broken = getattr(tracker, name), []

            def fail(*args, stock=stock, broken=broken):
                stock(*args)
                if broken:
                    raise OSError

            setattr(tracker, name, fail)
            claims.follow(tracker, ledger, lambda *_, **__: SMALL, int)

            def audit(instances, tracker=tracker):
                for step in ('_update_usage_from_instances',
                             '_ensure_compute_id_for_instances',
                             '_update_usage_from_migrations'):
                    getattr(tracker, step)(None, instances, 'node')

            self.assertFalse(ledger.complete)
            audit([first])
            self.assertTrue(ledger.complete)
            ledger.hold('b', coming, 9)
            broken.append(True)
            self.assertRaises(OSError, audit, [second])
            self.assertEqual([SMALL, coming], ledger.needs(0), name)
            broken.clear()
            audit([first, second])
            self.assertEqual([SMALL, SMALL], ledger.needs(0), name)
            self.assertFalse(ledger.holds('b'))
