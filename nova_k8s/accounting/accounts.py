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

import time

from oslo_log import log as logging

from nova_k8s.accounting import claims
from nova_k8s.accounting import instance_overhead
from nova_k8s.accounting import ledger as ledgers

LOG = logging.getLogger(__name__)


class Accounts:
    """Says what is reserved, and whether one more guest fits.

    :param conf: nova.conf.CONF
    :param overhead: instance_overhead.InstanceOverhead
    :param reserve: pod_reserve.PodReserve
    :param limit_mb: returns the memory that guests and others may use
        together, in MiB; None without a limit
    :param changed: called when what is to be reserved may be other than
        before; must not block
    :param closed: returns why no guest may come, whatever room there is, or
        None
    """

    def __init__(self, conf, overhead, reserve, limit_mb, changed,
                 closed=lambda: None):
        self._conf = conf
        self._reserve = reserve
        self._limit_mb = limit_mb
        self._changed = changed
        self._closed = closed
        self._ledger = ledgers.Ledger()
        self._overhead = overhead

    def follow(self, tracker):
        """Have guests counted and claims asked for, as Nova does both.

        :param tracker: Nova's resource tracker
        """
        claims.guard(tracker, self.admit)
        claims.follow(tracker, self._ledger, self._overhead)
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

    def admit(self, claim):
        """Return why a claim cannot be met, or None; see claims.guard()."""
        return self._find_refusal(*self._overhead.of_claim(claim))

    def hold(self, instance):
        """Keep room for a guest that comes by live migration.

        Nova claims nothing for it.

        :returns: why there is no room, or None
        """
        return claims.locked(self._hold, instance)

    def _hold(self, instance):
        need = self._overhead(instance, instance.flavor)
        reason = self._find_refusal(need, instance.uuid)
        if not reason:
            self._ledger.hold(
                instance.uuid, need,
                time.monotonic() + instance_overhead.hold_time(
                    self._conf.update_resources_interval))
            self._changed()
        return reason

    def release(self, uuid):
        """Give up the room that is kept for a guest."""
        claims.locked(self._ledger.release, uuid)
        self._changed()

    def measure(self):
        """Look what others and guests use. Does I/O."""
        # None before the first audit: what Nova has not counted yet.
        self._reserve.measure(claims.locked(self._ledger.uuids) or None)
        self._overhead.measure(self._ledger, claims.locked)

    def _find_refusal(self, need, without):
        return self._closed() or claims.find_refusal(
            self._limit_mb(), self._reserve.mb,
            self._ledger.needs(time.monotonic(), without), need)
