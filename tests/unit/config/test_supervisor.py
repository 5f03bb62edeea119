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

import signal
import subprocess
import sys

from nova_k8s.config import supervisor
from tests.unit import base


class HandlesTest(base.TestCase):

    def test_only_what_has_a_handler(self):
        process = subprocess.Popen(
            [sys.executable, '-c',
             'import signal, time\n'
             'signal.signal(signal.SIGHUP, print)\n'
             'signal.signal(signal.SIGUSR1, signal.SIG_IGN)\n'
             'print("ready", flush=True)\n'
             'time.sleep(30)'], stdout=subprocess.PIPE)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.addCleanup(process.stdout.close)
        process.stdout.readline()
        self.assertEqual(
            [True, False, False],
            [supervisor.handles(process.pid, each) for each in
             (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)])
