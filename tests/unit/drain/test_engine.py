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

from nova_k8s.drain import engine
from nova_k8s.drain import evacuation
from nova_k8s.drain import guests
from nova_k8s.drain import nova_api
from nova_k8s.drain import plan
from tests.unit import base
from tests.unit.drain import simulated_nova

G = guests.Guest


class EngineTestBase(base.TestCase):

    def setUp(self):
        super().setUp()
        self.clock = simulated_nova.Clock()
        self.nova = simulated_nova.Nova(self.clock)
        self.nova.set_host('a', enabled=False)
        self.states = []

    def engine(self, rules=plan, hold=lambda: None, **policy):
        return engine.Engine(self.nova, 'a', plan.Policy(**policy), rules,
                             hold, clock=self.clock)

    def run_to_end(self, loop=None, patience=60, wait=None, **policy):
        return (loop or self.engine(**policy)).run(
            self.states.append, wait or self.clock.wait, patience)

    def steps(self, loop, seconds):
        end = self.clock() + seconds
        while self.clock() < end:
            state = loop.step()
            self.clock.wait(loop.delay)
        return state


class EngineTest(EngineTestBase):

    def test_all_leave(self):
        for each in 'ghi':
            self.nova.add(G(each))
        state = self.run_to_end()
        self.assertTrue(state.empty)
        self.assertEqual([('g', 'b'), ('h', 'c'), ('i', 'b')],
                         [(each.guest.id, each.dest) for each in state.moved])
        for each in state.moved:
            self.assertLess(10, each.seconds)

    def test_an_empty_node(self):
        self.assertTrue(self.run_to_end().empty)
        self.assertEqual(1, len(self.states))

    def test_one_that_cannot_move_hinders_no_other(self):
        for each in 'ghi':
            self.nova.add(G(each))
        self.nova.broken['g'] = 'has a host device'
        state = self.run_to_end()
        self.assertEqual({'h', 'i'}, {each.guest.id for each in state.moved})
        left, = state.left
        self.assertEqual(('g', 'failed', 'has a host device'),
                         (left.guest.id, left.what, left.why))
        self.assertEqual(3, sum(guest == 'g'
                                for _, _, guest in self.nova.asked))

    def test_nova_refuses(self):
        self.nova.add(G('g'))
        acts = []

        def act(verdict):
            acts.append(self.clock())
            raise nova_api.Refused('not with a vTPM')
        self.nova.act = act
        left, = self.run_to_end().left
        self.assertEqual('not with a vTPM', left.why)
        # With a pause that grows.
        first, second, third = acts
        self.assertLess(9, second - first)
        self.assertLess(19, third - second)

    def test_no_reason_given(self):
        self.nova.add(G('g'))
        self.nova.broken['g'] = None
        left, = self.run_to_end(attempts=1).left
        self.assertEqual('its live-migration ended with error', left.why)

    def test_nothing_came_of_the_request(self):
        self.nova.add(G('g'))
        self.nova.act = lambda verdict: None
        left, = self.run_to_end(attempts=1).left
        self.assertEqual('Nova took the request (live) and did nothing',
                         left.why)

    def test_tried_again_when_a_node_came(self):
        for host in 'bc':
            self.nova.set_host(host, up=False)
        self.nova.add(G('g'))
        loop = self.engine(attempts=1)
        state = self.steps(loop, 400)
        self.assertEqual('failed', state.left[0].what)
        self.assertEqual(1, len(self.nova.asked))
        self.nova.broken.clear()
        self.nova.set_host('b', up=True)
        self.assertTrue(self.steps(loop, 30).empty)
        self.assertEqual(2, len(self.nova.asked))

    def test_tried_again_when_a_guest_left(self):
        for each in 'gh':
            self.nova.add(G(each))
        self.nova.broken['g'] = 'no'
        self.nova.change('h', wish='skip')
        loop = self.engine(attempts=1)
        self.steps(loop, 100)
        self.nova.broken.clear()
        self.nova.change('h', wish=None)
        self.assertTrue(self.steps(loop, 60).empty)

    def test_a_host_that_comes_and_goes_is_no_reason_to_hurry(self):
        self.nova.add(G('g'))
        self.nova.broken['g'] = 'no'
        loop = self.engine(attempts=1)
        for _ in range(10):
            self.nova.set_host('b', up=False)
            self.steps(loop, 30)
            self.nova.set_host('b', up=True)
            self.steps(loop, 30)
        self.assertEqual(11, len(self.nova.asked))

    def test_goes_on_after_an_end_at_any_moment(self):
        for moment in range(1, 40, 3):
            self.clock = simulated_nova.Clock()
            self.nova = simulated_nova.Nova(self.clock)
            self.nova.set_host('a', enabled=False)
            for each in 'ghi':
                self.nova.add(G(each))
            self.steps(self.engine(), moment)
            self.assertTrue(self.run_to_end().empty)
            # None of them twice.
            self.assertEqual(3, len(self.nova.records))

    def test_migrations_under_way_come_first(self):
        for each in 'gh':
            self.nova.add(G(each))
        self.steps(self.engine(), 3)
        loop = self.engine()
        loop.step()
        self.assertEqual(1, len(self.nova.asked))

    def test_parallel(self):
        self.nova._concurrent = 2
        for each in 'ghij':
            self.nova.add(G(each))
        loop = self.engine(parallel=2)
        loop.step()
        self.assertEqual(2, len(self.nova.asked))
        self.assertTrue(self.run_to_end(loop).empty)
        self.assertLess(self.clock() - 1000, 30)

    def test_abort(self):
        self.nova._length = lambda guest: 500 if guest.id == 'g' else 10
        for each in 'gh':
            self.nova.add(G(each))
        state = self.run_to_end(timeout=60, attempts=2)
        self.assertEqual(['h'], [each.guest.id for each in state.moved])
        self.assertEqual(
            'aborted, because it was not done after 60 s', state.left[0].why)
        self.assertEqual(2, sum(what == 'abort'
                                for _, what, _ in self.nova.asked))

    def test_cold(self):
        self.nova.add(G('off', status='SHUTOFF', powered=False))
        self.nova.add(G('asked', wish='cold'))
        state = self.run_to_end(shut_off='cold')
        self.assertTrue(state.empty, state)
        self.assertEqual({'confirmed'}, {
            each.status for each in self.nova.records.values()})
        self.assertEqual('SHUTOFF', self.nova.guests['off'].status)

    def test_by_default_nothing_is_touched_but_what_runs(self):
        off = self.nova.add(G('off', status='SHUTOFF', powered=False))
        state = self.run_to_end()
        self.assertEqual([off], [each.guest for each in state.left])
        self.assertFalse(state.empty)
        self.assertTrue(self.run_to_end(shut_off='ignore').empty)
        self.assertEqual([], self.nova.asked)

    def test_stop_where_asked(self):
        self.nova.add(G('g', wish='stop'))
        self.assertTrue(self.run_to_end(shut_off='ignore').empty)
        self.assertEqual('SHUTOFF', self.nova.guests['g'].status)

    def test_deleted_meanwhile(self):
        self.nova.add(G('g'))
        loop = self.engine()
        loop.step()
        self.clock.wait(2)
        loop.step()
        del self.nova.where['g'], self.nova.guests['g']
        self.nova._set(1, status='cancelled')
        self.nova._ends.clear()
        state = self.run_to_end(loop)
        self.assertTrue(state.empty)
        self.assertEqual([(None,)], [(each.dest,) for each in state.moved])

    def test_called_off(self):
        for each in 'ghi':
            self.nova.add(G(each))
        reason = []
        loop = self.engine(hold=lambda: reason[0] if reason else None)
        self.steps(loop, 4)
        reason.append('the node is uncordoned')
        state = self.run_to_end(loop)
        # What was under way finished.
        self.assertEqual(1, len(state.moved))
        self.assertEqual(2, len(state.left))

    def test_an_outage(self):
        for each in 'gh':
            self.nova.add(G(each))

        def wait(seconds):
            self.clock.wait(seconds)
            self.nova.down = 1012 < self.clock() < 1060
        state = self.run_to_end(wait=wait)
        self.assertTrue(state.empty)
        self.assertIn('Nova is away', {each.problem for each in self.states})
        self.assertEqual(2, len(self.nova.records))

    def test_an_outage_that_lasts(self):
        self.nova.add(G('g'))

        def wait(seconds):
            self.clock.wait(seconds)
            self.nova.down = True
        self.assertRaises(nova_api.Unreachable, self.run_to_end, wait=wait)
        self.assertLess(self.clock(), 1100)

    def test_not_there_from_the_beginning(self):
        self.nova.down = True
        self.assertRaises(nova_api.Unreachable, self.run_to_end)
        self.assertEqual(2, self.nova.calls)

    def test_a_lost_answer(self):
        self.nova.add(G('g'))
        act = self.nova.act

        def lost(verdict):
            act(verdict)
            raise nova_api.Unreachable('timeout')
        self.nova.act = lost
        self.assertTrue(self.run_to_end().empty)
        self.assertEqual(1, len(self.nova.asked))

    def test_a_role_is_missing(self):
        self.nova.forbidden = True
        self.assertRaises(nova_api.Forbidden, self.run_to_end)

    def test_cost(self):
        self.nova._length = lambda guest: 60
        for each in range(10):
            self.nova.add(G(str(each)))
        self.run_to_end()
        # A look every 2 s, of two requests, and one a guest.
        self.assertLess(self.nova.calls, 10 * (2 * 60 / 2 + 5))


class TwoDrainsTest(EngineTestBase):

    def test_none_goes_to_the_other_one(self):
        self.nova.set_host('b', enabled=False)
        for each in 'gh':
            self.nova.add(G(each), 'a')
            self.nova.add(G(each * 2), 'b')
        loops = [engine.Engine(self.nova, host, plan.Policy(),
                               clock=self.clock) for host in 'ab']
        for _ in range(40):
            states = [loop.step() for loop in loops]
            self.clock.wait(2)
        self.assertTrue(all(state.empty for state in states))
        self.assertEqual({'c'}, {host for _, host in self.nova.placed})

    def test_what_was_already_coming_goes_on(self):
        # It was sent to b just before b was drained.
        self.nova.add(G('g'), 'a')
        self.nova.set_host('c', enabled=False)
        self.steps(self.engine(), 3)
        self.nova.set_host('b', enabled=False)
        self.nova.set_host('c', enabled=True)
        state = engine.Engine(self.nova, 'b', plan.Policy(),
                              clock=self.clock).run(
            self.states.append, self.clock.wait, 60)
        self.assertTrue(state.empty)
        self.assertEqual({'g'}, self.nova.on('c'))


class EvacuationTest(EngineTestBase):

    def test_all_are_rebuilt(self):
        self.nova.set_host('a', up=False, forced_down=True)
        for each, status in (('g', 'ACTIVE'), ('h', 'SHUTOFF'),
                             ('i', 'ERROR'), ('j', 'PAUSED')):
            self.nova.add(G(each, status=status))
        state = self.run_to_end(self.engine(evacuation, parallel=2))
        self.assertEqual({'g', 'h', 'i'},
                         {each.guest.id for each in state.moved})
        self.assertEqual(['j'], [each.guest.id for each in state.left])
        self.assertEqual(3, len(evacuation.uncleaned(self.nova.look('a'))))
