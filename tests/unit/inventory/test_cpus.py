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

"""Which CPUs Nova is told of: never one that the pod does not have."""

import hypothesis
from hypothesis import strategies as st

from nova_k8s.confinement import cpuset
from nova_k8s.inventory import cpus
from tests.unit import base

NODE = frozenset((0,))
CPUS = st.frozensets(st.integers(0, 15))
CORES = {
    'SMT off': [{each} for each in range(16)],
    'siblings side by side': [{each, each + 1} for each in range(0, 16, 2)],
    'siblings apart': [{each, each + 8} for each in range(8)],
    'with holes': [{0, 8}, {3}, {5, 13}],
    'unknown': [],
}


def seen(*cpus_, assigned=True):
    return cpuset.Seen(frozenset(cpus_), NODE, assigned)


class MissingTest(base.TestCase):

    def test_what_is_missing(self):
        for arguments, expected in (
                ((seen(1, 2), 'Guaranteed', 2000), []),
                # The API server does not say now.
                ((seen(1, 2), None, 2000), []),
                ((None, 'Guaranteed', 2000), ['is not seen']),
                ((seen(1, 2), 'Burstable', 2000), ['not Guaranteed']),
                ((seen(1, 2), 'Guaranteed', 1500), ['1500 millicores']),
                ((seen(1, 2), 'Guaranteed', None), ['no CPU limit']),
                ((seen(1, 2, assigned=False), 'Guaranteed', 2000),
                 ['cpuManagerPolicy']),
                ((seen(1, 2, 3), 'Guaranteed', 2000),
                 ['may use 3 CPUs (1-3) for a limit of 2']),
                ((seen(1, assigned=False), 'BestEffort', 500),
                 ['BestEffort', '500', 'static'])):
            found = cpus.find_missing(*arguments)
            self.assertEqual(len(expected), len(found), found)
            for line, part in zip(found, expected):
                self.assertIn(part, line)

    def test_operator_names_both(self):
        self.assertIsNone(cpus.outside(
            frozenset((1,)), frozenset((2,)), seen(1, 2, 3)))
        problem = cpus.outside(frozenset((0, 1)), frozenset((2, 4)),
                               seen(1, 2, 3))
        for part in ('cpu_shared_set (0-1)', 'cpu_dedicated_set (2,4)',
                     '(1-3)', ': 0,4 belong'):
            self.assertIn(part, problem)


class DedicatedTest(base.TestCase):

    def test_all_of_them(self):
        found = cpus.for_dedicated(frozenset((2, 3)), 0, frozenset())
        self.assertEqual(cpus.Sets(dedicated=frozenset((2, 3))), found)
        self.assertEqual((0, 2, 0), (
            found.shared_count, found.dedicated_count, found.lost_count))

    def test_whole_cores_are_kept(self):
        own = frozenset((2, 3, 10, 11))
        for cores, kept, expected in (
                ('siblings apart', 2, {2, 10}),
                ('siblings side by side', 2, {2, 3}),
                ('siblings apart', 1, {2}), ('siblings apart', 3, {2, 3, 10}),
                ('unknown', 2, {2, 3}), ('SMT off', 9, own)):
            self.assertEqual(expected, cpus.for_dedicated(
                own, kept, frozenset(), None, CORES[cores]).shared)

    def test_those_that_were_shared_stay(self):
        before = cpus.Sets(frozenset((11,)), frozenset((2, 3, 10)))
        found = cpus.for_dedicated(
            frozenset((2, 3, 10, 11)), 1, frozenset(), before,
            CORES['siblings apart'])
        self.assertEqual({11}, found.shared)

    def test_pinned_cpu_that_went_away(self):
        before = cpus.for_dedicated(frozenset((1, 2, 3)), 0, frozenset())
        found = cpus.for_dedicated(
            frozenset((1, 2)), 0, frozenset((2, 3)), before)
        self.assertEqual(({1, 2, 3}, {3}, 3, 1), (
            found.dedicated, found.lost, found.dedicated_count,
            found.lost_count))
        # Its guest has left.
        found = cpus.for_dedicated(
            frozenset((1, 2)), 0, frozenset((2,)), found)
        self.assertEqual(({1, 2}, set()), (found.dedicated, found.lost))

    def test_nova_is_never_told_of_none(self):
        # It would take all CPUs of the machine.
        before = cpus.for_dedicated(frozenset((1, 2)), 1, frozenset())
        found = cpus.for_dedicated(frozenset(), 1, frozenset(), before)
        self.assertEqual(({1}, {2}, {1, 2}, 0, 1, 1), (
            found.shared, found.dedicated, found.lost, found.shared_count,
            found.dedicated_count, found.lost_count))

    @hypothesis.given(
        st.lists(st.tuples(CPUS, CPUS, st.integers(0, 20)), min_size=1,
                 max_size=6), st.sampled_from(sorted(CORES)))
    def test_whatever_happens(self, steps, cores):
        before = None
        for own, pinned, kept in steps:
            # Guests are pinned to what Nova was told of only.
            pinned &= before.dedicated if before else own
            found = cpus.for_dedicated(own, kept, pinned, before,
                                       CORES[cores])
            self.assertFalse(found.shared & found.dedicated)
            self.assertEqual(set(), pinned - found.dedicated)
            self.assertEqual(
                (found.shared | found.dedicated) - own, found.lost)
            if own:
                self.assertEqual(set(), found.lost - pinned)
                self.assertEqual(min(kept, len(own - pinned)),
                                 len(found.shared))
            # No more than the pod has is promised.
            self.assertEqual(
                len(own & (found.shared | found.dedicated)),
                found.shared_count + found.dedicated_count -
                found.lost_count)
            if before and (before.shared or before.dedicated):
                self.assertTrue(found.shared or found.dedicated)
            before = found
