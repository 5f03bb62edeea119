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
"""Local disk for guests is what the pod of nova-compute may have."""

import fixtures
import yaml

from nova_k8s.limits import volumes
from tests.functional import base


class DiskTest(base.ServersTestBase):

    def setUp(self):
        super().setUp()
        # Where the folder lies, /proc says: see the unit tests.
        self.place = self.useFixture(fixtures.MockPatch(
            'nova_k8s.inventory.disk._find_place',
            return_value=volumes.Place('disks', 'some-uid'))).mock

    def set_limits(self, size=None, **limits):
        super().set_limits(**limits)
        with open(self.manifest, encoding='utf-8') as f:
            pod = yaml.safe_load(f)
        if size:
            pod['spec']['volumes'] = [
                {'name': 'disks', 'emptyDir': {'sizeLimit': size}}]
        with open(self.manifest, 'w', encoding='utf-8') as f:
            yaml.safe_dump(pod, f)

    def boot_with_disk(self, disk, expected_state='ACTIVE'):
        flavor = self._create_flavor(vcpu=1, memory_mb=64, disk=disk,
                                     ephemeral=0)
        return self._create_server(flavor_id=flavor, networks='none',
                                   expected_state=expected_state)

    def assert_no_room(self, disk):
        server = self.boot_with_disk(disk, 'ERROR')
        self.assertIn('No valid host', server['fault']['message'])

    def hypervisor_disk(self):
        return self.hypervisor()['local_gb']

    def test_limit(self):
        self.start(cpu='4', memory='4Gi', size='10Gi')
        self.wait_for_inventory(DISK_GB=(10, 0))
        self.assertEqual(10, self.hypervisor_disk())
        self.boot_with_disk(8)
        self.assert_no_room(3)
        self.boot_with_disk(2)
        self._run_periodics()
        self.wait_for_inventory(DISK_GB=(10, 0))
        self.assertEqual(10, self.hypervisor_disk())

    def test_what_the_image_cache_takes(self):
        self.useFixture(fixtures.MockPatch(
            'nova.virt.libvirt.imagecache.ImageCacheManager.get_disk_usage',
            return_value=3 * 2 ** 30))
        self.start(cpu='4', memory='4Gi', size='10Gi')
        self.wait_for_inventory(DISK_GB=(10, 3))
        self.assert_no_room(8)
        self.boot_with_disk(7)

    def test_node_that_knows_its_limit_no_more(self):
        self.start(cpu='4', memory='4Gi', size='10Gi')
        server = self.boot_with_disk(8)
        self.set_limits(cpu='4', memory='4Gi')
        self.restart_compute_service('compute1')
        # Of a class that is allocated nothing can be removed.
        self.wait_for_inventory(DISK_GB=(10, 10))
        self.assertIn('How much of', self.stdlog.logger.output)
        self.assert_no_room(1)
        self.assertEqual('ACTIVE',
                         self.api.get_server(server['id'])['status'])
        self.flags(disk_limit_gb=9, group='kubernetes')
        self.restart_compute_service('compute1')
        self.wait_for_inventory(DISK_GB=(9, 0))
        self.boot_with_disk(1)

    def test_smaller_volume_than_its_guests(self):
        self.start(cpu='4', memory='4Gi', size='10Gi')
        server = self.boot_with_disk(8)
        self.set_limits(cpu='4', memory='4Gi', size='5Gi')
        self.restart_compute_service('compute1')
        self.wait_for_inventory(DISK_GB=(5, 0))
        self.assert_no_room(1)
        self._delete_server(server)
        self.boot_with_disk(5)

    def test_volume_of_the_node(self):
        self.place.return_value = None
        self.start(cpu='4', memory='4Gi')
        self.assertGreater(self.inventory()['DISK_GB']['total'], 10)
        self.boot_with_disk(11)
