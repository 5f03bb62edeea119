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

"""The command itself; tests/functional has it with a real Nova."""

import contextlib
import io
from unittest import mock

from nova_k8s.cmd import drain
from nova_k8s.cmd import evacuate
from nova_k8s.cmd import main
from nova_k8s.drain import guests
from nova_k8s.drain import nova_api
from nova_k8s import errors
from nova_k8s.kube import node
from tests.unit import base
from tests.unit.drain import simulated_nova

G = guests.Guest


class CommandTestBase(base.TestCase):

    def setUp(self):
        super().setUp()
        self.clock = simulated_nova.Clock()
        self.nova = simulated_nova.Nova(self.clock)
        self.changes = []
        self.nova.service = self.service
        for name in ('disable', 'force_down', 'enable'):
            setattr(self.nova, name, self.noting(name))
        patch = mock.patch('time.sleep', self.clock.wait)
        patch.start()
        self.addCleanup(patch.stop)
        patch = mock.patch.object(drain, 'connect',
                                  lambda args, tenants=True: self.nova)
        patch.start()
        self.addCleanup(patch.stop)
        # As a default it was bound before.
        defaults = drain.engine.Engine.__init__.__defaults__
        patch = mock.patch.object(
            drain.engine.Engine.__init__, '__defaults__',
            (*defaults[:-1], self.clock))
        patch.start()
        self.addCleanup(patch.stop)

    def service(self, name):
        if name not in self.nova.hosts:
            raise nova_api.Refused(f'Nova knows no {name}')
        return self.nova.hosts[name]

    def noting(self, name):
        def note(service, *args):
            self.changes.append((name, service.host, *args))
            fields = {'disable': {'enabled': False},
                      'force_down': {'up': False, 'forced_down': True},
                      'enable': {'enabled': True, 'forced_down': False}}
            self.nova.set_host(service.host, **fields[name])
        return note

    def run_command(self, *arguments):
        """Return (exit status, stdout, stderr)."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main.main(list(arguments))
        return status, out.getvalue(), err.getvalue()


class DrainTest(CommandTestBase):

    def test_empty(self):
        self.nova.add(G('g', 'web'))
        status, out, err = self.run_command('drain', '--host', 'a')
        self.assertEqual((0, ''), (status, err))
        self.assertEqual([('disable', 'a', 'nova-k8s drain')], self.changes)
        self.assertIn('a is empty: 1 guests have left', out)

    def test_left(self):
        self.nova.add(G('g', 'web', wish='skip'))
        status, out, _ = self.run_command('drain', '--host', 'a')
        self.assertEqual(1, status)
        self.assertIn('g web: stays: nova-k8s:drain says skip', out)

    def test_disabled_by_somebody(self):
        self.nova.set_host('a', enabled=False)
        self.run_command('drain', '--host', 'a')
        self.assertEqual([], self.changes)

    def test_dry_run_changes_nothing(self):
        for each in 'gh':
            self.nova.add(G(each))
        status, out, _ = self.run_command('drain', '--host', 'a', '--dry-run')
        self.assertEqual(0, status)
        self.assertIn('a: 2 guests, 0 would stay', out)
        self.assertNotIn('waits', out)
        self.assertEqual(([], []), (self.changes, self.nova.asked))

    def test_could_not_be_tried(self):
        for arguments, prepare, text in (
                (('--host', 'z'), None, 'Nova knows no z'),
                (('--host', 'a'), 'forbidden', '403'),
                (('--host', 'a'), 'down', 'Nova is away')):
            if prepare:
                setattr(self.nova, prepare, True)
            status, out, err = self.run_command('drain', *arguments)
            self.assertEqual((2, ''), (status, out))
            self.assertIn(text, err)

    def test_interrupted(self):
        self.nova.add(G('g'))
        with mock.patch('time.sleep', side_effect=KeyboardInterrupt):
            status, out, err = self.run_command('drain', '--host', 'a')
        self.assertEqual(1, status)
        self.assertIn('interrupted', err)

    def test_numbers(self):
        for name in ('--parallel', '--attempts', '--migration-timeout',
                     '--patience'):
            for text in ('0', '-1', 'x'):
                exc = self.assertRaises(SystemExit, self.run_command, 'drain',
                                        '--host', 'a', name, text)
                self.assertEqual(2, exc.code)


class EvacuateTest(CommandTestBase):

    def setUp(self):
        super().setUp()
        self.nova.set_host('a', up=False)
        self.act = self.nova.act
        self.nova.act = lambda verdict, start=False: self.act(verdict)

    def with_node(self, found):
        patch = mock.patch.object(node.Source, 'ask', found)
        patch.start()
        self.addCleanup(patch.stop)

    def test_with_the_taint(self):
        self.with_node(lambda source: node.Node(
            'a', 'u', taints=frozenset((node.OUT_OF_SERVICE,))))
        self.nova.add(G('g', 'web'))
        status, out, err = self.run_command('evacuate', '--host', 'a')
        self.assertEqual(0, status, err)
        self.assertEqual([('force_down', 'a'),
                          ('disable', 'a', 'nova-k8s evacuate')],
                         self.changes)

    def test_without_it(self):
        def away(source):
            raise errors.Unreadable('no answer')
        for found, text in (
                (lambda source: node.Node('a', 'u'), 'may still run'),
                (away, 'is not known: no answer')):
            self.with_node(found)
            status, _, err = self.run_command('evacuate', '--host', 'a')
            self.assertEqual(2, status)
            self.assertIn(text, err)
            self.assertIn('--i-know-it-is-off', err)
        self.assertEqual(([], []), (self.changes, self.nova.asked))

    def test_too_many_are_down(self):
        self.nova.set_host('b', up=False)
        status, _, err = self.run_command('evacuate', '--host', 'a',
                                          '--i-know-it-is-off')
        self.assertEqual(2, status)
        self.assertIn('2 of 3 compute services are down', err)
        status, _, _ = self.run_command(
            'evacuate', '--host', 'a', '--i-know-it-is-off',
            '--most-down', '70')
        self.assertEqual(0, status)

    def test_lost(self):
        table = ((G('g', local_disk=True, powered=False), False,
                  'its local disk is made anew from its image, unless '
                  '[DEFAULT] instances_path is shared'),
                 (G('g', local_disk=False), False,
                  'it stays shut off (--start)'),
                 (G('g', local_disk=False), True, ''))
        for guest, start, expected in table:
            self.assertEqual(expected, evacuate.lost(guest, start))

    def test_enable(self):
        self.nova.look = lambda host, back: guests.View(
            host, migrations=tuple(self.records))
        self.records = [guests.Migration(
            1, 'g', guests.EVACUATION, 'done', 'a', 'b')]
        status, _, err = self.run_command('evacuate', '--host', 'a',
                                          '--enable')
        self.assertEqual(2, status)
        self.assertIn('destroyed them: g', err)
        self.records = [guests.Migration(
            1, 'g', guests.EVACUATION, 'completed', 'a', 'b')]
        status, _, _ = self.run_command('evacuate', '--host', 'a', '--enable')
        self.assertEqual((0, [('enable', 'a')]), (status, self.changes))
