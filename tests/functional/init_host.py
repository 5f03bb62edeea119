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

"""nova-compute, up to where Nova's own init_host() would begin."""

import importlib.util
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
SCRIPT = os.path.join(HERE, 'nova_compute.py')


def run(nova_conf, eventlet=None, **environ):
    """Run it and return how it ended; see nova_compute.py.

    :param eventlet: instead of threads; by default where Nova knows no threads
    :param environ: of the pod, of which nothing else is taken from here
    """
    if eventlet is None:
        eventlet = importlib.util.find_spec('nova.thread_pool_factory') is None
    return subprocess.run(
        [sys.executable, SCRIPT, '--config-file', str(nova_conf)],
        text=True, capture_output=True, timeout=180,
        env={**{name: value for name, value in os.environ.items()
                if not name.startswith(('PYTHON', 'OS_', 'POD_', 'NODE_',
                                        'KUBERNETES_'))},
             'PYTHONPATH': TOP,
             'NOVA_K8S_INIT_HOST': '1',
             'OS_NOVA_DISABLE_EVENTLET_PATCHING': '0' if eventlet else '1',
             **environ})
