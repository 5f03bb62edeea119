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

"""What size the guests' pod wishes to be."""

import dataclasses
import random

import hypothesis
from hypothesis import strategies as st

from nova_k8s.accounting import overhead
from nova_k8s.elastic import values
from nova_k8s.elastic import wish
from tests.unit import base

Room = values.Room

IDLE = 600
SETTINGS = values.Settings(
    smallest=Room(4096, 2000), largest=Room(65536, 32000),
    headroom=Room(8192, 4000), spare=Room(4096, 2000),
    step=Room(1024, 1000), idle=IDLE)

# A guest, in the units of the demand: small ones and large ones.
AMOUNTS = st.builds(Room, st.integers(0, 40000), st.integers(0, 20000))
# Seconds between two events.
GAPS = st.one_of(st.integers(0, 30), st.integers(0, 3 * IDLE),
                 st.integers(0, 86400))


class Pod:
    """A pod whose kubelet does at once what is wished, on a quiet node."""

    def __init__(self, settings=SETTINGS, room=None, node=values.Node()):
        self.settings = settings
        self.room = room or settings.smallest
        self.node = node
        self.past = values.Past()
        self.resizes = []

    def decide(self, demand, now, answer=None):
        pod = values.Pod(self.room, self.room, self.room, answer)
        made = wish.decide(self.settings, demand, pod, self.node, self.past,
                           now)
        self.past = made.past
        if made.room != self.room:
            self.resizes.append((now, self.room, made.room, demand,
                                 made.reason))
        self.room = made.room
        return made

    def play(self, demand, begin, end):
        """Let time go by, with the demand of the begin."""
        now, made = begin, self.decide(demand, begin)
        while made.again is not None and made.again < end:
            now = made.again
            made = self.decide(demand, now)
        return now


class DemandTest(base.TestCase):

    def test_guests_that_are_here(self):
        needs = [overhead.Need(1024, 100, 1024), overhead.Need(0, 200, 2048)]
        self.assertEqual(
            Room(1024 + 100 + 200 + 300, 3000),
            wish.demand(needs, 3, 300, Room(3072, 3000)))

    def test_guests_that_are_on_their_way(self):
        needs = [overhead.Need(1024, 100, 1024)]
        self.assertEqual(
            Room(1124 + 4096, 6000),
            wish.demand(needs, 2, 0, Room(5120, 6000)))

    def test_cores_that_are_sold_several_times(self):
        self.assertEqual(Room(0, 2500),
                         wish.demand([], 10, 0, Room(), ratio=4.0))


class FirstTest(base.TestCase):

    def test_no_headroom(self):
        self.assertEqual(Room(4096, 2000), wish.first(SETTINGS, Room()))
        self.assertEqual(Room(11264, 3000),
                         wish.first(SETTINGS, Room(10241, 3000)))
        # What is here is beyond any maximum.
        self.assertEqual(Room(70001, 3000),
                         wish.first(SETTINGS, Room(70001, 3000)))
        none = dataclasses.replace(SETTINGS, smallest=Room())
        self.assertEqual(SETTINGS.step, wish.first(none, Room()))


class DecideTest(base.TestCase):

    def test_it_starts_with_what_guests_hold(self):
        pod = Pod(room=Room(65536, 32000))
        made = wish.decide(
            SETTINGS, Room(10000, 3000), values.Pod(*[Room(4096, 2000)] * 3),
            values.Node(), values.Past(), 0)
        self.assertEqual(Room(18432, 7000), made.room)
        self.assertEqual(wish.GROWS, made.reason)
        self.assertEqual(Room(4096, 2000), made.report)
        self.assertEqual([], pod.resizes)

    def test_it_grows_as_soon_as_the_headroom_is_used(self):
        pod = Pod()
        pod.decide(Room(0, 0), 0)
        self.assertEqual(Room(8192, 4000), pod.room)
        made = pod.decide(Room(1, 0), 1)
        self.assertEqual(Room(9216, 4000), made.room)

    def test_it_shrinks_after_a_time(self):
        pod = Pod()
        pod.decide(Room(20000, 8000), 0)
        made = pod.decide(Room(0, 0), 10)
        self.assertEqual(wish.STAYS, made.reason)
        self.assertEqual(10 + IDLE, made.again)
        made = pod.decide(Room(0, 0), 9 + IDLE)
        self.assertEqual(wish.STAYS, made.reason)
        made = pod.decide(Room(0, 0), 10 + IDLE)
        self.assertEqual(wish.IDLE, made.reason)
        self.assertEqual(Room(8192, 4000), made.room)
        self.assertIsNone(made.again)

    def test_what_was_used_meanwhile_stays(self):
        pod = Pod()
        pod.decide(Room(20000, 8000), 0)
        pod.decide(Room(0, 0), 10)
        pod.decide(Room(9000, 2000), 20)
        pod.decide(Room(0, 0), 30)
        made = pod.decide(Room(0, 0), 10 + IDLE)
        self.assertEqual(Room(17408, 6000), made.room)

    def test_at_most(self):
        pod = Pod()
        made = pod.decide(Room(60000, 31000), 0)
        self.assertEqual(SETTINGS.largest, made.room)
        made = pod.decide(Room(60001, 31000), 1)
        self.assertEqual(wish.AT_MOST, made.reason)

    def test_guests_are_kept_beyond_a_maximum_that_was_lowered(self):
        pod = Pod(room=Room(65536, 32000), settings=dataclasses.replace(
            SETTINGS, largest=Room(8192, 4000)))
        pod.play(Room(30000, 10000), 0, 100 * IDLE)
        self.assertEqual(Room(30000, 10000), pod.room)

    def test_without_cpu(self):
        pod = Pod(settings=dataclasses.replace(SETTINGS, cpu=False))
        made = pod.decide(Room(20000, 8000), 0)
        self.assertEqual(Room(28672, 2000), made.room)

    def test_deferred_stays_wished(self):
        pod = values.Pod(Room(8192, 4000), Room(4096, 2000),
                         Room(4096, 2000), values.DEFERRED)
        made = wish.decide(SETTINGS, Room(0, 0), pod, values.Node(),
                           values.Past(), 0)
        self.assertEqual(pod.wished, made.room)
        self.assertEqual(Room(4096, 2000), made.report)

    def test_infeasible_is_wished_no_more(self):
        pod = values.Pod(Room(65536, 32000), Room(30720, 16000),
                         Room(30720, 16000), values.INFEASIBLE)
        made = wish.decide(SETTINGS, Room(28000, 15000), pod, values.Node(),
                           values.Past(), 0)
        self.assertEqual(Room(30720, 16000), made.room)
        self.assertEqual(wish.NOT_TAKEN, made.reason)
        # Nor later.
        pod = values.Pod(*[made.room] * 3)
        made = wish.decide(SETTINGS, Room(29000, 15500), pod, values.Node(),
                           made.past, 1000)
        self.assertEqual(wish.AT_MOST, made.reason)
        self.assertEqual(Room(30720, 16000), made.room)

    def test_a_regret_doubles_the_time(self):
        pod, large, small = Pod(), Room(20000, 8000), Room(0, 0)
        pod.decide(large, 0)
        pod.play(small, 10, 10 + 2 * IDLE)
        pod.decide(large, 11 + IDLE)
        self.assertEqual(2 * IDLE, pod.past.patience)
        begin = 12 + IDLE
        pod.play(small, begin, begin + 2 * IDLE)
        self.assertEqual(Room(28672, 12000), pod.room)
        pod.play(small, begin + 2 * IDLE, begin + 3 * IDLE)
        self.assertEqual(Room(8192, 4000), pod.room)

    def test_time_that_was_long_enough_halves_again(self):
        pod, large, small = Pod(), Room(20000, 8000), Room(0, 0)
        pod.past = values.Past(patience=4.0 * IDLE)
        pod.decide(large, 0)
        pod.play(small, 0, 10 * IDLE)
        self.assertEqual(2 * IDLE, pod.past.patience)


class PressureTest(base.TestCase):
    """What containers get back."""

    # 24 GiB and 12 cores, of which the pod has what a test says.
    def node(self, pod, containers):
        free = Room(24576, 12000).minus(pod.room).minus(containers)
        pod.node = values.Node(free)

    def pod(self):
        pod = Pod()
        pod.node = values.Node(Room(24576, 12000).minus(pod.room))
        pod.decide(Room(4096, 2000), 0)
        self.assertEqual(Room(12288, 6000), pod.room)
        return pod

    def test_the_headroom_shrinks_for_containers(self):
        pod = self.pod()
        self.node(pod, Room(10000, 5000))
        # 2288 of the spare 4096 are left, which is more than half.
        self.assertEqual(wish.STAYS,
                         pod.decide(Room(4096, 2000), 100).reason)
        self.node(pod, Room(11000, 5000))
        made = pod.decide(Room(4096, 2000), 200)
        self.assertEqual(wish.PRESSURE, made.reason)
        # 24576 - 11000 - 4096 are free; containers are to have 4096 of it.
        self.assertEqual(Room(10240, 5000), made.room)

    def test_what_is_scarce_is_shared_half_and_half(self):
        pod = self.pod()
        self.node(pod, Room(12288, 6000))
        pod.decide(Room(4096, 2000), 100)
        self.node(pod, Room(16384, 8000))
        made = pod.decide(Room(4096, 2000), 200)
        # 4096 and 2000 are free.
        self.assertEqual(Room(4096 + 2048, 4000 - 1000), made.room)

    def test_guests_are_never_given_up(self):
        pod, now = self.pod(), 200
        for _ in range(20):
            self.node(pod, Room(30000, 20000))
            pod.decide(Room(6000, 3500), now)
            now += wish.HASTE
        # Half of what is less than two steps is rounded up to one.
        self.assertEqual(Room(7168, 5000), pod.room)

    def test_not_more_often_than_it_must(self):
        pod = self.pod()
        self.node(pod, Room(11000, 5000))
        pod.decide(Room(4096, 2000), 100)
        self.node(pod, Room(14000, 5000))
        made = pod.decide(Room(4096, 2000), 101)
        self.assertEqual(wish.STAYS, made.reason)
        self.assertEqual(100 + wish.HASTE, made.again)
        made = pod.decide(Room(4096, 2000), made.again)
        self.assertEqual(wish.PRESSURE, made.reason)

    def test_the_headroom_comes_back_after_a_calm_time(self):
        pod = self.pod()
        self.node(pod, Room(13000, 5000))
        pod.decide(Room(4096, 2000), 100)
        small = pod.room
        self.node(pod, Room(0, 0))
        made = pod.decide(Room(4096, 2000), 200)
        self.assertEqual((small, 200 + IDLE), (made.room, made.again))
        made = pod.decide(Room(4096, 2000), 200 + IDLE)
        self.assertEqual(Room(12288, 6000), made.room)

    def test_what_the_node_has_not_is_not_wished(self):
        pod = self.pod()
        self.node(pod, Room(10000, 5000))
        made = pod.decide(Room(8192, 4000), 100)
        # 6384 and 3000 are free. The spare room comes first.
        self.assertEqual(Room(12288, 6000), made.room)

    @hypothesis.given(st.lists(st.tuples(GAPS, AMOUNTS, AMOUNTS),
                               max_size=30))
    def test_no_container_waits_while_room_is_idle(self, events):
        """A container that fits in half of what is free is not kept waiting.

        Not for longer than HASTE.
        """
        whole = Room(65536, 32000)
        pod, now = Pod(node=values.Node(Room(60000, 30000))), 0
        guests = containers = Room()
        for gap, more, wanted in events:
            now += gap + wish.HASTE
            guests = more.least(pod.room)
            containers = wanted.least(whole.minus(pod.room))
            for _ in range(2):
                pod.node = values.Node(
                    whole.minus(pod.room).minus(containers))
                pod.decide(guests, now)
                now += wish.HASTE
            free = whole.minus(pod.room).minus(containers)
            both = whole.minus(guests).minus(containers)
            floor = guests.most(SETTINGS.smallest)
            if pod.room.minus(SETTINGS.step).covers(floor):
                least = SETTINGS.spare.least(
                    Room(both.memory_mb // 2, both.cpu_millicores // 2))
                self.assertGreaterEqual(
                    2 * free.memory_mb + 2 * SETTINGS.step.memory_mb,
                    least.memory_mb)


class PropertiesTest(base.TestCase):

    @hypothesis.given(st.lists(st.tuples(GAPS, AMOUNTS), max_size=40))
    def test_bounds_and_headroom(self, events):
        pod, now = Pod(), 0
        for gap, demand in events:
            now += gap
            before = pod.room
            made = pod.decide(demand, now)
            self.assertTrue(made.room.covers(SETTINGS.smallest))
            self.assertTrue(made.room.covers(demand.least(before)))
            self.assertTrue(SETTINGS.largest.covers(made.room))
            # At once, what there may be.
            self.assertTrue(made.room.covers(
                demand.plus(SETTINGS.headroom).least(SETTINGS.largest)))

    @hypothesis.given(AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS, st.sampled_from(
        (None, values.DEFERRED, values.INFEASIBLE)))
    def test_nova_is_told_the_least(self, demand, wished, allocated, enforced,
                                    answer):
        pod = values.Pod(wished, allocated, enforced, answer)
        made = wish.decide(SETTINGS, demand, pod, values.Node(),
                           values.Past(), 0)
        for each in (made.room, wished, allocated, enforced):
            self.assertTrue(each.covers(made.report))

    @hypothesis.given(st.lists(st.tuples(GAPS, AMOUNTS), max_size=40))
    def test_no_two_resizes_without_a_change_of_demand(self, events):
        """Soon after a resize there is only a growth, for more demand."""
        pod, now = Pod(), 0
        for gap, demand in events:
            pod.play(demand, now, now + gap)
            now += gap
        for one, two in zip(pod.resizes, pod.resizes[1:]):
            if two[0] - one[0] < IDLE:
                self.assertEqual(wish.GROWS, two[4])
                self.assertTrue(
                    two[3].memory_mb > one[3].memory_mb or
                    two[3].cpu_millicores > one[3].cpu_millicores)

    @hypothesis.given(AMOUNTS, AMOUNTS)
    def test_it_comes_to_rest(self, before, demand):
        pod = Pod()
        pod.play(before, 0, 10)
        pod.resizes = []
        pod.play(demand, 10, 10 ** 7)
        self.assertLessEqual(len(pod.resizes), 1)
        self.assertIsNone(pod.past.idle_since)

    @hypothesis.settings(max_examples=50)
    @hypothesis.given(st.integers(1, 5 * IDLE), st.integers(1, 5 * IDLE),
                      AMOUNTS, AMOUNTS)
    def test_what_comes_and_goes_does_not_make_it_flap(self, there, away, one,
                                                       two):
        pod, now = Pod(), 0
        for _ in range(50):
            pod.play(one, now, now + there)
            pod.play(two, now + there, now + there + away)
            now += there + away
        # As often as the time can double, there and back, and the start.
        self.assertLessEqual(len(pod.resizes), 2 * 8 + 2)

    def test_many_small_ones(self):
        """Boots and deletes around the same level, for a day."""
        rng, pod, now = random.Random(1), Pod(), 0
        guests = [Room(1024, 500)] * 8
        while now < 86400:
            if rng.random() < 0.5 and len(guests) < 12:
                guests.append(Room(1024, 500))
            elif len(guests) > 4:
                guests.pop()
            total = Room(sum(each.memory_mb for each in guests),
                         sum(each.cpu_millicores for each in guests))
            gap = rng.expovariate(1 / 120)
            pod.play(total, now, now + gap)
            now += gap
        self.assertLess(len(pod.resizes), 20)
