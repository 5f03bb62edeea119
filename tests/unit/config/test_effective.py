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

from nova_k8s.config import definitions
from nova_k8s.config import documents
from nova_k8s.config import effective
from nova_k8s.config import folder
from tests.unit import base

KNOWN = definitions.Definitions([
    (None, [cfg.StrOpt('host'), cfg.BoolOpt('debug', mutable=True),
            cfg.StrOpt('url'), cfg.StrOpt('password', secret=True),
            cfg.MultiStrOpt('pci', deprecated_name='alias')]),
    (cfg.OptGroup('g'), [cfg.IntOpt('n', default=3, required=True)])])


def document(text, secret=False):
    return documents.Document('ConfigMap n/x', 'a.conf', text, secret)


class ChangesTest(base.TestCase):

    def changes(self, old, new, secret=False):
        return {f'{each.group or "DEFAULT"}.{each.name}':
                (each.old, each.new, each.restart)
                for each in effective.changes(
                    [document(old, secret)], [document(new, secret)], KNOWN)}

    def test_what_needs_a_restart(self):
        self.assertEqual(
            {'DEFAULT.host': ('a', 'b', True),
             'DEFAULT.debug': (None, 'true', False),
             'g.n': ('1', None, True)},
            self.changes('[DEFAULT]\nhost = a\n[g]\nn = 1',
                         '[DEFAULT]\nhost = b\ndebug = true'))

    def test_another_name_is_no_change(self):
        self.assertEqual({}, self.changes('[DEFAULT]\nalias = a',
                                          '[DEFAULT]\npci = a'))

    def test_another_case_of_a_group_is_no_change(self):
        self.assertEqual({}, self.changes('[G]\nn = 1', '[g]\nn = 1'))

    def test_secrets_are_masked(self):
        mask = effective.MASK
        self.assertEqual(
            {'DEFAULT.password': (mask, mask, True)},
            self.changes('[DEFAULT]\npassword = a', '[DEFAULT]\npassword = b'))
        self.assertEqual(
            {'DEFAULT.host': (mask, None, True)},
            self.changes('[DEFAULT]\nhost = a', '', secret=True))
        # What nobody knows may be one.
        self.assertEqual(
            {'x.y': (mask, mask, True)},
            self.changes('[x]\ny = a', '[x]\ny = b'))
        self.assertEqual(
            {'DEFAULT.url': ('a://b:****@c', 'a://b:****@d', True)},
            self.changes('[DEFAULT]\nurl = a://b:pw@c',
                         '[DEFAULT]\nurl = a://b:pw@d'))


class SettingsTest(base.TestCase):

    def test_each_with_its_place(self):
        paths = []
        for text in ('[DEFAULT]\nhost = a\n[g]\nn = 7\n',
                     '[DEFAULT]\ndebug = true\n[x]\ny = 1\n'):
            paths.append(f'{self.folder()}/{len(paths)}.conf')
            with open(paths[-1], 'w') as out:
                out.write(text)
        conf = effective.load(KNOWN, 'nova', 'nova-compute', paths, [])
        found = {each.name: (each.value, each.where)
                 for each in effective.settings(conf, KNOWN)}
        # oslo.config itself names the last file that has the section.
        self.assertEqual(('a', paths[0]), found['host'])
        self.assertEqual((True, paths[1]), found['debug'])
        self.assertEqual((7, paths[0]), found['n'])
        self.assertEqual((None, None), found['url'])
        self.assertEqual(
            ('****', f'{paths[1]}; no option of the service'), found['y'])

    def test_what_config_run_has_written(self):
        # Also of an option that nobody has marked as secret.
        written = folder.Folder(self.folder() + '/config')
        written.start([
            documents.Document('ConfigMap a/nova', 'nova.conf',
                               '[DEFAULT]\nhost = a\n'),
            documents.Document('Secret a/nova', '{group}.{option}',
                               '[g]\nn = 7\n', secret=True)])
        conf = effective.load(KNOWN, 'nova', 'nova-compute', [],
                              [written.config_dir])
        found = {each.name: (each.value, each.where)
                 for each in effective.settings(conf, KNOWN)}
        self.assertEqual(('a', 'ConfigMap a/nova, key nova.conf'),
                         found['host'])
        self.assertEqual(('****', 'Secret a/nova, key g.n'), found['n'])


class DefinitionsTest(base.TestCase):

    def test_a_service_that_is_installed(self):
        known = definitions.for_service('/usr/bin/nova-compute')
        # Nova's own, one of a library that it requires, and one of ours.
        for section, name in (('libvirt', 'virt_type'), ('DEFAULT', 'debug'),
                              ('kubernetes', 'container')):
            self.assertIsNotNone(known.find(section, name), name)
        self.assertTrue(known.find('DEFAULT', 'debug')[1].mutable)
        self.assertTrue(known.find('database', 'connection')[1].secret)

    def test_a_program_of_nobody(self):
        self.assertRaises(definitions.errors.Refused,
                          definitions.for_service, 'no-such-program')
