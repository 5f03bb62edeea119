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

"""What one QEMU guest costs beyond its memory.

Pure functions over frozen values. Every figure is in MiB and says where it
comes from: "measured" is benchmarks/measure_overhead.py, whose table is in
doc/source/overhead.rst.
"""

import dataclasses
import math
import re
import typing as ty

# QEMU with one vCPU, a few disks and network cards, after they were used.
# Measured: 34 to 43. KubeVirt counts 30 for QEMU and 8 for its I/O thread
# (pkg/virt-controller/services/renderresources.go).
EMULATOR = 38

# Each vCPU: its thread, its state and its arena of malloc. Measured: 0.5 to
# 1.2; the rest is for what KVM keeps of it. KubeVirt has 8.
VCPU = 3

# VNC or SPICE with the screen of the video device. Measured with a picture on
# it: 9; KubeVirt has 32.
GRAPHICS = 16

# Page tables: 8 bytes for each page of 4 KiB, once for QEMU's own mapping of
# the guest's memory ...
PAGE_TABLES = 1 / 512

# ... and once for KVM's, which the kernel charges to the guest as well
# (arch/x86/kvm/mmu allocates them with GFP_KERNEL_ACCOUNT). Transparent huge
# pages make both smaller; nothing promises them.
KVM_PAGE_TABLES = 1 / 512

# The two flash devices of UEFI firmware, its variables, and the ports of the
# machine type q35. Measured: 13.
UEFI = 16

# swtpm, a process of its own, and its device. Measured: 4, with a TPM that the
# guest did not use much. KubeVirt: 53.
VTPM = 24

# SEV, SEV-ES and SEV-SNP keep bounce buffers and metadata. KubeVirt: 256.
SEV = 256

# VFIO maps the device's registers and pins what it maps. KubeVirt and libvirt
# (qemuDomainGetMemLockLimitBytes) both take 1 GiB.
VFIO = 1024

# Each image that QEMU opens with librbd, in its own process. Not measured:
# Ceph's documented rbd_cache_size is 32 MiB an image; as much again is for
# operations in flight, of which objecter_inflight_op_bytes allows 100 MiB.
RBD = 64

# KubeVirt adds it on arm64, whose QEMU always has UEFI firmware.
ARM64 = 128

# What TCG keeps of the code that it translated, without KVM. Measured: 52 to
# 74 after a short life. It may grow to [libvirt] tb_cache_size; where that is
# set, it is counted instead.
TRANSLATED = 80


# The largest common page of the architectures that Nova runs on.
LARGEST_COMMON_PAGE_KB = 64

# The size of huge pages that Nova has not chosen yet.
ANY_HUGE = 0

# An extra spec, with the suffix of its request group: resources_gpu:VGPU.
_RESOURCES = re.compile(r'resources[A-Za-z0-9_-]*:(.+)')


@dataclasses.dataclass(frozen=True)
class Guest:
    """What of a guest decides on its cost."""

    memory_mb: int
    vcpus: int
    huge: ty.Tuple[ty.Tuple[int, int], ...] = ()
    """(page size in KiB, MiB) of what of its memory comes from huge pages,
    which the memory limit of a pod does not include. The size is ANY_HUGE
    until Nova has chosen one."""

    graphics: bool = True
    video_mb: int = 0
    """Memory of the video device where the image asks for it."""

    uefi: bool = False
    vtpm: bool = False
    sev: bool = False
    vfio: bool = False
    arm64: bool = False
    translated_mb: int = 0
    """What TCG may keep; 0 with KVM."""

    allocated_mb: ty.Optional[int] = None
    """MEMORY_MB that Placement allocates for it; None for its memory."""

    allocated_vcpus: ty.Optional[int] = None
    """VCPU that Placement allocates for it; None for its vCPUs."""

    rbd_images: int = 0
    """Disks and volumes that QEMU opens with librbd."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What of nova.conf decides on the cost of every guest."""

    factor: float = 1.0
    addition_mb: int = 0
    graphics: bool = True
    translated_mb: int = 0
    arm64: bool = False
    rbd_disks: bool = False
    """Disks that are no volumes are in Ceph: [libvirt] images_type."""

    rbd_volumes: bool = False
    """Volumes are taken to be in Ceph until they are attached."""

    mdev_classes: ty.FrozenSet[str] = frozenset()
    """Resource classes of mediated devices, besides VGPU."""


@dataclasses.dataclass(frozen=True)
class Need:
    """What a guest takes of a pod's memory limit, in MiB."""

    memory_mb: int
    """Its own memory, without what comes from huge pages."""

    overhead_mb: int
    allocated_mb: int
    """MEMORY_MB that Placement has for it already."""

    vcpus: int = 0
    """VCPU that Placement has for it at most."""

    huge: ty.Tuple[ty.Tuple[int, int], ...] = ()
    """(page size in KiB, MiB) from huge pages: not of the memory limit."""

    @property
    def total_mb(self):
        """Of the memory limit."""
        return self.memory_mb + self.overhead_mb

    @property
    def huge_mb(self):
        return sum(mb for _size_kb, mb in self.huge)

    @property
    def placement_mb(self):
        """Of MEMORY_MB, in which Placement has huge pages too."""
        return self.total_mb + self.huge_mb

    @property
    def reserved_mb(self):
        """What must be kept from others, as Placement does not know of it."""
        return max(0, self.placement_mb - self.allocated_mb)


def cost_mb(guest, factor=1.0, addition_mb=0):
    """Return what a guest costs beyond its memory, in whole MiB.

    The formula is KubeVirt's (GetMemoryOverhead in pkg/virt-controller/
    services/renderresources.go, release 1.5) with the constants above.

    :param factor: scales the estimate, 0 or more
    :param addition_mb: is added to it afterwards
    """
    cost = (EMULATOR + VCPU * guest.vcpus + guest.translated_mb +
            RBD * guest.rbd_images)
    # Those of huge pages are as small as nothing.
    cost += _ordinary_mb(guest) * (PAGE_TABLES + KVM_PAGE_TABLES)
    if guest.graphics:
        cost += GRAPHICS + guest.video_mb
    for has, price in ((guest.uefi, UEFI), (guest.vtpm, VTPM),
                       (guest.sev, SEV), (guest.vfio, VFIO),
                       (guest.arm64, ARM64)):
        if has:
            cost += price
    return math.ceil(cost * factor + addition_mb)


def need(guest, settings, measured_mb=0):
    """Return the Need of a guest.

    :param measured_mb: what it was seen to cost, where that is known; the
        larger of estimate and measurement counts
    """
    overhead_mb = max(
        cost_mb(guest, settings.factor, settings.addition_mb), measured_mb)
    allocated_mb = (guest.memory_mb if guest.allocated_mb is None
                    else guest.allocated_mb)
    return Need(_ordinary_mb(guest), overhead_mb, allocated_mb,
                guest.vcpus if guest.allocated_vcpus is None
                else guest.allocated_vcpus, guest.huge)


def _ordinary_mb(guest):
    """Its memory that is in pages of the common size."""
    return max(0, guest.memory_mb - sum(mb for _size_kb, mb in guest.huge))


def guest(memory_mb, vcpus, extra_specs, image_properties, settings,
          pci_devices=0, rbd_images=0, pages=None):
    """Return the Guest of a flavor and an image.

    :param extra_specs: of the flavor, a dict
    :param image_properties: of the image, by the names that Nova gives them
    :param pci_devices: how many are passed through, network cards included
    :param rbd_images: how many disks and volumes are opened with librbd
    :param pages: (page size in KiB, MiB) of its memory, as Nova has chosen
        them for its NUMA cells; None where it has not
    """
    def wanted(*names):
        """An extra spec hw:x or the image property hw_x says so."""
        return any(_true(extra_specs.get(name)) or
                   _true(image_properties.get(_property(name)))
                   for name in names)

    def named(*names):
        return any(extra_specs.get(name) or
                   image_properties.get(_property(name)) for name in names)

    video_mb = 0
    if extra_specs.get('hw_video:ram_max_mb'):
        video_mb = int(image_properties.get('hw_video_ram') or 0)
    arm64 = settings.arm64 or image_properties.get(
        'hw_architecture') == 'aarch64'
    return Guest(
        memory_mb=memory_mb, vcpus=vcpus,
        huge=_huge(pages, memory_mb, image_properties.get(
            'hw_mem_page_size') or extra_specs.get('hw:mem_page_size')),
        # A video device of its own accord costs as much as one with VNC.
        graphics=(settings.graphics or
                  bool(image_properties.get('hw_video_model'))) and
        image_properties.get('hw_video_model') != 'none',
        video_mb=video_mb,
        uefi=(image_properties.get('hw_firmware_type') == 'uefi' or
              extra_specs.get('os:secure_boot') == 'required' or
              image_properties.get('os_secure_boot') == 'required'),
        vtpm=named('hw:tpm_version', 'hw:tpm_model'),
        sev=wanted('hw:mem_encryption'),
        vfio=(pci_devices > 0 or
              bool(extra_specs.get('pci_passthrough:alias')) or
              bool(extra_specs.get('accel:device_profile')) or
              any(_is_mdev(match.group(1), settings) for match in map(
                  _RESOURCES.fullmatch, extra_specs) if match)),
        arm64=arm64,
        translated_mb=settings.translated_mb,
        allocated_mb=asked('MEMORY_MB', extra_specs),
        allocated_vcpus=asked('VCPU', extra_specs),
        rbd_images=rbd_images)


def asked(resource_class, extra_specs):
    """What a flavor asks Placement for itself, None where it does not.

    A property such as resources:MEMORY_MB replaces what Nova's scheduler
    would allocate (nova/scheduler/utils.py, ResourceRequest).
    """
    value = extra_specs.get(f'resources:{resource_class}')
    try:
        return None if value is None else max(0, int(value))
    except ValueError:
        return None


def placement_property(guest, settings):
    """The flavor's property with which Placement accounts for all of it."""
    return f'resources:MEMORY_MB={need(guest, settings).placement_mb}'


def _is_mdev(resource_class, settings):
    return (resource_class in settings.mdev_classes or
            resource_class.startswith(('VGPU', 'PGPU', 'CUSTOM_VGPU')))


def _property(name):
    return name.replace(':', '_')


def _true(value):
    return str(value).lower() in ('true', '1', 'yes', 'on', 't', 'y')


def is_huge(size_kb):
    """Whether pages of this size come from the kernel's huge pages."""
    return size_kb > LARGEST_COMMON_PAGE_KB


def _huge(pages, memory_mb, asked_size):
    """Return what of the memory is in huge pages, as Guest.huge has it."""
    if pages is not None:
        found = {}
        for size_kb, mb in pages:
            if is_huge(size_kb):
                found[size_kb] = found.get(size_kb, 0) + mb
        return tuple(sorted(found.items()))
    size_kb = _asked_page_kb(asked_size)
    return () if size_kb is None else ((size_kb, memory_mb),)


def _asked_page_kb(size):
    """The huge pages that hw:mem_page_size asks for certain, None for none.

    'any' and 'small' may be pages of the common size: then the memory counts.
    """
    if not size:
        return None
    if str(size).lower() == 'large':
        return ANY_HUGE
    match = re.fullmatch(r'(\d+)\s*([kmg]?)i?b?', str(size).lower())
    if not match:
        return None
    kib = int(match.group(1)) * {'': 1, 'k': 1, 'm': 1 << 10, 'g': 1 << 20}[
        match.group(2)]
    return kib if is_huge(kib) else None
