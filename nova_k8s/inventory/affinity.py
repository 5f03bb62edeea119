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

"""On which CPUs the threads of guests that run are to be.

Nova gives a guest its CPUs when it starts, and does not look at them again.
The kernel holds it to the pod's CPUs whatever libvirt has set, but it keeps a
guest off those that have come since.
"""

import dataclasses
import typing as ty
from xml.etree import ElementTree

from oslo_log import log as logging

from nova_k8s.util import cpulist

LOG = logging.getLogger(__name__)

_CPUS = ty.FrozenSet[int]

# libvirt's VIR_DOMAIN_AFFECT_LIVE: of the guest that runs, not its
# definition.
_LIVE = 1

_PINS = ('vcpupin', 'emulatorpin', 'iothreadpin')


@dataclasses.dataclass(frozen=True)
class Change:
    """What of a guest is to be on other CPUs than it is."""

    vcpus: ty.Tuple[ty.Tuple[int, _CPUS], ...] = ()
    emulator: ty.Optional[_CPUS] = None
    iothreads: ty.Tuple[ty.Tuple[int, _CPUS], ...] = ()


def find(xml, shared, pinned, nodes):
    """Return the Change of a guest, None where all is as it should be.

    A guest floats over all shared CPUs; one with a NUMA topology of its own
    over those of the node that each of its cells is on. What is pinned stays.

    :param xml: of the guest that runs, as libvirt tells it
    :param shared: the CPUs that guests float over
    :param pinned: those that belong to one guest each
    :param nodes: the CPUs of each NUMA node of the machine
    """
    domain = ElementTree.fromstring(xml)
    try:
        places, known = _places(domain), _known(domain)
        vcpus = int(domain.findtext('vcpu'))
        whole = cpulist.parse(domain.find('vcpu').get('cpuset') or '')
    except (AttributeError, TypeError, ValueError):
        # It is not one of Nova's.
        return None
    wanted, floating, changed = {}, set(), []
    for vcpu in range(vcpus):
        present = known.get(('vcpupin', vcpu), whole)
        if len(present) == 1 and present <= pinned:
            continue
        wanted[vcpu] = shared & nodes.get(places[vcpu], frozenset()) if (
            vcpu in places) else shared
        floating |= wanted[vcpu]
        if wanted[vcpu] and wanted[vcpu] != present:
            changed.append((vcpu, wanted[vcpu]))
    rest = {}
    threads = [('emulatorpin', None)] + [
        ('iothreadpin', 1 + each)
        for each in range(int(domain.findtext('iothreads') or 0))]
    for key in threads:
        present = known.get(key, whole)
        if present and present <= pinned:
            continue
        # Without any that float, they are where Nova has emulator threads.
        target = frozenset((present & pinned) | floating) if wanted else shared
        if target and target != present:
            rest[key] = target
    if not changed and not rest:
        return None
    return Change(tuple(changed), rest.pop(('emulatorpin', None), None),
                  tuple((number, cpus) for (_, number), cpus
                        in sorted(rest.items())))


def _known(domain):
    """What is pinned now: CPUs by (element, number)."""
    found = {}
    for name, key in zip(_PINS, ('vcpu', None, 'iothread')):
        for each in domain.findall(f'cputune/{name}'):
            found[name, int(each.get(key)) if key else None] = cpulist.parse(
                each.get('cpuset'))
    return found


def _places(domain):
    """The NUMA node of each VCPU of a guest with a NUMA topology."""
    nodes = {int(each.get('cellid')): int(each.get('nodeset'))
             for each in domain.findall('numatune/memnode')}
    return {vcpu: nodes[int(cell.get('id'))]
            for cell in domain.findall('cpu/numa/cell')
            if int(cell.get('id')) in nodes
            for vcpu in cpulist.parse(cell.get('cpus'))}


def move(host, shared, pinned, nodes):
    """Have every guest that runs where it should be. Does I/O.

    :param host: of Nova's libvirt driver
    :param shared, pinned, nodes: as for find()
    """
    machine_cpus = len(host.get_available_cpus())
    for guest in host.list_guests():
        # One that ends meanwhile is no reason to leave the others.
        try:
            change = find(guest.get_xml_desc(), shared, pinned, nodes)
            if change:
                apply(guest._domain, change, machine_cpus)
                LOG.info('Guest %s may use the CPUs %s now', guest.uuid,
                         cpulist.render(shared))
        except Exception as exc:
            LOG.warning('Guest %s is not on the CPUs %s: %s', guest.uuid,
                        cpulist.render(shared), exc)


def apply(domain, change, machine_cpus):
    """Have libvirt do it. Does I/O; raises what libvirt raises.

    :param domain: a virDomain
    :param machine_cpus: how many CPUs the machine has
    """
    for vcpu, cpus in change.vcpus:
        domain.pinVcpuFlags(vcpu, _map(cpus, machine_cpus), _LIVE)
    if change.emulator:
        domain.pinEmulator(_map(change.emulator, machine_cpus), _LIVE)
    for number, cpus in change.iothreads:
        domain.pinIOThread(number, _map(cpus, machine_cpus), _LIVE)


def _map(cpus, machine_cpus):
    return tuple(each in cpus for each in range(machine_cpus))


def without_pins(xml):
    """Return the XML of a guest for another machine.

    Nova has the destination's shared CPUs written into its ``vcpu`` element,
    and knows nothing of the pins that apply() made: they are CPUs of this
    machine. A guest with a NUMA topology has pins that Nova does know.
    """
    domain = ElementTree.fromstring(xml)
    tune = domain.find('cputune')
    if tune is None or domain.find('numatune/memnode') is not None:
        return xml
    found = [each for each in tune if each.tag in _PINS]
    if not found:
        return xml
    for each in found:
        tune.remove(each)
    return ElementTree.tostring(domain, encoding='unicode')
