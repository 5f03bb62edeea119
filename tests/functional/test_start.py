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

"""A real nova-compute that must not start ends, and says why in one line."""

import os
import socket
import tempfile
import unittest

import testscenarios
import yaml

from tests.functional import init_host
from tests.functional import test_loading

load_tests = testscenarios.load_tests_apply_scenarios

KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{name: a, cluster: {server: '%s'}}]
users: [{name: a, user: {token: very-secret}}]
contexts: [{name: a, context: {cluster: a, user: a}}]
current-context: a
"""


class FailClosedTest(unittest.TestCase):

    scenarios = [('threads', {'eventlet': False})] * test_loading.THREADS + [
        ('eventlet', {'eventlet': True})]

    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory(prefix='nova-k8s-')
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def _write(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, 'w', encoding='utf-8') as out:
            out.write(text)
        return path

    def _refused(self, *names, options=''):
        """Start it, and look for the names in its last words."""
        conf = self._write('nova.conf', test_loading.NOVA_CONF.format(
            directory=self.folder) + options)
        done = init_host.run(conf, self.eventlet)
        said = done.stdout + done.stderr
        self.assertEqual(1, done.returncode, said)
        self.assertNotIn('Traceback', said)
        self.assertNotIn('very-secret', said)
        lines = [line for line in said.splitlines()
                 if ' ERROR ' in line or ' CRITICAL ' in line]
        self.assertEqual(1, len(lines), said)
        for name in ['nova-compute does not start: ', *names]:
            self.assertIn(name, lines[0])
            # oslo.log repeats what is logged while it is handled.
            self.assertEqual(1, lines[0].count(name), lines[0])

    def test_no_manifest(self):
        self._refused(
            f'[kubernetes] manifest {self.folder}/pod.yaml: No such file')

    def test_no_limit(self):
        pod = yaml.safe_load(test_loading.POD)
        del pod['spec']['containers'][0]['resources']['limits']['memory']
        self._write('pod.yaml', yaml.safe_dump(pod))
        self._refused(
            'Pod openstack/compute, container libvirt',
            'spec.containers[libvirt].resources.limits.memory',
            '[kubernetes] unlimited = host')

    def test_no_api_server(self):
        with socket.socket() as unused:
            unused.bind(('127.0.0.1', 0))
            url = 'http://127.0.0.1:%d' % unused.getsockname()[1]
            kubeconfig = self._write('kubeconfig', KUBECONFIG % url)
            self._refused(
                'Pod openstack/compute', f'API server {url}',
                options=f'[kubernetes]\nlimits_from = api\n'
                        f'kubeconfig = {kubeconfig}\nnamespace = openstack\n'
                        f'pod_name = compute\napi_timeout = 1\n')

    def test_option_that_is_not_valid(self):
        if self.eventlet:
            self.skipTest('There, oslo.service logs all options first, and '
                          'fails by itself')
        self._refused("'nowhere'",
                      options='[kubernetes]\nlimits_from = nowhere\n')
        # Of what is used only when all is running.
        self._refused('reserve_ahead',
                      options='[kubernetes]\nreserve_ahead = -1\n')
