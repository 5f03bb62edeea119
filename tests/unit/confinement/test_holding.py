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

"""How the cgroup of guests follows the budget, and Nova the cgroup."""

import logging
import os
import pathlib
import random
from unittest import mock

import fixtures
from hypothesis import given
from hypothesis import Phase
from hypothesis import settings
from hypothesis import strategies as st
from nova.compute import provider_tree

from nova_k8s.confinement import findings
from nova_k8s.confinement import guest_slice
from nova_k8s.confinement import holding
from nova_k8s import errors
from nova_k8s.inventory import bounds
from nova_k8s.inventory import reported
from nova_k8s.limits import budget
from tests.unit import base
from tests.unit.inventory import test_hugepages

MIB = budget.MIB
NODE, UUID = 'node-1', '2f1f0b2e-6a0c-4a1e-9d2c-000000000001'
UID = '0f3ad3b2-0a4b-4c62-8a83-1d4f2a8d7c11'


class Tree(fixtures.Fixture):
    """Files as the kernel has them below a cgroup tree."""

    def _setUp(self):
        self.path = self.useFixture(fixtures.TempDir()).path
        self.write('', **{'cgroup.controllers': 'cpu memory'})

    def write(self, folder, **texts):
        path = pathlib.Path(self.path, folder)
        path.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (path / name).write_text(text + '\n')

    def make(self, folder, memory='max', cpu='max 100000', anon=0, procs=''):
        self.write(folder, **{
            'cgroup.controllers': 'cpu memory', 'memory.max': memory,
            'cpu.max': cpu, 'memory.stat': f'anon {anon}\nfile 99999999',
            'cgroup.procs': procs})

    def read(self, folder):
        path = pathlib.Path(self.path, folder)
        return tuple((path / name).read_text().strip()
                     for name in ('memory.max', 'cpu.max'))


class CgroupTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.tree = self.useFixture(Tree())
        self.units = {'machine.slice': '/machine.slice'}

    def cgroup(self, text='/machine', **arguments):
        return holding.Cgroup(text, self.tree.path,
                              cgroup_of=self.cgroup_of, **arguments)

    def cgroup_of(self, unit):
        found = self.units.get(unit)
        if isinstance(found, Exception):
            raise found
        return found

    def refused(self, kind, text, why):
        exc = self.assertRaises(kind, self.cgroup(text).check)
        self.assertIs(kind, type(exc))
        self.assertIn(why, str(exc))
        self.assertIn('[kubernetes] guest_slice /', str(exc))
        self.assertTrue(base.one_line(exc))

    def test_one_that_may_be_limited(self):
        self.tree.make('machine')
        self.tree.make('machine.slice')
        self.cgroup().check()
        self.cgroup('machine.slice').check()

    def test_harm(self):
        self.refused(errors.Refused, '/', 'root')
        self.refused(errors.Refused, '/machine/..', 'root')
        self.refused(errors.Refused, '/kubepods.slice', 'kubelet')
        self.tree.make('machine/a/kubepods/burstable')
        self.refused(errors.Refused, '/machine', 'machine/a/kubepods')

    def test_v1(self):
        os.unlink(os.path.join(self.tree.path, 'cgroup.controllers'))
        self.refused(errors.Refused, '/machine', 'cgroup v1')

    def test_that_of_this_process(self):
        # In one of those below it.
        self.tree.make('machine')
        self.tree.make('machine/nova', procs=f'1\n{os.getpid()}')
        self.refused(errors.Refused, '/machine', 'nova-compute itself')
        self.refused(errors.Refused, '/machine/nova', 'nova-compute itself')

    def test_one_that_is_not_there_yet(self):
        self.refused(errors.NotYet, '/machine', 'no such cgroup')
        # A folder that is no cgroup.
        self.tree.write('machine', x='')
        self.refused(errors.NotYet, '/machine', 'no such cgroup')

    def test_no_controllers(self):
        self.tree.write('machine', **{'cgroup.controllers': ''})
        self.refused(errors.NotYet, '/machine', 'lacks the controllers')

    def test_one_that_systemd_does_not_know(self):
        self.tree.make('other.slice')
        self.refused(errors.NotYet, '/other.slice', 'has no cgroup')
        self.units['other.slice'] = errors.NotYet('systemd is away')
        self.refused(errors.NotYet, '/other.slice', 'systemd is away')
        self.units['other.slice'] = PermissionError('not for you')
        self.refused(errors.NotYet, '/other.slice', 'not for you')
        self.units['other.slice'] = '/a.slice/other.slice'
        self.refused(errors.NotYet, '/other.slice', '/a.slice/other.slice')

    def test_look(self):
        self.tree.make('machine', str(8 << 30), '400000 100000', anon=5 << 20)
        self.assertEqual(
            guest_slice.Seen(guest_slice.Limits(8 << 30, 4000),
                             guest_slice.Limits(8 << 30, 4000), 5 << 20),
            self.cgroup().look())
        # What is above it counts as well.
        self.tree.make('a', str(1 << 30))
        self.tree.make('a/machine', cpu='50000 100000')
        self.assertEqual(
            guest_slice.Seen(guest_slice.Limits(None, 500),
                             guest_slice.Limits(1 << 30, 500), 0),
            self.cgroup('/a/machine').look())
        self.assertRaises(errors.NotYet, self.cgroup('/gone').look)

    def test_write(self):
        self.tree.make('machine')
        self.cgroup().write(guest_slice.Limits(8 << 30, 2500))
        self.assertEqual((str(8 << 30), '250000 100000'),
                         self.tree.read('machine'))
        self.cgroup().write(guest_slice.Limits())
        self.assertEqual(('max', 'max 100000'), self.tree.read('machine'))

    def test_write_that_comes_to_nothing(self):
        self.useFixture(fixtures.MockPatchObject(holding, 'APPLIED', 0))
        self.tree.make('machine')
        exc = self.assertRaises(
            errors.NotYet, self.cgroup(write=lambda *_: None).write,
            guest_slice.Limits(8 << 30, 2500))
        self.assertIn('somebody else writes it', str(exc))

    def test_write_that_takes_a_moment(self):
        self.tree.make('machine')

        def soon():
            self.tree.make('machine', str(8 << 30), '400000 100000')
        self.useFixture(fixtures.MockPatch('time.sleep',
                                           side_effect=lambda _: soon()))
        self.cgroup(write=lambda *_: None).write(
            guest_slice.Limits(8 << 30, 4000))


class FromConfTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.tree = self.useFixture(Tree())

    def from_conf(self, environ=None, **options):
        return holding.from_conf(self.conf(**options), environ or {},
                                 self.tree.path)

    def test_off(self):
        self.assertIsNone(self.from_conf())

    def test_on(self):
        self.tree.make('machine')
        self.assertEqual('/machine',
                         self.from_conf(guest_slice='machine').path)
        # At a boot of the machine it may come later.
        self.assertEqual('/later', self.from_conf(guest_slice='/later').path)

    def test_harm(self):
        self.assertRaises(errors.Refused, self.from_conf, guest_slice='/')

    def test_not_with_a_guests_pod(self):
        self.tree.make('machine')
        for options in ({'guests_pod': '/x'}, {'pod_name': 'guests-n'}):
            exc = self.assertRaises(
                errors.Refused, self.from_conf, {'NODE_NAME': 'n'},
                guest_slice='/machine', **options)
            self.assertIn('guests_pod', str(exc))
            self.assertTrue(base.one_line(exc))


class HoldingTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.useFixture(fixtures.MockPatchObject(holding, 'APPLIED', 0))
        self.log = self.useFixture(fixtures.FakeLogger('nova_k8s'))
        self.tree = self.useFixture(Tree())
        self.tree.make('machine')
        self.goal = guest_slice.Limits(8 << 30, 4000)
        self.told = (0, 0, False)
        self.said, self.published, self.changes = [], [], []
        self.holding = holding.Holding(
            holding.Cgroup('/machine', self.tree.path), 'disable')
        self.guests = {}
        self.holding.connect(
            lambda: self.goal, lambda: self.told,
            lambda: self.published.append(self.holding.cap()),
            lambda: self.guests, self.said.append,
            lambda: self.changes.append(self.holding.reasons()))

    def read(self):
        return self.tree.read('machine')

    def test_start(self):
        self.assertEqual((0, 0), self.holding.cap())
        self.assertIsNone(self.holding.hold())
        self.assertEqual((str(8 << 30), '400000 100000'), self.read())
        self.assertEqual((8192, 4000), self.holding.cap())
        self.assertEqual(frozenset(), self.holding.reasons())
        self.assertIn('/machine holds all guests to 4000 millicores of CPU '
                      'and 8192 MiB', self.log.output)
        self.assertEqual(holding.LATER, self.holding._step())
        self.assertEqual(([], 1), (self.said, self.log.output.count('holds')))

    def test_nothing_is_told_before_it_is_held(self):
        for make in (
                lambda: None,
                # Somebody took the limit away, and there is to be more.
                lambda: self.tree.make('machine')):
            make()
            before, seen = self.holding.cap(), []
            write = self.holding._where._write

            def look(*args):
                seen.append(self.holding.cap())
                write(*args)

            with mock.patch.object(self.holding._where, '_write', look):
                self.holding._step()
            self.assertEqual([before], seen)
            self.assertEqual((self.goal.memory_bytes // MIB, 4000),
                             self.holding.cap())
            self.goal = guest_slice.Limits(16 << 30, 4000)

    def test_growth(self):
        self.holding.hold()
        self.goal = guest_slice.Limits(16 << 30, 4000)
        self.told = (8192, 4000, True)
        self.assertEqual((8192, 4000), self.holding.cap())
        self.assertEqual(holding.LATER, self.holding._step())
        self.assertEqual(((16384, 4000), str(16 << 30)),
                         (self.holding.cap(), self.read()[0]))
        self.assertEqual((16384, 4000), self.published[-1])

    def test_shrink(self):
        self.holding.hold()
        self.goal = guest_slice.Limits(4 << 30, 2000)
        self.told = (8192, 4000, True)
        self.assertEqual(holding.SOON, self.holding._step())
        self.assertEqual((4096, 2000), self.published[-1])
        self.assertEqual((str(8 << 30), '400000 100000'), self.read())
        self.told = (4096, 2000, True)
        self.assertEqual(holding.LATER, self.holding._step())
        self.assertEqual((str(4 << 30), '200000 100000'), self.read())
        self.assertEqual([], self.said)

    def test_shrink_below_what_is_used(self):
        self.holding.hold()
        self.goal = guest_slice.Limits(4 << 30, 4000)
        self.told = (4096, 4000, True)
        self.tree.make('machine', *self.read(), anon=6000 << 20)
        for _ in range(2):
            self.assertEqual(holding.SOON, self.holding._step())
        self.assertEqual(str(6384 << 20), self.read()[0])
        line, = self.said
        self.assertIn('guests use 6000 MiB', line.text)
        self.assertEqual((4096, 4000), self.holding.cap())
        self.tree.make('machine', *self.read(), anon=1000 << 20)
        self.assertEqual(holding.LATER, self.holding._step())
        self.assertEqual(str(4 << 30), self.read()[0])

    def test_budget_that_was_lost(self):
        self.holding.hold()
        self.goal = None
        self.assertEqual(holding.LATER, self.holding._step())
        self.assertEqual((str(8 << 30), '400000 100000'), self.read())

    def test_not_there(self):
        self.holding = holding.Holding(
            holding.Cgroup('/later', self.tree.path))
        self.holding.connect(
            lambda: self.goal, lambda: self.told, lambda: None, dict,
            self.said.append,
            lambda: self.changes.append(self.holding.reasons()))
        self.assertIn('no such cgroup', self.holding.hold())
        self.assertEqual(holding.RETRY, self.holding._step())
        line, = self.said
        self.assertEqual(('Warning', 'GuestSliceNotWritten'), line[:2])
        self.assertEqual((0, 0), self.holding.cap())
        self.assertEqual({findings.NOT_HELD}, self.holding.reasons())
        self.tree.make('later')
        self.assertEqual(holding.LATER, self.holding._step())
        self.assertEqual(frozenset(), self.holding.reasons())
        self.assertEqual([{findings.NOT_HELD}, frozenset()], self.changes)

    def test_one_that_comes_to_harm_ends_it(self):
        self.tree.make('machine/kubepods')
        exc = self.assertRaises(errors.Refused, self.holding.hold)
        self.assertNotIsInstance(exc, errors.NotYet)

    def test_write_that_fails(self):
        self.holding.hold()
        with mock.patch.object(self.holding._where, '_write',
                               side_effect=errors.NotYet('denied')):
            self.goal = guest_slice.Limits(16 << 30, 2000)
            self.told = (8192, 2000, True)
            for _ in range(3):
                self.assertEqual(holding.RETRY, self.holding._step())
        line, = self.said
        self.assertIn('guest_slice /machine: denied. Nova is told no more',
                      line.text)
        # It is held, to less than is wanted.
        self.assertEqual(frozenset(), self.holding.reasons())
        self.assertEqual((8192, 2000), self.holding.cap())
        self.holding._step()
        self.assertEqual((16384, 2000), self.holding.cap())

    def test_limit_that_somebody_took_away(self):
        self.holding.hold()
        self.tree.make('machine')
        with mock.patch.object(self.holding._where, '_write',
                               side_effect=errors.NotYet('denied')):
            self.holding._step()
        self.assertEqual((0, 0), self.holding.cap())
        self.assertEqual({findings.NOT_HELD}, self.holding.reasons())
        self.holding._step()
        self.assertEqual(((8192, 4000), frozenset()), (
            self.holding.cap(), self.holding.reasons()))

    def test_nothing_ends_it(self):
        self.holding.hold()
        self.goal = 'nonsense'
        self.assertEqual(holding.RETRY, self.holding._step())
        self.assertEqual((0, 0), self.holding.cap())

    def test_guest_elsewhere(self):
        self.holding.hold()
        self.assertIsNone(self.holding.escaped)
        proc = self.folder()
        for path, text in (('2/comm', 'kthreadd\n'),
                           ('43/cgroup', '0::/elsewhere\n')):
            file = pathlib.Path(proc, path)
            file.parent.mkdir(parents=True)
            file.write_text(text)
        self.holding._escapes._proc = proc
        self.guests = {'u': 43}
        self.holding._escapes.look()
        self.assertEqual(1, self.holding.escaped)
        line, = self.said
        self.assertIn('in the cgroup /elsewhere, outside of /machine',
                      line.text)
        self.assertEqual({findings.ESCAPED}, self.holding.reasons())

    def test_threads(self):
        self.holding.hold()
        self.holding.start()
        self.holding.stop()


class Kernel:
    """A cgroup whose every file is written when a test wants it."""

    path, tree = '/machine', '/nowhere'

    def __init__(self, memory_bytes, cpu_millicores):
        self.limits = guest_slice.Limits(memory_bytes, cpu_millicores)
        self.used, self.killed = 0, []
        self.broken = False
        # Called whenever another thread may act.
        self.between = self.check = lambda: None

    def look(self):
        self.between()
        return guest_slice.Seen(self.limits, self.limits, self.used)

    def write(self, limits):
        self.between()
        if self.broken:
            raise errors.NotYet('broken')
        own = self.limits.memory_bytes
        if limits.memory_bytes is not None and (
                own is None or limits.memory_bytes < own):
            if limits.memory_bytes < self.used + guest_slice.MARGIN:
                self.killed.append((limits.memory_bytes, self.used))
        self.limits = limits
        self.check()
        self.between()


class Cloud:
    """Placement, Nova's audits and this driver's publisher.

    :param total: MiB without huge pages and cores that Placement has of the
        last start; 0 for nothing
    :param closed: whether it is all reserved
    :param pages_mb: in huge pages, beside the rest
    :param dedicated: CPUs to which Nova may pin guests
    """

    def __init__(self, kernel, total, closed, pages_mb, dedicated):
        self.kernel, self.pages_mb = kernel, pages_mb
        self.generation = 1
        self.stock = {bounds.MEMORY_MB: _record(2 ** 20),
                      bounds.VCPU: _record(4096)}
        if dedicated:
            self.stock[bounds.PCPU] = _record(dedicated)
        memory_mb, cores = total
        pinned = min(dedicated, cores)
        amounts = {bounds.MEMORY_MB: memory_mb + pages_mb,
                   bounds.VCPU: cores - pinned, bounds.PCPU: pinned}
        self.inventory = {
            name: _record(amount) for name, amount in amounts.items()
            if memory_mb and amount}
        if closed:
            for record in self.inventory.values():
                record['reserved'] = record['total']
        self.failing = lambda: None
        self.between = self.check = lambda: None
        self.tree = provider_tree.ProviderTree()
        self.tree.new_root(NODE, UUID)
        self.budget = None
        self.node = mock.Mock(
            uuid=UUID, vcpus=amounts[bounds.VCPU], memory_mb=memory_mb and
            amounts[bounds.MEMORY_MB], memory_mb_used=0, free_ram_mb=0,
            numa_topology=self.topology(dedicated)._to_json())
        self.audited = False
        self.tracker = mock.Mock(
            compute_nodes={NODE: self.node}, disabled=lambda _: not (
                self.audited), reportclient=mock.Mock(
                    _provider_tree=self.tree))
        self.start()

    def start(self):
        """As nova-compute starts, also again."""
        known = self.node if self.node.memory_mb else None
        self.reported = reported.Reported(lambda: self.budget, 'error', known)
        self.holding = holding.Holding(self.kernel)
        self.reported.hold(self.holding.cap)
        self.holding.connect(
            lambda: guest_slice.wanted(self.budget, 'error'),
            self.reported.told, lambda: None, dict, lambda line: None,
            lambda: None)
        self.audited = False
        self.holding.hold()

    def topology(self, dedicated=0):
        """As Nova's driver makes it."""
        made = test_hugepages.topology([(4, 2 ** 26, 0), (2048, 2 ** 10, 0)])
        made.cells[0].pcpuset = set(range(100, 100 + dedicated))
        return made

    def audit(self):
        """Nova asks the driver, and writes what it hears; or fails to."""
        self.reported.bound_topology(self.topology(), None)
        records, _ = self.reported.bound(self.stock)
        self.audited = True
        if not self.failing():
            self._put(records)
            self.tree.update_inventory(NODE, records, self.generation)

    def _put(self, records):
        if self.inventory != records:
            self.inventory = dict(records)
            self.generation += 1
            self.check()

    def write(self, _client, _provider, wanted, given_up):
        self.between()
        failing = self.failing()
        if failing != 'before':
            self._put({**self.inventory, **wanted})
        inventory, generation = self.inventory, self.generation
        self.between()
        if failing:
            raise errors.NotWritten('no answer')
        return inventory, generation

    def publish(self):
        try:
            self.reported.publish(self.tracker, NODE)
        except errors.NotWritten:
            pass

    def sold(self):
        """Return the (MiB, millicores) that Placement may sell.

        Huge pages apart, which no cgroup counts as memory.
        """
        sold = {name: record['total']
                for name, record in self.inventory.items()
                if record['reserved'] < record['total']}
        return (max(0, sold.get(bounds.MEMORY_MB, 0) - self.pages_mb),
                1000 * (sold.get(bounds.VCPU, 0) + sold.get(bounds.PCPU, 0)))


def _record(total):
    return {'total': total, 'min_unit': 1, 'max_unit': total, 'step_size': 1,
            'allocation_ratio': 1.0, 'reserved': 0}


class Story:
    """What happens to one node, by chance.

    :ivar wrong: what was told beyond what is enforced
    """

    def __init__(self, seed):
        self.chance = random.Random(seed)
        self.busy, self.left = False, 40
        self.wrong = []
        total = self.chance.choice(((0, 0), self.size(), self.size()))
        # It was booted, or was held before.
        held = total[0] and self.chance.random() < 0.5
        self.kernel = Kernel(*((total[0] * MIB, total[1] * 1000) if held
                               else (None, None)))
        self.cloud = Cloud(
            self.kernel, total, self.chance.random() < 0.2,
            self.chance.choice((0, 2, 512)), self.chance.choice((0, 2, 99)))
        # The holding has one thread, and so has the publisher.
        self.kernel.between = lambda: self.between(('publish', 'audit'))
        self.cloud.between = lambda: self.between(('step', 'audit'))
        self.cloud.failing = lambda: self.chance.choice(
            (None, None, None, 'before', 'after'))
        self.kernel.check = self.cloud.check = self.check

    def size(self):
        return self.chance.randint(200, 4000), self.chance.randint(1, 8)

    def budget(self):
        memory_mb, cores = self.size()
        pages = (('2Mi', self.cloud.pages_mb * MIB),)
        return budget.Budget('pod', cores * 1000, memory_mb * MIB,
                             hugepages=pages)

    def check(self):
        memory_mb, millicores = self.cloud.sold()
        limits = self.kernel.limits
        for sold, limit in ((memory_mb * MIB, limits.memory_bytes),
                            (millicores, limits.cpu_millicores)):
            if limit is not None and sold > limit:
                self.wrong.append((sold, limit))

    def between(self, names):
        """Have somebody else act, in the middle of it."""
        if self.busy or not self.left or self.chance.random() < 0.5:
            return
        self.left -= 1
        self.busy = True
        for _ in range(2):
            self.act(self.chance.choice(('budget', *names)))
        self.busy = False

    def act(self, name):
        if name == 'budget':
            self.cloud.budget = (None if self.chance.random() < 0.1
                                 else self.budget())
        elif name == 'use':
            used = self.chance.randint(0, 4000) * MIB
            self.kernel.used = min(used, self.kernel.limits.memory_bytes or
                                   used)
        elif name == 'break':
            self.kernel.broken = not self.kernel.broken
        elif name == 'restart':
            self.cloud.start()
        else:
            {'step': self.cloud.holding._step, 'audit': self.cloud.audit,
             'publish': self.cloud.publish}[name]()
        self.check()

    def end(self):
        """Nothing fails any more, and nothing comes between."""
        self.kernel.between = self.cloud.between = lambda: None
        self.cloud.failing = lambda: None
        self.kernel.broken, self.kernel.used = False, 0
        self.cloud.budget = self.budget()
        for _ in range(4):
            for name in ('step', 'audit', 'publish'):
                self.act(name)


class OrderTest(base.TestCase):
    """Whatever happens between, Nova is told no more than is enforced."""

    def setUp(self):
        super().setUp()
        # Each lock that is taken is logged otherwise.
        self.useFixture(fixtures.FakeLogger(level=logging.ERROR))

    # A seed, as shorter stories are not simpler ones.
    @settings(max_examples=150, phases=(Phase.generate,))
    @given(st.integers(0, 2 ** 64))
    def test_order(self, seed):
        story = Story(seed)
        with mock.patch('nova_k8s.inventory.placement.write',
                        story.cloud.write), mock.patch(
                            'nova_k8s.util.deadline.call',
                            lambda function, *_: function(mock.Mock())):
            story.check()
            for _ in range(30):
                story.act(story.chance.choice((
                    'budget', 'budget', 'use', 'break', 'step', 'step',
                    'step', 'publish', 'publish', 'audit', 'restart')))
            story.end()
        self.assertEqual([], story.wrong)
        cloud, kernel = story.cloud, story.kernel
        self.assertEqual([], kernel.killed)
        self.assertEqual(guest_slice.wanted(cloud.budget, 'error'),
                         kernel.limits)
        self.assertEqual((cloud.budget.memory_mb,
                          cloud.budget.cpu_millicores), cloud.sold())
