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

"""What Nova knows of guests and the CPUs that they are pinned to."""

import dataclasses
import functools
import typing as ty

from nova import context as nova_context
from nova import exception
from nova import objects
from nova.objects import fields
from nova.virt import hardware

from nova_k8s import errors
from nova_k8s.inventory import topology

_SHARED = (None, fields.CPUAllocationPolicy.SHARED)


@dataclasses.dataclass(frozen=True)
class Guests:
    """What the guests of a compute node ask of its CPUs."""

    floating: bool = False
    """At least one has none of its own."""

    pinned: bool = False
    """At least one has CPUs of its own."""

    cpus: ty.FrozenSet[int] = frozenset()
    """What they are pinned to."""


def find(host, compute_nodes=()):
    """Return the Guests of a host, as Nova's database has them.

    :param compute_nodes: objects.ComputeNode, with what guests that come or
        go by a migration are pinned to
    """
    floating, cpus, pinned = False, set(), False
    for instance in objects.InstanceList.get_by_host(
            nova_context.get_admin_context(), host,
            expected_attrs=['numa_topology']):
        wish = instance.numa_topology
        if not wish or wish.cpu_policy in _SHARED:
            floating = True
        else:
            pinned = True
            cpus |= wish.cpu_pinning | wish.cpuset_reserved
    for each in compute_nodes:
        cpus |= pinned_cpus(each.numa_topology)
    return Guests(floating, pinned, frozenset(cpus))


def pinned_cpus(text):
    """Return the CPUs in use by pinned guests.

    :param text: the numa_topology of an objects.ComputeNode, or None
    """
    cells = objects.NUMATopology.obj_from_db_obj(text).cells if text else ()
    return frozenset().union(*(each.pinned_cpus for each in cells))


def operator_sets(conf):
    """Return (shared, dedicated) that an operator has named, None for none.

    :param conf: nova.conf.CONF, before anything is overridden
    :raises errors.Refused: when an option that names CPUs is malformed
    """
    if not (conf.compute.cpu_shared_set or conf.compute.cpu_dedicated_set or
            conf.vcpu_pin_set):
        return None
    return (
        frozenset(read_set(hardware.get_vcpu_pin_set) or
                  read_set(hardware.get_cpu_shared_set) or ()),
        frozenset(read_set(hardware.get_cpu_dedicated_set) or ()))


def read_set(option):
    """Return what an option that names CPUs says, None where it is not set.

    :param option: the function of nova.virt.hardware that reads it
    :raises errors.Refused: when it is malformed
    """
    try:
        return option()
    except exception.Invalid as exc:
        raise errors.Refused(f'[compute]: {exc}') from None


def bound(found, mems, limit_mb):
    """Return Nova's NUMA topology, within what the pod has.

    :param found: the objects.NUMATopology of Nova's driver, or None
    :param mems: as for topology.bound(), and so limit_mb
    :returns: an objects.NUMATopology; None where nothing is left, as Nova
        looks at the first cell without asking whether there is one
    """
    if not found:
        return found
    stock = {each.id: each for each in found.cells}
    kept = topology.bound(
        [topology.Cell(
            each.id, frozenset(each.cpuset | each.pcpuset), each.memory,
            tuple(sorted((pages.size_kb, pages.total)
                         for pages in each.mempages)))
         for each in found.cells], mems, limit_mb)
    for each in kept:
        cell, numbers = stock[each.id], dict(each.pages)
        cell.memory = each.memory_mb
        for pages in cell.mempages:
            pages.total = numbers[pages.size_kb]
            pages.reserved = min(pages.reserved, pages.total)
    return objects.NUMATopology(
        cells=[stock[each.id] for each in kept]) if kept else None


def with_usage(fresh, text):
    """Return a NUMA topology with what guests use according to another one.

    :param fresh: the objects.NUMATopology of now, without any usage
    :param text: the numa_topology of an objects.ComputeNode, or None
    """
    known = {each.id: each for each in
             objects.NUMATopology.obj_from_db_obj(text).cells} if text else {}
    for cell in fresh.cells:
        if cell.id not in known:
            continue
        before = known[cell.id]
        cell.cpu_usage = before.cpu_usage
        cell.memory_usage = before.memory_usage
        cell.pinned_cpus = before.pinned_cpus
        used = {pages.size_kb: pages.used for pages in before.mempages}
        for pages in cell.mempages:
            pages.used = used.get(pages.size_kb, 0)
    return fresh


def refresh_in_audits(tracker, fresh):
    """Have each audit begin to count with the NUMA topology of now.

    Nova's audit asks its driver before it takes the lock of its claims. If
    the sets change in between, a guest may be pinned to a CPU that the audit
    has not heard of: it raises CPUPinningUnknown, and all inventories go
    stale. _update_usage_from_instances() is where it begins to count, under
    the lock, after it has replaced the record's topology.

    :param tracker: Nova's resource tracker
    :param fresh: returns the objects.NUMATopology of now, or None
    """
    count = tracker._update_usage_from_instances

    @functools.wraps(count)
    def update_usage_from_instances(context, instances, nodename):
        compute_node = tracker.compute_nodes[nodename]
        if compute_node.numa_topology:
            found = fresh()
            compute_node.numa_topology = found and found._to_json()
        return count(context, instances, nodename)

    tracker._update_usage_from_instances = update_usage_from_instances
