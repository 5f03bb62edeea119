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

"""Guests that are really there."""

import pathlib

import fixtures
import nova.conf
import yaml

from nova_k8s import conf
from tests.functional import real_libvirt

conf.register_opts(nova.conf.CONF)


class GuestTest(real_libvirt.RealLibvirtTestCase):

    def setUp(self):
        manifest = self.useFixture(fixtures.TempDir()).join('pod.yaml')
        with open(manifest, 'w', encoding='utf-8') as f:
            yaml.safe_dump({
                'apiVersion': 'v1', 'kind': 'Pod',
                'metadata': {'name': 'compute'},
                'spec': {'nodeName': 'node-1', 'containers': [
                    {'name': 'libvirt', 'resources': {
                        'limits': {'cpu': '1500m', 'memory': '256Mi'}}}]}}, f)
        self.flags(limits_from='manifest', manifest=manifest,
                   group='kubernetes')
        self.flags(reserved_host_memory_mb=0)
        super().setUp()

    def test_guest_is_a_process_until_it_is_deleted(self):
        self.start_compute()
        inventories = self.inventories()
        self.assertEqual(1, inventories['VCPU']['total'])
        self.assertEqual(256, inventories['MEMORY_MB']['total'])
        flavor = self._create_flavor(memory_mb=256, vcpu=1, disk=0,
                                     ephemeral=0)

        server = self.boot(flavor, 'guest')

        self.assertEqual('ACTIVE', server['status'])
        self.assertEqual('node-1',
                         server['OS-EXT-SRV-ATTR:hypervisor_hostname'])
        guest = self.embed.guests()[server['id']]
        self.assertEqual('running', guest['state'])
        self.assertEqual(256, guest['memory_mb'])
        qemu = command(guest['pid'])
        self.assertIn(b'qemu-system', qemu)
        self.assertIn(server['id'].encode(), qemu)
        self.assertEqual(256, self.usages()['MEMORY_MB'])

        refused = self.boot(flavor, 'one-too-many')
        self.assertEqual('ERROR', refused['status'])
        self.assertIn('No valid host', refused['fault']['message'])
        self.assertEqual([server['id']], list(self.embed.guests()))

        self._delete_server(server)
        self.assertEqual({}, self.embed.guests())
        self.wait_until(
            lambda: b'qemu' not in command(guest['pid']),
            f'process {guest["pid"]} is still there')
        self.assertEqual(0, self.usages()['MEMORY_MB'])


def command(pid):
    """Command line of a process; empty if there is none."""
    try:
        return pathlib.Path(f'/proc/{pid}/cmdline').read_bytes()
    except OSError:
        return b''
