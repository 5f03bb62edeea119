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

"""Lists of CPUs, there and back."""

import hypothesis
from hypothesis import strategies as st

from nova_k8s.util import cpulist
from tests.unit import base


class CpuListTest(base.TestCase):

    def test_as_the_kernel_writes_them(self):
        for text, expected in (
                ('', set()), ('\n', set()), ('0', {0}), ('0-3,8\n',
                                                         {0, 1, 2, 3, 8}),
                ('1,3,5-6', {1, 3, 5, 6})):
            self.assertEqual(expected, cpulist.parse(text))
            self.assertEqual(text.strip(), cpulist.render(expected))

    def test_what_is_none(self):
        for text in ('a', '1-', '-1', '3-1', '1,,2', '0-99999', '1 2', '٣',
                     '0-3:1/2', '^1'):
            self.assertRaises(ValueError, cpulist.parse, text)

    @hypothesis.given(st.frozensets(st.integers(0, 300)))
    def test_there_and_back(self, numbers):
        self.assertEqual(numbers, cpulist.parse(cpulist.render(numbers)))

    @hypothesis.given(st.text(max_size=30))
    def test_whatever_it_is(self, text):
        try:
            found = cpulist.parse(text)
        except ValueError:
            return
        self.assertEqual(found, cpulist.parse(cpulist.render(found)))
