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

"""Which CPUs Nova may give to guests, of those that the pod has: pure."""

import dataclasses
import typing as ty

from nova_k8s.util import cpulist

OFF, SHARED, DEDICATED = 'off', 'shared', 'dedicated'

_NONE: ty.FrozenSet[int] = frozenset()


@dataclasses.dataclass(frozen=True)
class Sets:
    """What Nova is told, disjoint."""

    shared: ty.FrozenSet[int] = _NONE
    """[compute] cpu_shared_set: guests float over it."""

    dedicated: ty.FrozenSet[int] = _NONE
    """[compute] cpu_dedicated_set: one guest each."""

    lost: ty.FrozenSet[int] = _NONE
    """Of these, what the pod does not have any more.

    A guest is pinned to it, or the operator has named it.
    """

    @property
    def shared_count(self):
        return len(self.shared - self.lost)

    @property
    def dedicated_count(self):
        """With those that are lost: they are reserved."""
        return len(self.dedicated)

    @property
    def lost_count(self):
        return len(self.dedicated & self.lost)


def find_missing(seen, qos, millicores):
    """Return why the CPUs of the pod are not its own alone, a line each.

    :param seen: the cpuset.Seen, None where nothing is seen
    :param qos: the QoS class of the pod, None where it is not known
    :param millicores: its limit, None without
    """
    if seen is None:
        return ['the cgroup of its container is not seen (mount '
                '/sys/fs/cgroup of the node at /node/cgroup)']
    found = []
    if qos not in (None, 'Guaranteed'):
        found.append(f'it is {qos}, not Guaranteed (make its requests the '
                     f'same as its limits)')
    if millicores is None:
        found.append('it has no CPU limit')
    elif millicores % 1000 or not millicores:
        found.append(f'its CPU limit of {millicores} millicores is not one '
                     f'of whole cores')
    if not seen.assigned:
        found.append('the kubelet gives no container CPUs of its own (set '
                     'its cpuManagerPolicy to static)')
    elif not found and len(seen.cpus) != millicores // 1000:
        found.append(
            f'its container may use {len(seen.cpus)} CPUs '
            f'({cpulist.render(seen.cpus)}) for a limit of '
            f'{millicores // 1000} cores, so they are not its own alone')
    return found


def outside(shared, dedicated, seen):
    """Return what is wrong with sets that an operator has named, or None."""
    named = shared | dedicated
    if named <= seen.cpus:
        return None
    return (
        f'[compute] cpu_shared_set ({cpulist.render(shared) or "none"}) and '
        f'cpu_dedicated_set ({cpulist.render(dedicated) or "none"}) reach '
        f'outside of the CPUs of the guests\' pod '
        f'({cpulist.render(seen.cpus)}): {cpulist.render(named - seen.cpus)} '
        f'belong to others; unset both to have the pod\'s, or name none but '
        f'these')


def of_operator(shared, dedicated, seen):
    """Return the Sets where an operator has named them."""
    lost = (shared | dedicated) - seen.cpus if seen else _NONE
    return Sets(shared, dedicated, lost)


def for_shared(seen):
    """Return the Sets in which all guests float over all CPUs."""
    return Sets(seen.cpus)


def for_dedicated(own, kept, pinned, before=None, cores=()):
    """Return the Sets in which guests have CPUs of their own.

    A CPU that a guest is pinned to stays, whoever has it now: Nova's audit
    would fail without it, and with that all inventories of the node. Nova is
    never told of no CPU at all: it would take all of the machine.

    :param own: the CPUs that are the pod's alone
    :param kept: how many of them are for shared guests
    :param pinned: those that guests are pinned to
    :param before: the Sets that were told last
    :param cores: the CPUs of each core
    """
    before = before or Sets()
    shared = _choose(own, kept, pinned, before.shared, cores)
    dedicated = (own - shared) | pinned
    if not dedicated and not shared:
        dedicated, shared = before.dedicated, before.shared
    return Sets(shared, dedicated, (dedicated | shared) - own)


def _choose(own, kept, pinned, before, cores):
    """Return which CPUs are shared: whole cores, and those that were."""
    free = own - pinned
    groups, rest = [], set(free)
    for core in cores:
        group = rest & set(core)
        if group:
            groups.append(group)
            rest -= group
    groups += [{cpu} for cpu in rest]
    # Whole cores that are shared already; then others from below. A core of
    # which a guest has one thread comes last.
    groups.sort(key=lambda group: (not group & before, min(group)))
    chosen: ty.List[int] = []
    for group in groups:
        chosen += sorted(group, key=lambda cpu: (cpu not in before, cpu))
    return frozenset(chosen[:kept])
