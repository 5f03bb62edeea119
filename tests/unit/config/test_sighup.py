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
import signal
import subprocess
import sys
import textwrap

from tests.unit import base

PROGRAM = '''
import sys
from oslo_service import backend
backend.init_backend(backend.BackendType.THREADING)
import os
import signal
import threading
import time
from oslo_config import cfg
from oslo_service import service
from nova_k8s.config import sighup

class Service(service.Service):
    def start(self):
        os.kill(os.getpid(), signal.SIGHUP)
    def reset(self):
        print('reset', conf.debug, flush=True)
        os._exit(7)
    def wait(self):
        time.sleep(5)

conf = cfg.ConfigOpts()
conf.register_opt(cfg.BoolOpt('debug', mutable=True))
conf(['--config-file', sys.argv[1]], default_config_files=[])
with open(sys.argv[1], 'w') as out:
    out.write('[DEFAULT]\\ndebug = true\\n')
if sys.argv[2] == 'repaired':
    sighup.repair()
    sighup.repair()
service.launch(conf, Service(), restart_method='mutate', no_fork=True)
'''


class RepairTest(base.TestCase):

    def run_service(self, how):
        path = os.path.join(self.folder(), 'a.conf')
        with open(path, 'w') as out:
            out.write('[DEFAULT]\n')
        return subprocess.run(
            [sys.executable, '-c', textwrap.dedent(PROGRAM), path, how],
            text=True, capture_output=True, timeout=60)

    def setUp(self):
        super().setUp()
        try:
            from oslo_service.backend._threading import service
            service.ProcessLauncher.add_signal_handlers
        except (ImportError, AttributeError):
            self.skipTest('This oslo.service has no threads, or cannot run a '
                          'service without a fork')

    def test_it_reads_its_files(self):
        done = self.run_service('repaired')
        self.assertEqual((7, 'reset True\n'), (done.returncode, done.stdout),
                         done.stderr)

    def test_oslo_service_still_needs_it(self):
        """When this fails, nova_k8s.config.sighup can go."""
        done = self.run_service('as it is')
        self.assertEqual((signal.SIGHUP, ''), (done.returncode, done.stdout),
                         done.stderr)
