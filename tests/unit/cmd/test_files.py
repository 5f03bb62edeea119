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

import argparse
import importlib

from nova_k8s.cmd import files
from nova_k8s.cmd import main
from nova_k8s.config import folder
from nova_k8s import errors
from tests.unit import base


class WordsTest(base.TestCase):

    def words(self, *args, **environ):
        parser = argparse.ArgumentParser()
        files.add_arguments(parser)
        return files.words(parser.parse_args(args), environ)

    def written(self, *command):
        written = folder.Folder(self.folder())
        written.start([], command)
        return written.path

    def test_what_is_given(self):
        self.assertEqual([], self.words())
        self.assertEqual(
            ['--config-file=/a', '--config-file=/b', '--config-dir=/c'],
            self.words('--config-dir', '/c', '--config-file', '/a',
                       '--config-file', '/b'))

    def test_what_config_run_has_given(self):
        path = self.written('x', '--config-file=/a', '--debug',
                            '--config-dir={config_dir}')
        environ = {files.RUN_DIR: path}
        self.assertEqual(
            ['x', '--config-file=/a', '--debug',
             f'--config-dir={path}/current'], self.words(**environ))
        self.assertEqual(['--config-file=/b'],
                         self.words('--config-file=/b', **environ))

    def test_in_a_word_for_somebody_else(self):
        path = self.written('uwsgi', '--pyargv=--config-dir {config_dir}')
        self.assertEqual(f'--config-dir={path}/current',
                         self.words(**{files.RUN_DIR: path})[-1])

    def test_nothing_is_written_there(self):
        exc = self.assertRaises(errors.Refused, self.words,
                                **{files.RUN_DIR: '/nowhere'})
        for words in (files.RUN_DIR, '/nowhere/command.json'):
            self.assertIn(words, str(exc))

    def test_all_commands_that_look_at_a_service_have_them(self):
        for name in main.COMMANDS:
            parser = argparse.ArgumentParser()
            module = importlib.import_module(f'nova_k8s.cmd.{name}')
            added = module.add_parser(parser.add_subparsers())
            if name != 'config':
                text = added.format_help()
                self.assertIn('--config-dir', text, name)
                self.assertIn('--config-file', text, name)
