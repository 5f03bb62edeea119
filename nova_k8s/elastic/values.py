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

"""What the decision on the size of the guests' pod is made of."""

import dataclasses
import typing as ty

# What the kubelet answers to a wish, besides nothing: reasons of the
# condition PodResizePending.
DEFERRED = 'Deferred'
INFEASIBLE = 'Infeasible'


class Room(ty.NamedTuple):
    """An amount of what a pod may use. Never negative."""

    memory_mb: int = 0
    cpu_millicores: int = 0

    def plus(self, other):
        return Room(self[0] + other[0], self[1] + other[1])

    def minus(self, other):
        """What is left, each at least 0."""
        return Room(max(0, self[0] - other[0]), max(0, self[1] - other[1]))

    def least(self, other):
        return Room(min(self[0], other[0]), min(self[1], other[1]))

    def most(self, other):
        return Room(max(self[0], other[0]), max(self[1], other[1]))

    def covers(self, other):
        """Whether it is as large in both."""
        return self[0] >= other[0] and self[1] >= other[1]

    def up(self, step):
        """Rounded up to whole steps."""
        return Room(-(-self[0] // step[0]) * step[0],
                    -(-self[1] // step[1]) * step[1])

    def quantities(self, before=(None, None)):
        """What differs from a Room before, as Kubernetes writes it."""
        found = (('memory', f'{self[0]}Mi'), ('cpu', f'{self[1]}m'))
        return {name: text for (name, text), after, other in zip(
            found, self, before) if after != other}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the operator wants."""

    smallest: Room
    """What the pod has even without a guest."""

    largest: Room
    headroom: Room
    """What is to be free for the next guests."""

    step: Room
    """What a wish is a multiple of, and the least that is worth a resize."""

    spare: Room
    """What containers are to have free ahead of them."""

    idle: float
    """Seconds for which room must not have been needed to be given back."""

    cpu: bool = True
    """Whether the kubelet can resize CPU, which it cannot with the static CPU
    manager."""


@dataclasses.dataclass(frozen=True)
class Pod:
    """The pod that holds the guests."""

    wished: Room
    """Its spec."""

    allocated: Room
    """What the kubelet has promised it."""

    enforced: Room
    """What the kernel holds it to."""

    answer: ty.Optional[str] = None
    """DEFERRED or INFEASIBLE where the kubelet has not taken the wish."""

    @property
    def held(self):
        """What Kubernetes' scheduler counts while both differ."""
        return self.wished.most(self.allocated)

    @property
    def sure(self):
        """What Nova may be told at most: the least of the three."""
        return self.wished.least(self.allocated).least(self.enforced)


@dataclasses.dataclass(frozen=True)
class Node:
    """What the pods of the node leave of it."""

    free: ty.Optional[Room] = None
    """Allocatable that no pod has requested; None where it is not known."""


@dataclasses.dataclass(frozen=True)
class Past:
    """What a decision has to know of those before it."""

    headroom: ty.Optional[Room] = None
    """What is kept free now; less than the settings' after pressure."""

    idle_since: ty.Optional[float] = None
    peak: Room = Room()
    """The largest demand since then."""

    calm_since: ty.Optional[float] = None
    calm: Room = Room()
    """The least headroom that there was room for since then."""

    shrunk_at: float = float('-inf')
    resized_at: float = float('-inf')
    patience: float = 0.0
    """Seconds that room is idle before it goes; 0 for the settings'."""

    ceiling: ty.Optional[Room] = None
    """The most that the node can give, after it said INFEASIBLE."""


@dataclasses.dataclass(frozen=True)
class Wish:
    """What is decided."""

    room: Room
    """What the pod's spec is to say."""

    report: Room
    """What Nova may be told at most."""

    reason: str
    """Why it is what it is: one of the constants of wish."""

    past: Past
    again: ty.Optional[float] = None
    """When to decide again, should nothing happen; from the same clock."""
