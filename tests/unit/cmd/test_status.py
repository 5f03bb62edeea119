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


"""This node as Kubernetes and Nova see it."""

import dataclasses
import datetime
import io
import json
import threading
from unittest import mock

import fixtures
import nova.conf as nova_conf
from oslo_config import fixture as config_fixture
from rich import console
import yaml

from nova_k8s.accounting import overhead
from nova_k8s.accounting import summary
from nova_k8s.cmd import comparison
from nova_k8s.cmd import main
from nova_k8s.cmd import observed
from nova_k8s.cmd import status
from nova_k8s import conf
from nova_k8s.drain import drainer
from nova_k8s.drain import trigger
from nova_k8s.elastic import mover
from nova_k8s import errors
from nova_k8s.kube import node
from nova_k8s.limits import budget
from nova_k8s.limits import watcher
from nova_k8s.service import reasons
from nova_k8s.service import record as records
from nova_k8s.util import statefile
from tests.unit import base

CONF = nova_conf.CONF
NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.timezone.utc)

CORDONED = frozenset((node.CORDONED,))
NOTHING = frozenset()
PROVIDER = '5c1d4c8e-0000-4000-8000-000000000002'
SERVICE = '5c1d4c8e-0000-4000-8000-000000000001'
ENABLED = reasons.Record(False)
OURS = reasons.Record(True, 'AUTO: cordoned (Kubernetes node kube-1)')
THEIRS = reasons.Record(True, 'maintenance')


def kept(acted=NOTHING, overridden=NOTHING):
    return reasons.Kept(acted, overridden)


def nova(record, up=True, seen=NOW, vcpus=4):
    return observed.Nova(record, SERVICE, up, seen, vcpus, 4096, 3, PROVIDER)


class CompareTest(base.TestCase):

    TABLE = (
        # what there is, record, kept -> state
        (NOTHING, ENABLED, kept(), 'follows'),
        (NOTHING, ENABLED, None, 'follows'),
        (NOTHING, OURS, kept(CORDONED), 'behind'),
        (NOTHING, OURS, None, 'behind'),
        (CORDONED, ENABLED, kept(), 'behind'),
        (CORDONED, ENABLED, None, 'behind'),
        (CORDONED, OURS, kept(CORDONED), 'follows'),
        (CORDONED, OURS, None, 'follows'),
        (CORDONED, ENABLED, kept(CORDONED), 'administrator: enabled'),
        (CORDONED, ENABLED, kept(CORDONED, CORDONED),
         'administrator: enabled'),
        (CORDONED, THEIRS, kept(CORDONED), 'administrator: disabled'),
        (NOTHING, THEIRS, kept(), 'administrator: disabled'),
        (CORDONED, THEIRS, kept(), 'behind'),
        # Disabled for another reason, in spite of the cordon before.
        (CORDONED, reasons.Record(True, 'AUTO: no budget'),
         kept(CORDONED | {reasons.NO_BUDGET}, CORDONED),
         'administrator: enabled'),
    )

    def test_table(self):
        for there, record, known, expected in self.TABLE:
            found = comparison.compare(CORDONED, there, record, known)
            self.assertTrue(found.startswith(expected),
                            (there, record, known, found))


class WordsTest(base.TestCase):

    def test_words(self):
        for seconds, expected in ((None, '?'), (0, '0 s'), (119, '119 s'),
                                  (120, '2 min'), (7199, '119 min'),
                                  (7200, '2 h'), (200000, '2 d')):
            self.assertEqual(expected, comparison.words(seconds))


class WithinTest(base.TestCase):

    def test_answer(self):
        self.assertEqual((7, None), observed.within(1, 'x', lambda: 7))

    def test_failure_is_one_line(self):
        def fail():
            raise RuntimeError('no\nanswer')
        self.assertEqual((None, 'unknown: x: no answer'),
                         observed.within(1, 'x', fail))

    def test_silence(self):
        answer = threading.Event()
        self.addCleanup(answer.set)
        self.assertEqual(
            (None, 'unknown: x: no answer within 0.1 s'),
            observed.within(0.1, 'x', answer.wait))


class StatusTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.useFixture(config_fixture.Config(CONF))
        folder = self.folder()
        self.pod = {'kind': 'Pod', 'metadata': {'name': 'x'}, 'spec': {
            'containers': [{'name': 'libvirt', 'resources': {
                'limits': {'cpu': '4', 'memory': '4Gi'}}}]}}
        self._write(folder + '/pod.yaml', yaml.safe_dump(self.pod))
        self.conf_file = folder + '/nova.conf'
        self._write(self.conf_file, f"""
[DEFAULT]
state_path = {folder}
host = host-1
[kubernetes]
limits_from = manifest
manifest = {folder}/pod.yaml
api_timeout = 2
node_name = kube-1
""")
        self.state_path = folder
        self.nova = nova(ENABLED)
        self.node = node.Node('kube-1', 'uid-1')
        self.useFixture(fixtures.MockPatchObject(
            observed, 'ask_nova', lambda: self._answer(self.nova)))
        self.inventory = {
            'VCPU': {'total': 4, 'reserved': 0, 'allocation_ratio': 4.0},
            'MEMORY_MB': {'total': 4096, 'reserved': 256,
                          'allocation_ratio': 1.0},
            'DISK_GB': {'total': 10, 'reserved': 3,
                        'allocation_ratio': 1.0}}
        self.useFixture(fixtures.MockPatchObject(
            observed, 'ask_placement',
            lambda provider: (self._answer(
                {PROVIDER: self.inventory}[provider]), {'MEMORY_MB': 1024})))
        self.useFixture(fixtures.MockPatchObject(
            observed, 'libvirt_guests', lambda: 3))
        self.useFixture(fixtures.MockPatchObject(
            node, 'from_conf', lambda conf, name: self))

    def ask(self):
        return self._answer(self.node)

    def _answer(self, answer):
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _write(self, path, text):
        with open(path, 'w', encoding='utf-8') as f:
            f.write(text)

    def _status(self, *args):
        stdout = self.useFixture(fixtures.StringStream('stdout')).stream
        with fixtures.MonkeyPatch('sys.stdout', stdout):
            self.assertEqual(0, main.main([
                'status', '--config-file', self.conf_file, '--format',
                'json', *args]))
        stdout.seek(0)
        return json.loads(stdout.read())

    def _states(self):
        return {part['name']: part['state']
                for part in self._status()['parts']}

    def test_draining(self):
        self.assertNotIn('draining', self._states())
        file = drainer.File(self.state_path, 'host-1', 'kube-1')
        reason = 'the pod is being deleted'
        file.save(trigger.Seen(reason, True))
        self.nova = dataclasses.replace(
            self.nova, record=reasons.Record(True, 'AUTO: draining'))
        part, = [each for each in self._status()['parts']
                 if each['name'] == 'draining']
        self.assertEqual((reason, '3 guests left', 'follows'),
                         (part['kubernetes'], part['nova'], part['state']))
        file.save(trigger.Seen(reason, True, True))
        self.assertIn('the node was uncordoned', self._states()['draining'])

    def test_all_is_well(self):
        found = self._status()
        self.assertEqual(
            {'node': 'kube-1', 'cordoned': False, 'ready': True,
             'shutting_down': False,
             'limits': found['kubernetes']['limits']}, found['kubernetes'])
        self.assertEqual(
            {'host': 'host-1', 'status': 'enabled', 'reason': None,
             'up': True, 'vcpus': 4, 'memory_mb': 4096, 'guests': 3},
            found['nova'])
        self.assertEqual({'guests': 3}, found['libvirt'])
        self.assertEqual(
            ['cordoned', 'ready', 'limits', 'budget', 'ratios', 'guests'],
            [part['name'] for part in found['parts']])
        self.assertEqual(
            {'cordoned': 'follows', 'ready': 'follows', 'limits': 'follows',
             'budget': 'off', 'ratios': 'follows', 'guests': 'counted'},
            self._states())
        self.assertEqual(['VCPU', 'MEMORY_MB'], list(found['placement']))
        self.assertEqual(4.0, found['placement']['VCPU']['allocation_ratio'])

    def test_memory(self):
        self.assertEqual({
            'total_mb': 4096, 'reserved_mb': 256, 'reserved_for': None,
            'used_mb': 1024, 'free_mb': 2816, 'huge_pages': None,
            'ordinary': None}, self._status()['memory'])
        summary.save(mock.Mock(state_path=self.state_path, host='host-1'),
                     summary.make([overhead.Need(1024, 61, 1024)], 128, 1))
        found = self._status('--flavor', '1,1024', '--flavor', '1,9999')
        self.assertEqual({'others_mb': 128, 'guests_mb': 61, 'ahead_mb': 61,
                          'guests': 1}, found['memory']['reserved_for'])
        self.assertEqual({'total_mb': 0, 'used_mb': 0},
                         found['memory']['huge_pages'])
        self.assertEqual(
            {'total_gb': 10, 'reserved_gb': 3, 'used_gb': 0}, found['disk'])
        self.assertEqual([2, 0], [each['fit'] for each
                                  in found['memory']['flavors']])

    def test_huge_pages_are_in_the_limits(self):
        found = budget.Budget('Pod x', 4000, 2 ** 30,
                              hugepages=(('2Mi', 2 ** 30),))
        for memory_mb, fits in ((2048, True), (2049, False), (1024, True)):
            self.assertIs(fits, comparison._fits(
                found, mock.Mock(vcpus=4, memory_mb=memory_mb)))

    def test_cordoned(self):
        self.node = node.Node('kube-1', 'uid-1', cordoned=True)
        self.assertIn('behind', self._states()['cordoned'])
        self.nova = nova(OURS)
        records.File(self.state_path, 'host-1', 'kube-1').save(
            kept(CORDONED), SERVICE)
        found = self._status()
        part = found['parts'][0]
        self.assertEqual('yes', part['kubernetes'])
        self.assertIn('AUTO: cordoned', part['nova'])
        self.assertEqual('follows', part['state'])
        self.assertEqual('disabled', found['nova']['status'])

    def test_not_ready(self):
        self.node = node.Node('kube-1', 'uid-1', ready=False)
        self.assertIn('not_ready_grace', self._states()['ready'])
        self.node = node.Node('kube-1', 'uid-1', ready=False,
                              shutting_down=True)
        part = self._status()['parts'][1]
        self.assertEqual('shutting down', part['kubernetes'])
        self.assertIn('behind', part['state'])

    def test_nova_compute_is_down(self):
        self.nova = nova(ENABLED, up=False, seen=None)
        self.assertEqual(
            {'cordoned', 'ready', 'limits', 'guests'},
            {name for name, state in self._states().items()
             if state == 'stale: nova-compute is down'})

    def test_nova_does_not_answer(self):
        self.nova = RuntimeError('no broker')
        found = self._status()
        self.assertIsNone(found['nova']['status'])
        self.assertTrue(found['kubernetes']['ready'])
        self.assertIn('unknown', self._states()['cordoned'])
        self.assertIn('no broker', self._states()['guests'])

    def test_api_server_does_not_answer(self):
        self.node = errors.Unreadable('API server x: 403: forbidden')
        found = self._status()
        self.assertEqual('unknown: API server x: 403: forbidden',
                         found['parts'][0]['state'])
        self.assertEqual('enabled', found['parts'][0]['nova'])
        self.assertEqual('follows', self._states()['limits'])

    def test_limits_are_not_followed(self):
        self.nova = nova(ENABLED, vcpus=8)
        self.assertIn('behind', self._states()['limits'])
        self._write(self.state_path + '/pod.yaml', '{')
        self.assertIn('unknown', self._states()['limits'])

    def test_budget_and_its_age(self):
        known = budget.Budget('Pod a/b', 4000, 4 << 30)
        self.useFixture(fixtures.MockPatchObject(
            observed, 'kept', lambda: (known, '2029-12-31T23:59:00+00:00')))
        found = self._status()
        self.assertEqual('2029-12-31T23:59:00+00:00',
                         found['budget']['read_at'])
        self.assertEqual(4000, found['budget']['limits']['cpu_millicores'])
        self.assertIn('4000 millicores', found['parts'][3]['nova'])

    def test_ratio_of_an_inventory_that_was_there_before(self):
        self._options('initial_cpu_allocation_ratio = 1.0')
        part = self._ratios()
        self.assertEqual('VCPU 4.0, MEMORY_MB 1.0', part['nova'])
        self.assertEqual(
            'kept: not initial_cpu_allocation_ratio = 1.0, which a new '
            'inventory has; cpu_allocation_ratio would count', part['state'])

    def test_ratio_that_was_set(self):
        self._options('cpu_allocation_ratio = 1.0')
        self.assertEqual('behind: [DEFAULT] cpu_allocation_ratio = 1.0',
                         self._ratios()['state'])
        self.inventory['VCPU']['allocation_ratio'] = 1.0
        self.assertEqual('follows', self._ratios()['state'])

    def test_placement_does_not_answer(self):
        self.inventory = errors.Unreadable('answered 500')
        self.assertEqual('unknown: Placement: answered 500',
                         self._ratios()['state'])
        self.assertIsNone(self._status()['placement'])
        self.nova = RuntimeError('no broker')
        self.assertIn('no broker', self._ratios()['state'])

    def _options(self, line):
        with open(self.conf_file, encoding='utf-8') as f:
            text = f.read()
        self._write(self.conf_file, text.replace(
            '[DEFAULT]', f'[DEFAULT]\n{line}'))

    def _ratios(self):
        found, = [part for part in self._status()['parts']
                  if part['name'] == 'ratios']
        return found

    def test_table(self):
        self.node = errors.Unreadable('[brackets] are no markup')
        self._status()
        out = io.StringIO()
        status.show(status.status(), console.Console(file=out, width=200))
        self.assertIn('Kubernetes node kube-1', out.getvalue())
        self.assertIn('[brackets] are no markup', out.getvalue())

    def test_broken_configuration(self):
        self._write(self.conf_file, 'x')
        stderr = self.useFixture(fixtures.StringStream('stderr')).stream
        with fixtures.MonkeyPatch('sys.stderr', stderr):
            self.assertEqual(1, main.main([
                'status', '--config-file', self.conf_file]))


class BoundaryTest(base.TestCase):

    def setUp(self):
        super().setUp()
        conf.register_opts(CONF)
        self.flags = self.useFixture(config_fixture.Config(CONF)).config
        self.flags(state_path=self.folder())
        self.state = watcher.State(budget.Budget(
            'Pod a/b', 4000, 2 ** 33, pod=budget.Reference(
                'Pod', 'b', 'uid', 'a')))

    def test_off(self):
        self.assertEqual((), comparison.elastic(self.state))

    def test_not_yet(self):
        self.flags(elastic=True, group='kubernetes')
        for state in (self.state, None):
            part, = comparison.elastic(state)
            self.assertEqual('unknown: nova-compute has not looked yet',
                             part.state)

    def test_what_was_seen(self):
        self.flags(elastic=True, group='kubernetes')
        statefile.write(mover.path(CONF), {
            'key': 'uid', 'smallest': [4096, 2000], 'largest': [65536, 32000],
            'wished': [12288, 6000], 'allocated': [8192, 4500],
            'enforced': [8192, 4000], 'used': [4096, 2000],
            'why': 'room was idle'})
        part, = comparison.elastic(self.state)
        self.assertEqual(
            'min 4096 MiB, 2 cores\nwished 12288 MiB, 6 cores\n'
            'allocated 8192 MiB, 4.5 cores\nenforced 8192 MiB, 4 cores\n'
            'max 65536 MiB, 32 cores', part.kubernetes)
        self.assertEqual(('used 4096 MiB, 2 cores', 'room was idle'),
                         (part.nova, part.state))
