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

"""A compute node with many guests: real Nova, real Kubernetes API server."""

import os
import sys

import fixtures
import nova.conf
from nova import context as nova_context
from nova import objects
from oslo_utils import uuidutils
import testtools

from tests.functional import base
from tests.functional import cluster
from tests.functional import control_plane
from tests.functional import fault_proxy

CONF = nova.conf.CONF

HOST = 'compute1'


class Compute(base.ServersTestBase):
    """A test case, for its fixtures; measure() is what it does.

    libvirt is Nova's own fake of it.
    """

    # Of the pod at first.
    limits = {'cpu': '8', 'memory': '64Gi'}

    def setUp(self):
        # First: Nova's tests have a home directory of their own.
        control_plane.shared()
        super().setUp()
        self.compute = self.useFixture(cluster.ComputePod(**self.limits))
        self.plane = self.compute.plane
        self.proxy = self.useFixture(fault_proxy.FaultProxy(self.plane))
        self.flags(limits_from='api', hypervisor_hostname=HOST,
                   group='kubernetes', **self.compute.options(self.proxy))
        self.flags(state_path=self.useFixture(fixtures.TempDir()).path)
        # The guests are many and the machine is small.
        self.flags(cpu_allocation_ratio=100.0, disk_allocation_ratio=100.0)
        self.start_compute(hostname=HOST)
        self.manager = self.computes[HOST].manager
        self.driver = self.manager.driver
        self.guests = 0

    def have_guests(self, count):
        """Have so many guests: the first one booted, the others its likes."""
        if not count:
            return
        if not self.guests:
            self.first = self.boot(memory_mb=64)
            self._add_disk(self.first['id'])
            self.guests = 1
        context = nova_context.get_admin_context()
        cell = self.cell_mappings['cell1']
        with nova_context.target_cell(context, cell) as context:
            model = objects.Instance.get_by_uuid(
                context, self.first['id'], expected_attrs=[
                    'system_metadata', 'flavor', 'numa_topology', 'metadata'])
            disk, = objects.BlockDeviceMappingList.get_by_instance_uuid(
                context, model.uuid)
            connection = self.driver._host.get_connection()
            xml = connection.lookupByUUIDString(model.uuid).XMLDesc(0)
            while self.guests < count:
                self._add_guest(context, model, disk, connection, xml)
                self.guests += 1

    def _add_guest(self, context, model, disk, connection, xml):
        instance = self._add_record(context, model, disk)
        connection.defineXML(
            xml.replace(model.uuid, instance.uuid)
            .replace(model.name, instance.name)).createWithFlags(0)
        allocations = self.placement.get(
            '/allocations/%s' % model.uuid, version='1.28').body
        self._allocate(instance.uuid, allocations)

    def _add_record(self, context, model, disk, **fields):
        """Add an instance like another to the database; return it.

        :param fields: in which it differs
        """
        instance = objects.Instance(context)
        unset = ('id', 'uuid', 'name', 'created_at', 'updated_at',
                 'info_cache', 'security_groups', 'tags', 'services',
                 'device_metadata', 'ec2_ids', 'fault', 'resources',
                 'migration_context', 'keypairs', 'trusted_certs',
                 'vcpu_model', 'pci_devices', 'pci_requests')
        for field in model.fields:
            if field not in unset and model.obj_attr_is_set(field):
                setattr(instance, field, getattr(model, field))
        instance.uuid = uuidutils.generate_uuid()
        for field, value in fields.items():
            setattr(instance, field, value)
        instance.create()
        mapping = objects.BlockDeviceMapping(context)
        for field in disk.fields:
            if (field not in ('id', 'uuid', 'instance', 'created_at',
                              'updated_at') and
                    disk.obj_attr_is_set(field)):
                setattr(mapping, field, getattr(disk, field))
        mapping.instance_uuid = instance.uuid
        mapping.create()
        self._add_disk(instance.uuid)
        return instance

    def _allocate(self, uuid, allocations):
        answer = self.placement.put(
            '/allocations/%s' % uuid,
            dict(allocations, consumer_generation=None), version='1.28')
        self.assertEqual(204, answer.status, answer.body)

    def _add_disk(self, uuid):
        # Nova's tests write no images, and the audit looks for them.
        folder = os.path.join(CONF.instances_path, uuid)
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, 'disk'), 'wb') as f:
            f.truncate(1 << 30)

    def measure_all(self):
        self.measure()
        type(self).done = True

    def row(self, name, value, unit=''):
        self.rows.append((name, value, unit))
        print(name, value, unit, file=sys.stderr, flush=True)

    def audit(self):
        self.manager.update_available_resource(
            nova_context.get_admin_context())


def run(case):
    """Run a class of them and return its rows.

    :raises RuntimeError: where it fails, with its traceback
    """
    # Not an attribute of the test case, which forgets all of them.
    case.rows, case.done = [], False
    result = testtools.TestResult()
    case('measure_all').run(result)
    problems = [*result.errors, *result.failures]
    # What Nova's fixtures find while they clean up is no concern: on a busy
    # machine its threads take longer to end than they allow.
    if not case.done:
        # Before it stands all that was logged.
        raise RuntimeError('\n'.join(text.rpartition('}}}')[2]
                                     for _case, text in problems))
    return case.rows
