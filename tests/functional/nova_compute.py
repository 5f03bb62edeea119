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

"""Run nova-compute by itself, until it has loaded its driver.

A script for the interpreter of an environment under test, see test_loading;
and, with NOVA_K8S_INIT_HOST in the environment, until its driver's init_host()
has ended it or has come to where Nova's own begins, see test_start.

nova-compute asks its conductor for a sign of life and Placement for its
versions before it loads the driver, and then its conductor for the versions of
other computes. These three are skipped here, and what follows is replaced by a
line of JSON about what was loaded; all the rest is nova-compute's own.
"""

import json
import os
import runpy
import sys

# First, as in the script nova-compute: this import chooses between threads
# and eventlet.
import nova.cmd.compute  # noqa: F401

import nova.conductor.api
import nova.scheduler.client.report
import nova.service
import nova.utils


def skip(*args, **kwargs):
    pass


def tell(loaded):
    from nova.virt.libvirt import driver

    import nova_k8s

    eventlet = sys.modules.get('eventlet')
    print(json.dumps({
        'driver': '%s.%s' % (type(loaded).__module__, type(loaded).__name__),
        'node': loaded._node_name,
        'libvirt': isinstance(loaded, driver.LibvirtDriver),
        'module': sys.modules['nova.virt.k8s'].__file__,
        'nova': nova.__file__,
        'nova_k8s': nova_k8s.__file__,
        'eventlet': bool(eventlet and
                         eventlet.patcher.is_monkey_patched('thread')),
    }), flush=True)
    # Not sys.exit(): it would wait for threads that serve no more.
    os._exit(0)


def serve(server, **kwargs):
    tell(server.manager.driver)


serve_indeed = nova.service.serve


def start(server, **kwargs):
    from nova import exception
    from nova import objects
    from nova.virt.libvirt import driver

    # What a host that starts for the first time is answered.
    objects.Service.get_by_host_and_binary = skip
    objects.ComputeNodeList.get_all_by_host = lambda *args: []

    def get_by_nodename(context, name):
        raise exception.ComputeHostNotFound(host=name)

    objects.ComputeNode.get_by_nodename = get_by_nodename
    driver.LibvirtDriver.init_host = lambda self, host: tell(self)
    serve_indeed(server, **kwargs)


nova.conductor.api.API.wait_until_ready = skip
nova.scheduler.client.report.SchedulerReportClient._create_client = skip
nova.utils.raise_if_old_compute = skip
nova.service.serve = start if 'NOVA_K8S_INIT_HOST' in os.environ else serve

sys.argv = [os.path.join(os.path.dirname(sys.executable), 'nova-compute'),
            *sys.argv[1:]]
runpy.run_path(sys.argv[0], run_name='__main__')
