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

"""Nova moves a guest from one compute service to another, and it lives on."""

import fixtures
import nova.conf
from nova.virt.libvirt import guest
import yaml

from nova_k8s import conf
from tests.functional import libvirtds
from tests.functional import real_libvirt
from tests.functional import test_live_migration
from tests import waiting

conf.register_opts(nova.conf.CONF)


class NovaTest(test_live_migration.Nodes,
               real_libvirt.RealLibvirtTestCase):

    def setUp(self):
        self.make_folder()
        self.flags(reserved_host_memory_mb=0)
        self.flags(limits_from='manifest', overhead_factor=0.0,
                   group='kubernetes')
        super().setUp()
        self.disk = libvirtds.COUNTER.ljust(len(real_libvirt.DISK), b'\0')
        self.glance._imagedata[self.image] = self.disk
        # Of both nodes, as on shared storage: QEMU, which is not root, has to
        # get there.
        instances = self.folder / 'instances'
        instances.mkdir(0o755)
        self.flags(instances_path=str(instances))
        self._is_shared()
        self.nodes = {}
        for name, address in zip(('node-1', 'node-2'),
                                 test_live_migration.ADDRESSES):
            self.nodes[name] = self.with_certificates(address)
            self.start(name)

    def _is_shared(self):
        """Have libvirt believe what Nova found out, that disks are shared.

        It takes only network file systems for that, and this is one folder of
        one machine.
        """
        migrate = guest.Guest.migrate

        def migrate_there(*args, flags=0, **kwargs):
            return migrate(
                *args, flags=flags | libvirtds.libvirt.VIR_MIGRATE_UNSAFE,
                **kwargs)

        self.useFixture(fixtures.MonkeyPatch(
            'nova.virt.libvirt.guest.Guest.migrate', migrate_there))

    def start(self, name):
        """Start the nova-compute of a node, as the manifests have it."""
        node = self.nodes[name]
        manifest = self.folder / f'{name}.yaml'
        manifest.write_text(yaml.safe_dump({
            'apiVersion': 'v1', 'kind': 'Pod',
            'metadata': {'name': 'compute'},
            'spec': {'nodeName': name, 'containers': [
                {'name': 'libvirt', 'resources': {
                    'limits': {'cpu': '1', 'memory': '256Mi'}}}]}}))
        state = self.folder / f'state-{name}'
        state.mkdir()
        self.flags(state_path=str(state))
        self.flags(manifest=str(manifest), group='kubernetes')
        # As in nova.conf and nova-compute.yaml of the manifests.
        self.flags(connection_uri=node.uri, live_migration_scheme='tls',
                   live_migration_with_native_tls=True,
                   live_migration_inbound_addr=node.address, group='libvirt')
        # compute_id is read once a process, and each node has its own.
        self.useFixture(fixtures.MonkeyPatch(
            'nova.virt.node.LOCAL_NODE_UUID', None))
        self._start_compute(name)

    def await_server(self, server, **expected):
        """Wait until Nova shows these fields of a server."""
        def shown():
            now = self.api.get_server(server['id'])
            return all(now[name] == value for name, value in expected.items())

        waiting.until(shown, f'server is not {expected}', 120)

    def test_a_guest_moves_and_lives_on(self):
        flavor = self._create_flavor(memory_mb=64, vcpu=1, disk=0,
                                     ephemeral=0)
        server = self.api.post_server({'server': {
            'name': 'counter', 'imageRef': self.image, 'flavorRef': flavor,
            'networks': 'none', 'host': 'node-1'}})
        self.await_server(server, status='ACTIVE')
        source, target = self.nodes['node-1'], self.nodes['node-2']
        domain = source.connection().lookupByUUIDString(server['id'])
        waiting.until(lambda: libvirtds.count(domain) > 100,
                      'the guest counts')
        before = libvirtds.count(domain)
        self.api.post_server_action(server['id'], {'os-migrateLive': {
            'host': None, 'block_migration': 'auto'}})
        self.await_server(server, status='ACTIVE', **{
            'OS-EXT-SRV-ATTR:host': 'node-2', 'OS-EXT-STS:task_state': None})
        waiting.until(
            lambda: ['completed'] == [each['status'] for each in self.api.
                                      api_get('/os-migrations').body[
                                          'migrations']],
            'the migration is not completed')
        self.assertEqual([], source.connection().listAllDomains())
        domain = target.connection().lookupByUUIDString(server['id'])
        self.assertGreater(libvirtds.count(domain), before)
