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

import copy
import json
import pathlib

import hypothesis
from hypothesis import stateful
from hypothesis import strategies as st
import testscenarios

from nova_k8s.confinement import cgroup
from nova_k8s import errors
from nova_k8s.limits import budget
from nova_k8s.limits import growth
from nova_k8s.limits import pod_spec
from nova_k8s.limits import watcher
from tests.unit import base

load_tests = testscenarios.load_tests_apply_scenarios

DATA = pathlib.Path(__file__).parent / 'data'
MIB = 2 ** 20
POD = budget.Reference('Pod', 'b', 'uid-1', 'a')


def some(cpu=4000, memory_mb=4096, pod=POD, generation=1, **fields):
    return budget.Budget(
        'Pod a/b', cpu, None if memory_mb is None else memory_mb * MIB,
        pod=pod, generation=generation, **fields)


def enforced(cpu=None, memory_mb=None, binding=True):
    return cgroup.Enforced(
        '/sys/fs/cgroup/x/memory.max', cpu,
        None if memory_mb is None else memory_mb * MIB, binding)


class FollowTest(base.TestCase):

    def _follow(self, known, said, cpu, memory_mb, seen=None):
        found = growth.follow(known, said, seen)
        self.assertEqual((cpu, memory_mb),
                         (found.cpu_millicores, found.memory_mb))
        return found

    def test_settled(self):
        for known in (None, some(), some(8000), some(pod=None)):
            self._follow(known, some(6000, 6000), 6000, 6000)

    def test_growth_while_a_resize_is_under_way(self):
        known = some(4000, 8192)
        self._follow(known, some(8000, 4096, generation=2, resizing='x'),
                     4000, 4096)
        # However often it is looked at.
        for _ in range(3):
            known = self._follow(
                known, some(8000, 8192, generation=2, resizing='x'),
                4000, 8192)
        self._follow(known, some(8000, 8192, generation=2), 8000, 8192)

    def test_wish_that_nobody_saw(self):
        # 4 cores, 1 and 4 again: the kernel may have had any of them.
        exc = self.assertRaises(
            errors.NotYet, growth.follow, some(),
            some(generation=3, resizing='PodResizeInProgress'))
        for name in ('Pod a/b', 'PodResizeInProgress'):
            self.assertIn(name, str(exc))
        self._follow(some(), some(generation=3), 4000, 4096)

    def test_nothing_known_of_this_pod(self):
        other = budget.Reference('Pod', 'b', 'uid-2', 'a')
        for known in (None, some(pod=other), some(pod=None),
                      some(generation=None)):
            self.assertRaises(errors.NotYet, growth.follow, known,
                              some(generation=2, resizing='x'))

    def test_limit_that_is_gone_is_no_growth(self):
        gone = some(None, None, missing=('x.cpu', 'x.memory'), generation=2,
                    resizing='x')
        self._follow(some(), gone, None, None)

    def test_limit_where_none_was(self):
        self._follow(some(None, None), some(generation=2, resizing='x'),
                     4000, 4096)

    def test_nobody_tells_whether_it_is_true(self):
        wished = some(8000, 8192, unconfirmed='who knows')
        found = self._follow(some(), wished, 4000, 4096)
        for name in ('8000 millicores', '8192 MiB', 'who knows'):
            self.assertIn(name, found.withheld)
        # Nor is a moment later: 96 and 256 Mi within a second look the same.
        self._follow(found, wished, 4000, 4096)
        self.assertIsNone(growth.follow(
            found, some(2000, 2048, unconfirmed='x')).withheld)

    def test_nobody_tells_and_it_is_another_pod(self):
        other = budget.Reference('Pod', 'b', 'uid-2', 'a')
        for known in (None, some(pod=other)):
            self._follow(known, some(8000, unconfirmed='x'), 8000, 4096)

    def test_a_source_without_pods(self):
        wished = some(8000, 8192, None, None, unconfirmed='x')
        self._follow(some(pod=None), wished, 4000, 4096)

    def test_cgroup_confirms(self):
        wished = some(8000, 8192, unconfirmed='x')
        for cpu, memory_mb, expected in (
                (8000, 8192, (8000, 8192)), (9000, None, (8000, 8192)),
                (4000, 8192, (4000, 8192)), (7999, 8191, (4000, 4096))):
            self._follow(some(), wished, *expected,
                         seen=enforced(cpu, memory_mb, False))
        # What is not to be believed is not believed more for it.
        self._follow(some(), some(8000, generation=2, resizing='x'),
                     4000, 4096, seen=enforced(8000, 8192, False))

    def test_own_cgroup_is_no_bound_where_it_may_be_another(self):
        for known in (None, some()):
            for seen in (enforced(1000, 1024, False),
                         enforced(1000, None, False),
                         enforced(4000, 1024, False)):
                found = self._follow(known, some(unconfirmed='x'), 4000, 4096,
                                     seen=seen)
                caveat, = found.caveats
                for name in (seen.where, '[kubernetes] pod_cgroup'):
                    self.assertIn(name, caveat)
            found = self._follow(known, some(unconfirmed='x'), 4000, 4096,
                                 seen=enforced(4000, 4096, False))
            self.assertEqual((), found.caveats)

    def test_cgroup_enforces_less(self):
        # Seen after resizes during OOM kills: the container has the new
        # limit, its pod's slice the old one (kubernetes#138760).
        for known in (None, some()):
            found = self._follow(known, some(), 4000, 1024,
                                 seen=enforced(8000, 1024))
            for name in ('4096 MiB', '/sys/fs/cgroup/x/memory.max'):
                self.assertIn(name, found.withheld)
            found = self._follow(known, some(), 500, 4096,
                                 seen=enforced(500, 4096))
            self.assertIn('4000 millicores', found.withheld)
        self.assertIsNone(growth.follow(None, some(),
                                        enforced(4000, 4096)).withheld)
        self.assertIsNone(growth.follow(None, some(), enforced()).withheld)

    def test_kernel_rounds_to_pages(self):
        said = budget.Budget('Pod a/b', 4000, 10 ** 9)
        found = growth.follow(None, said, cgroup.Enforced(
            'x', 4000, 10 ** 9 // 4096 * 4096, True))
        self.assertEqual(10 ** 9 // 4096 * 4096, found.memory_bytes)
        self.assertIsNone(found.withheld)

    def test_no_limit_stays_none(self):
        self._follow(None, some(None, None), None, None,
                     seen=enforced(1000, 1024))


def pod(memory_mb, generation, **status):
    """A running pod as the API server shows it."""
    resources = {'limits': {'cpu': '1', 'memory': f'{memory_mb}Mi'}}
    return {'kind': 'Pod',
            'metadata': {'namespace': 'a', 'name': 'b', 'uid': 'uid-1',
                         'generation': generation},
            'spec': {'containers': [{'name': 'c', 'resources': resources}]},
            'status': status}


SIZES = st.sampled_from((96, 128, 256, 512))


class Kubelet(stateful.RuleBasedStateMachine):
    """A kubelet as it was seen to work, and a watcher of its pod.

    It takes a wish, changes the cgroup, sees that it has, and posts the
    status: at any distance of each other, with other wishes in between. The
    watcher sees each change of the pod, unless it is cut off.
    """

    tells = True

    def __init__(self):
        super().__init__()
        self.running = True
        self.least = 256
        self.spec = self.kernel = self.seen = self.taken = 256
        self.generation = self.observed = 1
        self.pending = None
        self.cut_off = False
        self.state = watcher.State(None, 'not yet')
        self.post()

    def look(self):
        if not self.cut_off:
            self.state = watcher.look_again(self, self.state)

    def read(self):
        self.shown['spec'] = pod(self.spec, 0)['spec']
        self.shown['metadata']['generation'] = self.generation
        return pod_spec.parse(copy.deepcopy(self.shown), 'c', running=True)

    @stateful.rule(size=SIZES)
    def wish(self, size):
        if size != self.spec:
            self.spec = size
            self.least = min(size, self.least)
            self.generation += 1
            self.look()

    @stateful.rule(size=SIZES, again=SIZES)
    def wish_twice(self, size, again):
        self.wish(size)
        self.wish(again)

    @stateful.rule(refuse=st.booleans())
    def take(self, refuse):
        self.observed = self.generation
        self.pending = None
        if refuse and self.spec > self.taken:
            self.pending = 'Deferred'
        else:
            self.taken = self.spec

    @stateful.rule()
    def act(self):
        self.kernel = self.taken

    @stateful.rule()
    def see(self):
        self.seen = self.kernel

    @stateful.rule()
    def post(self):
        conditions = []
        if self.pending:
            conditions.append({
                'type': 'PodResizePending', 'status': 'True',
                'reason': self.pending,
                **self._seen_by_the_kubelet()})
        if self.seen != self.taken or self.kernel != self.taken:
            conditions.append({'type': 'PodResizeInProgress',
                               'status': 'True'})
        self.shown = pod(
            self.spec, self.generation, conditions=conditions,
            **self._seen_by_the_kubelet(), containerStatuses=[{
                'name': 'c',
                'state': {'running' if self.running else 'waiting': {}},
                'resources': {'limits': {
                    'cpu': '1', 'memory': f'{self.seen}Mi'}}}])
        self.look()

    def _seen_by_the_kubelet(self):
        return {'observedGeneration': self.observed} if self.tells else {}

    @stateful.rule()
    def crash(self):
        # The kernel has no such container now, and nothing is offered.
        self.running = False
        self.post()

    @stateful.rule()
    def start(self):
        self.running = True
        self.kernel = self.seen = self.taken
        self.post()

    @stateful.rule()
    def lose_the_connection(self):
        self.cut_off = True

    @stateful.rule()
    def connect(self):
        # What happened meanwhile is seen all at once.
        self.cut_off = False
        self.look()

    @stateful.invariant()
    def never_more_than_the_kernel_has(self):
        if not self.cut_off and self.state.budget:
            assert self.state.budget.memory_mb <= self.kernel, (
                self.state.budget, self.kernel)

    def teardown(self):
        # In the end all of it counts.
        self.connect()
        self.running = True
        for step in (lambda: self.take(False), self.act, self.see,
                     self.post):
            step()
            self.never_more_than_the_kernel_has()
        self.check_the_end()

    def check_the_end(self):
        assert self.state.budget.memory_mb == self.spec == self.kernel


class OldKubelet(Kubelet):
    """One that does not tell which wish it has seen, before 1.34.

    Nothing grows but with a new pod. A wish that is not seen, because the
    connection is lost, is not noticed; a crash makes what is known forgotten.
    """

    tells = False

    @stateful.rule()
    def lose_the_connection(self):
        pass

    @stateful.rule()
    def crash(self):
        pass

    def check_the_end(self):
        assert self.state.budget.memory_mb == self.least


class OrderTest(base.TestCase):
    """All orders of what happens to spec, kernel and status."""

    def test_orders(self):
        self._run(Kubelet)

    def test_orders_of_an_older_kubelet(self):
        self._run(OldKubelet)

    def _run(self, kubelet):
        settings = hypothesis.settings(
            max_examples=400, stateful_step_count=30)
        stateful.run_state_machine_as_test(kubelet, settings=settings)


class RecordedTest(base.TestCase):
    """What kubelets were seen to do, see data/README.rst."""

    scenarios = [(path.stem, {'path': path})
                 for path in sorted(DATA.glob('*.json'))]

    def setUp(self):
        super().setUp()
        self.recorded = json.loads(self.path.read_text())

    def test_never_more_than_the_kernel_has(self):
        self.shown = None
        state = watcher.State(None, 'not yet')
        has = {}
        offered = []
        for i, step in enumerate(self.recorded['steps']):
            has.update(step.get('enforced', {}))
            if 'pod' in step:
                self.shown = step['pod']
                state = watcher.look_again(self, state)
            found = {field: getattr(state.budget, field) if state.budget
                     else 0 for field in ('cpu_millicores', 'memory_bytes')}
            offered.append(found)
            for field, amount in found.items():
                self.assertLessEqual(
                    amount, has[field], (i, step.get('seconds'), field))
        # Nor less for ever.
        self.assertEqual(self.recorded['end'], offered[-1])

    def read(self):
        return pod_spec.parse(self.shown, self.recorded.get('container'),
                              'recorded', running=True)


class DataTest(base.TestCase):

    def test_there_is_some(self):
        # A glob that finds nothing is no test.
        self.assertIn('shrink-then-growth',
                      [path.stem for path in DATA.glob('*.json')])
