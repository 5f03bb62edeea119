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

"""Run nova-compute by itself, without the rest of an OpenStack.

A script. Its process is nova-compute's own in all that concerns its start, its
options, its signals and its end. It reads its database itself, where it would
ask a conductor, and there is no Placement. libvirt is Nova's own fake of it.
"""

import os
import runpy
import sys

# First, as in the script nova-compute: this import chooses between threads
# and eventlet.
import nova.cmd.compute  # noqa: F401

import nova.compute.resource_tracker
import nova.conductor.rpcapi
import nova.db.main.api
from nova.db.main import models
import nova.scheduler.client.report
import nova.service
from nova.tests.fixtures import libvirt
import nova.utils


def skip(*args, **kwargs):
    pass


serve_indeed = nova.service.serve


def serve(server, **kwargs):
    nova.db.main.api.DISABLE_DB_ACCESS = False
    models.BASE.metadata.create_all(nova.db.main.api.get_engine())
    serve_indeed(server, **kwargs)


# Without one, objects ask the database.
nova.conductor.rpcapi.ConductorAPI = skip
nova.scheduler.client.report.SchedulerReportClient._create_client = skip
nova.scheduler.client.report.SchedulerReportClient.clear_provider_cache = skip
nova.compute.resource_tracker.ResourceTracker.update_available_resource = skip
nova.utils.raise_if_old_compute = skip
nova.service.serve = serve

libvirt.LibvirtFixture().setUp()

sys.argv = [os.path.join(os.path.dirname(sys.executable), 'nova-compute'),
            *sys.argv[1:]]
runpy.run_path(sys.argv[0], run_name='__main__')
