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

"""Several compute nodes between which guests move: Nova's services are real.

libvirt is Nova's own fake of it, which migrates nothing: a migration here
defines the guest at the destination after a while, or fails.
"""

import threading
import time
from urllib import parse

import fixtures
from nova.tests.fixtures import libvirt as fakelibvirt

from nova_k8s.drain import engine
from nova_k8s.drain import plan
from nova_k8s.drain import sdk
from tests.functional import base
from tests.functional import nova_http


class ComputeNodesTestBase(base.ServersTestBase):

    HOSTS = ('compute1', 'compute2', 'compute3')

    # As in real life, Nova answers before the conductor has done its work.
    CAST_AS_CALL = False

    # Seconds between two looks of a drain. Nova answers in this process: who
    # looks more often takes the time from what he looks for.
    interval = 0.5

    def setUp(self):
        super().setUp()
        self.http = self.useFixture(nova_http.NovaApi())
        self.useFixture(fixtures.MonkeyPatch(
            'nova.tests.fixtures.libvirt.Domain.migrateToURI3',
            lambda *args, **params: self._migrate(*args, **params)))
        self.useFixture(fixtures.MonkeyPatch(
            'nova_k8s.drain.engine.INTERVAL', self.interval))
        self.aborted = set()
        self.useFixture(fixtures.MonkeyPatch(
            'nova.tests.fixtures.libvirt.Domain.abortJob',
            lambda domain: self.aborted.add(domain.UUIDString())))
        # Of a migration, in seconds.
        self.length = 0
        # Guests whose migration fails, by id.
        self.failing = set()
        # While it is set, migrations go on.
        self.going = threading.Event()
        self.going.set()
        self.migrated = []

    def start_nodes(self):
        for host in self.HOSTS:
            self.start(host, cpu='4', memory='8Gi')

    def _migrate(self, domain, destination, params, flags):
        uuid = domain.UUIDString()
        self.aborted.discard(uuid)
        deadline = time.monotonic() + 120
        while (not self.going.wait(0.05) and time.monotonic() < deadline and
               uuid not in self.aborted):
            pass
        time.sleep(self.length)
        if uuid in self.aborted:
            domain._job_type = fakelibvirt.VIR_DOMAIN_JOB_CANCELLED
            threading.Timer(1, setattr, (
                domain, '_job_type', fakelibvirt.VIR_DOMAIN_JOB_NONE)).start()
            return
        if uuid in self.failing:
            domain.fail_job()
            raise fakelibvirt.make_libvirtError(
                fakelibvirt.libvirtError, 'the guest cannot move',
                error_code=fakelibvirt.VIR_ERR_INTERNAL_ERROR,
                error_domain=fakelibvirt.VIR_FROM_QEMU)
        host = parse.urlsplit(destination).hostname
        self.computes[host].driver._host.get_connection().createXML(
            params['destination_xml'], 'ignored')
        self.migrated.append((uuid, host))
        # Last: now Nova takes it for done.
        domain.complete_job()

    def boot_on(self, host, name=None, memory_mb=512, **fields):
        flavor = self._create_flavor(vcpu=1, memory_mb=memory_mb, disk=1,
                                     ephemeral=0)
        return self._create_server(name=name, flavor_id=flavor, host=host,
                                   networks='none', **fields)

    def hosts_of(self, *servers):
        return [self.admin_api.get_server(each['id'])['OS-EXT-SRV-ATTR:host']
                for each in servers]

    def disable(self, host):
        service, = self.admin_api.get_services('nova-compute', host)
        self.admin_api.put_service(service['id'], {'status': 'disabled'})

    def nova(self, token='operator', **options):
        return sdk.Nova(lambda: self.http.connect(token), **options)

    def drain(self, host, nova=None, hold=lambda: None, seconds=60,
              **policy):
        """Run the engine to its end; return (its State, all of them)."""
        states = []
        loop = engine.Engine(nova or self.nova(), host,
                             plan.Policy(**policy), hold=hold)
        return loop.run(states.append, time.sleep, seconds), states
