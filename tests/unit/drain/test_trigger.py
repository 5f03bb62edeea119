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

from nova_k8s.drain import trigger
from nova_k8s.kube import node
from tests.unit import base

UP = node.Node('kube-1', 'uid')
CORDONED = node.Node('kube-1', 'uid', cordoned=True)
TAINTED = node.Node('kube-1', 'uid', taints=frozenset((node.DRAIN,)))

NOTHING = trigger.Seen()


class SeeTest(base.TestCase):

    def after(self, drain_on, *looks, before=NOTHING):
        """Return the Seen after some (ending, node)."""
        for ending, seen in looks:
            before = trigger.see(drain_on, before, ending, seen)
        return before

    def test_each_way(self):
        table = (
            # drain_on, whether the pod ends, node -> is it drained
            ('eviction', True, UP, True),
            ('eviction', True, CORDONED, True),
            ('eviction', True, None, True),
            ('eviction', False, CORDONED, False),
            ('eviction', False, TAINTED, False),
            ('cordon', False, CORDONED, True),
            ('cordon', True, UP, False),
            ('cordon', True, TAINTED, False),
            ('taint', False, TAINTED, True),
            ('taint', True, CORDONED, False))
        for drain_on, ending, seen, expected in table:
            with self.subTest(drain_on=drain_on, ending=ending, node=seen):
                self.assertEqual(expected, bool(
                    self.after(drain_on, (ending, seen)).reason))

    def test_what_is_not_known_is_as_it_was(self):
        for drain_on, look in (('eviction', (True, CORDONED)),
                               ('cordon', (False, CORDONED)),
                               ('taint', (False, TAINTED))):
            begun = self.after(drain_on, look)
            self.assertTrue(begun.reason)
            self.assertEqual(begun, self.after(drain_on, (None, None),
                                               before=begun))
            self.assertEqual(NOTHING, self.after(drain_on, (None, None)))

    def test_uncordon(self):
        # kubectl drain cordons first, and it may be seen in either order.
        for looks in (((False, CORDONED), (True, CORDONED)),
                      ((True, UP), (True, CORDONED))):
            begun = self.after('eviction', *looks)
            self.assertIsNone(begun.hold)
            off = self.after('eviction', (True, UP), before=begun)
            self.assertEqual('the node was uncordoned', off.hold)
            self.assertTrue(off.reason)
            # As long as the pod is there.
            self.assertEqual(NOTHING, self.after('eviction', (False, UP),
                                                 before=off))
            self.assertIsNone(self.after('eviction', (True, CORDONED),
                                         before=off).hold)

    def test_a_pod_that_was_only_deleted(self):
        self.assertIsNone(self.after('eviction', (True, UP)).hold)

    def test_taken_back(self):
        for drain_on, look in (('cordon', (False, CORDONED)),
                               ('taint', (False, TAINTED))):
            found = self.after(drain_on, look, (False, UP))
            self.assertEqual((None, 'the drain was called off'),
                             (found.reason, found.hold))
