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

import hypothesis
from hypothesis import strategies as st
from oslo_config import cfg

from nova_k8s.config import convert
from nova_k8s.config import definitions
from nova_k8s.config import documents
from nova_k8s.config import errors
from nova_k8s.config import layers
from tests.unit import base

KNOWN = definitions.Definitions([
    (None, [cfg.StrOpt('host'), cfg.MultiStrOpt('pci'), cfg.StrOpt('url'),
            cfg.StrOpt('password', secret=True, deprecated_name='pass')])])

VALUES = st.lists(st.text(st.characters(
    blacklist_categories=('Cs', 'Cc', 'Zl', 'Zp'),
    blacklist_characters='\x85'), min_size=1).map(str.strip).filter(
        bool), min_size=1, max_size=3)


class FromFilesTest(base.TestCase):

    def convert(self, *texts, names=('a.conf', 'b')):
        folder = self.folder()
        paths = []
        for name, text in zip(names, texts):
            paths.append(os.path.join(folder, name))
            with open(paths[-1], 'w', newline='') as out:
                out.write(text)
        return convert.from_files(paths, KNOWN, 'nova', 'n')

    def test_what_goes_where(self):
        config_map, secret, unknown = self.convert(
            '# A comment.\n[DEFAULT]\nhost = a\npass = b\nurl = x://y:z@h\n'
            '[other]\nx = 1\n')
        self.assertEqual({'a.conf': '[DEFAULT]\nhost = a\n'},
                         config_map['data'])
        self.assertEqual(
            {'a.conf': '[DEFAULT]\npass = b\nurl = x://y:z@h\n\n'
                       '[other]\nx = 1\n'}, secret['stringData'])
        self.assertEqual(['[other] x'], unknown)
        self.assertEqual({'name': 'nova-credentials', 'namespace': 'n'},
                         secret['metadata'])

    def test_no_secret(self):
        self.assertIsNone(self.convert('[DEFAULT]\nhost = a\n')[1])

    def test_the_order_of_files(self):
        config_map, _, _ = self.convert(
            '[DEFAULT]\nhost = a\n', '[DEFAULT]\nhost = b\n',
            names=('z.conf', 'a'))
        self.assertEqual(['00-z.conf', '01-a.conf'],
                         sorted(config_map['data']))

    def test_an_option_is_in_one_object(self):
        """Otherwise a Secret's would win over the later file's."""
        config_map, secret, _ = self.convert(
            '[DEFAULT]\nurl = x://y:z@h\n', '[DEFAULT]\nurl = x://h\n')
        self.assertIsNone(config_map)
        self.assertEqual(
            {'00-a.conf': '[DEFAULT]\nurl = x://y:z@h\n',
             '01-b.conf': '[DEFAULT]\nurl = x://h\n'},
            secret['stringData'])

    def test_what_cannot_be_read(self):
        self.assertRaises(errors.Refused, convert.from_files, ['/nowhere'],
                          KNOWN, 'nova', None)

    @hypothesis.given(VALUES)
    def test_every_value_comes_back(self, values):
        lines = [f'pci = "{each}"' for each in values]
        config_map, secret, _ = self.convert(
            '\n'.join(['[DEFAULT]', *lines]) + '\n')
        found = documents.Document(
            '', '', (config_map or secret).get('data', {}).get('a.conf') or
            secret['stringData']['a.conf'])
        self.assertEqual(values, layers.Layer(found).find(
            None, cfg.MultiStrOpt('pci')))
