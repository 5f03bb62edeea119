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

"""Calls that are waited for only so long."""

import threading

from nova_k8s.util import deadline
from tests.unit import base


class CallTest(base.TestCase):

    def test_answer(self):
        self.assertEqual(7, deadline.call(lambda given_up: 7, 9, 'x'))

    def test_problem(self):
        def fail(given_up):
            raise KeyError('why')

        exc = self.assertRaises(KeyError, deadline.call, fail, 9, 'x')
        self.assertEqual("'why'", str(exc))

    def test_no_answer(self):
        seen, over = [], threading.Event()

        def hang(given_up):
            given_up.wait(10)
            seen.append(given_up.is_set())
            over.set()

        exc = self.assertRaises(
            TimeoutError, deadline.call, hang, 0.05, 'Placement')
        self.assertEqual('Placement does not answer within 0.05 s', str(exc))
        over.wait(10)
        self.assertEqual([True], seen)
