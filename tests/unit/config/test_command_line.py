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

from nova_k8s.config import command_line
from tests.unit import base

FLAGS = {'--debug': ('debug', False), '--nodebug': ('debug', False),
         '--log-file': ('log_file', True)}


def filled_in(*command):
    return command_line.filled_in(command_line.with_place(command), '/c')


class CommandLineTest(base.TestCase):

    def test_the_folder_is_at_the_end_or_where_it_is_wanted(self):
        self.assertEqual(['a', '-b', '--config-dir', '/c'],
                         filled_in('a', '-b'))
        self.assertEqual(['a', '--x=/c', 'y'],
                         filled_in('a', '--x={config_dir}', 'y'))

    def test_files(self):
        self.assertEqual(
            [('/a', False), ('/c', True), ('/b', False)],
            command_line.files(['nova-compute', '--config-file', '/a', '-x',
                                '--config-dir=/c', '--config-file=/b']))
        self.assertEqual(
            [('/a', False), ('/c', True)],
            command_line.files(command_line.of_files(['/a'], ['/c'])))
        self.assertEqual([], command_line.files([]))
        # It is for oslo.config to complain.
        self.assertEqual([('', False)],
                         command_line.files(['--config-file']))

    def test_what_is_known(self):
        self.assertEqual(
            ({'debug', 'log_file', None},
             ['--nodebug', '--config-file', '/a', '--log-file=/b',
              '--log-file', '/c']),
            command_line.known(
                ['nova-compute', '-q', '--nodebug', '--other', 'x',
                 '--config-file', '/a', '--log-file=/b', 'y',
                 '--log-file', '/c'], FLAGS))
