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


"""Following the pod, against a real API server that fails in every way."""

import time

import fixtures
from kubernetes.config import incluster_config
import testtools

from nova_k8s import errors
from nova_k8s.inventory import bounds
from nova_k8s.kube import watch
from nova_k8s.limits import messages
from nova_k8s.limits.sources import api
from nova_k8s.limits import watcher
from tests.functional import cluster
from tests.functional import fault_proxy
from tests import waiting


class FollowTestBase(testtools.TestCase):
    """A Follower behind a proxy that can fail, and what it tells.

    Each test fails also when guests may ever use more than ``allowed``.
    """

    tls = False

    # (VCPU, MiB) of a new ComputePod.
    FIRST = (4, 4096)

    def setUp(self):
        super().setUp()
        # Shorter than in life, so that tests do not last: the rules are the
        # same.
        for name, seconds in (('PERIOD', 3), ('LAST_DELAY', 1),
                              ('FIRST_DELAY', 0.2), ('PROBATION', 0.5)):
            self.useFixture(fixtures.MonkeyPatch(
                f'nova_k8s.kube.watch.{name}', seconds))
        self.compute = self.useFixture(cluster.ComputePod())
        self.plane = self.compute.plane
        self.proxy = self.useFixture(
            fault_proxy.FaultProxy(self.plane, tls=self.tls))
        self.lines = []
        self.pushes = []
        self.raised = []
        self.addCleanup(lambda: self.assertEqual([], self.raised))

    def follow(self, conf=None, **options):
        # What a test has grow it sets itself, just before it does.
        self.allowed = self.FIRST
        source = api.from_conf(
            conf or self.compute.conf(self.proxy, **options))
        state = watcher.State(watcher.read_first(source, 10))
        self.follower = watcher.Watcher(source, state, self.tell, self.push)
        self.addCleanup(self.follower.stop)
        self.follower.start()
        self.wait(lambda: self.connected(source))

    @staticmethod
    def connected(source):
        return source._watch and source._watch._problem is None

    def tell(self, before, after):
        self.note()
        self.lines += messages.for_change(before, after, 'error')

    def push(self):
        self.pushes.append(self.note())

    def note(self):
        """Return what is reported, and remember it where it is too much."""
        found = self.reported()
        # Each by itself: fewer cores are no excuse for more memory.
        if any(has > may for has, may in zip(found, self.allowed)):
            self.raised.append((found, self.allowed))
        return found

    def reported(self):
        """(VCPU, MiB) that guests may use."""
        limits = bounds.limits(self.follower.state.budget, 'error')
        return limits[bounds.VCPU], limits[bounds.MEMORY_MB]

    def reasons(self):
        # What lasts for a moment may or may not be seen: a pod on its way
        # out, and a new one before its first status.
        lines = self.lines
        return [line.reason for before, line, after in zip(
            [None, *lines], lines, [*lines[1:], None])
            if not (before and before.reason == line.reason and
                    'does not run' in line.text or
                    after and after.reason == 'LimitsLost' and
                    line.reason == 'PodTerminating')]

    def wait(self, predicate):
        waiting.until(predicate, lambda: 'told so far: %s' % self.lines)

    def wait_for(self, *reported):
        self.wait(lambda: self.reported() == reported)

    def wait_until_stale(self):
        self.wait(lambda: self.follower.state.stale)
        self.assertEqual((4, 4096), self.reported())

    def assert_recovers(self, *reasons):
        """A change is followed again, and all was told once."""
        self.wait(lambda: not self.follower.state.problem)
        self.allowed = (6, 4096)
        self.compute.resize(cpu='6', memory='4Gi')
        self.wait_for(6, 4096)
        # What is told comes after what is reported.
        self.wait(lambda: 'LimitsFollowed' in self.reasons())
        self.assertEqual([*reasons, 'LimitsFollowed'], self.reasons())


class ResizeTest(FollowTestBase):

    def test_growth_counts_when_it_is_actual(self):
        self.follow()
        self.compute.resize(actual=False, cpu='8', memory='8Gi')
        time.sleep(1)
        self.assertEqual((4, 4096), self.reported())
        self.allowed = (8, 8192)
        self.plane.set_pod_status(self.compute.pod)
        self.wait_for(8, 8192)
        self.wait(lambda: self.lines)
        self.assertEqual(['LimitsFollowed'], self.reasons())

    def test_shrink_counts_when_it_is_wished(self):
        self.follow()
        # The kubelet has not acted: the status has what was.
        self.compute.resize(actual=False, cpu='2', memory='2Gi')
        self.wait_for(2, 2048)

    def test_growth_before_the_status_has_the_shrink(self):
        # Seen on a real kubelet in nearly every attempt: the cgroup has the
        # shrink, the status has not, and the new wish is large again.
        had = {'compute': {'resources': {'limits': {
            'cpu': '4', 'memory': '4Gi'}}}}
        self.follow()
        self.compute.resize(actual=False, cpu='2', memory='2Gi')
        self.wait_for(2, 2048)
        self.allowed = (2, 2048)
        self.compute.resize(actual=False, cpu='8', memory='8Gi')
        for conditions in ({}, {'PodResizeInProgress': {}}):
            self.compute.pod = self.plane.set_pod_status(
                self.compute.pod, had, conditions, observedGeneration=(
                    2 if not conditions else
                    self.compute.pod.metadata.generation))
            time.sleep(0.5)
            self.assertEqual((2, 2048), self.reported())
        self.allowed = (8, 8192)
        self.plane.set_pod_status(self.compute.pod)
        self.wait_for(8, 8192)

    def test_kubelet_that_does_not_tell_what_it_has_seen(self):
        # Before Kubernetes 1.34. What a pod has once, it keeps.
        self.compute.pod = self.plane.set_pod_status(
            self.plane.create_pod(
                self.compute.namespace, self.compute.node,
                service_account=cluster.SERVICE_ACCOUNT,
                limits={'cpu': '4', 'memory': '4Gi'}), observedGeneration=0)
        self.follow()
        self.compute.resize(actual=False, cpu='8', memory='2Gi')
        self.plane.set_pod_status(self.compute.pod, observedGeneration=0)
        self.wait_for(4, 2048)
        self.wait(lambda: 'GrowthWithheld' in self.reasons())

    def test_container_that_does_not_run(self):
        self.follow()
        for state in ({'waiting': {'reason': 'CrashLoopBackOff'}},
                      {'terminated': {'reason': 'Error', 'exitCode': 1}}):
            self.plane.set_pod_status(
                self.compute.pod, {'compute': {'state': state}})
            self.wait_for(0, 0)
            self.plane.set_pod_status(self.compute.pod)
            self.wait_for(4, 4096)
        self.wait(lambda: len(self.lines) == 4)
        self.assertEqual(['LimitsLost', 'LimitsRead'] * 2, self.reasons())
        self.assertIn('CrashLoopBackOff', self.lines[0].text)

    def test_pod_that_is_being_deleted(self):
        self.follow()
        self.plane.core.delete_namespaced_pod(
            self.compute.pod.metadata.name, self.compute.namespace,
            grace_period_seconds=60)
        self.wait(lambda: self.follower.state.budget.terminating)
        # What guests may use is as before, and no new ones come.
        self.assertEqual((4, 4096), self.reported())
        self.wait(lambda: self.lines)
        self.assertEqual(['PodTerminating'], self.reasons())
        self.wait(lambda: self.pushes)

    def test_resize_that_is_not_accepted(self):
        for reason in ('Deferred', 'Infeasible'):
            self.compute = self.useFixture(cluster.ComputePod())
            self.lines = []
            self.follow()
            self.compute.resize(actual=False, cpu='2', memory='64Gi')
            had = {'compute': {'resources': {'limits': {
                'cpu': '4', 'memory': '4Gi'}}}}
            for _ in range(3):
                self.compute.pod = self.plane.set_pod_status(
                    self.compute.pod, containers=had, conditions={
                        'PodResizePending': {'reason': reason,
                                             'message': 'Node is full'}})
            self.wait_for(4, 4096)
            self.wait(lambda: 'ResizePending' in self.reasons())
            time.sleep(0.5)
            self.assertEqual(1, self.reasons().count('ResizePending'))
            pending, = [line.text for line in self.lines
                        if line.reason == 'ResizePending']
            self.assertIn(f'{reason}: Node is full', pending)

    def test_storm(self):
        # Listed anew in the middle, the pod would have had wishes that nobody
        # saw, and nothing would be known until the kubelet is done.
        self.useFixture(fixtures.MonkeyPatch(
            'nova_k8s.kube.watch.PERIOD', 600))
        self.follow()
        begin = time.monotonic()
        for i in range(100):
            self.plane.core.patch_namespaced_pod_resize(
                self.compute.pod.metadata.name, self.compute.namespace,
                {'spec': {'containers': [{
                    'name': 'compute', 'resources': {
                        kind: {'cpu': f'{1000 + i}m',
                               'memory': f'{1024 + i}Mi'}
                        for kind in ('limits', 'requests')}}]}})
        # The least of them, until the kubelet has done the last.
        self.wait_for(1, 1024)
        self.allowed = (1, 1123)
        self.plane.set_pod_status(self.compute.pod)
        self.wait_for(1, 1123)
        self.wait(lambda: self.pushes and self.pushes[-1] == (1, 1123))
        # One for each pause, and those at both ends.
        self.assertLessEqual(
            len(self.pushes),
            (time.monotonic() - begin) / watcher.SETTLE + 2)


class PodTest(FollowTestBase):
    """What can happen to the pod itself."""

    def setUp(self):
        super().setUp()
        # nova-compute runs in a pod of its own here: the token of a pod ends
        # with the pod.
        own = self.compute.create_pod(labels={})
        self.kubeconfig = self.plane.service_account_kubeconfig(
            self.compute.namespace, cluster.SERVICE_ACCOUNT, own,
            url=self.proxy.url, ca_file=self.proxy.ca_file)

    def follow(self, **options):
        super().follow(kubeconfig=self.kubeconfig, **options)

    def wait_for_reasons(self, *reasons):
        self.wait(lambda: len(self.reasons()) >= len(reasons))
        self.assertEqual([*reasons], self.reasons())

    def test_deleted_and_replaced_under_the_same_name(self):
        self.follow()
        self.plane.remove_pod(self.compute.pod)
        self.wait_for(0, 0)
        self.compute.pod = self.compute.create_pod(
            name=self.compute.pod.metadata.name,
            limits={'cpu': '3', 'memory': '3Gi'})
        self.wait_for(3, 3072)
        self.wait_for_reasons('LimitsLost', 'LimitsRead')
        self.assertIn(f'{self.compute.namespace}/', self.lines[0].text)

    def test_second_pod_matches_the_selector(self):
        self.follow(pod_selector='app=libvirt')
        second = self.compute.create_pod(
            limits={'cpu': '64', 'memory': '64Gi'})
        self.wait_for(0, 0)
        self.wait_for_reasons('LimitsLost')
        self.assertIn(second.metadata.name, self.lines[0].text)
        self.plane.remove_pod(second)
        self.wait_for(4, 4096)
        self.wait_for_reasons('LimitsLost', 'LimitsRead')

    def test_selector_sees_its_own_node_only(self):
        self.follow(pod_selector='app=libvirt')
        other = self.plane.create_node()
        self.plane.create_pod(
            self.compute.namespace, other, labels=self.compute.LABELS,
            limits={'cpu': '1', 'memory': '1Gi'})
        self.allowed = (5, 5120)
        self.compute.resize(cpu='5', memory='5Gi')
        self.wait_for(5, 5120)
        self.wait_for_reasons('LimitsFollowed')

    def replace(self, **fields):
        self.plane.remove_pod(self.compute.pod)
        # A pod that is replaced at once may never be missed.
        self.wait(lambda: 'not found' in (self.follower.state.problem or ''))
        self.assertEqual((0, 0), self.reported())
        self.compute.pod = self.compute.create_pod(
            name=self.compute.pod.metadata.name, **fields)

    def test_loses_its_limit(self):
        self.follow()
        self.replace(limits={'memory': '4Gi'})
        self.wait_for(0, 4096)
        self.wait_for_reasons('LimitsLost', 'LimitMissing')
        missing, = [line.text for line in self.lines
                    if line.reason == 'LimitMissing']
        self.assertIn(f'Pod {self.compute.namespace}/'
                      f'{self.compute.pod.metadata.name}', missing)
        self.assertIn(
            'no limit at spec.containers[compute].resources.limits.cpu',
            missing)
        self.assertNotIn('limits.memory', missing)
        self.replace()
        self.wait_for(4, 4096)
        self.wait_for_reasons('LimitsLost', 'LimitMissing', 'LimitsLost',
                              'LimitsRead')

    def test_loses_its_container(self):
        self.follow(container='compute')
        self.replace(containers=[{'name': 'other', 'image': 'other'}])
        self.wait(lambda: 'no container compute' in
                  (self.follower.state.problem or ''))
        self.assertEqual((0, 0), self.reported())
        # Lost with the pod, and again for another reason.
        self.wait_for_reasons('LimitsLost', 'LimitsLost')
        lost = [line.text for line in self.lines
                if line.reason == 'LimitsLost']
        self.assertIn('not found', lost[0])
        self.assertIn('no container compute', lost[1])
        self.replace()
        self.wait_for(4, 4096)
        self.wait_for_reasons('LimitsLost', 'LimitsLost', 'LimitsLost',
                              'LimitsRead')


class OutageTest(FollowTestBase):
    """What can happen between here and the API server."""

    def test_away_and_back_with_another_state(self):
        self.follow()
        self.proxy.cut()
        self.wait_until_stale()
        self.compute.resize(cpu='2', memory='2Gi')
        self.proxy.restore()
        self.wait_for(2, 2048)
        self.wait(lambda: len(self.lines) == 2)
        self.assertEqual(['LimitsStale', 'LimitsRead'], self.reasons())

    def test_restart_of_the_api_server(self):
        self.follow()
        self.plane.stop_api_server()
        try:
            self.wait_until_stale()
        finally:
            self.plane.start_api_server()
        self.assert_recovers('LimitsStale', 'LimitsRead')

    def test_one_lost_connection_is_no_news(self):
        self.follow()
        self.proxy.drop()
        self.assert_recovers()

    def test_connection_hangs(self):
        self.follow()
        self.proxy.stall()
        self.wait_until_stale()
        self.proxy.restore()
        self.assert_recovers('LimitsStale', 'LimitsRead')

    def test_rubbish_in_tls(self):
        self.follow()
        self.proxy.corrupt()
        self.proxy.drop()
        self.wait_until_stale()
        time.sleep(2)
        self.proxy.restore()
        self.assert_recovers('LimitsStale', 'LimitsRead')

    def test_reconnects_back_off_with_jitter(self):
        self.follow()
        delays = []
        wait = self.follower._stop.wait

        def note(seconds=None):
            delays.append(seconds)
            return wait(0.01)
        self.follower._stop.wait = note
        self.proxy.cut()
        self.wait(lambda: len(
            [d for d in delays if d and d != watcher.SETTLE]) > 6)
        delays = [d for d in delays if d and d != watcher.SETTLE]
        self.assertLessEqual(max(delays), watch.LAST_DELAY)
        self.assertGreater(delays[2], delays[0])
        self.assertEqual(len(delays), len(set(delays)))


class AnswerTest(FollowTestBase):
    """What the API server can answer."""

    tls = True

    def answer(self, *args, **kwargs):
        self.proxy.answer(*args, **kwargs)
        self.proxy.drop()

    def test_forbidden(self):
        self.follow()
        name = 'nova-k8s'
        self.plane.kubectl('delete', 'rolebinding', name, '-n',
                           self.compute.namespace)
        self.wait_until_stale()
        for word in ('system:serviceaccount:%s:nova-compute' %
                     self.compute.namespace, 'watch', '"pods"',
                     'in the namespace "%s"' % self.compute.namespace):
            self.assertIn(word, self.lines[0].text.replace(
                'cannot list', 'cannot watch'))
        self.compute.apply('base/rbac.yaml')
        self.assert_recovers('LimitsStale', 'LimitsRead')

    def test_gone(self):
        for event in (False, True):
            self.compute = self.useFixture(cluster.ComputePod())
            self.lines = []
            self.follow()
            self.answer('watch', 410, times=1, event=event)
            self.compute.resize(cpu='2', memory='2Gi')
            self.wait_for(2, 2048)
            self.wait(lambda: self.lines)
            self.assertEqual(['LimitsFollowed'], self.reasons())
            self.follower.stop()

    def test_errors(self):
        for code in (429, 500):
            self.compute = self.useFixture(cluster.ComputePod())
            self.lines, self.pushes = [], []
            self.follow()
            self.answer('pods', code, headers={'Retry-After': '1'})
            self.wait_until_stale()
            self.assertIn(str(code), self.lines[0].text)
            self.proxy.forget_answers()
            self.assert_recovers('LimitsStale', 'LimitsRead')
            self.follower.stop()

    def test_rubbish_in_http(self):
        for body in ('\0\xff{', '{"type": "ADDED"}\n', 'null\n', '[]',
                     '{"type": "MODIFIED", "object": {"spec": 7}}\n'):
            self.compute = self.useFixture(cluster.ComputePod())
            self.lines, self.pushes = [], []
            self.follow()
            self.answer('pods', 200, body=body)
            self.wait_until_stale()
            self.proxy.forget_answers()
            self.assert_recovers('LimitsStale', 'LimitsRead')
            self.follower.stop()


class InClusterTest(FollowTestBase):
    """With the files of a service account, which the kubelet renews."""

    tls = True

    def setUp(self):
        super().setUp()
        self.volume = self.useFixture(fixtures.TempDir()).join('account')
        for name, file in (('TOKEN', 'token'), ('CERT', 'ca.crt')):
            self.useFixture(fixtures.MonkeyPatch(
                f'kubernetes.config.incluster_config.SERVICE_{name}_FILENAME',
                f'{self.volume}/{file}'))
        self.assertTrue(incluster_config.SERVICE_TOKEN_FILENAME)
        for name, value in (('HOST', '127.0.0.1'), ('PORT', self.proxy.port)):
            self.useFixture(fixtures.EnvironmentVariable(
                f'KUBERNETES_SERVICE_{name}', str(value)))
        self.renew()
        self.follow(self.compute.conf(self.proxy, kubeconfig=None))

    def renew(self):
        self.plane.service_account_volume(
            self.volume, self.compute.namespace, cluster.SERVICE_ACCOUNT,
            self.compute.pod, ca_file=self.proxy.ca_file)

    def test_token_rotates(self):
        with open(f'{self.volume}/token', 'w', encoding='utf-8') as f:
            f.write('no longer good')
        self.proxy.drop()
        self.wait_until_stale()
        self.assertIn('401', self.lines[0].text)
        self.renew()
        self.assert_recovers('LimitsStale', 'LimitsRead')

    def test_ca_changes(self):
        self.proxy.change_ca()
        self.wait_until_stale()
        self.assertIn('certificate', self.lines[0].text.lower())
        self.renew()
        self.assert_recovers('LimitsStale', 'LimitsRead')


class StartTest(FollowTestBase):

    def test_waits_for_the_api_server(self):
        self.proxy.cut()
        source = api.from_conf(self.compute.conf(self.proxy))
        begin = time.monotonic()
        exc = self.assertRaises(
            errors.Unreadable, watcher.read_first, source, 2)
        self.assertGreater(time.monotonic() - begin, 1.9)
        self.assertIn(self.compute.pod.metadata.name, str(exc))
        self.assertIn(self.proxy.url, str(exc))

    def test_missing_right_is_named(self):
        self.plane.kubectl('delete', 'rolebinding', 'nova-k8s', '-n',
                           self.compute.namespace)
        source = api.from_conf(self.compute.conf(self.proxy))
        exc = self.assertRaises(
            errors.Unreadable, source.read)
        for word in ('system:serviceaccount:%s:nova-compute' %
                     self.compute.namespace, 'list', '"pods"',
                     'in the namespace "%s"' % self.compute.namespace):
            self.assertIn(word, str(exc))

    def test_no_such_pod(self):
        source = api.from_conf(
            self.compute.conf(self.proxy, pod_name='other'))
        exc = self.assertRaises(errors.Refused, source.read)
        self.assertIn(f'{self.compute.namespace}/other', str(exc))
        self.assertIn('[kubernetes] pod_name', str(exc))
