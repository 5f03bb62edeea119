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


"""The machine, and what Nova's driver reports of it before any limit."""

import collections
import dataclasses
import pathlib
import time
import typing as ty

import libvirt
from nova.virt import hardware
from nova.virt.libvirt import config
from oslo_log import log as logging
import psutil

from nova_k8s.accounting import overhead
from nova_k8s import errors
from nova_k8s.inventory import bounds
from nova_k8s.inventory import hugepages
from nova_k8s.inventory import numa
from nova_k8s.inventory import pinning
from nova_k8s.limits import budget
from nova_k8s.limits import quantity

LOG = logging.getLogger(__name__)

# Seconds between two attempts to reach libvirt.
_WAIT = 1

# As in the name of a resource of Kubernetes.
_HUGEPAGES = 'hugepages-'


# Nova's options for the allocation ratio, each of which has one beside it,
# initial_..., for an inventory that Placement does not have yet.
RATIOS = {bounds.VCPU: 'cpu_allocation_ratio',
          bounds.MEMORY_MB: 'ram_allocation_ratio'}


@dataclasses.dataclass(frozen=True)
class Machine:
    cpus: int
    memory_mb: int
    source: str
    """Where it was read from, for messages."""

    huge_mb: ty.Tuple[ty.Tuple[int, int], ...] = ()
    """(page size in KiB, MiB) of its huge pages."""


def parse(text):
    """Return the machine of 'cpus=64,memory=256Gi'.

    :raises errors.Refused: when it is something else
    """
    pairs = [each.partition('=')[::2] for each in text.split(',')]
    fields = dict(pairs)
    sizes = [name for name in fields if name.startswith(_HUGEPAGES)]
    if sorted(name for name, _ in pairs) != sorted(
            ['cpus', 'memory', *sizes]):
        raise errors.Refused(
            f'--machine {text}: expected cpus=NUMBER,memory=QUANTITY and '
            f'hugepages-SIZE=QUANTITY where there are some, for example '
            f'cpus=64,memory=256Gi,hugepages-2Mi=64Gi')
    try:
        huge_mb = tuple(sorted(
            (int(quantity.parse(name[len(_HUGEPAGES):], name)) // 1024,
             int(quantity.parse(fields[name], name)) // budget.MIB)
            for name in sizes))
        cpus = int(quantity.parse(fields['cpus'], 'cpus'))
        memory = int(quantity.parse(fields['memory'], 'memory'))
    except errors.LimitsError as exc:
        raise errors.Refused(f'--machine {text}: {exc}') from None
    if any(not overhead.is_huge(size_kb) for size_kb, _mb in huge_mb):
        raise errors.Refused(
            f'--machine {text}: a huge page has more than 64 KiB')
    if cpus < 1 or memory < budget.MIB:
        raise errors.Refused(
            f'--machine {text}: at least one CPU and 1Mi of memory')
    return Machine(cpus, memory // budget.MIB, 'given', huge_mb)


def ask_libvirt(uri):
    """Return the machine as libvirt tells it, or None where none answers."""
    # libvirt prints its errors to stderr otherwise.
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    try:
        connection = libvirt.openReadOnly(uri)
        try:
            info = connection.getInfo()
            text = connection.getCapabilities()
        finally:
            connection.close()
    except libvirt.libvirtError:
        return None
    return Machine(info[2], info[1], f'libvirt at {uri}', _huge_mb(text))


def _huge_mb(capabilities):
    """Return the huge pages in libvirt's XML, as Machine.huge_mb has them."""
    found = config.LibvirtConfigCaps()
    found.parse_str(capabilities)
    sizes = collections.Counter()
    topology = found.host.topology
    for cell in topology.cells if topology else ():
        for pages in cell.mempages:
            if overhead.is_huge(pages.size):
                sizes[pages.size] += pages.size * pages.total // 1024
    return tuple(sorted(sizes.items()))


def pages(machine, limits):
    """Return the hugepages.Pages of a machine on which nothing runs.

    :param limits: bytes by page size in KiB
    """
    cells = {0: {size_kb: hugepages.Count(mb * 1024 // size_kb, 0)
                 for size_kb, mb in machine.huge_mb}}
    return hugepages.summarize(cells, hugepages.offer(cells, limits))


def await_libvirt(uri):
    """Block until libvirt answers.

    In a pod of its own it may come later, and Nova's driver does not wait.
    """
    if ask_libvirt(uri):
        return
    LOG.warning('Waiting for libvirt at %s, which does not answer yet', uri)
    while not ask_libvirt(uri):
        time.sleep(_WAIT)


def ask_kernel():
    """Return the machine that this runs on, as the kernel tells it."""
    return Machine(psutil.cpu_count(),
                   psutil.virtual_memory().total // budget.MIB,
                   'this machine (no libvirt answers)',
                   _kernels_huge_mb())


def _kernels_huge_mb(folder='/sys/kernel/mm/hugepages'):
    return tuple(
        (size_kb, number * size_kb // 1024)
        for size_kb, number in numa.read_hugepages(pathlib.Path(folder))
        if number and overhead.is_huge(size_kb))


def stock_inventory(machine, conf, reserved_mb, sets=None):
    """Return the records that Nova's driver would report to Placement.

    Those of LibvirtDriver.update_provider_tree() that a limit bounds; a
    functional test holds them against Nova's own.

    :param conf: nova.conf.CONF
    :param reserved_mb: memory for what runs in the pod besides guests
    :param sets: the cpus.Sets that Nova is to have; None where nova.conf says
    :raises errors.Refused: when an option that names CPUs is malformed
    """
    cpus, dedicated = machine.cpus, count_dedicated(machine)
    shared = pinning.read_set(hardware.get_cpu_shared_set)
    if shared is not None:
        cpus = _there(shared, machine)
    elif pinning.read_set(hardware.get_cpu_dedicated_set):
        cpus = 0
    if sets:
        cpus, dedicated = sets.shared_count, sets.dedicated_count
    totals = {
        bounds.VCPU: cpus,
        bounds.PCPU: dedicated,
        bounds.MEMORY_MB: (conf.libvirt.file_backed_memory or
                           machine.memory_mb),
    }
    ratios = {resource_class: conf[name] or conf[f'initial_{name}']
              for resource_class, name in RATIOS.items()}
    # Nova never sells one twice.
    ratios[bounds.PCPU] = 1
    reserved = bounds.reserved_by_class(conf, reserved_mb)
    reserved[bounds.PCPU] = sets.lost_count if sets else 0
    return {
        resource_class: {
            'total': total,
            'reserved': reserved[resource_class],
            'min_unit': 1,
            'max_unit': total,
            'step_size': 1,
            'allocation_ratio': ratios[resource_class],
        }
        for resource_class, total in totals.items() if total
    }


def count_dedicated(machine):
    """How many PCPU Nova's driver would offer.

    :raises errors.Refused: when the option that names them is malformed
    """
    return _there(pinning.read_set(hardware.get_cpu_dedicated_set) or (),
                  machine)


def _there(ids, machine):
    """How many of the CPUs the machine has."""
    return sum(each < machine.cpus for each in ids)
