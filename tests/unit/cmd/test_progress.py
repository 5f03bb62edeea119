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

import io

from rich import console

from nova_k8s.cmd import progress
from nova_k8s.drain import engine
from nova_k8s.drain import guests
from nova_k8s.drain import nova_api
from nova_k8s.drain import plan
from tests.unit import base
from tests.unit.drain import simulated_nova

G = guests.Guest


def moves(id, status='running', dest='b', **fields):
    return plan.Verdict(G(id, **fields), plan.MOVES, status, guests.Migration(
        1, id, guests.LIVE_MIGRATION, status, 'a', dest))


class LinesTest(base.TestCase):

    def test_a_line_a_change(self):
        out = io.StringIO()
        turn = plan.Verdict(G('h'), plan.WAITS, 'for its turn')
        gone = engine.Moved(G('g', 'web'), 'b', 12)
        with progress.Lines(out) as lines:
            for state in (
                    engine.State((moves('g', name='web'), turn)),
                    engine.State((moves('g', name='web'), turn)),
                    engine.State((turn,), (gone,), 'no answer'),
                    engine.State((turn,), (gone,), 'no answer'),
                    engine.State((plan.Verdict(
                        G('h'), plan.FAILED, 'No valid host'),), (gone,)),
                    engine.State((), (gone, engine.Moved(G('h'))))):
                lines(state)
        self.assertEqual(
            ['web: moves to b: running', 'web: left for b after 12 s',
             'Nova does not answer, trying again: no answer',
             'h: could not be moved: No valid host', 'h: is gone'],
            out.getvalue().splitlines())


class ScreenTest(base.TestCase):

    def show(self, *states, answer=None):
        out = io.StringIO()
        clock = simulated_nova.Clock()

        class Nova:
            def progress(self, guest):
                if answer is None:
                    raise nova_api.Unreachable('no answer')
                return answer

        with progress.Screen(
                Nova(), console.Console(file=out, width=150,
                                        force_terminal=True), clock) as show:
            for state in states:
                show(state)
                clock.wait(60)
        return out.getvalue()

    def test_table(self):
        found = self.show(engine.State((
            moves('g', name='web'),
            plan.Verdict(G('h', 'db'), plan.STAYS, 'it is suspended'))),
            answer=nova_api.Progress(300_000_000, 1_000_000_000, 'b'))
        for text in ('0 of 2 guests have left', 'web', 'moves', '300.0 MB',
                     'running', 'db', 'it is suspended'):
            self.assertIn(text, found)

    def test_nova_does_not_say(self):
        self.assertIn('web', self.show(engine.State((
            moves('g', name='web'),), problem='away')))

    def test_estimate(self):
        gone = engine.Moved(G('g', memory_mb=1024), 'b')
        rest = tuple(plan.Verdict(G(each, memory_mb=1024), plan.WAITS)
                     for each in 'hi')
        found = self.show(engine.State(rest), engine.State(rest[:2], (gone,)))
        self.assertIn('1 of 3 guests have left, about 2 min to go', found)

    def test_many(self):
        found = self.show(engine.State(tuple(
            plan.Verdict(G(str(each)), plan.WAITS) for each in range(30))))
        self.assertIn('and 10 more', found)


class SummaryTest(base.TestCase):

    def test_summary(self):
        stays = plan.Verdict(G('h', 'db'), plan.STAYS, 'it is suspended')
        self.assertEqual({
            'host': 'a', 'empty': False,
            'moved': [{'id': 'g', 'name': 'web', 'to': 'b',
                       'seconds': 12.3}],
            'left': [{'id': 'h', 'name': 'db', 'status': 'ACTIVE',
                      'what': 'stays', 'why': 'it is suspended',
                      'counts': True}]},
            progress.summary('a', engine.State(
                (stays,), (engine.Moved(G('g', 'web'), 'b', 12.34),))))

    def test_remaining(self):
        self.assertIsNone(progress.remaining(engine.State(), 60))
