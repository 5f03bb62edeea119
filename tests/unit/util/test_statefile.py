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

"""Small files that a crash leaves whole; more in limits and service."""

import os

from nova_k8s.util import statefile
from tests.unit import base


class StateFileTest(base.TestCase):

    def test_who_may_read_it(self):
        path = f'{self.folder()}/x.json'
        for mode, expected in ((None, 0o600), (0o644, 0o644)):
            statefile.write(path, {'a': 1}, mode)
            self.assertEqual(expected, os.stat(path).st_mode & 0o777)
            self.assertEqual({'a': 1}, statefile.read_plain(path))
        self.assertEqual(['x.json'], os.listdir(os.path.dirname(path)))

    def test_nothing(self):
        path = f'{self.folder()}/x.json'
        self.assertIsNone(statefile.read_plain(path))
        with open(path, 'w', encoding='utf-8') as f:
            f.write('{')
        self.assertIsNone(statefile.read_plain(path))
