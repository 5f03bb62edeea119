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
        return {'memory_mb': 512}

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

        def need_of(instance, flavor):
            seen.append(flavor)
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
        self.assertEqual([instance.flavor, flavor], seen)
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
            claims.follow(tracker, ledger, lambda *_: SMALL, int)

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
