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

"""What guests and others take of the memory limit, in one place.

Everything about the ledger happens under the lock of Nova's claims and audits
(claims.locked()): between them the accounts are whole.
"""

import collections
import time

from nova_k8s.accounting import claims
from nova_k8s.accounting import instance_overhead
from nova_k8s.accounting import ledger as ledgers
from nova_k8s.accounting import summary
from nova_k8s.limits import budget

# Seconds between measurements, and while others than guests come to use more
# or less.
MEASURE_EVERY, MEASURE_SOON = 60, 5


class Accounts:
    """Says what is reserved, and whether one more guest fits.

    :param conf: nova.conf.CONF
    :param overhead: instance_overhead.InstanceOverhead
    :param reserve: pod_reserve.PodReserve
    :param limit_mb: returns the memory that guests and others may use
        together, in MiB; None without a limit
    :param changed: called when what is to be reserved may be other than
        before; must not block
    :param closed: returns whether no new guests may come, whatever the limit
    :param drained: returns why this node takes none, or None
    :param start_limit_mb: as limit_mb, for guests that are here and are
        started; the same where it is not given
    :param pages_mb: returns the MiB of huge pages that guests may use
        together, by page size in KiB; None where that is not known
    """

    def __init__(self, conf, overhead, reserve, limit_mb, changed,
                 closed=lambda: False, drained=lambda: None,
                 start_limit_mb=None, pages_mb=lambda: None):
        self._conf = conf
        self._reserve = reserve
        self._limit_mb = limit_mb
        self._start_limit_mb = start_limit_mb or limit_mb
        self._pages_mb = pages_mb
        self._closed = closed
        self._drained = drained
        self._changed = changed
        self._ledger = ledgers.Ledger()
        self._overhead = overhead
        # How often guests were refused, by what was asked for.
        self.refused = collections.Counter()
        self._guests_due = 0

    def follow(self, tracker, used_mb):
        """Have guests counted and claims asked for, as Nova does both.

        :param tracker: Nova's resource tracker
        :param used_mb: returns the MEMORY_MB that is reserved or allocated
        """
        claims.guard(tracker, self.admit)
        claims.follow(tracker, self._ledger, self._overhead, used_mb)
        claims.count_no_refusals(tracker)

    @property
    def others_mb(self):
        """What is kept for what runs in the pod besides guests, in MiB."""
        return self._reserve.mb

    def reserved_mb(self):
        """What must be reserved of MEMORY_MB."""
        return ledgers.reserved_mb(
            self._ledger.needs(time.monotonic()), self._reserve.mb,
            self._conf.kubernetes.reserve_ahead)

    def summary(self):
        """Return the summary.Summary of now."""
        return summary.make(self.needs(), self._reserve.mb,
                            self._conf.kubernetes.reserve_ahead,
                            self._pages_mb())

    def needs(self):
        """The Need of each guest that is here or on its way."""
        return claims.locked(self._ledger.needs, time.monotonic())

    def guests(self, vcpus_used):
        """Return (needs, VCPU) of all guests, as of one moment.

        While Nova counts them anew, both would be those of some.

        :param vcpus_used: returns how many VCPU Nova has counted
        :returns: None before Nova has counted them all once
        """
        return claims.locked(self._guests, vcpus_used)

    def _guests(self, vcpus_used):
        if not self._ledger.complete:
            return None
        return self._ledger.needs(time.monotonic()), vcpus_used()

    def held_bytes(self):
        """Memory that a shrink of the pod must not take.

        What guests may use, and what is kept for others beside them. 0 where
        there is no guest, None before all are counted.
        """
        if not self._ledger.complete:
            return None
        used_mb = ledgers.used_mb(self.needs())
        return used_mb and (used_mb + self._reserve.mb) * budget.MIB

    def allocated_mb(self):
        """The MEMORY_MB that Placement has for guests here."""
        return sum(need.allocated_mb
                   for need in self._ledger.needs(time.monotonic()))

    def largest(self):
        """Return (VCPU, MEMORY_MB) of the largest allocations here."""
        return ledgers.largest(self._ledger.needs(time.monotonic()))

    def admit(self, claim):
        """Return why a claim cannot be met, or None; see claims.guard()."""
        return self._count('claim', self._find_refusal(
            *self._overhead.of_claim(claim)))

    def hold(self, instance):
        """Keep room for a guest that comes by live migration.

        Nova claims nothing for it.

        :returns: why there is no room, or None
        """
        return self._count('live migration',
                           claims.locked(self._hold, instance))

    def _hold(self, instance):
        need = self._need_of(instance)
        reason = self._find_refusal(need, instance.uuid)
        if not reason:
            self._ledger.hold(
                instance.uuid, need,
                time.monotonic() + instance_overhead.hold_time(
                    self._conf.update_resources_interval))
            self._changed()
        return reason

    def start(self, instance, running):
        """Count a stopped guest as running, where there is room for it.

        Nova claims nothing when it starts one: it was counted all the time.
        But while a limit is below what guests may use together, those that
        run leave no room for all the others.

        :param running: the UUIDs of the guests that run
        :returns: why there is no room, or None
        """
        return self._count('start', claims.locked(self._start, instance,
                                                  running))

    def _start(self, instance, running):
        now = time.monotonic()
        need = self._need_of(instance)
        # What another start has just been given counts, and what Nova is
        # building too.
        rest = self._ledger.stopped(now) - set(running)
        reason = self._compare(
            self._start_limit_mb(),
            self._ledger.needs(now, rest | {instance.uuid}), need)
        if not reason:
            until = now + instance_overhead.hold_time(
                self._conf.update_resources_interval)
            self._ledger.start(instance.uuid, until)
            # After the machine has booted, before the first audit, no guest
            # is counted.
            self._ledger.hold(instance.uuid, need, until)
        return reason

    def forget_volumes(self, uuid):
        """Have a guest's volumes counted anew by the next audit."""
        self._overhead.forget(uuid)

    def release(self, uuid):
        """Give up the room that is kept for a guest."""
        claims.locked(self._ledger.release, uuid)
        self._changed()

    def use(self):
        """Return (MiB in use, MiB of stopped guests), as last counted."""
        return claims.locked(self._use)

    def _use(self):
        now = time.monotonic()
        running_mb = ledgers.used_mb(
            self._ledger.needs(now, self._ledger.stopped(now)))
        all_mb = ledgers.used_mb(self._ledger.needs(now))
        return self._reserve.mb + running_mb, all_mb - running_mb

    def measure(self):
        """Look what others and guests use. Does I/O.

        :returns: seconds until the next look
        """
        # None before the first audit: what Nova has not counted yet.
        moves = self._reserve.measure(
            claims.locked(self._ledger.uuids) or None)
        # Those of guests take the kernel long, and move little.
        if time.monotonic() >= self._guests_due:
            self._guests_due = time.monotonic() + MEASURE_EVERY
            self._overhead.measure(self._ledger, claims.locked)
        return MEASURE_SOON if moves else MEASURE_EVERY

    def _count(self, what, reason):
        if reason:
            self.refused[what] += 1
        return reason

    def overheads_mb(self):
        """Return what guests were estimated to cost, and seen to, in MiB.

        Of those that were seen.
        """
        return claims.locked(self._ledger.overheads_mb)

    def _find_refusal(self, need, without):
        drained = self._drained()
        if drained:
            return drained
        if self._closed():
            return ('the pod of the limits is being deleted: nothing new is '
                    'placed on this compute node')
        return self._compare(
            self._limit_mb(), self._ledger.needs(time.monotonic(), {without}),
            need)

    def _compare(self, limit_mb, needs, need):
        return (claims.find_refusal(limit_mb, self._reserve.mb, needs, need) or
                claims.find_pages_refusal(self._pages_mb(), needs, need))

    def _need_of(self, instance):
        return self._overhead(instance, instance.flavor,
                              numa_topology=self._topology_of(instance))

    @staticmethod
    def _topology_of(instance):
        return instance.numa_topology
