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


"""What Nova offers is what the pod's limits allow, and no more."""

import time

from nova_k8s import inventory
from tests.functional import base


class InventoryTest(base.ServersTestBase):

    def setUp(self):
        super().setUp()
        self.flags(reserved_host_memory_mb=0)
        self.flags(cpu_allocation_ratio=1.0, ram_allocation_ratio=1.0)

    def _start(self, **limits):
        self.set_limits(**limits)
        self.start_compute(hostname='compute1')

    def _wait_for(self, expected, seconds=10):
        """Wait until (total, reserved) in Placement are as expected."""
        deadline = time.monotonic() + seconds
        while True:
            found = {rc: (record['total'], record['reserved'])
                     for rc, record in self.inventory().items()
                     if rc in expected}
            if found == expected or time.monotonic() > deadline:
                self.assertEqual(expected, found)
                return
            time.sleep(0.1)

    def _hypervisor(self):
        # 2.87 is the last microversion with these fields.
        with self._microversion('2.87'):
            return self.admin_api.api_get(
                '/os-hypervisors/detail').body['hypervisors'][0]

    def _boot(self, expected_state='ACTIVE'):
        return self._create_server(
            flavor_id=self.flavor, networks='none',
            expected_state=expected_state)

    def test_inventory_is_the_limits(self):
        self._start(cpu='1500m', memory='2000Mi')
        found = self.inventory()
        self.assertEqual(1, found[inventory.VCPU]['total'])
        self.assertEqual(1, found[inventory.VCPU]['max_unit'])
        self.assertEqual(2000, found[inventory.MEMORY_MB]['total'])
        self.assertEqual(2000, found[inventory.MEMORY_MB]['max_unit'])
        self.assertIn('DISK_GB', found)
