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

"""What is kept of the budget, and what a start makes of it."""

import dataclasses
import json
import os
from unittest import mock

import fixtures
from oslo_config import cfg

from nova_k8s import errors
from nova_k8s.limits import budget
from nova_k8s.limits import checkpoint
from nova_k8s.limits import watcher
from tests.unit import base

FULL = budget.Budget(
    'Pod a/b, container c (API server)', 4500, 2 ** 33,
    hugepages=(('1Gi', 2 ** 31), ('2Mi', 2 ** 22)),
    ephemeral_storage_bytes=2 ** 30, cpu_request_millicores=500,
    memory_request_bytes=2 ** 32, missing=('spec.x', 'spec.y'), caveats=('z',),
    node_name='node-1', deletion_time='2026-11-24T20:30:00Z', generation=7,
    resizing='it is', unconfirmed='nobody says', withheld='8 cores',
    resize_error='cannot',
    resize_pending='Deferred: later', workload='ReplicaSet web',
    pod=budget.Reference('Pod', 'b', 'uid-1', 'a'))
SETTLED = dataclasses.replace(FULL, resizing=None, unconfirmed=None)
NOT_YET = errors.NotYet('Pod a/b: container c does not run')
UNREADABLE = errors.Unreadable('Pod a/b: cannot be read')


class LastTestBase(base.TestCase):

    def setUp(self):
        super().setUp()
        self.useFixture(fixtures.EnvironmentVariable('POD_NAMESPACE', 'a'))
        self.useFixture(fixtures.EnvironmentVariable('NODE_NAME', 'node-1'))
        self.log = self.useFixture(fixtures.FakeLogger('nova_k8s'))
        self.state_path = self.folder()

    def conf(self, host='host', **options):
        found = super().conf(**options)
        found.register_opts([cfg.StrOpt('state_path'), cfg.StrOpt('host')])
        found.set_override('state_path', self.state_path)
        found.set_override('host', host)
        return found

    def saved(self, present=FULL, **options):
        found = self.conf(**options)
        checkpoint.save(found, present)
        return found

    def said(self, *names):
        lines = self.log.output.splitlines()
        self.assertEqual(1, len(lines), lines)
        for name in names:
            self.assertIn(name, lines[0])


class KeptTest(LastTestBase):

    def test_round_trip(self):
        found, read_at = checkpoint.load(self.saved())
        # Some of its fields do not count when budgets are compared.
        self.assertEqual(vars(FULL), vars(found))
        self.assertIsInstance(hash(found), int)
        self.assertRegex(read_at, r'^20\d\d-.*\+00:00$')

    def test_round_trip_of_a_small_one(self):
        small = budget.Budget('Pod a/b')
        self.assertEqual(vars(small),
                         vars(checkpoint.load(self.saved(small))[0]))

    def test_example_has_every_field(self):
        # So that a new field is not forgotten above.
        self.assertNotIn(None, vars(FULL).values())
        self.assertNotIn((), vars(FULL).values())

    def test_nothing_kept(self):
        self.assertIsNone(checkpoint.load(self.conf()))
        self.assertEqual('', self.log.output)

    def test_replaced(self):
        found = self.saved()
        for cpu in (1000, 2000):
            checkpoint.save(found, budget.Budget('Pod a/b', cpu, 1))
        self.assertEqual(2000, checkpoint.load(found)[0].cpu_millicores)
        self.assertEqual([os.path.basename(checkpoint.path(found))],
                         os.listdir(self.state_path))

    def test_only_what_comes_from_the_api_server(self):
        for source in ('manifest', 'downward_api'):
            self.saved(limits_from=source)
        self.assertEqual([], os.listdir(self.state_path))

    def test_folder_that_is_not_there(self):
        self.state_path += '/none'
        self.saved()
        self.said('could not be kept', self.state_path)

    def test_full_disk(self):
        found = self.saved()
        for method in ('os.fsync', 'os.replace'):
            with mock.patch(method, side_effect=OSError(28, 'No space')):
                checkpoint.save(found, budget.Budget('Pod a/b', 1, 1))
        self.assertEqual(2, self.log.output.count('No space'))
        self.assertEqual(FULL, checkpoint.load(found)[0])
        self.assertEqual(1, len(os.listdir(self.state_path)))

    def test_namespace_that_nobody_knows_any_more(self):
        self.useFixture(fixtures.EnvironmentVariable('POD_NAMESPACE'))
        self.saved()
        self.said('could not be kept', '[kubernetes] namespace')

    def test_file_that_cannot_be_read(self):
        found = self.conf()
        os.mkdir(checkpoint.path(found))
        self.assertIsNone(checkpoint.load(found))
        self.said(checkpoint.path(found), 'is ignored')


class ForgetTest(LastTestBase):

    def test_forget(self):
        found = self.saved()
        checkpoint.forget(found)
        self.assertIsNone(checkpoint.load(found))
        checkpoint.forget(found)


class OtherKeyTest(LastTestBase):

    def _ignored(self, **options):
        self.assertIsNone(checkpoint.load(self.conf(**options)))
        self.said('is ignored: it belongs to')

    def setUp(self):
        super().setUp()
        self.saved()

    def test_host(self):
        self._ignored(host='other')

    def test_node(self):
        self.useFixture(fixtures.EnvironmentVariable('NODE_NAME', 'node-2'))
        self._ignored()

    def test_namespace(self):
        self._ignored(namespace='other')

    def test_pod_name(self):
        self._ignored(pod_name='other')

    def test_pod_selector(self):
        self._ignored(pod_selector='a=b')

    def test_container(self):
        self._ignored(container='*')

    def test_random_name_of_the_pod_is_none(self):
        self.useFixture(fixtures.EnvironmentVariable('POD_NAME', 'x7k2p'))
        self.assertEqual(FULL, checkpoint.load(self.conf())[0])


class DamagedTest(LastTestBase):

    def _ignored(self, text):
        found = self.conf()
        with open(checkpoint.path(found), 'wb') as f:
            f.write(text)
        self.assertIsNone(checkpoint.load(found), text[:99])

    def test_no_json(self):
        for text in (b'', b'{', b'\xff', b'\0' * 100, b'[' * 100000,
                     b'rubbish'):
            self._ignored(text)
        lines = self.log.output.splitlines()
        self.assertEqual(6, len(lines), lines)
        for line in lines:
            self.assertIn('is ignored', line)

    def test_other_json(self):
        for text in (b'null', b'1', b'[]', b'{}', b'"a"',
                     b'{"key": {}, "read_at": "", "budget": {}}'):
            self._ignored(text)

    def test_other_values(self):
        with open(checkpoint.path(self.saved()), encoding='utf-8') as f:
            kept = json.load(f)
        for field, values in (
                ('source', (None, 1)),
                ('cpu_millicores', (-1, '4', 1.5, True, [], float('nan'),
                                    float('inf'))),
                ('memory_bytes', (-1, '4Gi', 1.5)),
                ('memory_request_bytes', (-1, '')),
                ('hugepages', (None, {}, [[]], [['2Mi']], [['2Mi', -1]],
                               [['2Mi', 1, 1]], [[1, '2Mi']])),
                ('missing', (None, 'spec', [1])),
                ('node_name', (1, [])),
                ('pod', (1, {}, {'kind': 'Pod'}, dict(
                    kept['budget']['pod'], more=1))),
                ('more', (1,))):
            for value in values:
                self._ignored(json.dumps(dict(
                    kept, budget=dict(kept['budget'], **{field: value})
                )).encode())


class FirstTest(LastTestBase):

    def _source(self, *answers):
        return mock.Mock(**{'read.side_effect': answers})

    def test_read(self):
        for found in (self.conf(), self.saved()):
            state = checkpoint.resume(
                found, self._source(budget.Budget('x', 1, 1)))
            self.assertEqual(watcher.State(budget.Budget('x', 1, 1)), state)

    def test_kept(self):
        found = self.saved()
        source = self._source(UNREADABLE)
        state = checkpoint.resume(found, source)
        self.assertEqual(FULL, state.budget)
        self.assertTrue(state.stale)
        for text in (str(UNREADABLE), checkpoint.load(found)[1]):
            self.assertIn(text, state.problem)
        # A start that has what it needs does not wait.
        source.read.assert_called_once_with()

    def test_kept_does_not_excuse_what_is_refused(self):
        self.assertRaises(errors.Refused, checkpoint.resume, self.saved(),
                          self._source(errors.Refused('is not there')))

    def test_nothing_kept_waits(self):
        source = self._source(UNREADABLE, UNREADABLE, SETTLED)
        state = checkpoint.resume(self.conf(api_timeout=1), source)
        self.assertEqual(watcher.State(SETTLED), state)
        self.assertEqual(3, source.read.call_count)

    def test_growth_that_is_not_yet_true_waits_over_a_restart(self):
        # What is kept is the memory of the process before.
        wished = dataclasses.replace(
            FULL, cpu_millicores=64000, unconfirmed=None)
        for generation, expected in ((7, 4500), (8, 4500)):
            state = checkpoint.resume(self.saved(), self._source(
                dataclasses.replace(wished, generation=generation)))
            self.assertEqual(expected, state.budget.cpu_millicores)
        state = checkpoint.resume(self.saved(), self._source(
            dataclasses.replace(wished, resizing=None)))
        self.assertEqual(64000, state.budget.cpu_millicores)

    def test_what_does_not_hold_guests_yet_is_waited_for(self):
        for conf in (self.conf(api_timeout=1), self.saved(api_timeout=1)):
            source = self._source(NOT_YET, SETTLED)
            self.assertEqual(watcher.State(SETTLED),
                             checkpoint.start(conf, source))
            self.assertEqual(2, source.read.call_count)

    def test_what_does_not_hold_guests_yet_is_no_reason_to_forget(self):
        conf = self.saved(api_timeout=1)
        source = mock.Mock(**{'read.side_effect': NOT_YET})
        self.assertRaises(errors.NotYet, checkpoint.start, conf, source)
        self.assertEqual(FULL, checkpoint.load(conf)[0])

    def test_nothing_kept_fails_in_the_end(self):
        source = mock.Mock(**{'read.side_effect': UNREADABLE})
        exc = self.assertRaises(errors.Unreadable, checkpoint.resume,
                                self.conf(api_timeout=1), source)
        self.assertIn(str(UNREADABLE), str(exc))
        self.assertIn('[kubernetes] kubeconfig', str(exc))

    def test_files_are_not_kept(self):
        self.saved()
        for name in ('manifest', 'downward_api'):
            source = self._source(UNREADABLE)
            self.assertRaises(errors.Unreadable, checkpoint.resume,
                              self.conf(limits_from=name), source)
            source.read.assert_called_once_with()
