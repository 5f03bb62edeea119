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

from oslo_config import cfg

from nova_k8s.config import command_line
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


class TestCase(base.TestCase):

    def load(self, words, known=KNOWN, **environ):
        with mock.patch.dict(os.environ, environ):
            return effective.load(
                known, 'nova', 'nova-compute', words,
                default_config_files=[], default_config_dirs=[])

    def file(self, text):
        path = f'{self.folder()}/x.conf'
        with open(path, 'w') as out:
            out.write(text)
        return path


class ChangesTest(TestCase):

    def changes(self, old, new, words=(), secret=False, **environ):
        """Return the changes of a service under config run."""
        written = folder.Folder(self.folder() + '/config')
        written.start([document(old, secret)],
                      command_line.with_place(['nova-compute', *words]))
        written.replace([document(new, secret)])
        # What is taken from the environment is looked at late.
        with mock.patch.dict(os.environ, environ):
            found = effective.changes(
                *(self.load(written.words(which))
                  for which in (folder.STARTED, folder.CURRENT)))
        return {f'{each.group or "DEFAULT"}.{each.name}':
                (each.old, each.new, each.restart) for each in found}

    def test_what_needs_a_restart(self):
        self.assertEqual(
            {'DEFAULT.host': ('a', 'b', True),
             'DEFAULT.debug': (None, True, False),
             'g.n': (1, 3, True)},
            self.changes('[DEFAULT]\nhost = a\n[g]\nn = 1',
                         '[DEFAULT]\nhost = b\ndebug = true'))

    def test_the_place_is_the_present_one(self):
        old = self.load(['--config-file', self.file('[g]\nn = 7\n')])
        path = self.file('[DEFAULT]\nhost = a\n')
        found = effective.changes(old, self.load(['--config-file', path]))
        self.assertEqual([('host', path), ('n', None)],
                         [(each.name, each.where) for each in found])

    def test_another_name_is_no_change(self):
        self.assertEqual({}, self.changes('[DEFAULT]\nalias = a',
                                          '[DEFAULT]\npci = a'))

    def test_another_case_of_a_group_is_no_change(self):
        self.assertEqual({}, self.changes('[G]\nn = 1', '[g]\nn = 1'))

    def test_the_same_value_in_other_words_is_no_change(self):
        self.assertEqual({}, self.changes(
            '[DEFAULT]\ndebug = true\n[g]\nn = 3',
            '[DEFAULT]\ndebug = yes'))

    def test_what_wins_over_it_leaves_no_change(self):
        old, new = '[DEFAULT]\nhost = a', '[DEFAULT]\nhost = b'
        self.assertEqual({}, self.changes(old, new, OS_DEFAULT__HOST='c'))
        self.assertEqual({}, self.changes(old, new, [
            '--config-dir', '{config_dir}', '--host', 'c', '--other']))
        later = self.file('[DEFAULT]\nhost = c\n')
        self.assertEqual({}, self.changes(old, new, [
            '--config-dir={config_dir}', f'--config-file={later}']))
        self.assertEqual(['DEFAULT.host'], list(self.changes(old, new, [
            f'--config-file={later}', '--config-dir={config_dir}'])))

    def test_what_refers_to_it_changes_too(self):
        self.assertEqual(
            {'DEFAULT.host': ('a', 'b', True),
             'DEFAULT.url': ('http://a', 'http://b', True)},
            self.changes('[DEFAULT]\nhost = a\nurl = http://$host',
                         '[DEFAULT]\nhost = b\nurl = http://$host'))

    def test_what_refers_to_a_secret(self):
        self.assertEqual(
            {'DEFAULT.password': ('****', '****', True),
             'DEFAULT.url': ('http://****', 'http://****', True)},
            self.changes('[DEFAULT]\npassword = a\nurl = http://$password',
                         '[DEFAULT]\npassword = b\nurl = http://$password'))

    def test_a_value_that_cannot_be_taken(self):
        for secret in (False, True):
            (old, new, _restart), = self.changes(
                '', '[g]\nn = very-secret', secret=secret).values()
            self.assertEqual(effective.MASK if secret else effective.INVALID,
                             new)
        self.assertEqual(
            {'DEFAULT.host': ('a', effective.INVALID, True)},
            self.changes('[DEFAULT]\nhost = a', '[DEFAULT]\nhost = $nobody'))

    def test_secrets_are_masked(self):
        mask = effective.MASK
        self.assertEqual(
            {'DEFAULT.password': (mask, mask, True)},
            self.changes('[DEFAULT]\npassword = a',
                         '[DEFAULT]\npassword = b'))
        # Its default is no secret, but nobody is told that it was set.
        self.assertEqual(
            {'g.n': (mask, mask, True)},
            self.changes('[g]\nn = 1', '', secret=True))
        # What nobody knows may be one.
        self.assertEqual(
            {'x.y': (mask, mask, True)},
            self.changes('[x]\ny = a', '[x]\ny = b'))
        self.assertEqual({'x.y': (mask, None, True)},
                         self.changes('[x]\ny = a', ''))
        self.assertEqual(
            {'DEFAULT.url': ('a://b:****@c', 'a://b:****@d', True)},
            self.changes('[DEFAULT]\nurl = a://b:pw@c',
                         '[DEFAULT]\nurl = a://b:pw@d'))


class SettingsTest(TestCase):

    def settings(self, *words, **environ):
        with mock.patch.dict(os.environ, environ):
            return {each.name: (each.value, each.where) for each
                    in effective.settings(self.load(words))}

    def test_each_with_its_place(self):
        paths = [self.file(text) for text in (
            '[DEFAULT]\nhost = a\n[g]\nn = 7\n',
            '[DEFAULT]\ndebug = true\n[x]\ny = 1\n')]
        found = self.settings(*(f'--config-file={each}' for each in paths))
        # oslo.config itself names the last file that has the section.
        self.assertEqual(('a', paths[0]), found['host'])
        self.assertEqual((True, paths[1]), found['debug'])
        self.assertEqual((7, paths[0]), found['n'])
        self.assertEqual((None, None), found['url'])
        self.assertEqual(
            ('****', f'{paths[1]}; no option of the service'), found['y'])

    def test_files_and_folders_count_in_their_order(self):
        path = self.file('[DEFAULT]\nhost = a\n')
        later = self.file('[DEFAULT]\nhost = b\n')
        named = [f'--config-file={path}',
                 f'--config-dir={os.path.dirname(later)}']
        self.assertEqual(('b', later), self.settings(*named)['host'])
        self.assertEqual(('a', path), self.settings(*named[::-1])['host'])

    def test_the_environment_and_the_command_line(self):
        found = self.settings('--host', 'b', '--nodebug',
                              OS_DEFAULT__HOST='c', OS_DEFAULT__URL='d')
        self.assertEqual(('b', False), (found['host'][0], found['debug'][0]))
        self.assertEqual('command line', found['host'][1])
        self.assertEqual(('d', 'OS_DEFAULT__URL'), found['url'])

    def test_a_value_that_cannot_be_taken(self):
        path = self.file('[g]\nn = many\n')
        self.assertEqual((effective.INVALID, path),
                         self.settings(f'--config-file={path}')['n'])

    def test_what_refers_to_a_secret(self):
        written = folder.Folder(self.folder() + '/config')
        written.start([
            document('[DEFAULT]\nurl = http://$host/$password/${g.n}\n'),
            document('[DEFAULT]\nhost = very-secret\n[g]\nn = 7',
                     secret=True)])
        found = self.settings('--config-dir', written.config_dir,
                              OS_DEFAULT__PASSWORD='very-secret')
        self.assertEqual('http://****/****/7', found['url'][0])
        self.assertEqual(('****', 'OS_DEFAULT__PASSWORD'), found['password'])

    def test_what_config_run_has_written(self):
        # Also of an option that nobody has marked as secret.
        written = folder.Folder(self.folder() + '/config')
        written.start([
            documents.Document('ConfigMap a/nova', 'nova.conf',
                               '[DEFAULT]\nhost = a\n'),
            documents.Document('Secret a/nova', '{group}.{option}',
                               '[g]\nn = 7\n', secret=True)])
        found = self.settings('--config-dir', written.config_dir)
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

    def test_our_options_are_those_of_nova_only(self):
        known = definitions.for_service('placement-manage')
        self.assertIsNotNone(known.find('placement', 'randomize_allocation_'
                                        'candidates'))
        self.assertIsNone(known.find('kubernetes', 'container'))

    def test_what_changes_in_a_running_service_is_no_secret(self):
        # oslo.config logs it, with both values.
        for program in ('nova-compute', 'placement-manage'):
            found = definitions.for_service(program).opts.values()
            self.assertTrue([each for each in found if each.mutable])
            self.assertEqual([], [each.name for each in found
                                  if each.mutable and each.secret])

    def test_a_program_of_nobody(self):
        self.assertRaises(definitions.errors.Refused,
                          definitions.for_service, 'no-such-program')
