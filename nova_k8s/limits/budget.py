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

"""What a pod may use: a frozen value."""

import dataclasses
import typing as ty

from nova_k8s import errors
from nova_k8s.limits import quantity

MIB = 1024 * 1024


@dataclasses.dataclass(frozen=True)
class Reference:
    """An object in the cluster, as events name it."""

    kind: str
    name: str
    uid: str
    namespace: str = ''


@dataclasses.dataclass(frozen=True)
class Budget:
    """What a pod may use. None means that no limit is set."""

    source: str
    """The object and where it was read from, for messages."""

    cpu_millicores: ty.Optional[int] = None
    memory_bytes: ty.Optional[int] = None
    hugepages: ty.Tuple[ty.Tuple[str, int], ...] = ()
    """(page size as Kubernetes writes it, bytes), as in ('2Mi', 4194304)."""

    ephemeral_storage_bytes: ty.Optional[int] = None
    cpu_request_millicores: ty.Optional[int] = None
    memory_request_bytes: ty.Optional[int] = None
    missing: ty.Tuple[str, ...] = ()
    """Paths of the fields for cpu and memory in which no limit is set."""

    caveats: ty.Tuple[str, ...] = ()
    """What its source cannot tell, for people."""

    node_name: ty.Optional[str] = None
    """spec.nodeName of the pod, where it is known."""

    deletion_time: ty.Optional[str] = None
    """By when the pod is to be gone, while somebody deletes it.

    metadata.deletionTimestamp, as Kubernetes writes it: the time of the
    request and the grace period.
    """

    generation: ty.Optional[int] = dataclasses.field(
        default=None, compare=False)
    """metadata.generation: how often the spec has changed."""

    resizing: ty.Optional[str] = dataclasses.field(
        default=None, compare=False)
    """Why its status may not show yet what is in force."""

    unconfirmed: ty.Optional[str] = dataclasses.field(
        default=None, compare=False)
    """Why nothing tells whether a growth is in force."""

    withheld: ty.Optional[str] = dataclasses.field(
        default=None, compare=False)
    """What was said beyond these limits, and why it does not count."""

    resize_error: ty.Optional[str] = dataclasses.field(
        default=None, compare=False)
    """Why the kubelet does not do a resize that it has accepted."""

    resize_pending: ty.Optional[str] = dataclasses.field(
        default=None, compare=False)
    """Why the kubelet has not accepted a resize that the spec wishes."""

    pod: ty.Optional['Reference'] = dataclasses.field(
        default=None, compare=False)
    """The pod in the cluster that it was read from."""

    workload: ty.Optional[str] = dataclasses.field(
        default=None, compare=False)
    """What replaces the pod when it is deleted, as 'ReplicaSet web'."""

    @property
    def terminating(self):
        """The pod is being deleted: its guests stay, no new ones may come."""
        return self.deletion_time is not None

    @property
    def cpu_cores(self):
        """Whole cores, rounded down."""
        millicores = self.cpu_millicores
        return None if millicores is None else millicores // 1000

    @property
    def memory_mb(self):
        """Whole MiB, rounded down."""
        return None if self.memory_bytes is None else self.memory_bytes // MIB

    @property
    def hugepages_by_kb(self):
        """Bytes by page size in KiB; of a size that is no size, none."""
        found = {}
        for size, amount in self.hugepages:
            try:
                size_kb = int(quantity.parse(size, 'hugepages')) // 1024
            except errors.Unreadable:
                continue
            # 2Mi and 2048Ki are the same.
            found[size_kb] = min(amount, found.get(size_kb, amount))
        return found

    def as_dict(self):
        """The part of it that scripts get to see."""
        return {
            'cpu_millicores': self.cpu_millicores,
            'memory_bytes': self.memory_bytes,
            'hugepages': dict(self.hugepages),
            'ephemeral_storage_bytes': self.ephemeral_storage_bytes,
            'source': self.source,
        }


def least(*limits):
    """Return the least of several limits, None where none of them is set."""
    return min((each for each in limits if each is not None), default=None)


def describe(found):
    """The limits in words."""
    cpu, memory_mb = found.cpu_millicores, found.memory_mb
    return '%s and %s%s' % (
        'no CPU limit' if cpu is None else f'{cpu} millicores of CPU',
        'no memory limit' if memory_mb is None
        else f'{memory_mb} MiB of memory', describe_pages(found))


def describe_pages(found):
    """The limits of huge pages in words, to follow others; '' for none."""
    return ''.join(f', {amount // MIB} MiB in huge pages of {size}'
                   for size, amount in found.hugepages if amount)


def find_shortfall(budget, unlimited):
    """Return why a class has no room for guests, or None when all have some.

    The same conditions as in bounds.check(), for a node that is running.
    """
    short = [f'no limit at {path}' for path in budget.missing
             if unlimited != 'host']
    short += [f'resources.limits.{field} is below one unit of {unit}'
              for field, unit, limit in (
                  ('cpu', 'VCPU', budget.cpu_cores),
                  ('memory', 'MEMORY_MB', budget.memory_mb))
              if limit == 0]
    return f'{budget.source}: {", ".join(short)}' if short else None
