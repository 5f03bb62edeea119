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

"""Saying once what an operator should know of limits and machine."""

import fixtures

from nova_k8s.inventory import bounds
from nova_k8s.inventory import caveats
from nova_k8s.inventory import hugepages
from nova_k8s.limits import budget
from tests.unit import base


class CaveatsTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.log = self.useFixture(fixtures.FakeLogger('nova_k8s'))
        self.caveats = caveats.Caveats()
        self.budget = budget.Budget('Pod a/b', 4000, 8 << 30,
                                    cpu_request_millicores=1000)
        self.pages = hugepages.Pages()

    def tell(self, ratio=1.0, reserved=0, **arguments):
        """Return the lines of one more look."""
        before = len(self.log.output)
        stock = {bounds.VCPU: {'total': 64, 'reserved': 0},
                 bounds.MEMORY_MB: {'total': 65536, 'reserved': reserved,
                                    'allocation_ratio': ratio}}
        self.caveats.tell(self.budget, stock, self.pages, 8192, **arguments)
        return self.log.output[before:].splitlines()

    def test_once(self):
        line, = self.tell()
        self.assertIn('requests.cpu of 1000 millicores is below', line)
        # What is reserved is no news.
        self.assertEqual([], self.tell(reserved=64))
        self.pages = hugepages.Pages(512, ((2048, 512),))
        self.assertEqual(1, len(self.tell()))

    def test_without_a_budget(self):
        self.budget = None
        self.assertEqual([], self.tell())

    def test_memory_that_is_sold_twice(self):
        self.assertEqual(2, len(self.tell(ratio=1.5)))

    def test_memory_that_is_kept(self):
        self.assertIn('8192 are reserved: nothing is left for guests',
                      ''.join(self.tell(others_mb=8192)))

    def test_huge_pages_that_are_not_there(self):
        self.budget = budget.Budget('Pod a/b', 4000, 8 << 30,
                                    hugepages=(('2Mi', 2 ** 30),))
        line, = self.tell()
        self.assertIn('hugepages-2Mi allows 1024 MiB', line)
        self.caveats = caveats.Caveats()
        # Guests have memory of files, and no huge pages anyway.
        self.assertEqual([], self.tell(ram=False))
