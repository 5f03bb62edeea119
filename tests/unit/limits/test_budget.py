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
"""The value that all else is made of."""

from nova_k8s.limits import budget
from tests.unit import base

GI = 2 ** 30


def some(*hugepages):
    return budget.Budget('Pod a/b', 4000, GI, hugepages=hugepages)


class LeastTest(base.TestCase):

    def test_of_what_is_set(self):
        self.assertEqual(0, budget.least(3, None, 0))
        self.assertEqual(3, budget.least(None, 3))
        self.assertIsNone(budget.least(None, None))
        self.assertIsNone(budget.least())


class HugePagesTest(base.TestCase):

    def test_by_size(self):
        self.assertEqual({}, some().hugepages_by_kb)
        self.assertEqual({2048: GI, 2 ** 20: 2 * GI}, some(
            ('2Mi', GI), ('1Gi', 2 * GI)).hugepages_by_kb)

    def test_the_same_size_twice(self):
        for sizes in (('2Mi', '2048Ki'), ('2048Ki', '2Mi')):
            self.assertEqual({2048: GI}, some(
                *zip(sizes, (GI, 3 * GI))).hugepages_by_kb)

    def test_damaged(self):
        # As a file on disk may be: no pages of it are offered.
        self.assertEqual({2048: GI}, some(
            ('rubbish', GI), ('', GI), ('2Mi', GI)).hugepages_by_kb)

    def test_words(self):
        self.assertEqual('4000 millicores of CPU and 1024 MiB of memory',
                         budget.describe(some(('2Mi', 0))))
        self.assertEqual(
            '4000 millicores of CPU and 1024 MiB of memory, 1024 MiB in huge '
            'pages of 2Mi, 2048 MiB in huge pages of 1Gi',
            budget.describe(some(('2Mi', GI), ('1Gi', 2 * GI))))
