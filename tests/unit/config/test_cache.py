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

import os
from unittest import mock

from nova_k8s.config import cache
from nova_k8s.config import documents
from nova_k8s.config import errors
from tests.unit import base

PUBLIC = documents.Document('ConfigMap n/x', 'a.conf', '[a]')
SECRET = documents.Document('Secret n/x', 'a.conf', '[b]', True)


class CacheTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.path = os.path.join(self.folder(), 'new')

    def cache(self, key='k', secrets=True):
        return cache.Cache(self.path, 'nova-compute', key, secrets)

    def away(self):
        raise errors.Unreachable('away')

    def test_what_was_read_last(self):
        self.assertEqual([PUBLIC, SECRET], cache.read(
            self.cache(), lambda: [PUBLIC, SECRET], ['x']))
        self.assertEqual([PUBLIC, SECRET], cache.read(
            self.cache(), self.away, ['x']))

    def test_what_no_service_starts_with_is_not_kept(self):
        cache.read(self.cache(), lambda: [PUBLIC], [])
        broken = documents.Document('Secret n/x', 'a.conf',
                                    '[a]\nvery-secret\n', True)
        refused = self.assertRaises(
            errors.Refused, cache.read, self.cache(), lambda: [broken], [])
        self.assertIn('Secret n/x, key a.conf: line 2: ', str(refused))
        self.assertNotIn('very-secret', str(refused))
        self.assertEqual([PUBLIC], cache.read(self.cache(), self.away, []))

    def test_it_is_of_other_objects(self):
        self.cache().save([PUBLIC])
        self.assertRaises(errors.Unreachable, cache.read,
                          self.cache('other'), self.away, [])

    def test_without_secrets(self):
        self.cache(secrets=False).save([PUBLIC, SECRET])
        self.assertEqual([PUBLIC], self.cache().load()[0])
        self.assertRaises(errors.Unreachable, cache.read,
                          self.cache(secrets=False), self.away, ['x'])

    def test_it_is_damaged(self):
        self.cache().save([PUBLIC])
        with open(os.path.join(self.path, 'nova-compute.json'), 'w') as out:
            out.write('{"key": "k", "time": 1, "documents": [{}]}')
        self.assertIsNone(self.cache().load())

    def test_a_full_disk_stops_nobody(self):
        with mock.patch('nova_k8s.util.statefile.write',
                        side_effect=OSError(28, 'No space left')):
            self.assertEqual([PUBLIC], cache.read(
                self.cache(), lambda: [PUBLIC], []))

    def test_an_answer_is_no_outage(self):
        self.cache().save([PUBLIC])

        def refused():
            raise errors.Refused('403')
        self.assertRaises(errors.Refused, cache.read, self.cache(), refused,
                          [])

    def test_untouched(self):
        with cache.untouched():
            self.cache().save([PUBLIC])
        self.assertFalse(os.path.exists(self.path))

    def test_nothing_is_kept_without_a_folder(self):
        nothing = cache.Cache(None, 'a', 'k', True)
        nothing.save([PUBLIC])
        self.assertIsNone(nothing.load())
