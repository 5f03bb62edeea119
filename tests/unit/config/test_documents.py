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

import base64

import hypothesis
from hypothesis import strategies as st
from oslo_config import cfg
import testtools

from nova_k8s.config import documents
from nova_k8s.config import errors
from nova_k8s.config import layers


def config_map(**data):
    return {'metadata': {'namespace': 'openstack', 'name': 'nova'},
            'data': data}


def secret(**data):
    return config_map(**{key: base64.b64encode(value).decode()
                         for key, value in data.items()})


class FromObjectTest(testtools.TestCase):

    def refusal(self, kind, body):
        return str(self.assertRaises(
            errors.Refused, documents.from_object, kind, body))

    def test_files_by_name_then_options(self):
        found = documents.from_object(documents.CONFIG_MAP, config_map(**{
            'DEFAULT.debug': 'true', 'b.conf': '[b]', 'a.conf': '[a]'}))
        self.assertEqual(
            ['a.conf', 'b.conf', '{group}.{option}'],
            [each.key for each in found])
        self.assertEqual('ConfigMap openstack/nova, key DEFAULT.debug',
                         found[-1].where(None, 'debug'))

    def test_nothing(self):
        for body in (config_map(), {**config_map(), 'data': None}):
            self.assertEqual([], documents.from_object(
                documents.CONFIG_MAP, body))

    def test_a_group_with_a_dot(self):
        found, = documents.from_object(documents.CONFIG_MAP, config_map(**{
            'a.b.c': 'x'}))
        self.assertEqual('[a.b]\nc = x', found.text)

    def test_secret(self):
        found, = documents.from_object(
            documents.SECRET, secret(**{'x.conf': '[a]\nb = ä'.encode()}))
        self.assertEqual('[a]\nb = ä', found.text)
        self.assertTrue(found.secret)
        self.assertNotIn('ä', repr(found))

    def test_what_is_no_text(self):
        self.assertEqual(
            'Secret openstack/nova, key b.conf: it is not UTF-8',
            self.refusal(documents.SECRET, secret(**{
                'a.conf': b'[a]', 'b.conf': b'\xff'})))
        self.assertEqual(
            'ConfigMap openstack/nova, key b: it is not UTF-8',
            self.refusal(documents.CONFIG_MAP, {
                **config_map(), 'binaryData': {'b': '/w=='}}))

    def test_what_is_no_option(self):
        for key in ('README', '.b', 'a.', 'a.b c'):
            self.assertIn(
                f'key {key!r}: it is neither a file, <name>.conf, nor an '
                f'option, <group>.<option>',
                self.refusal(documents.CONFIG_MAP, config_map(**{key: 'x'})))


class ValueTest(testtools.TestCase):
    """A value of one option is read as what stands behind it in a file."""

    def found(self, value):
        document, = documents.from_options('here', '{group}.{option}',
                                           [('a.b', 'a', 'b', value)])
        layer = layers.Layer(document)
        self.assertEqual({'a'}, set(layer.sections))
        return layer.find('a', cfg.StrOpt('b'))

    def test_values(self):
        for value, expected in (
                ('x', 'x'), (' x \n', 'x'), ('', ''), ('"x y"', 'x y'),
                ('a = b: c', 'a = b: c'), ('# x', '# x'), ('[c]', '[c]'),
                ('x\ny', 'x\ny'), ('x\r\n[c]', 'x\n[c]'), ('x\r# y',
                                                           'x\n# y')):
            self.assertEqual(expected, self.found(value), value)

    def test_an_empty_line(self):
        self.assertRaises(errors.Refused, self.found, 'x\n\ny')
        self.assertRaises(errors.Refused, self.found, 'x\n \ny')

    @hypothesis.given(st.text())
    def test_no_value_sets_anything_else(self, value):
        try:
            self.found(value)
        except errors.Refused:
            self.assertRegex(value.strip(), '(\r\n|\r|\n)\\s*(\r|\n)')
