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

import contextlib
import io
import json
import os
import sys
from unittest import mock

from nova_k8s.cmd import files
from nova_k8s.cmd import main
from nova_k8s.config import documents
from nova_k8s.config import folder
from tests.unit import base


class ConfigTest(base.TestCase):

    def nova_k8s(self, *args, status=0):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            self.assertEqual(status, main.main(['config', *args]))
        return out.getvalue() if status == 0 else err.getvalue()

    def written(self, *texts):
        written = folder.Folder(self.folder())
        for i, text in enumerate(texts):
            found = [documents.Document('ConfigMap n/x', 'a.conf', text)]
            if i:
                written.replace(found)
            else:
                written.start(found, ['nova-compute'])
        return written.path

    def test_diff_names_what_needs_a_restart(self):
        path = self.written(
            '[DEFAULT]\nreserved_host_disk_mb = 1\n',
            '[DEFAULT]\nreserved_host_disk_mb = 2\ndebug = true\n')
        self.assertEqual(
            '[DEFAULT]\nreserved_host_disk_mb: 1 -> 2  # ConfigMap n/x, key '
            'a.conf\n', self.nova_k8s('diff', '--dir', path))
        found, = json.loads(self.nova_k8s('diff', '--dir', path, '--format',
                                          'json'))
        self.assertEqual(('DEFAULT', 'reserved_host_disk_mb', 1, 2, True), (
            found['group'], found['name'], found['old'], found['new'],
            found['restart']))

    def test_diff_compares_what_nova_makes_of_it(self):
        path = self.written('[DEFAULT]\nmy_ip = 10.0.0.1\n',
                            '[DEFAULT]\nmy_ip = 10.0.0.2\n')
        # This one is $my_ip by default.
        self.assertIn('my_block_storage_ip: 10.0.0.1 -> 10.0.0.2  # default',
                      self.nova_k8s('diff', '--dir', path))
        # What wins over it stays as it is.
        with mock.patch.dict(os.environ, OS_DEFAULT__MY_IP='10.0.0.3'):
            self.assertEqual('', self.nova_k8s('diff', '--dir', path))

    def test_the_folder_of_the_environment(self):
        path = self.written('[DEFAULT]\nmy_ip = 10.0.0.1\n',
                            '[DEFAULT]\nmy_ip = 10.0.0.2\n')
        with mock.patch.dict(os.environ, {files.RUN_DIR: path}):
            self.assertIn('my_ip: 10.0.0.1 -> 10.0.0.2',
                          self.nova_k8s('diff'))
            self.assertIn('my_ip = 10.0.0.2  # ConfigMap n/x, key a.conf',
                          self.nova_k8s('show'))

    def test_one_line_on_what_is_wrong(self):
        for args, words in (
                (['diff', '--dir', '/nowhere'], '/nowhere/command.json'),
                (['show', '--program', 'nobody'], 'nobody: no installed'),
                (['show', '--config-file', '/nowhere'], '/nowhere'),
                (['import', '/nowhere'], '/nowhere: No such file'),
                (['run', '--', 'true'], 'neither --config-map nor --secret'),
                (['run', '--namespace', 'n', '--config-map', 'a',
                  '--kubeconfig', '/nowhere', '--', 'true'],
                 'kubeconfig /nowhere: ')):
            said = self.nova_k8s(*args, status=1)
            self.assertIn(words, said)
            self.assertEqual(1, len(said.splitlines()), said)

    def test_run_needs_a_command(self):
        with contextlib.redirect_stderr(io.StringIO()):
            self.assertRaises(SystemExit, main.main,
                              ['config', 'run', '--config-map', 'a'])

    def test_no_nova_in_the_process_that_supervises(self):
        import subprocess
        done = subprocess.run(
            [sys.executable, '-c',
             'import sys\n'
             'from nova_k8s.cmd import main\n'
             'main.main(["config", "run", "--", "true"])\n'
             'print([each for each in sys.modules if each in '
             '("nova", "kubernetes", "rich")])'],
            text=True, capture_output=True)
        self.assertEqual('[]\n', done.stdout, done.stderr)
