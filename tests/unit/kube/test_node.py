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


"""What matters of a Kubernetes node."""

import fixtures
import hypothesis
from hypothesis import strategies as st

from nova_k8s import errors
from nova_k8s.kube import node
from tests.unit import api_server
from tests.unit import base


def body(conditions=None, **spec):
    return {'metadata': {'name': 'kube-1', 'uid': 'uid-1'}, 'spec': spec,
            'status': {'conditions': conditions or []}}


def ready(status='True', reason='KubeletReady', message=''):
    return {'type': 'Ready', 'status': status, 'reason': reason,
            'message': message}


PRESSURE = {'type': 'MemoryPressure', 'status': 'False'}


class FromDictTest(base.TestCase):

    def _check(self, expected, found):
        self.assertEqual(node.Node('kube-1', 'uid-1', *expected),
                         node.from_dict(found))

    def test_ready(self):
        self._check((False, True, False), body([PRESSURE, ready()]))

    def test_what_the_size_of_a_guests_pod_depends_on(self):
        found = body([ready()])
        found['metadata']['annotations'] = {'nova-k8s/guests-cpu': '50%'}
        found['status']['allocatable'] = {'cpu': '8'}
        seen = node.from_dict(found)
        self.assertEqual(({'nova-k8s/guests-cpu': '50%'}, {'cpu': '8'}),
                         (seen.annotations, seen.allocatable))
        # What changes with every heartbeat is no other node.
        self.assertEqual(node.from_dict(body([ready()])), seen)

    def test_cordoned(self):
        self._check((True, True, False),
                    body([ready()], unschedulable=True))
        self._check((False, True, False),
                    body([ready()], unschedulable=False))

    def test_not_ready(self):
        for condition in (
                ready('False', 'KubeletNotReady', 'PLEG is not healthy'),
                ready('Unknown', 'NodeStatusUnknown',
                      'Kubelet stopped posting node status.')):
            self._check((False, False, False), body([PRESSURE, condition]))
        self._check((False, False, False), body())

    def test_shutting_down(self):
        for message in ('node is shutting down',
                        '[container runtime is down, node is shutting down]'):
            self._check((False, False, True), body(
                [ready('False', 'KubeletNotReady', message)]))

    def test_not_shutting_down(self):
        for condition in (
                ready('True', 'KubeletReady', 'node is shutting down'),
                ready('Unknown', 'NodeStatusUnknown',
                      'node is shutting down')):
            self.assertFalse(node.from_dict(body([condition])).shutting_down)

    def test_without_spec_and_status(self):
        self._check((False, False, False),
                    {'metadata': {'name': 'kube-1', 'uid': 'uid-1'}})
        self._check((False, False, False), dict(body(), spec=None,
                                                status=None))

    def test_no_node(self):
        for found in (None, [], 'x', {}, {'metadata': {}},
                      dict(body(), status=[1]), body([1]), body([{}]),
                      dict(body(), spec=3)):
            exc = self.assertRaises(errors.Unreadable, node.from_dict, found)
            self.assertTrue(base.one_line(exc))

    @hypothesis.given(st.recursive(
        st.none() | st.booleans() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(
            st.sampled_from(('metadata', 'name', 'uid', 'spec', 'status',
                             'unschedulable', 'conditions', 'type',
                             'message')), inner)))
    def test_anything(self, found):
        try:
            node.from_dict(found)
        except errors.Unreadable:
            pass


class ReasonsTest(base.TestCase):
    """reasons(node, last, unready_for, grace)"""

    TABLE = (
        # cordoned, ready, shutting down, last, unready for -> reasons
        (False, True, False, (), 0, ()),
        (True, True, False, (), 0, (node.CORDONED,)),
        (False, False, False, (), 59, ()),
        (False, False, False, (), 60, (node.NOT_READY,)),
        (False, False, False, (node.NOT_READY,), 0, (node.NOT_READY,)),
        (False, False, False, (node.SHUTTING_DOWN,), 0, (node.NOT_READY,)),
        (False, False, False, (node.CORDONED,), 0, ()),
        (False, True, False, (node.NOT_READY,), 0, ()),
        (False, False, True, (), 0, (node.SHUTTING_DOWN,)),
        (False, False, True, (node.NOT_READY,), 99, (node.SHUTTING_DOWN,)),
        (True, False, True, (), 0, (node.CORDONED, node.SHUTTING_DOWN)),
        (True, False, False, (), 60, (node.CORDONED, node.NOT_READY)),
    )

    def test_table(self):
        for (cordoned, is_ready, shutting_down, last, unready_for,
                expected) in self.TABLE:
            self.assertEqual(frozenset(expected), node.reasons(
                node.Node('n', 'u', cordoned, is_ready, shutting_down),
                frozenset(last), unready_for, 60))

    def test_without_grace(self):
        self.assertEqual({node.NOT_READY}, node.reasons(
            node.Node('n', 'u', ready=False), frozenset(), 0, 0))


class SourceTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.log = self.useFixture(fixtures.FakeLogger('nova_k8s'))
        self.server = self.useFixture(api_server.ApiServer())
        path = self.folder() + '/kubeconfig'
        with open(path, 'w') as f:
            f.write('{"clusters": [{"name": "c", "cluster": {"server": "%s"}}'
                    '], "contexts": [{"name": "c", "context": {"cluster": '
                    '"c", "user": ""}}], "current-context": "c"}'
                    % self.server.url)
        self.kubeconfig = path

    def _source(self, name='kube-1', **options):
        options = {'kubeconfig': self.kubeconfig, 'api_timeout': 1, **options}
        return node.from_conf(self.conf(**options), name)

    def test_asks_for_its_own_node_only(self):
        self.server.will_answer({'metadata': {'resourceVersion': '1'},
                                 'items': [body([ready()])]})
        self.assertEqual(node.Node('kube-1', 'uid-1'), self._source().ask())
        self.assertEqual(
            [('/api/v1/nodes', {'fieldSelector': 'metadata.name=kube-1'})],
            self.server.requests)

    def test_not_found(self):
        self.server.will_answer({'metadata': {'resourceVersion': '1'},
                                 'items': []})
        exc = self.assertRaises(errors.Refused, self._source().ask)
        self.assertIn('Node kube-1: not found', str(exc))
        self.assertIn('node_name', str(exc))

    def test_forbidden(self):
        self.server.will_refuse(403, 'nodes is forbidden: User "x" cannot '
                                     'list resource "nodes"')
        exc = self.assertRaises(errors.Unreadable, self._source().ask)
        self.assertIn('cannot list resource "nodes"', str(exc))

    def test_nothing_is_known_before_it_watches(self):
        self.assertRaises(errors.Unreadable, self._source().latest)
        self.assertEqual([], self.server.requests)

    def _off(self, why, *args, **options):
        self.assertIsNone(self._source(*args, **options))
        self.assertEqual(1, self.log.output.count('are not followed'))
        self.assertEqual(1, len(self.log.output.splitlines()))
        self.assertIn(why, self.log.output)

    def test_off_by_option(self):
        self._off('follow_cordon', follow_cordon=False)

    def test_off_without_a_name(self):
        self._off('NODE_NAME', None)

    def test_off_without_an_api_server(self):
        self._off('kubeconfig', kubeconfig=None)

    def test_kubeconfig_that_cannot_be_read_is_a_fault_that_may_end(self):
        # And what was known of the node holds until then.
        source = self._source(kubeconfig='/nowhere')
        exc = self.assertRaises(errors.LimitsError, source.ask)
        self.assertIn('/nowhere', str(exc))
