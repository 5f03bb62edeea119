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
import sys

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
            (written.replace if i else written.start)(found)
        return written.path

    def test_diff_names_what_needs_a_restart(self):
        path = self.written('[DEFAULT]\nmy_ip = 10.0.0.1\n',
                            '[DEFAULT]\nmy_ip = 10.0.0.2\ndebug = true\n')
        self.assertEqual(
            '[DEFAULT]\nmy_ip: 10.0.0.1 -> 10.0.0.2  # ConfigMap n/x, key '
            'a.conf\n', self.nova_k8s('diff', '--dir', path))
        found, = json.loads(self.nova_k8s('diff', '--dir', path, '--format',
                                          'json'))
        self.assertEqual(('DEFAULT', 'my_ip', True), (
            found['group'], found['name'], found['restart']))

    def test_one_line_on_what_is_wrong(self):
        for args, words in (
                (['diff', '--dir', '/nowhere'], '/nowhere/started/index.json'),
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
