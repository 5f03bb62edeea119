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

"""Handing the CPUs of the guests' pod to Nova, and following them.

Nova reads ``[compute] cpu_shared_set`` and ``cpu_dedicated_set`` at each use,
and all of it follows them: what it counts, fits, pins and migrates. So they
are set here, before it looks first, where the operator has set neither.
"""

import dataclasses
import functools
import time

from oslo_log import log as logging

from nova_k8s.accounting import claims
from nova_k8s.confinement import cpuset
from nova_k8s.confinement import guests_pod
from nova_k8s import errors
from nova_k8s.inventory import cpus
from nova_k8s.inventory import numa
from nova_k8s.inventory import pinning
from nova_k8s.limits import messages
from nova_k8s.util import cpulist
from nova_k8s.util import worker

LOG = logging.getLogger(__name__)

# Seconds between two looks at the cgroup, and between two at where guests
# are: one may have come from another node while the set changed.
EVERY, GUESTS_EVERY = 0.5, 60


def preview(conf, budget, pinned=frozenset(), reader=None, layout=None):
    """Return (seen, sets, problems), as a start of nova-compute would.

    Without Nova's database: what guests are pinned to is for others to say.

    :param conf: nova.conf.CONF
    :param budget: budget.Budget, or None
    :param pinned: the CPUs that guests are pinned to
    :param layout: the numa.Layout of the machine; None for this one
    :raises errors.Refused: when an option that names CPUs is malformed
    """
    found = CpuSets(conf, None, reader or cpuset.Reader(),
                    budget=lambda: budget, layout=layout)
    return found.preview(pinned)


@dataclasses.dataclass(frozen=True)
class Pod:
    """The guests' pod, as far as its CPUs are concerned."""

    seen: cpuset.Seen = None
    missing: tuple = ()
    """Why its CPUs are not its own alone."""


def from_conf(conf, host, source, budget):
    """Return the CpuSets.

    :param conf: nova.conf.CONF
    :param source: of the limits, those of the guests' pod; None without one
    :param budget: returns the present budget.Budget, or None
    """
    if not source:
        return CpuSets(conf, host, budget=budget)
    return CpuSets(conf, host, cpuset.Reader(), source.latest, budget)


class CpuSets:
    """Keeps Nova's sets of CPUs those of the guests' pod.

    :param conf: nova.conf.CONF
    :param host: [DEFAULT] host
    :param reader: cpuset.Reader; None where there is no guests' pod
    :param latest: returns the guests' pod as a dict, or None, from memory;
        raises errors.LimitsError where that is not known
    :param budget: returns the present budget.Budget, or None
    :param layout: the numa.Layout of the machine; None for this one
    :ivar sets: the cpus.Sets that Nova has; None where it has its own
    :ivar seen: the cpuset.Seen that is known last, or None
    """

    def __init__(self, conf, host, reader=None, latest=lambda: None,
                 budget=lambda: None, layout=None):
        self._conf = conf
        self._host = host
        self._reader = reader
        self._latest = latest
        self._budget = budget
        self._given_layout = layout
        self.sets = self.seen = self._operator = None
        self._pod = Pod()
        self._off = conf.kubernetes.cpus == cpus.OFF
        self._overriding = False
        self._container = None
        # See connect().
        self._tracker = None
        self._topology = self._move = lambda *args: None
        self._tell = self._changed = self._renamed = lambda *args: None
        self._move_at = 0
        self._worker = worker.Worker('nova-k8s-cpus', self._step)
        self.wake = self._worker.wake

    @functools.cached_property
    def _layout(self):
        # Only where it is asked for: most nodes have no use for it.
        return (numa.read() if self._given_layout is None
                else self._given_layout)

    def begin(self, compute_nodes=()):
        """Hand the sets to Nova, before it looks.

        :param compute_nodes: the objects.ComputeNode that Nova has
        :raises errors.Refused: when they cannot be what the options ask for
        """
        wished = self._conf.kubernetes.cpus
        self._pod = self._look()
        self.seen = self._pod.seen
        self._operator = pinning.operator_sets(self._conf)
        if self._off:
            return
        if self._operator:
            problem = self.seen and cpus.outside(*self._operator, self.seen)
            if problem:
                raise errors.Refused(problem)
        elif wished == cpus.SHARED and not self.seen:
            # There is nothing to hand over; it may come.
            return
        guests = pinning.find(self._host, compute_nodes)
        if not self._operator:
            self._check(wished, guests, bool(compute_nodes))
        self._adopt(self._decide(guests.cpus))

    def preview(self, pinned):
        """See preview()."""
        self._pod = self._look()
        self.seen = self._pod.seen
        self._operator = pinning.operator_sets(self._conf)
        wished, problems = self._conf.kubernetes.cpus, []
        if not self._off and self.seen:
            if self._operator:
                problems.append(cpus.outside(*self._operator, self.seen))
            elif wished == cpus.DEDICATED:
                problems += (f'[kubernetes] cpus = dedicated: {each}'
                             for each in self._pod.missing)
            elif pinned:
                self._off = True
                problems.append('[kubernetes] cpus = shared is off: guests '
                                'are pinned to CPUs')
        sets = self._decide(pinned) if self.seen or self._operator else None
        return self.seen, sets, [each for each in problems if each]

    def connect(self, tracker, topology, move, tell, changed, renamed):
        """Say whom to tell, once all is made.

        :param tracker: Nova's resource tracker, or None
        :param topology: returns the objects.NUMATopology of now, or None
        :param move: called with (shared, pinned, nodes), see affinity.find();
            does I/O
        :param tell: called with a messages.Line
        :param changed: called when Placement is to be told
        :param renamed: called when the container of the pod is another one
        """
        self._tracker, self._topology = tracker, topology
        self._move, self._tell = move, tell
        self._changed, self._renamed = changed, renamed
        if tracker:
            pinning.refresh_in_audits(tracker, topology)

    @property
    def mems(self):
        """The NUMA nodes whose memory the pod may use; None for all."""
        return self.seen.mems if self.seen else None

    def start(self):
        if not self._reader:
            return
        self._worker.wake()
        self._worker.start()

    def stop(self):
        self._worker.stop()
        if self._overriding:
            for name in ('cpu_shared_set', 'cpu_dedicated_set'):
                self._conf.clear_override(name, group='compute')
            self._overriding = False

    def _check(self, wished, guests, known=False):
        """Refuse what Nova would end the start for, or turn it off.

        A node that Nova knows starts closed while its pod is not there.
        """
        reserved = self._conf.reserved_host_cpus
        if wished == cpus.SHARED:
            why = ('guests are here that Nova has pinned to CPUs, and their '
                   'CPUs cannot be shared' if guests.pinned else
                   f'reserved_host_cpus = {reserved} is set, which Nova '
                   f'refuses beside a set' if reserved else None)
            if why:
                self._off = True
                LOG.warning(
                    '[kubernetes] cpus = shared is off: %s. The kernel holds '
                    'guests to the CPUs of the guests\' pod (%s), and Nova '
                    'does not know it. Set cpus = dedicated or off.', why,
                    cpulist.render(self.seen.cpus))
            return
        if self._pod.missing and not guests.pinned and (
                self.seen or not known):
            raise errors.Refused(
                f'[kubernetes] cpus = dedicated needs a guests\' pod with '
                f'CPUs of its own: {"; ".join(self._pod.missing)}; or set '
                f'cpus = shared')
        if reserved:
            raise errors.Refused(
                f'[kubernetes] cpus = dedicated and reserved_host_cpus = '
                f'{reserved} are set, which Nova refuses; unset '
                f'reserved_host_cpus')
        if guests.floating and not self._conf.kubernetes.cpus_shared:
            raise errors.Refused(
                '[kubernetes] cpus = dedicated: guests are here that have no '
                'CPUs of their own, and none are kept for them; set '
                '[kubernetes] cpus_shared')

    def _look(self):
        """Return the Pod of now. Does I/O."""
        if not self._reader:
            return Pod(None, ('there is none: set [kubernetes] guests_pod',))
        try:
            body = self._latest()
        except errors.LimitsError:
            body = None
        container = body and guests_pod.record(body).get('container')
        if container and container != self._container:
            self._container = container
            self._renamed()
        seen = self._reader.look(body)
        budget = self._budget()
        qos = ((body or {}).get('status') or {}).get('qosClass')
        return Pod(seen, tuple(cpus.find_missing(
            seen, qos, budget and budget.cpu_millicores)))

    def _decide(self, pinned):
        """Return the Sets of now, None for Nova's own."""
        seen = self.seen
        if self._off:
            return None
        if self._operator:
            return cpus.of_operator(*self._operator, seen)
        if self._conf.kubernetes.cpus == cpus.SHARED:
            return cpus.for_shared(seen)
        own = frozenset() if self._pod.missing else seen.cpus
        return cpus.for_dedicated(own, self._conf.kubernetes.cpus_shared,
                                  pinned, self.sets, self._layout.cores)

    def _adopt(self, sets):
        if sets and not self._operator:
            for name, numbers in (('cpu_shared_set', sets.shared),
                                  ('cpu_dedicated_set', sets.dedicated)):
                self._conf.set_override(
                    name, cpulist.render(numbers) or None, group='compute')
            self._overriding = True
        self.sets = sets

    def _step(self):
        try:
            self.follow()
        except Exception:
            # Nothing may end this thread: nobody would notice.
            LOG.exception('Could not follow the CPUs of the guests\' pod')
        return EVERY

    def follow(self):
        """Have Nova know what the pod has now. Does I/O."""
        pod = self._look()
        if not pod.seen:
            # Between two containers, say: what was known still holds.
            pod = dataclasses.replace(self._pod, seen=self.seen)
        if pod != self._pod or self._may_forget():
            before = self.sets
            if claims.locked(self._follow, pod):
                self._changed()
                self._say(before)
                self._move_at = 0
        if self.sets and time.monotonic() >= self._move_at:
            self._move_at = time.monotonic() + GUESTS_EVERY
            self._move(self.sets.shared - self.sets.lost,
                       self.sets.dedicated,
                       {each.id: each.cpus for each in self._layout.nodes})

    def _compute_nodes(self):
        return list(self._tracker.compute_nodes.values()) if (
            self._tracker) else []

    def _may_forget(self):
        """Whether a guest has left a CPU that was kept for it."""
        if not self.sets or self._operator or not self.sets.lost:
            return False
        pinned = frozenset().union(*(
            pinning.pinned_cpus(each.numa_topology)
            for each in self._compute_nodes()))
        return bool(self.sets.lost & self.sets.dedicated - pinned) and (
            self._decide(pinned) != self.sets)

    def _follow(self, pod):
        """Change all that Nova looks at; under the lock of its claims.

        :returns: whether anything is another now
        """
        nodes = self._compute_nodes()
        self._pod, known = pod, self.seen
        self.seen = pod.seen
        if not self.seen:
            return False
        guests = pinning.find(self._host, nodes)
        if not known and not self._operator and not self._off and (
                self._conf.kubernetes.cpus == cpus.SHARED):
            self._check(cpus.SHARED, guests)
        sets = self._decide(guests.cpus)
        if sets == self.sets and known == self.seen:
            return False
        self._adopt(sets)
        for each in nodes:
            if not each.numa_topology:
                continue
            fresh = self._topology()
            text = fresh and pinning.with_usage(
                fresh, each.numa_topology)._to_json()
            if text != each.numa_topology:
                each.numa_topology = text
                each.save()
        return True

    def _say(self, before):
        sets = self.sets
        if not sets or sets == before:
            return
        has = _words(sets)
        lost = sets.lost
        if lost and lost != (before.lost if before else frozenset()):
            whose = ('the operator has named them in [compute]'
                     if self._operator else
                     'guests are pinned to them, or Nova knows no others')
            self._tell(messages.Line(
                messages.WARNING, 'CpusLost',
                f'The guests\' pod has lost CPUs {cpulist.render(lost)}, and '
                f'{whose}. The kernel has such guests on other CPUs of the '
                f'pod now, and nothing new is placed on these: move the '
                f'guests away, or give the CPUs back. '
                f'{" ".join((*self._pod.missing, has))}'))
        else:
            self._tell(messages.Line(messages.NORMAL, 'CpusFollowed', has))


def _words(sets):
    held = sets.dedicated - sets.lost
    return (
        f'Guests may share the CPUs '
        f'{cpulist.render(sets.shared - sets.lost) or "none"}'
        + (f', and have the CPUs {cpulist.render(held) or "none"} for '
           f'themselves.' if sets.dedicated else '.'))
