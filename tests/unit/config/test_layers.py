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

from oslo_config import cfg
import testtools

from nova_k8s.config import documents
from nova_k8s.config import errors
from nova_k8s.config import layers


def document(text, key='a.conf', secret=False):
    return documents.Document('ConfigMap n/x', key, text, secret)


class LayersTest(testtools.TestCase):

    def find(self, group, opt, *texts):
        found = layers.Layers([document(text, f'{i}.conf')
                               for i, text in enumerate(texts)])
        value, layer = found.find(group, opt)
        return value, layer.where(group, opt)

    def test_the_last_one_wins(self):
        self.assertEqual(
            ('2', 'ConfigMap n/x, key 1.conf'),
            self.find(None, cfg.StrOpt('a'), '[DEFAULT]\na = 0\na = 1',
                      '[DEFAULT]\na = 2', '[other]\na = 3'))

    def test_a_deprecated_name_in_a_later_one_wins(self):
        opt = cfg.StrOpt('new', deprecated_name='old', deprecated_group='was')
        self.assertEqual(
            ('2', 'ConfigMap n/x, key 1.conf'),
            self.find('now', opt, '[now]\nnew = 1', '[was]\nold = 2'))
        # In one file the present name does, wherever it stands.
        self.assertEqual(
            '1', self.find('now', opt, '[now]\nnew = 1\n[was]\nold = 2')[0])

    def test_all_values_of_an_option_with_several(self):
        self.assertEqual(
            (['1', '2', '3'], 'ConfigMap n/x, key 1.conf'),
            self.find('g', cfg.MultiStrOpt('a'), '[g]\na = 1\na = 2',
                      '[g]\na = 3'))

    def test_an_option_of_a_key_of_its_own(self):
        opt = cfg.StrOpt('new', deprecated_name='old')
        found = layers.Layers([document('[g]\nold = 1', '{group}.{option}')])
        value, layer = found.find('g', opt)
        self.assertEqual('ConfigMap n/x, key g.old', layer.where('g', opt))

    def test_it_is_not_there(self):
        self.assertRaises(KeyError, self.find, None, cfg.StrOpt('a'),
                          '[DEFAULT]\nb = 1')

    def test_no_message_repeats_a_line(self):
        for text, words in (
                ('[a\n', 'line 1: Invalid section'),
                ('[a]\n\nsecret\n', 'line 3: No '),
                ('secret = 1', 'line 1: Section must be started'),
                ('[a]\n= secret', 'line 2: Key cannot be empty'),
                ('  secret', 'line 1: Unexpected continuation')):
            said = str(self.assertRaises(errors.Refused, layers.Layers,
                                         [document(text)]))
            self.assertTrue(said.startswith(
                f'ConfigMap n/x, key a.conf: {words}'), said)
            self.assertNotIn('secret', said)
