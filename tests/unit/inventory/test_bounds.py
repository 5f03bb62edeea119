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

"""What Nova is told is valid, and never more than there is."""

import hypothesis
from hypothesis import strategies as st
import jsonschema
from placement.db import constants
from placement.objects import inventory as placement_inventory
from placement.schemas import inventory as schema

from nova_k8s import errors
from nova_k8s.inventory import bounds
from nova_k8s.inventory import hugepages
from nova_k8s.limits import budget
from tests.unit import base

MIB = 2 ** 20
GI = 2 ** 30
VCPU = bounds.VCPU
MEMORY_MB = bounds.MEMORY_MB


def some(cpu=4000, memory=8 * GI, **fields):
    return budget.Budget('Pod a/b', cpu, memory, **fields)


def record(total, **fields):
    """As Nova's libvirt driver makes it."""
    return dict({'total': total, 'min_unit': 1, 'max_unit': total,
                 'step_size': 1, 'allocation_ratio': 1.0, 'reserved': 0},
                **fields)


PLACEMENT = jsonschema.validators.validator_for(
    schema.PUT_INVENTORY_SCHEMA)(schema.PUT_INVENTORY_SCHEMA)

DISK = record(100, allocation_ratio=1.5, reserved=10)

# Nova leaves a class out where it has none of it.
RECORDS = st.none() | st.integers(1, constants.MAX_INT).flatmap(
    lambda total: st.builds(
        record, st.just(total),
        # Options of Nova's, which nothing keeps below the total.
        reserved=st.integers(0, constants.MAX_INT),
        allocation_ratio=st.floats(0.01, 1000),
        max_unit=st.integers(1, total), step_size=st.integers(1, total)))
AMOUNTS = st.none() | st.integers(0, 2 ** 63 - 1) | st.integers(0, 10 ** 5)
# None: the limits were lost.
BUDGETS = st.none() | st.builds(some, AMOUNTS, AMOUNTS)
STEPS = st.lists(st.tuples(
    BUDGETS, st.fixed_dictionaries({VCPU: RECORDS, MEMORY_MB: RECORDS})),
    min_size=1, max_size=5)


class BoundTest(base.TestCase):

    @hypothesis.given(STEPS, st.sampled_from(['error', 'host']))
    def test_whatever_happens(self, steps, unlimited):
        last = {}
        for present, records in steps:
            stock = {name: each for name, each in records.items() if each}
            stock['DISK_GB'] = DISK
            limits = bounds.limits(present, unlimited)
            found = bounds.apply(stock, limits, last)
            self._check_valid(found)
            self._check_bounds(found, stock, limits, last)
            self.assertEqual(set(stock) | set(last), set(found))
            self.assertEqual(DISK, found['DISK_GB'])
            last = {name: found[name] for name in bounds.FIELDS
                    if name in found}

    def _check_valid(self, found):
        PLACEMENT.validate(
            {'resource_provider_generation': 1, 'inventories': found})
        for name, each in found.items():
            self.assertLessEqual(each['reserved'], each['total'], name)
            self.assertLessEqual(each['max_unit'], each['total'], name)
            self.assertLessEqual(each['min_unit'], each['max_unit'], name)
            self.assertLessEqual(each['step_size'], each['total'], name)
            # What Placement itself looks at beyond the schema.
            self.assertGreaterEqual(placement_inventory.Inventory(
                resource_class=name, **each).capacity, 0)

    def _check_bounds(self, found, stock, limits, last):
        for name, limit in limits.items():
            if name not in found:
                continue
            machine = stock[name]['total'] if name in stock else 0
            bound = machine if limit is None else min(machine, limit)
            now = found[name]
            if bound < 1:
                before = last[name]['total'] if name in last else 0
                self.assertEqual(max(1, before), now['total'])
                self.assertEqual(now['total'], now['reserved'])
                self.assertEqual(now['total'], now['max_unit'])
            else:
                self.assertEqual(bound, now['total'])
                self.assertEqual(min(stock[name]['reserved'], bound),
                                 now['reserved'])
                self.assertEqual(stock[name]['allocation_ratio'],
                                 now['allocation_ratio'])

    @hypothesis.given(STEPS, st.sampled_from(['error', 'host']))
    def test_total_says_the_same(self, steps, unlimited):
        # get_available_resource() builds on it alone.
        last = {}
        for present, records in steps:
            stock = {name: each for name, each in records.items() if each}
            limits = bounds.limits(present, unlimited)
            found = bounds.apply(stock, limits, last)
            for name in found:
                self.assertEqual(
                    found[name]['total'],
                    bounds.total(
                        stock[name]['total'] if name in stock else 0,
                        limits[name],
                        last[name]['total'] if name in last else 0)[0])
            last = found

    PAGES = st.builds(
        hugepages.Pages, st.integers(0, 10 ** 6),
        st.just(()) | st.tuples(st.tuples(
            st.just(2048), st.integers(0, 10 ** 6))))

    @hypothesis.given(STEPS, st.lists(PAGES, min_size=5, max_size=5),
                      st.sampled_from(['error', 'host']))
    def test_memory_with_huge_pages(self, steps, pages, unlimited):
        last = {}
        for (present, records), there in zip(steps, pages):
            hypothesis.assume(there.offered_mb <= there.machine_mb)
            stock = {name: each for name, each in records.items() if each}
            limits = bounds.limits(present, unlimited)
            machine = bounds.ordinary(stock, there).get(
                MEMORY_MB, {'total': 0})['total']
            has = dict(stock)
            total, limits[MEMORY_MB] = bounds.add_pages(
                machine, limits[MEMORY_MB], there)
            if MEMORY_MB in stock:
                has[MEMORY_MB] = dict(stock[MEMORY_MB], total=total)
            last = {name: record for name, record in bounds.apply(
                has, limits, last).items() if name in bounds.FIELDS}
            self._check_valid(last)
            found = last.get(MEMORY_MB)
            if not found or found['reserved'] == found['total']:
                continue
            limit = bounds.limits(present, unlimited)[MEMORY_MB]
            # The sum of what there is, and of what is allowed.
            self.assertEqual(
                there.offered_mb + min(
                    each for each in (machine, limit) if each is not None),
                found['total'])
            self.assertLessEqual(found['total'], stock[MEMORY_MB]['total'])

    def test_no_memory_but_huge_pages(self):
        # QEMU could not even start.
        pages = hugepages.Pages(4096, ((2048, 4096),))
        self.assertEqual((0, 100), bounds.add_pages(0, 100, pages))
        self.assertEqual((100, 0), bounds.add_pages(100, 0, pages))
        self.assertEqual((4196, None), bounds.add_pages(100, None, pages))
        self.assertEqual({MEMORY_MB: record(0)}, {
            name: dict(each, max_unit=0) for name, each in bounds.ordinary(
                {MEMORY_MB: record(64)}, pages).items()})

    def test_closes_and_opens_again(self):
        stock = {VCPU: record(64, reserved=2)}
        last = {}
        for limit, total, reserved in (
                (8, 8, 2), (16, 16, 2), (0, 16, 16), (0, 16, 16), (4, 4, 2),
                (1, 1, 1), (0, 1, 1), (None, 64, 2), (100, 64, 2),
                (0, 64, 64), (8, 8, 2)):
            last = bounds.apply(stock, {VCPU: limit}, last)
            self.assertEqual((total, reserved),
                             (last[VCPU]['total'], last[VCPU]['reserved']))

    def test_closed_keeps_the_limits(self):
        # So that what is here may still move away: Placement refuses a move
        # of what is larger than max_unit.
        stock = {VCPU: record(64, reserved=2)}
        found = bounds.apply(stock, {VCPU: 8}, {}, closed=True)
        self.assertEqual((8, 8, 8), (
            found[VCPU]['total'], found[VCPU]['reserved'],
            found[VCPU]['max_unit']))
        self.assertEqual(2, bounds.apply(stock, {VCPU: 8}, found)[VCPU][
            'reserved'])

    @hypothesis.given(STEPS, st.integers(0, 10 ** 6), st.integers(0, 10 ** 6))
    def test_what_is_here_may_leave(self, steps, vcpus, memory_mb):
        # Placement's own check of an allocation that is moved.
        largest = {VCPU: vcpus, MEMORY_MB: memory_mb}
        last = {}
        for present, records in steps:
            stock = {name: dict(each, step_size=1)
                     for name, each in records.items() if each}
            last = bounds.apply(stock, bounds.limits(present, 'error'), last,
                                largest=largest)
            for name, found in last.items():
                PLACEMENT.validate({
                    'resource_provider_generation': 1,
                    'inventories': {name: found}})
                if largest[name]:
                    self.assertLessEqual(found['min_unit'], largest[name])
                    self.assertGreaterEqual(found['max_unit'], largest[name])
                    self.assertEqual(0, largest[name] % found['step_size'])

    def test_step_that_would_no_longer_divide(self):
        found = bounds.apply({MEMORY_MB: record(1024, step_size=256)},
                             {MEMORY_MB: 100}, {})
        self.assertEqual(1, found[MEMORY_MB]['step_size'])

    def test_class_that_nova_no_longer_reports(self):
        last = bounds.apply({VCPU: record(64)}, {VCPU: 8}, {})
        for limit in (8, 0, None):
            found = bounds.apply({}, {VCPU: limit}, last)
            self.assertEqual(8, found[VCPU]['total'])
            self.assertEqual(8, found[VCPU]['reserved'])

    def test_class_that_nova_never_reported(self):
        self.assertEqual({}, bounds.apply({}, {VCPU: 8}, {}))

    def test_stock_is_left_alone(self):
        stock = {VCPU: record(64)}
        bounds.apply(stock, {VCPU: 8}, {})
        self.assertEqual({VCPU: record(64)}, stock)


class LimitsTest(base.TestCase):

    def test_whole_units_only(self):
        self.assertEqual(
            {VCPU: 7, MEMORY_MB: 1023},
            bounds.limits(some(7999, GI - 1), 'error'))

    def test_lost(self):
        for unlimited in ('error', 'host'):
            self.assertEqual({VCPU: 0, MEMORY_MB: 0},
                             bounds.limits(None, unlimited))

    def test_none_set(self):
        self.assertEqual({VCPU: 0, MEMORY_MB: 0},
                         bounds.limits(some(None, None), 'error'))
        self.assertEqual({VCPU: None, MEMORY_MB: None},
                         bounds.limits(some(None, None), 'host'))
        self.assertEqual({VCPU: 4, MEMORY_MB: None},
                         bounds.limits(some(4000, None), 'host'))


class CheckTest(base.TestCase):

    def _refused(self, present, names, unlimited='error', cpus=0, memory=0):
        exc = self.assertRaises(
            errors.Refused, bounds.check, present, unlimited,
            {VCPU: cpus, MEMORY_MB: memory})
        for name in ['Pod a/b', *names]:
            self.assertIn(name, str(exc))
        self.assertTrue(base.one_line(exc))

    def test_enough(self):
        for unlimited in ('error', 'host'):
            bounds.check(some(1000, MIB), unlimited,
                         {VCPU: 0, MEMORY_MB: 0})
            bounds.check(some(2000, GI), unlimited,
                         {VCPU: 2, MEMORY_MB: 1024})

    def test_no_limit(self):
        self._refused(
            some(None, 8 * GI, missing=('x.limits.cpu',)),
            ['x.limits.cpu', 'unlimited = host'])
        self._refused(
            some(None, None, missing=('x.limits.cpu', 'x.limits.memory')),
            ['x.limits.cpu and x.limits.memory', 'unlimited = host'])

    def test_no_limit_and_that_is_wanted(self):
        bounds.check(
            some(None, None, missing=('x.limits.cpu', 'x.limits.memory')),
            'host', {VCPU: 2, MEMORY_MB: 512})

    def test_no_limit_of_one_does_not_excuse_the_other(self):
        self._refused(some(500, None, missing=('x.limits.memory',)),
                      ['resources.limits.cpu', 'one core'], 'host')

    def test_below_one_unit(self):
        self._refused(some(999, 8 * GI), [
            'resources.limits.cpu', 'one core', '[kubernetes] container'])
        self._refused(some(4000, MIB - 1), [
            'resources.limits.memory', 'one MiB', '[kubernetes] container'])

    def test_below_what_is_reserved(self):
        self._refused(some(4900, 8 * GI), [
            'resources.limits.cpu', ' 4 core', ' 5 ', 'reserved_host_cpus'],
            cpus=5)
        self._refused(some(4000, GI), [
            'resources.limits.memory', ' 1024 MiB', ' 1025 ',
            'reserved_host_memory_mb'], memory=1025)


class WarningsTest(base.TestCase):

    MACHINE = {VCPU: record(4), MEMORY_MB: record(8192)}

    def _warnings(self, *names, machine=MACHINE, pages=None, **fields):
        found = bounds.list_warnings(some(**fields), machine, pages)
        self.assertEqual(len(names), len(found), found)
        for line, expected in zip(found, names):
            for name in ['Pod a/b', *expected]:
                self.assertIn(name, line)
            self.assertEqual(1, len(line.splitlines()))

    def test_caveats(self):
        found = bounds.list_warnings(some(caveats=('who knows',)), {})
        self.assertEqual(1, len(found))
        self.assertIn('who knows', found[0])

    def test_nothing_to_say(self):
        self._warnings()
        self._warnings(cpu_request_millicores=4000,
                       memory_request_bytes=8 * GI)
        self._warnings(cpu=None, memory=None)
        self._warnings(cpu=None, memory=None, cpu_request_millicores=1,
                       memory_request_bytes=1)

    def test_requests_below_limits(self):
        self._warnings(('resources.requests.cpu', '3999', '4000'),
                       cpu_request_millicores=3999)
        self._warnings(('resources.requests.memory', '0 bytes'),
                       memory_request_bytes=0)

    def test_limits_above_the_machine(self):
        self._warnings(('resources.limits.cpu', '5 VCPU', 'has 4'),
                       cpu=5000)
        self._warnings(
            ('resources.limits.memory', '8193 MEMORY_MB', 'has 8192'),
            memory=8193 * MIB)
        # What is not whole is not reported, and not missed.
        self._warnings(cpu=4999)

    def test_class_that_the_machine_has_not(self):
        self._warnings(machine={}, cpu=10 ** 6)

    def test_all_of_it_is_reserved(self):
        for reserved in (8192, 9000):
            machine = {MEMORY_MB: record(16384, reserved=reserved)}
            self._warnings(
                ('of 8192 MEMORY_MB', f'{reserved} are reserved', 'nothing'),
                machine=machine)
        self._warnings(machine={MEMORY_MB: record(16384, reserved=8191)})
        self._warnings(
            ('8192 MEMORY_MB', 'has 512'), ('of 512 MEMORY_MB', 'nothing'),
            machine={VCPU: record(4), MEMORY_MB: record(512, reserved=600)})
        # The limit is not what leaves nothing.
        self._warnings(
            ('of 512 MEMORY_MB', 'nothing'),
            machine={VCPU: record(4), MEMORY_MB: record(512, reserved=512)},
            memory=512 * MIB)

    def test_all_of_a_machine_without_limit_is_reserved(self):
        self._warnings(('of 512 MEMORY_MB', '512 are reserved', 'nothing'),
                       machine={MEMORY_MB: record(512, reserved=512)},
                       memory=None)

    def test_huge_pages(self):
        sizes = (('2Mi', GI), ('1Gi', GI))
        self._warnings(hugepages=sizes)
        self._warnings(('hugepages-2Mi', '1024 MiB', '512 MiB'),
                       ('hugepages-1Gi', '1024 MiB', '0 MiB'),
                       hugepages=sizes,
                       pages=hugepages.Pages(512, ((2048, 512),)))
        self._warnings(hugepages=sizes, pages=hugepages.Pages(
            4096, ((2048, 2048), (2 ** 20, 1024))))

    def test_pinned_cpus(self):
        # One limit for both.
        self._warnings(machine={VCPU: record(1), 'PCPU': record(3)})
        self._warnings(('limits.cpu', '4 VCPU', 'has 3'),
                       machine={VCPU: record(1), 'PCPU': record(2)})

    def test_all_at_once(self):
        self._warnings(
            ('requests.cpu',), ('requests.memory',), ('limits.cpu',),
            ('limits.memory',), cpu=5000, memory=9 * GI,
            cpu_request_millicores=1, memory_request_bytes=1)


class CapTest(base.TestCase):
    """What the pod is about to shrink to."""

    def test_the_smaller_one(self):
        limits = {bounds.VCPU: 8, bounds.MEMORY_MB: 4096}
        self.assertEqual(limits, bounds.cap(limits, None))
        self.assertEqual({bounds.VCPU: 3, bounds.MEMORY_MB: 4096},
                         bounds.cap(limits, (8192, 3500)))
        self.assertEqual({bounds.VCPU: 8, bounds.MEMORY_MB: 1024},
                         bounds.cap(limits, (1024, 9000)))

    def test_one_of_both(self):
        limits = {bounds.VCPU: 8, bounds.MEMORY_MB: None}
        self.assertEqual(limits, bounds.cap(limits, (None, None)))
        self.assertEqual({bounds.VCPU: 8, bounds.MEMORY_MB: 1024},
                         bounds.cap(limits, (1024, None)))
        self.assertEqual({bounds.VCPU: 0, bounds.MEMORY_MB: None},
                         bounds.cap(limits, (None, 900)))

    def test_where_the_machine_is_the_limit(self):
        self.assertEqual(
            {bounds.VCPU: 3, bounds.MEMORY_MB: 0},
            bounds.cap({bounds.VCPU: None, bounds.MEMORY_MB: 0},
                       (1024, 3000)))
