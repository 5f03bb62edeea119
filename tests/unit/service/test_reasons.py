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

"""Reasons in the words that Nova keeps; test_switch has the decisions."""

import hypothesis
from hypothesis import strategies as st

from nova_k8s.service import reasons
from tests.unit import base


class TextTest(base.TestCase):

    @hypothesis.given(st.frozensets(st.sampled_from(reasons.REASONS),
                                    min_size=1),
                      st.text('abc-.1', min_size=1, max_size=253))
    def test_names_its_reasons(self, chosen, name):
        shown = reasons.describe(chosen, name)
        self.assertLessEqual(len(shown), 255)
        for disabled in (True, False):
            record = reasons.Record(disabled, shown)
            self.assertTrue(record.ours)
            self.assertEqual(chosen, reasons.parse(record))

    def test_of_others(self):
        for reason in (None, '', 'maintenance'):
            record = reasons.Record(True, reason)
            self.assertFalse(record.ours)
            self.assertEqual(frozenset(), reasons.parse(record))
