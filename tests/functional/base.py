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


"""Real Nova services and Placement in one process, with our driver.

libvirt is Nova's own fake of it.
"""

import os
import sys

import fixtures
import nova.conf
from nova.tests.functional.libvirt import base
import yaml

from nova_k8s import conf

CONF = nova.conf.CONF

conf.register_opts(CONF)


class ServersTestBase(base.ServersTestBase):
    """Starts compute nodes whose limits stand in a manifest."""

    microversion = 'latest'
    ADMIN_API = True

    def setUp(self):
        # Nova's wheel installs it under the prefix, and CONF.find_file()
        # does not look there.
        self.flags(api_paste_config=os.path.join(
            sys.prefix, 'etc/nova/api-paste.ini'), group='wsgi')
        super().setUp()
        self.manifest = os.path.join(
            self.useFixture(fixtures.TempDir()).path, 'pod.yaml')
        self.flags(limits_from='manifest', manifest=self.manifest,
                   group='kubernetes')

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

    def inventory(self, host='compute1'):
        return self.placement.get(
            '/resource_providers/%s/inventories' % self.compute_rp_uuids[host]
        ).body['inventories']
