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

"""What Nova's objects need of the memory limit: overhead, applied to Nova."""

import json
import math
import platform
import time

from nova.conf import devices as nova_devices
from nova import context as nova_context
from nova import objects
from oslo_log import log as logging

from nova_k8s.accounting import overhead
from nova_k8s.accounting import privileged
from nova_k8s.accounting import usage

LOG = logging.getLogger(__name__)

# The image properties that decide on what a guest costs.
IMAGE_PROPERTIES = (
    'hw_architecture', 'hw_firmware_type', 'hw_mem_encryption',
    'hw_mem_page_size', 'hw_tpm_model', 'hw_tpm_version', 'hw_video_model',
    'hw_video_ram', 'os_secure_boot')

# How many guests are looked at in one measurement.
BATCH = 8


def settings_from(conf):
    """Return the overhead.Settings of nova.conf.

    :param conf: nova.conf.CONF
    """
    translated_mb = 0
    if conf.libvirt.virt_type == 'qemu':
        translated_mb = conf.libvirt.tb_cache_size or overhead.TRANSLATED
    # Nova's driver does the same, and twice is once.
    nova_devices.register_dynamic_opts(conf)
    return overhead.Settings(
        factor=conf.kubernetes.overhead_factor,
        addition_mb=conf.kubernetes.overhead_addition_mb,
        graphics=conf.vnc.enabled or conf.spice.enabled,
        translated_mb=translated_mb,
        arm64=platform.machine() == 'aarch64',
        rbd_disks=conf.libvirt.images_type == 'rbd',
        rbd_volumes=(conf.libvirt.images_type == 'rbd' or
                     bool(conf.libvirt.rbd_secret_uuid)),
        mdev_classes=frozenset(
            conf[f'mdev_{each}'].mdev_class
            for each in conf.devices.enabled_mdev_types))


def hold_time(interval):
    """For how long room is kept for a guest that Nova does not count yet.

    Nova's audit counts the live migrations that it finds under way: what two
    of them did not see is not.

    :param interval: [DEFAULT] update_resources_interval, in seconds
    :returns: seconds
    """
    if interval < 0:
        # There are no audits: until it is counted or released.
        return math.inf
    # 0 says as often as other periodic tasks, which is 60.
    return 2 * max(interval, 60)


def of_host(conf, host):
    """Return (needs, VCPU) of the guests that Nova's database has of a host.

    For when nova-compute has not counted them, or what it has counted has no
    pod to be in. Those that are stopped are among them.

    :param conf: nova.conf.CONF
    """
    guests = objects.InstanceList.get_by_host(
        nova_context.get_admin_context(), host,
        expected_attrs=['flavor', 'system_metadata', 'pci_requests'])
    need_of = InstanceOverhead(settings_from(conf))
    return ([need_of(each, each.flavor) for each in guests],
            sum(each.flavor.vcpus for each in guests))


def chosen_pages(numa_topology):
    """Return (page size in KiB, MiB) of each NUMA cell of a guest.

    None where Nova has chosen no page size: a request such as 'large' is a
    negative number until a host was found.

    :param numa_topology: InstanceNUMATopology, or None
    """
    if not numa_topology:
        return None
    found = tuple((cell.pagesize if 'pagesize' in cell else None, cell.memory)
                  for cell in numa_topology.cells)
    if any(size_kb is None or size_kb < 1 for size_kb, _mb in found):
        return None
    return found


class InstanceOverhead:
    """Returns the overhead.Need of an instance with a flavor."""

    def __init__(self, settings):
        self._settings = settings
        # What was asked for each guest last, as a hash, and the answer: the
        # whole of it would be 40 KiB a guest.
        self._known = {}
        self._pci_devices = {}
        # Disks and volumes that QEMU opens with librbd, by guest.
        self._rbd_images = {}
        # Guests whose image Nova cannot read, which was said.
        self._unreadable = set()
        self._turn = ''
        self._warned = set()

        # Where nothing is estimated, nothing is to be compared.
        self._measured = bool(settings.factor or settings.addition_mb)

    def __call__(self, instance, flavor, image_meta=None, pci_requests=None,
                 numa_topology=None):
        """Return what it needs.

        :param image_meta: of a rebuild with another image
        :param pci_requests: of a claim; those of the instance otherwise
        :param numa_topology: the InstanceNUMATopology for this flavor, None
            where there is none
        """
        pages = chosen_pages(numa_topology)
        devices = (self._count_pci_devices(instance, flavor, pci_requests),
                   self._count_rbd_images(instance))
        if image_meta:
            return self._need(flavor, image_meta.properties, devices, pages)
        # An audit asks for every guest, and making an ImageMeta takes longer
        # than all the rest.
        asked = hash((flavor.memory_mb, flavor.vcpus, devices, pages,
                      frozenset(flavor.extra_specs.items()),
                      frozenset(instance.system_metadata.items())))
        known, need = self._known.get(instance.uuid, (None, None))
        if asked != known:
            need = self._need(flavor, self._properties(instance), devices,
                              pages)
            self._known[instance.uuid] = asked, need
        return need

    def _properties(self, instance):
        """The image's properties; none where Nova takes them no longer.

        A property of an older release, or one written into the database, must
        not end Nova's audit: no other guest would be counted any more.
        """
        try:
            return instance.image_meta.properties
        except Exception as exc:
            problem = ' '.join(str(exc).split())
        # Not in the handler: there, oslo.log says the problem a second time.
        if instance.uuid not in self._unreadable:
            self._unreadable.add(instance.uuid)
            LOG.warning(
                'What guest %s costs is estimated from its flavor alone: Nova '
                'does not take the properties of its image: %s',
                instance.uuid, problem)
        return {}

    def _count_pci_devices(self, instance, flavor, pci_requests):
        # A resize may change them.
        key = instance.uuid, flavor.extra_specs.get('pci_passthrough:alias')
        if pci_requests is not None:
            number = len(pci_requests.requests)
        else:
            number = self._pci_devices.get(key)
        if number is None:
            # From the database, once: Nova's audits do not load them.
            number = len(instance.pci_requests.requests
                         if instance.pci_requests else ())
        self._pci_devices[key] = number
        return number

    def _count_rbd_images(self, instance):
        if not self._measured:
            # Nothing is estimated either.
            return 0
        number = self._rbd_images.get(instance.uuid)
        if number is None:
            # From the database, once: Nova's audits do not load them.
            mappings = objects.BlockDeviceMappingList.get_by_instance_uuid(
                nova_context.get_admin_context(), instance.uuid)
            number = sum(self._is_in_ceph(each) for each in mappings)
            if self._settings.rbd_disks and instance.config_drive:
                number += 1
            self._rbd_images[instance.uuid] = number
        return number

    def _is_in_ceph(self, mapping):
        if not mapping.is_volume:
            return self._settings.rbd_disks
        if not mapping.connection_info:
            return self._settings.rbd_volumes
        # Nova's own way to tell, in LibvirtDriver.volume_drivers.
        return json.loads(mapping.connection_info).get(
            'driver_volume_type') == 'rbd'

    def forget(self, uuid):
        """Look at a guest's volumes again: one came or went."""
        self._rbd_images.pop(uuid, None)

    def _need(self, flavor, properties, devices, pages):
        pci_devices, rbd_images = devices
        return overhead.need(
            overhead.guest(
                flavor.memory_mb, flavor.vcpus, flavor.extra_specs,
                {name: properties.get(name) for name in IMAGE_PROPERTIES},
                self._settings, pci_devices, rbd_images, pages),
            self._settings)

    def of_claim(self, claim):
        """Return (need, uuid): what a claim needs, and whose room it takes.

        The guest is counted already where Nova saw it coming; not so where it
        is resized on this node: then there must be room for both its sizes.
        """
        flavor = getattr(claim, 'flavor', None) or claim.instance.flavor
        need = self(claim.instance, flavor,
                    getattr(claim, 'image_meta', None) or None,
                    claim._pci_requests, claim.claimed_numa_topology)
        migration = claim.migration
        stays = bool(migration) and migration.is_same_host_resize
        return need, None if stays else claim.instance.uuid

    def measure(self, ledger, locked, proc='/proc'):
        """Look what some of the guests cost, and tell the ledger. Does I/O.

        :param locked: calls a function under the ledger's lock
        """
        # Where processes of the whole machine are seen, so are guests that
        # are somebody else's.
        ours = locked(ledger.uuids) if self._measured else ()
        running = {name: process for name, process in usage.guests(
            proc).items() if name in ours} if ours else {}
        names = sorted(running)
        if self._turn:
            # Not all at once: it keeps the kernel busy. But after a start,
            # what was seen before it should soon count again.
            later = [name for name in names if name > self._turn]
            names = (later + names)[:min(BATCH, len(names))]
        if names:
            self._turn = names[-1]
        found = {}
        for name in names:
            # Under eventlet, it is the turn of all others.
            time.sleep(0)
            try:
                used = privileged.used(running[name], proc)
            except OSError:
                # It has ended, or belongs to somebody else.
                continue
            if not used:
                # The estimate stands.
                continue
            found[name] = math.ceil(
                (used.overhead_kb + used.translated_kb) /
                usage.KIB_PER_MIB)
        locked(self._tell, ledger, found)
        self._warned &= set(running)
        self._unreadable &= ledger.uuids()
        for key in list(self._pci_devices):
            uuid, _alias = key
            if uuid not in running and ledger.memory_mb(uuid) is None:
                self._pci_devices.pop(key, None)
                self._rbd_images.pop(uuid, None)
                self._known.pop(uuid, None)

    def _tell(self, ledger, found):
        for uuid in ledger.measure(found):
            if uuid in self._warned:
                continue
            self._warned.add(uuid)
            LOG.warning(
                'Guest %s costs %s MiB beyond its memory, %s MiB were '
                'estimated; the larger counts from now on. Where many do, '
                'raise [kubernetes] overhead_factor or overhead_addition_mb.',
                uuid, found[uuid], ledger.estimate_mb(uuid))
