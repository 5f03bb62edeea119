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

"""Guests leave a node: real Nova, over HTTP, with openstacksdk."""

from tests.functional import compute_nodes


class DrainTest(compute_nodes.ComputeNodesTestBase):

    def test_all_leave(self):
        self.start_nodes()
        servers = [self.boot_on('compute1') for _ in range(3)]
        self.disable('compute1')
        state, _ = self.drain('compute1')
        self.assertEqual((), state.verdicts)
        self.assertTrue(state.empty)
        self.assertNotIn('compute1', self.hosts_of(*servers))
        self.assertEqual(
            {(each['id'], host) for each, host in zip(
                servers, self.hosts_of(*servers))},
            {(each.guest.id, each.dest) for each in state.moved})
