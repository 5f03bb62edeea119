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

"""Which guests take how much of the memory limit: kept as Nova counts them.

Imports no Nova. Whoever calls holds Nova's lock on the node's resources.
"""

import collections
import dataclasses


class Ledger:
    """The overhead.Need of every guest that is here or on its way here.

    A guest may be in it more than once: while it is resized on its node, Nova
    keeps room for both of its sizes.
    """

    def __init__(self):
        # Whether Nova has counted all guests once.
        self.complete = False
        self._counted = {}
        self._held = {}
        self._measured = {}
        # Stopped guests, and until when those that were started since count
        # as running whatever Nova's audit has read before.
        self._stopped = frozenset()
        self._started = {}

    def clear(self):
        """Forget what was counted: Nova is about to count again.

        :returns: what restore() takes, should Nova not come to its end
        """
        before = self._counted, dict(self._held)
        self._counted = {}
        return before

    def restore(self, before):
        """Know again what clear() forgot, and nothing since."""
        self._counted, self._held = before

    def add(self, uuid, need):
        self._counted.setdefault(uuid, []).append(need)
        # From now on Nova counts it itself.
        self._held.pop(uuid, None)

    def remove(self, uuid, need):
        """Take back what add() was told; what is not there is no matter."""
        needs = self._counted.get(uuid, [])
        if need in needs:
            needs.remove(need)
        elif needs:
            # Its size was counted with other settings, or never.
            needs.pop()
        if not needs:
            self._counted.pop(uuid, None)

    def hold(self, uuid, need, until):
        """Keep room for a guest that Nova does not count yet.

        :param until: the time at which it is given up, as from now in
            needs()
        """
        if uuid not in self._counted:
            self._held[uuid] = (need, until)

    def release(self, uuid):
        """Give up what is held for a guest."""
        self._held.pop(uuid, None)

    def holds(self, uuid):
        return uuid in self._held

    def stop(self, uuids):
        """Know which of the guests do not run, as Nova has just read it."""
        self._stopped = frozenset(uuids)

    def start(self, uuid, until):
        """Count a guest as running that is about to.

        :param until: the time after which Nova will have read it
        """
        self._started[uuid] = until

    def stopped(self, now):
        """Return the UUIDs of guests that do not run, at the time now."""
        self._started = {uuid: until for uuid, until in self._started.items()
                         if until > now}
        return self._stopped & self._counted.keys() - self._started.keys()

    def uuids(self):
        """Of all guests that are counted or held."""
        return {*self._counted, *self._held}

    def measure(self, measured):
        """Take what guests were seen to cost, in MiB by UUID.

        What a guest was seen to cost once, it may cost again, while it needs
        the same.

        :returns: the UUIDs that cost more than it was thought
        """
        known = {uuid: (need, mb)
                 for uuid, (need, mb) in self._measured.items()
                 if need in self._counted.get(uuid, ())}
        more = []
        for uuid, mb in measured.items():
            needs = set(self._counted.get(uuid, ()))
            if len(needs) != 1:
                # Gone, or resized here: it is not told which size it has.
                continue
            need, = needs
            before = known.get(uuid, (need, 0))[1]
            if mb > max(before, need.overhead_mb):
                more.append(uuid)
            known[uuid] = need, max(mb, before)
        self._measured = known
        return more

    def overheads_mb(self):
        """Return (estimated, measured), summed over those measured."""
        return (sum(need.overhead_mb for need, _ in self._measured.values()),
                sum(mb for _, mb in self._measured.values()))

    def estimate_mb(self, uuid):
        """What a counted guest was thought to cost."""
        return max(each.overhead_mb for each in self._counted[uuid])

    def memory_mb(self, uuid):
        """The memory of a counted guest, None where it is not counted."""
        needs = self._counted.get(uuid)
        return max(each.memory_mb for each in needs) if needs else None

    def needs(self, now, without=()):
        """Return the Need of each guest, at the time now.

        :param without: the UUIDs of guests that do not count
        """
        self._held = {uuid: held for uuid, held in self._held.items()
                      if held[1] > now}
        found = [self._larger(uuid, need)
                 for uuid, needs in self._counted.items()
                 if uuid not in without
                 for need in needs]
        return found + [need for uuid, (need, _) in self._held.items()
                        if uuid not in without]

    def _larger(self, uuid, need):
        seen, measured = self._measured.get(uuid, (None, 0))
        if seen != need or measured <= need.overhead_mb:
            return need
        return dataclasses.replace(need, overhead_mb=measured)


def largest(needs):
    """Return (VCPU, MEMORY_MB) of the largest allocations among guests."""
    return (max((need.vcpus for need in needs), default=0),
            max((need.allocated_mb for need in needs), default=0))


def used_mb(needs):
    """What guests take of the memory limit."""
    return sum(need.total_mb for need in needs)


def huge_mb(needs):
    """Return what guests take of huge pages, in MiB by page size in KiB."""
    found = collections.Counter()
    for need in needs:
        found.update(dict(need.huge))
    return found


def reserved_mb(needs, others_mb, ahead):
    """Return what must be reserved of MEMORY_MB.

    :param others_mb: what other users of the pod take
    :param ahead: how many guests of the most costly kind are thought of that
        Placement may have allocated before the node hears of them
    """
    beyond = [need.reserved_mb for need in needs]
    return others_mb + sum(beyond) + ahead * max(beyond, default=0)
