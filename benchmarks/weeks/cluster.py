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

"""A cluster that guests and containers share, by one rule or another."""

import dataclasses
import heapq
import itertools

from nova_k8s.elastic import values
from nova_k8s.elastic import wish

# Seconds from a patch of the pod to what Nova and Kubernetes make of it.
RESIZE = 3

# How many nodes a scheduler looks at before it takes the emptiest of those
# that fit: both of the real ones look at some of many.
LOOKS = 16

# Of how many nodes samples are kept.
SHOWN = 20

# How many Pending pods are tried on a node with more room.
MOST = 50


@dataclasses.dataclass(frozen=True)
class Rule:
    """How a node is shared."""

    name: str
    split: float = 0.0
    """The part of the node that is the guests', for good."""

    settings: values.Settings = None
    knows: bool = False
    """Whether a node knows what of it no pod has requested."""

    @property
    def pool(self):
        return not self.split and not self.settings


@dataclasses.dataclass
class Result:
    guests: int = 0
    rejected: int = 0
    pods: int = 0
    pending: int = 0
    late: int = 0
    """Of the Pending pods, those for more than five minutes."""

    never: int = 0
    """Those that never ran."""

    longest: float = 0
    resizes: int = 0
    memory: float = 0
    """Share in use."""

    cores: float = 0
    samples: list = dataclasses.field(default_factory=list)
    """(hour, memory of guests, their pods and containers, cores in use), all
    but the hour as shares of the cluster."""

    nodes: list = dataclasses.field(default_factory=list)
    """The same three shares of some nodes, a list for each."""

    @property
    def unserved(self):
        """Rejected guests and Pending pods."""
        return self.rejected + self.pending


class Node:
    __slots__ = ('free_mb', 'free_cpu', 'left_mb', 'left_cpu', 'wished',
                 'allocated', 'guests', 'past', 'timer')

    def __init__(self):
        # The guests' pod: free for guests. What is left: for containers.
        self.past = values.Past()
        self.timer = None

    @property
    def held_mb(self):
        return max(self.wished.memory_mb, self.allocated.memory_mb)


class Cluster:
    """:param room: values.Room that is allocatable on each node"""

    def __init__(self, rule, nodes, room):
        self.rule = rule
        self.room = room
        self.nodes = [self._new(rule, room) for _ in range(nodes)]
        self._start = 0
        self._events = []
        self._number = itertools.count()
        self._waiting = {}
        self.result = Result(nodes=[[] for _ in range(SHOWN)])

    def _new(self, rule, room):
        node = Node()
        if rule.pool:
            share = room
        elif rule.settings:
            share = rule.settings.smallest
        else:
            share = values.Room(int(room.memory_mb * rule.split),
                                int(room.cpu_millicores * rule.split))
        node.wished = node.allocated = share
        node.guests = values.Room()
        node.free_mb, node.free_cpu = share
        node.left_mb = room.memory_mb - share.memory_mb
        node.left_cpu = room.cpu_millicores - share.cpu_millicores
        return node

    def run(self, arrivals, seconds, sample_every):
        now, result = float('-inf'), self.result
        comes = iter(arrivals)
        following = next(comes, None)
        sample_at = sample_every
        for node in self.nodes:
            self._decide(arrivals[0].at, node)
        while True:
            event_at = self._events[0][0] if self._events else seconds
            at = min(event_at, following.at if following else seconds,
                     seconds)
            while sample_at <= at:
                self._sample(sample_at)
                sample_at += sample_every
            now = at
            if now >= seconds:
                break
            if following and following.at <= event_at:
                self._arrive(following, now)
                following = next(comes, None)
            else:
                _, _, what, args = heapq.heappop(self._events)
                what(now, *args)
        for since, _ in self._waiting.values():
            result.never += 1
            result.late += now - since > 300
            result.longest = max(result.longest, now - since)
        count = len(result.samples)
        result.memory = sum(each[1] + each[3] for each in result.samples) / (
            count)
        result.cores = sum(each[4] for each in result.samples) / count
        return result

    def _later(self, at, what, *args):
        heapq.heappush(self._events, (at, next(self._number), what, args))

    def _arrive(self, arrival, now):
        if arrival.guest:
            self._boot(arrival, now)
        else:
            self.result.pods += now > 0
            node = self._find(arrival.memory_mb, arrival.cpu_millicores,
                              not self.rule.pool)
            if node:
                self._start_pod(node, arrival, now)
                return
            key = next(self._number)
            self._waiting[key] = now, arrival
            self.result.pending += now > 0

    def _find(self, mb, cpu, left):
        """The emptiest node that fits, of some; None where none fits.

        :param left: of what is the containers', or of the guests'
        """
        nodes, best, best_mb, seen = self.nodes, None, -1, 0
        count = len(nodes)
        start = self._start = (self._start + LOOKS) % count
        for i in range(start - count, start):
            node = nodes[i]
            if left:
                has_mb, has_cpu = node.left_mb, node.left_cpu
            else:
                has_mb, has_cpu = node.free_mb, node.free_cpu
            if has_mb >= mb and has_cpu >= cpu:
                seen += 1
                if has_mb > best_mb:
                    best, best_mb = node, has_mb
                if seen >= LOOKS:
                    break
        return best

    def _boot(self, arrival, now):
        self.result.guests += now > 0
        mb, cpu = arrival.memory_mb, arrival.cpu_millicores
        node = self._find(mb, cpu, False)
        if not node:
            self.result.rejected += now > 0
            return
        self._use(node, mb, cpu)
        node.guests = node.guests.plus((mb, cpu))
        self._later(now + arrival.life, self._delete, node, mb, cpu)
        self._decide(now, node)

    def _delete(self, now, node, mb, cpu):
        self._use(node, -mb, -cpu)
        node.guests = node.guests.minus((mb, cpu))
        self._decide(now, node)
        if self.rule.pool:
            self._try(node, now)

    def _use(self, node, mb, cpu):
        node.free_mb -= mb
        node.free_cpu -= cpu

    def _start_pod(self, node, arrival, now):
        mb, cpu = arrival.memory_mb, arrival.cpu_millicores
        self._take(node, mb, cpu)
        self._later(now + arrival.life, self._end_pod, node, mb, cpu)
        self._changed(now, node)

    def _take(self, node, mb, cpu):
        if self.rule.pool:
            self._use(node, mb, cpu)
        else:
            node.left_mb -= mb
            node.left_cpu -= cpu

    def _end_pod(self, now, node, mb, cpu):
        self._take(node, -mb, -cpu)
        self._try(node, now)
        self._changed(now, node)

    def _try(self, node, now):
        """Pending pods, oldest first, on a node with more room."""
        for key, (since, arrival) in list(itertools.islice(
                self._waiting.items(), MOST)):
            has_mb, has_cpu = ((node.free_mb, node.free_cpu)
                               if self.rule.pool else
                               (node.left_mb, node.left_cpu))
            if has_mb < 64:
                return
            if has_mb >= arrival.memory_mb and (
                    has_cpu >= arrival.cpu_millicores):
                del self._waiting[key]
                self.result.late += now - since > 300
                self.result.longest = max(self.result.longest, now - since)
                self._start_pod(node, arrival, now)

    # The boundary moves

    def _changed(self, now, node):
        """The containers of a node are others."""
        settings = self.rule.settings
        if self.rule.knows and (
                node.left_mb < settings.spare.memory_mb or
                node.left_cpu < settings.spare.cpu_millicores or
                node.past.headroom != settings.headroom):
            self._decide(now, node)

    def _decide(self, now, node):
        if not self.rule.settings:
            return
        free = None
        if self.rule.knows:
            free = values.Room(max(0, node.left_mb), max(0, node.left_cpu))
        pod = values.Pod(node.wished, node.allocated, node.allocated,
                         values.DEFERRED if node.wished != node.allocated
                         else None)
        made = wish.decide(self.rule.settings, node.guests, pod,
                           values.Node(free), node.past, now)
        node.past = made.past
        if made.room != node.wished:
            self._resize(now, node, made.room)
        if made.again is not None and (
                node.timer is None or made.again < node.timer):
            node.timer = made.again
            self._later(node.timer, self._timer, node)

    def _timer(self, now, node):
        if node.timer == now:
            node.timer = None
            self._decide(now, node)

    def _resize(self, now, node, room):
        self.result.resizes += now > 0
        # The scheduler counts the larger of wish and allocation; it hears of
        # a growth at once, and Nova of a shrink.
        before = node.wished.most(node.allocated)
        node.wished = room
        after = room.most(node.allocated)
        node.left_mb -= after.memory_mb - before.memory_mb
        node.left_cpu -= after.cpu_millicores - before.cpu_millicores
        self._tell_nova(node)
        self._later(now + RESIZE, self._grant, node)

    def _grant(self, now, node):
        """The kubelet: all of a wish or nothing."""
        before = node.wished.most(node.allocated)
        if node.left_mb < 0 or node.left_cpu < 0:
            # Deferred. It tries again as pods end.
            self._later(now + 10, self._grant, node)
            return
        if node.allocated == node.wished:
            return
        node.allocated = node.wished
        node.left_mb += before.memory_mb - node.wished.memory_mb
        node.left_cpu += before.cpu_millicores - node.wished.cpu_millicores
        self._tell_nova(node)
        self._try(node, now)
        self._decide(now, node)

    def _tell_nova(self, node):
        sure = node.wished.least(node.allocated)
        node.free_mb = sure.memory_mb - node.guests.memory_mb
        node.free_cpu = sure.cpu_millicores - node.guests.cpu_millicores

    def _sample(self, now):
        total_mb = len(self.nodes) * self.room.memory_mb
        total_cpu = len(self.nodes) * self.room.cpu_millicores
        guests = sum(node.guests.memory_mb for node in self.nodes)
        guests_cpu = sum(node.guests.cpu_millicores for node in self.nodes)
        if self.rule.pool:
            free = sum(node.free_mb for node in self.nodes)
            free_cpu = sum(node.free_cpu for node in self.nodes)
            pods = guests
            containers = total_mb - free - guests
            cpu = total_cpu - free_cpu
        else:
            pods = sum(node.allocated.memory_mb for node in self.nodes)
            taken = sum(node.held_mb for node in self.nodes)
            containers = total_mb - taken - sum(
                node.left_mb for node in self.nodes)
            cpu = guests_cpu + total_cpu - sum(
                node.wished.most(node.allocated).cpu_millicores
                for node in self.nodes) - sum(
                node.left_cpu for node in self.nodes)
        whole = self.room.memory_mb
        for one, samples in zip(self.nodes, self.result.nodes):
            samples.append((
                now / 3600, one.guests.memory_mb / whole,
                one.allocated.memory_mb / whole,
                (whole - one.held_mb - one.left_mb) / whole))
        self.result.samples.append((
            now / 3600, guests / total_mb, pods / total_mb,
            containers / total_mb, cpu / total_cpu))
