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

"""What Nova's objects need."""

import functools
import json
import math
from unittest import mock

import fixtures
import nova.conf
from nova.conf import devices
from nova import objects
from oslo_config import fixture as config_fixture

from nova_k8s.accounting import instance_overhead
from nova_k8s.accounting import ledger as ledgers
from nova_k8s.accounting import overhead
from nova_k8s.accounting import usage
from nova_k8s import conf
from tests.unit import base

CONF = nova.conf.CONF

conf.register_opts(CONF)
objects.register_all()

A = '2a8ec8b8-2098-43c0-ba98-589025157a1d'


def instance(memory_mb=512, properties=None, devices=0):
    return mock.Mock(
        uuid=A, flavor=flavor(memory_mb), image_meta=image(properties),
        system_metadata=dict(properties or {}),
        pci_requests=mock.Mock(requests=[1] * devices))


def flavor(memory_mb, **extra_specs):
    return objects.Flavor(memory_mb=memory_mb, vcpus=1,
                          extra_specs=extra_specs)


def image(properties=None):
    return objects.ImageMeta.from_dict({'properties': properties or {}})


def locked(function, *args):
    return function(*args)


class OfHostTest(base.TestCase):

    def test_those_of_the_database(self):
        self.useFixture(fixtures.MockPatchObject(
            objects.BlockDeviceMappingList, 'get_by_instance_uuid',
            return_value=[]))
        asked = self.useFixture(fixtures.MockPatchObject(
            objects.InstanceList, 'get_by_host',
            return_value=[instance(512), instance(512)])).mock
        with mock.patch.object(instance_overhead, 'settings_from',
                               return_value=overhead.Settings()):
            needs, vcpus = instance_overhead.of_host(CONF, 'host1')
        self.assertEqual('host1', asked.call_args[0][1])
        self.assertEqual(([512, 512], 2),
                         ([each.memory_mb for each in needs], vcpus))
        self.assertGreater(needs[0].overhead_mb, 0)


class NeedsTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.log = self.useFixture(fixtures.FakeLogger('nova_k8s'))
        self.mappings = self.useFixture(fixtures.MockPatchObject(
            objects.BlockDeviceMappingList, 'get_by_instance_uuid',
            return_value=[])).mock
        self.needs = instance_overhead.InstanceOverhead(overhead.Settings())

    def test_instance(self):
        some = instance()
        self.assertEqual(overhead.Need(512, 59, 512, 1),
                         self.needs(some, some.flavor))
        self.assertEqual(1024, self.needs(some, flavor(1024)).memory_mb)

    def test_image(self):
        some = instance(properties={'hw_firmware_type': 'uefi'})
        self.assertEqual(75, self.needs(some, some.flavor).overhead_mb)
        self.assertEqual(59, self.needs(
            some, some.flavor, image()).overhead_mb)

    def test_devices_are_looked_up_once(self):
        some = instance(devices=1)
        self.assertEqual(1083, self.needs(some, some.flavor).overhead_mb)
        some.pci_requests = None
        self.assertEqual(1083, self.needs(some, some.flavor).overhead_mb)
        self.assertEqual(59, self.needs(
            some, some.flavor,
            pci_requests=mock.Mock(requests=[])).overhead_mb)

    def test_devices_of_a_resize(self):
        some = instance(devices=0)
        with_device = flavor(512, **{'pci_passthrough:alias': 'gpu:1'})
        self.assertEqual(1083, self.needs(
            some, with_device,
            pci_requests=mock.Mock(requests=[1])).overhead_mb)
        self.assertEqual(59, self.needs(some, some.flavor).overhead_mb)
        self.assertEqual(1083, self.needs(some, with_device).overhead_mb)

    def test_the_same_is_not_asked_twice(self):
        some = instance()
        answer = self.needs(some, some.flavor)
        # Nova makes it from system_metadata, each time.
        some.image_meta = None
        self.assertEqual(answer, self.needs(some, some.flavor))
        some.image_meta = image({'hw_firmware_type': 'uefi'})
        some.system_metadata['image_hw_firmware_type'] = 'uefi'
        self.assertEqual(75, self.needs(some, some.flavor).overhead_mb)
        some.flavor.extra_specs['hw:tpm_model'] = 'tpm-tis'
        self.assertLess(75, self.needs(some, some.flavor).overhead_mb)

    def test_claim(self):
        claim = mock.Mock(instance=instance(), migration=None,
                          _pci_requests=mock.Mock(requests=[]),
                          claimed_numa_topology=None,
                          spec=['instance', 'migration', '_pci_requests',
                                'claimed_numa_topology'])
        self.assertEqual((overhead.Need(512, 59, 512, 1), A),
                         self.needs.of_claim(claim))

    def test_pages_that_nova_has_chosen(self):
        some = instance()
        some.flavor.extra_specs['hw:mem_page_size'] = 'any'
        for pagesize, huge in ((-3, ()), (None, ()), (4, ()),
                               (2048, ((2048, 512),))):
            topology = objects.InstanceNUMATopology(cells=[
                objects.InstanceNUMACell(
                    id=0, cpuset={0}, pcpuset=set(), memory=512,
                    pagesize=pagesize)])
            need = self.needs(some, some.flavor, numa_topology=topology)
            self.assertEqual((512 - sum(mb for _, mb in huge), huge),
                             (need.memory_mb, need.huge), pagesize)
            claim = mock.Mock(instance=some, flavor=None, image_meta=None,
                              migration=None, claimed_numa_topology=topology,
                              _pci_requests=mock.Mock(requests=[]))
            self.assertEqual((need, A), self.needs.of_claim(claim))
        self.assertEqual(512, self.needs(some, some.flavor).memory_mb)

    def test_claim_of_a_move(self):
        for here, without in ((False, A), (True, None)):
            claim = mock.Mock(
                instance=instance(), flavor=flavor(1024), image_meta=image(),
                migration=mock.Mock(is_same_host_resize=here),
                claimed_numa_topology=None,
                _pci_requests=mock.Mock(requests=[]))
            self.assertEqual((overhead.Need(1024, 61, 1024, 1), without),
                             self.needs.of_claim(claim))

    def test_settings(self):
        some = mock.Mock()
        some.vnc.enabled = some.spice.enabled = False
        some.kubernetes.overhead_factor = 2.0
        some.kubernetes.overhead_addition_mb = 3
        some.libvirt.virt_type = 'kvm'
        some.devices.enabled_mdev_types = []
        self.assertEqual(
            (2.0, 3, False, 0), (lambda s: (
                s.factor, s.addition_mb, s.graphics, s.translated_mb))(
                    instance_overhead.settings_from(some)))
        some.libvirt.virt_type = 'qemu'
        for size, expected in ((None, 80), (32, 32)):
            some.libvirt.tb_cache_size = size
            self.assertEqual(
                expected, instance_overhead.settings_from(some).translated_mb)

    def test_mediated_devices(self):
        config = self.useFixture(config_fixture.Config(CONF))
        config.config(group='devices', enabled_mdev_types=['nvidia-35'])
        devices.register_dynamic_opts(CONF)
        config.config(group='mdev_nvidia-35', mdev_class='CUSTOM_M10')
        self.assertEqual(
            {'CUSTOM_M10'}, instance_overhead.settings_from(CONF).mdev_classes)

    def test_images_in_ceph(self):
        def volume(kind=None):
            return objects.BlockDeviceMapping(
                destination_type='volume', connection_info=kind and
                json.dumps({'driver_volume_type': kind}))

        disk = objects.BlockDeviceMapping(destination_type='local')
        plain = self.needs(instance(), flavor(512)).overhead_mb
        for settings, mappings, config_drive, number in (
                ({}, [disk, volume(), volume('iscsi')], 'True', 0),
                ({}, [volume('rbd'), volume('rbd'), volume('nfs')], '', 2),
                ({'rbd_volumes': True}, [disk, volume(), volume('iscsi')],
                 'True', 1),
                ({'rbd_disks': True}, [disk, disk, volume('iscsi')], '', 2),
                ({'rbd_disks': True}, [disk], 'True', 2)):
            self.mappings.return_value = mappings
            needs = instance_overhead.InstanceOverhead(
                overhead.Settings(**settings))
            some = instance()
            some.config_drive = config_drive
            for _ in range(2):
                self.assertEqual(
                    plain + number * overhead.RBD,
                    needs(some, flavor(512)).overhead_mb, (settings, number))
            # Volumes come and go.
            self.mappings.return_value = [volume('rbd')]
            needs.forget(A)
            self.assertEqual(
                plain + overhead.RBD * (1 + bool(
                    settings.get('rbd_disks') and config_drive)),
                needs(some, flavor(512)).overhead_mb)

    def test_volumes_are_looked_up_once(self):
        self.mappings.reset_mock()
        for _ in range(3):
            self.needs(instance(), flavor(512))
        self.assertEqual(1, self.mappings.call_count)
        needs = instance_overhead.InstanceOverhead(
            overhead.Settings(factor=0))
        needs(instance(), flavor(512))
        self.assertEqual(1, self.mappings.call_count)

    def test_properties_that_nova_takes_no_longer(self):
        log = self.useFixture(fixtures.FakeLogger('nova_k8s'))

        class Old:
            uuid, flavor = A, flavor(512)
            system_metadata = {'image_hw_video_model': 'matrox'}
            pci_requests = None

            @property
            def image_meta(self):
                return objects.ImageMeta.from_dict({
                    'properties': {'hw_video_model': 'matrox'}})

        some = Old()
        self.assertRaises(ValueError, lambda: some.image_meta)
        for memory_mb in (512, 1024, 1024):
            need = self.needs(some, flavor(memory_mb))
            self.assertEqual(self.needs(instance(memory_mb),
                                        flavor(memory_mb)), need)
        self.assertEqual(1, log.output.count('flavor alone'))
        self.assertIn(A, log.output)

    def test_hold_time(self):
        for interval, expected in ((-1, math.inf), (0, 120), (60, 120),
                                   (600, 1200)):
            self.assertEqual(expected, instance_overhead.hold_time(interval))

    def test_measured(self):
        ledger = ledgers.Ledger()
        for name in (A, 'b', 'c'):
            ledger.add(name, overhead.Need(512, 59, 512, 1))
        running = {A: mock.Mock(**{'used.return_value': usage.Used(
            512 * 1024, 60 * 1024, 1, 0)}), 'b': mock.Mock(
                **{'used.side_effect': OSError()}), 'c': mock.Mock(
                    **{'used.return_value': None})}
        self.useFixture(fixtures.MockPatch('nova_k8s.accounting.usage.guests',
                                           return_value=running))
        for _ in range(3):
            self.needs.measure(ledger, locked)
        self.assertEqual(61, ledger.needs(0)[0].overhead_mb)
        self.assertEqual(1, self.log.output.count('61 MiB'))
        self.assertIn(A, self.log.output)

    def test_guests_of_others_are_not_looked_at(self):
        ledger = ledgers.Ledger()
        ledger.add(A, overhead.Need(512, 59, 512, 1))
        process = mock.Mock(**{'used.return_value': None})
        other = mock.Mock()
        self.useFixture(fixtures.MockPatch(
            'nova_k8s.accounting.usage.guests',
            return_value={A: process, 'of-somebody-else': other}))
        self.needs.measure(ledger, locked)
        process.used.assert_called_once_with('/proc')
        other.used.assert_not_called()

    def test_all_at_first_and_then_in_turns(self):
        ledger = ledgers.Ledger()
        looked = []

        def used(name, proc):
            looked.append(name)

        running = {}
        for number in range(instance_overhead.BATCH + 3):
            name = f'{number:02}'
            running[name] = mock.Mock()
            running[name].used = functools.partial(used, name)
            ledger.add(name, overhead.Need(512, 59, 512, 1))
        self.useFixture(fixtures.MockPatch('nova_k8s.accounting.usage.guests',
                                           return_value=running))
        batch, names = instance_overhead.BATCH, list(running)
        for expected in (names, names[:batch],
                         [*names[batch:], *names[:batch - 3]]):
            looked.clear()
            self.needs.measure(ledger, locked)
            self.assertEqual(expected, looked)

    def test_off(self):
        guests = self.useFixture(
            fixtures.MockPatch('nova_k8s.accounting.usage.guests',
                               return_value={}))
        ledger = ledgers.Ledger()
        ledger.add(A, overhead.Need(512, 59, 512, 1))
        self.needs.measure(ledger, locked)
        self.assertEqual(1, guests.mock.call_count)
        instance_overhead.InstanceOverhead(
            overhead.Settings(factor=0)).measure(ledger, locked)
        self.assertEqual(1, guests.mock.call_count)

    def test_without_guests_nothing_is_looked_at(self):
        guests = self.useFixture(
            fixtures.MockPatch('nova_k8s.accounting.usage.guests'))
        self.needs.measure(ledgers.Ledger(), locked)
        guests.mock.assert_not_called()

    def test_forgets_who_is_gone(self):
        self.useFixture(
            fixtures.MockPatch('nova_k8s.accounting.usage.guests',
                               return_value={}))
        some = instance()
        self.needs(some, some.flavor)
        ledger = ledgers.Ledger()
        ledger.add(A, overhead.Need(512, 59, 512, 1))
        for left in (1, 0):
            self.needs.measure(ledger, mock.Mock())
            self.assertEqual((left, left), (len(self.needs._known),
                                            len(self.needs._pci_devices)))
            ledger.clear()
