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


"""Real Nova services and Placement in one process, with our driver."""

import os
import sys

import fixtures
import nova.conf
from nova.tests.functional.libvirt import base
from nova import utils
import urllib3
import yaml

from nova_k8s import conf
from tests.functional import pools
from tests import waiting

CONF = nova.conf.CONF

conf.register_opts(CONF)

# Nova's fake of libvirt counts its KiB as MiB.
HOST_MEMORY_MB = 16780000


class ServersTestBase(base.ServersTestBase):
    """libvirt is Nova's own fake of it; the limits stand in a manifest."""

    microversion = 'latest'
    ADMIN_API = True

    def setUp(self):
        # Nova's wheel installs it under the prefix, and CONF.find_file()
        # does not look there.
        self.flags(api_paste_config=os.path.join(
            sys.prefix, 'etc/nova/api-paste.ini'), group='wsgi')
        pools.keep(self)
        super().setUp()
        # What intercepts the HTTP of Nova's APIs takes HTTPS as well, and
        # cannot speak it. The Kubernetes API server is a real one.
        self.useFixture(fixtures.MonkeyPatch(
            'urllib3.connectionpool.HTTPSConnectionPool.ConnectionCls',
            urllib3.connection.HTTPSConnection))
        for name in ('NODE_NAME', 'POD_NAME', 'POD_NAMESPACE'):
            self.useFixture(fixtures.EnvironmentVariable(name))
        self.manifest = os.path.join(
            self.useFixture(fixtures.TempDir()).path, 'pod.yaml')
        self.flags(limits_from='manifest', manifest=self.manifest,
                   group='kubernetes')
        # What QEMU costs is not what most tests are about.
        self.flags(overhead_factor=0.0, group='kubernetes')
        self.flags(reserved_host_memory_mb=0, cpu_allocation_ratio=1.0,
                   ram_allocation_ratio=1.0)

    def _setup_compute_service(self):
        # The base class has Nova's own driver here.
        self.flags(compute_driver='k8s.K8sLibvirtDriver')

    def set_limits(self, **limits):
        """Write the manifest: set_limits(cpu='4', memory='8Gi')."""
        pod = {'apiVersion': 'v1', 'kind': 'Pod',
               'metadata': {'namespace': 'openstack', 'name': 'compute'},
               'spec': {'containers': [
                   {'name': 'libvirt', 'resources': {'limits': limits}}]}}
        with open(self.manifest + '.new', 'w', encoding='utf-8') as f:
            yaml.safe_dump(pod, f)
        os.rename(self.manifest + '.new', self.manifest)

    def start(self, host='compute1', **limits):
        self.set_limits(**limits)
        self.start_compute(hostname=host)

    def inventory(self, host='compute1'):
        return self.placement.get(
            '/resource_providers/%s/inventories' % self.compute_rp_uuids[host]
        ).body['inventories']

    def wait_for_inventory(self, **expected):
        """Wait until (total, reserved) by class are so in Placement."""
        self.wait_for(expected, lambda: {
            rc: (record['total'], record['reserved'])
            for rc, record in self.inventory().items() if rc in expected})

    def wait_for_service(self, status, reason=None, host='compute1'):
        """Wait until the compute service is so, for the scheduler as well."""
        def found():
            service, = self.admin_api.get_services('nova-compute', host)
            return (service['status'], service['disabled_reason'],
                    'COMPUTE_STATUS_DISABLED' in self._get_provider_traits(
                        self.compute_rp_uuids[host]))
        self.wait_for((status, reason, status == 'disabled'), found)

    def wait_for_hypervisor(self, **expected):
        """Wait until the hypervisors API says so, after Placement."""
        self.wait_for(expected, lambda: {
            field: self.hypervisor()[field] for field in expected})

    def wait_for(self, expected, get):
        try:
            waiting.until(lambda: get() == expected, interval=0.2)
        except waiting.TooLong:
            # It says what the difference is.
            self.assertEqual(expected, get())

    def boot(self, vcpus=1, memory_mb=512, expected_state='ACTIVE'):
        flavor = self._create_flavor(vcpu=vcpus, memory_mb=memory_mb, disk=1,
                                     ephemeral=0)
        return self._create_server(flavor_id=flavor, networks='none',
                                   expected_state=expected_state)

    def assert_full(self, **flavor):
        server = self.boot(expected_state='ERROR', **flavor)
        self.assertIn('No valid host', server['fault']['message'])

    def hypervisor(self):
        # 2.87 is the last microversion with vcpus and memory_mb.
        with utils.temporary_mutation(self.admin_api, microversion='2.87'):
            return self.admin_api.api_get(
                '/os-hypervisors/detail').body['hypervisors'][0]
