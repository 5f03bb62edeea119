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

"""nova-k8s check, as it is called."""

import contextlib
import dataclasses
import io
import json
import pathlib
from unittest import mock

import nova.conf

from nova_k8s.cmd import check
from nova_k8s.cmd import main
from nova_k8s import conf
from tests.unit import base
from tests.unit.confinement import test_findings

CONF = nova.conf.CONF


class CheckTest(base.TestCase):

    def setUp(self):
        super().setUp()
        conf.register_opts(CONF)
        self.addCleanup(CONF.reset)
        self.config = f'{self.folder()}/nova.conf'
        pathlib.Path(self.config).touch()

    def run_command(self, seen, *args):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(
                err), mock.patch.object(check, 'look', return_value=seen):
            status = main.main(['check', '--config-file', self.config, *args])
        return status, out.getvalue(), err.getvalue()

    def test_nothing_is_wrong(self):
        status, out, err = self.run_command(test_findings.GOOD)
        self.assertEqual((0, ''), (status, err))
        self.assertIn('Nothing is wrong.', out)
        self.assertIn('instance-1', out)

    def test_a_problem(self):
        seen = dataclasses.replace(test_findings.GOOD, oom_group=True,
                                   swap_bytes=1 << 30)
        status, out, err = self.run_command(seen)
        self.assertEqual((1, 'nova-k8s: 1 problem found\n'), (status, err))
        self.assertIn('oom-group', out)

    def test_a_warning_is_none(self):
        seen = dataclasses.replace(test_findings.GOOD, swap_bytes=1 << 30)
        status, out, err = self.run_command(seen)
        self.assertEqual((0, ''), (status, err))
        self.assertIn('swap', out)

    def test_json(self):
        seen = dataclasses.replace(test_findings.GOOD, oom_group=True)
        status, out, _ = self.run_command(seen, '--format', 'json')
        self.assertEqual(1, status)
        found = json.loads(out)
        self.assertEqual(
            [('problem', 'oom-group')],
            [(each['severity'], each['check'])
             for each in found['findings']])
        self.assertTrue(found['findings'][0]['fix'])
        self.assertEqual([{
            'uuid': 'uuid-1', 'name': 'instance-1', 'inside': True,
            'cgroup': test_findings.GUEST.cgroup}], found['guests'])

    def test_this_machine(self):
        status, out, err = self.run_this_machine()
        self.assertIn(status, (0, 1))
        # A machine that runs tests is no compute node.
        self.assertIn('guests-pod' if 'cgroup-version' not in out
                      else 'cgroup-version', out)

    def run_this_machine(self):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main.main(['check', '--config-file', self.config,
                                '--format', 'json'])
        return status, out.getvalue(), err.getvalue()


class ShutdownGraceTest(base.TestCase):

    def grace(self, text):
        path = f'{self.folder()}/config.yaml'
        pathlib.Path(path).write_text(text)
        return check.shutdown_grace(path)

    def test_of_the_kubelet(self):
        self.assertEqual(90, self.grace(
            'shutdownGracePeriodCriticalPods: 1m30s'))

    def test_none(self):
        for text in ('', 'kind: KubeletConfiguration',
                     'shutdownGracePeriodCriticalPods: 0s', '[', '- 1',
                     'shutdownGracePeriodCriticalPods: soon'):
            self.assertIsNone(self.grace(text), text)
        self.assertIsNone(check.shutdown_grace('/none'))
