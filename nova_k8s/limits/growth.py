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

"""Which growth counts: what a pod says is not always what the kernel has.

Seen on a real kubelet: a resize changes the cgroup first and the status up to
seven seconds later. Whoever shrinks a pod, and wishes it larger again before
the kubelet has told of the shrink, has a status and a spec that are both
larger than what is enforced. So a growth counts when the kubelet has seen
this wish and has no resize under way. Until then it is the least of what was
known and what is said.

Pure functions over Budgets; the watcher has the memory.
"""

import dataclasses

from nova_k8s import errors
from nova_k8s.limits import budget

# The kernel rounds a limit of memory down to whole pages. None that a kubelet
# runs on are larger.
_PAGE = 64 * 1024


def follow(known, said, enforced=None):
    """Return the Budget to go by.

    :param known: the one that was gone by so far, None for none
    :param said: the one that was read just now
    :param enforced: what the kernel enforces (cgroup.Enforced), None where
        that cannot be seen
    :raises errors.NotYet: when a resize is under way, and what is in force
        until its end cannot be told
    """
    said = _cap(said, enforced)
    if not (said.resizing or said.unconfirmed):
        return said
    same = known and _uid(known) == _uid(said)
    if said.resizing:
        # Of a wish that nobody saw it is not known how small it was, and the
        # kubelet may have done it.
        if not same or known.generation is None or (
                said.generation > known.generation + 1):
            raise errors.NotYet(
                f'{said.source}: a resize is under way ({said.resizing}), '
                f'and what is in force until its end is not known')
        return dataclasses.replace(said, **_least(known, said))
    return _doubt(_confirm(known, said, enforced) if same else said, enforced)


def _uid(present):
    return present.pod and present.pod.uid


def _least(known, said):
    """By field, the known limit where that is smaller."""
    return {field: getattr(known, field)
            for field in ('cpu_millicores', 'memory_bytes')
            if _exceeds(getattr(said, field), getattr(known, field))}


def _exceeds(amount, limit):
    # That a limit is gone is no growth: it closes the node, unless the
    # operator wants the machine then.
    return None not in (amount, limit) and amount > limit


def _confirm(known, said, enforced):
    """Return said, without a growth that the cgroup does not show."""
    held = {field: value for field, value in _least(known, said).items()
            if not enforced or
            _exceeds(getattr(said, field), getattr(enforced, field))}
    if not held:
        return said
    return dataclasses.replace(said, **held, withheld=(
        f'{budget.describe(said)} is wished, and nothing tells that it is in '
        f'force: {said.unconfirmed}'))


def _doubt(said, enforced):
    """Return said, with what to know where the own cgroup allows less."""
    if not enforced or enforced.binding or not any(
            _exceeds(getattr(said, field), getattr(enforced, field))
            for field in ('cpu_millicores', 'memory_bytes')):
        return said
    return dataclasses.replace(said, caveats=said.caveats + (
        f'the cgroup that nova-compute runs in enforces less '
        f'({enforced.where}): a resize is not done, or these are the limits '
        f'of another container; for those, set [kubernetes] pod_cgroup to its '
        f'cgroup.',))


def _cap(said, enforced):
    """Return said within what the kernel enforces for guests."""
    if not enforced or not enforced.binding:
        return said
    capped = {field: getattr(enforced, field)
              for field in ('cpu_millicores', 'memory_bytes')
              if _exceeds(getattr(said, field), getattr(enforced, field))}
    found = dataclasses.replace(said, **capped)
    rounded = (said.cpu_millicores == found.cpu_millicores and
               said.memory_bytes is not None and
               said.memory_bytes < found.memory_bytes + _PAGE)
    if found == said or rounded:
        return found
    return dataclasses.replace(found, withheld=(
        f'{budget.describe(said)} is said, and the kernel enforces less at '
        f'{enforced.where}'))
