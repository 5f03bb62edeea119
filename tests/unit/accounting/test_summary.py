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

"""The figures that nova-compute leaves for others."""

from unittest import mock

import hypothesis
from hypothesis import strategies as st

from nova_k8s.accounting import ledger
from nova_k8s.accounting import overhead
from nova_k8s.accounting import summary
from tests.unit import base

NEEDS = st.lists(st.builds(
    overhead.Need, st.integers(0, 4096), st.integers(0, 300),
    st.integers(0, 4096), huge=st.just(()) | st.tuples(st.tuples(
        st.sampled_from((2048, 2 ** 20)), st.integers(1, 4096)))))


class SummaryTest(base.TestCase):

    @hypothesis.given(NEEDS, st.integers(0, 1024), st.integers(0, 3))
    def test_sum_is_what_is_reserved(self, needs, others, ahead):
        found = summary.make(needs, others, ahead)
        self.assertEqual(ledger.reserved_mb(needs, others, ahead),
                         found.reserved_mb)
        self.assertEqual(ledger.used_mb(needs), found.used_mb)
        self.assertEqual(sum(ledger.huge_mb(needs).values()),
                         found.huge_used_mb)

    def test_left_for_another_process(self):
        conf = mock.Mock(state_path=self.folder(), host='host-1')
        self.assertIsNone(summary.load(conf))
        found = summary.make([overhead.Need(512, 60, 512)], 100, 1,
                             {2048: 512, 2 ** 20: 1024})
        self.assertEqual(1536, found.huge_mb)
        summary.save(conf, found)
        self.assertEqual(found, summary.load(conf))
        conf.host = 'host-2'
        self.assertIsNone(summary.load(conf))
