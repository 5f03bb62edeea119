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

"""The probe of the manifests, against a nova-compute that listens."""

import importlib.util
import pathlib
import subprocess
import sys

import fixtures
import oslo_messaging

from tests.functional import base

TOP = pathlib.Path(__file__).resolve().parents[2]
PROBE = TOP / 'etc' / 'kubernetes' / 'base' / 'ready.py'


def load():
    """The probe as a module: in the pod it is a file in a ConfigMap."""
    spec = importlib.util.spec_from_file_location('ready', PROBE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class ReadyTest(base.ServersTestBase):

    def setUp(self):
        super().setUp()
        self.ready = load()
        self.ready.TIMEOUT = 2

    def test_nova_compute_answers(self):
        self.flags(rpc_ping_enabled=True)
        self.start(cpu='4', memory='8Gi')
        self.assertEqual('pong', self.ready.ping('compute1'))

    def test_nobody_is_there(self):
        self.flags(rpc_ping_enabled=True)
        self.start(cpu='4', memory='8Gi')
        self.assertRaises(oslo_messaging.MessagingTimeout,
                          self.ready.ping, 'compute2')

    def test_ping_is_not_enabled(self):
        self.start(cpu='4', memory='8Gi')
        self.assertRaises(oslo_messaging.MessagingException,
                          self.ready.ping, 'compute1')

    def test_as_the_kubelet_runs_it(self):
        nova_conf = self.useFixture(fixtures.TempDir()).join('nova.conf')
        with open(nova_conf, 'w') as out:
            out.write('[DEFAULT]\nhost = node1\ntransport_url = fake://\n')
        done = subprocess.run(
            [sys.executable, PROBE, '--config-file', nova_conf],
            text=True, capture_output=True)
        self.assertEqual(1, done.returncode)
        self.assertIn('nova-compute on node1 does not answer', done.stderr)
