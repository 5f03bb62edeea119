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

"""Does one more guest fit? The decision, and its place in Nova.

Placement alone cannot tell: the scheduler allocates before the node hears of
a guest, and what a guest costs is reserved only after that. So the node has
the last word, in real MiB, whatever the allocation ratio.
"""

import functools
import threading

from nova.compute import claims
from nova.compute import resource_tracker
from nova.compute import vm_states
from nova import exception
from nova import objects
from nova import utils
from oslo_log import log as logging
from oslo_utils import excutils

from nova_k8s.accounting import ledger
from nova_k8s.accounting import overhead

LOG = logging.getLogger(__name__)

# Guests in these states have no QEMU, and no claim is made when they get one.
_STOPPED = (vm_states.STOPPED, vm_states.SUSPENDED)

# Set in a thread whose claim was refused here, see count_no_refusals().
_refused = threading.local()


def locked(function, *args):
    """Call it under the lock of Nova's claims and audits.

    :returns: what it returns
    """
    return utils.synchronized(resource_tracker.COMPUTE_RESOURCE_SEMAPHORE,
                              fair=True)(function)(*args)


def find_refusal(limit_mb, others_mb, needs, need):
    """Return why a guest does not fit, or None where it does.

    :param limit_mb: the memory that all may use; None says without limit
    :param others_mb: what other users of the pod take
    :param needs: the Need of each guest that has been admitted
    :param need: the Need of the one that has not
    """
    if limit_mb is None:
        return None
    if limit_mb < 1:
        return ('no limits of the pod are in force: nothing new is placed on '
                'this compute node')
    used_mb = ledger.used_mb(needs)
    free_mb = limit_mb - others_mb - used_mb
    if need.total_mb <= free_mb:
        return None
    return (
        f'the memory limit of the pod leaves {max(0, free_mb)} MiB: '
        f'{limit_mb} MiB less {others_mb} MiB for its other processes and '
        f'{used_mb} MiB for {len(needs)} guests; this one needs '
        f'{need.total_mb} MiB: {need.memory_mb} MiB of memory and '
        f'{need.overhead_mb} MiB that QEMU costs beyond')


def find_pages_refusal(pages_mb, needs, need):
    """Return why a guest has no room in huge pages, or None where it has.

    Beside find_refusal(): of what was counted for huge pages nothing is
    memory for others, and the other way round.

    :param pages_mb: the MiB that all may use by page size in KiB; None where
        that is not known
    :param needs: as for find_refusal()
    :param need: as for find_refusal()
    """
    if pages_mb is None or not need.huge:
        return None
    used = ledger.huge_mb(needs)
    # Those whose size is not chosen yet may be of any.
    whole = [('huge pages', sum(pages_mb.values()), sum(used.values()),
              need.huge_mb)]
    for what, has_mb, used_mb, wanted_mb in whole + [
            (f'huge pages of {size_kb} KiB', pages_mb.get(size_kb, 0),
             used[size_kb], mb)
            for size_kb, mb in need.huge if size_kb != overhead.ANY_HUGE]:
        if used_mb + wanted_mb > has_mb:
            return (
                f'the limit of the pod leaves {max(0, has_mb - used_mb)} MiB '
                f'in {what}: guests may use {has_mb} MiB of them and have '
                f'{used_mb} MiB; this one needs {wanted_mb} MiB')
    return None


def guard(tracker, admit):
    """Have every claim of a resource tracker ask admit() as well.

    Nova constructs a claims.Claim, or the MoveClaim that inherits from it,
    for every boot, unshelve, resize, cold migration and evacuation, and for
    live migrations with a NUMA topology, while it holds the resource
    tracker's lock. The constructor calls _claim_test(), which raises
    ComputeResourcesUnavailable: then nothing has been counted, and Nova tries
    another host where there is one. Nova has no narrower place that sees them
    all, and no extension point. Claims of other trackers are left alone.

    :param admit: called with the claim; returns why it cannot be met, or None
    """
    tracker.nova_k8s_admit = admit
    stock = claims.Claim._claim_test
    if getattr(stock, 'asks_the_tracker', False):
        return

    @functools.wraps(stock)
    def claim_test(self, compute_node, limits=None):
        _refused.here = False
        stock(self, compute_node, limits)
        admit = getattr(self.tracker, 'nova_k8s_admit', None)
        reason = admit and admit(self)
        if reason:
            _refused.here = True
            LOG.info('Failed to claim: %s', reason, instance=self.instance)
            raise exception.ComputeResourcesUnavailable(reason=reason)

    claim_test.asks_the_tracker = True
    claims.Claim._claim_test = claim_test


def follow(tracker, ledger, need_of, used_mb):
    """Keep a ledger as Nova's resource tracker counts.

    The tracker adds and subtracts what each guest uses with _update_usage(),
    given what _get_usage_dict() made of an instance or of a flavor that it is
    resized to; an audit begins again with _update_usage_from_instances(). All
    of it happens under the tracker's lock. What is kept with tracker in
    tracked_instances and tracked_migrations is not enough: confirming a
    resize on the same host takes an instance out of both, until the next
    audit.

    The record of the compute node, which the hypervisors API shows, would
    begin with what Nova's option reserves and know only the guests' memory.
    It gets what Placement has: all that is reserved or allocated.

    :param need_of: called with instance, flavor and numa_topology, returns an
        overhead.Need
    :param used_mb: returns the MEMORY_MB that is reserved or allocated
    """
    count = tracker._update_usage
    usage_of = tracker._get_usage_dict
    known, counting = None, False

    def get_usage_dict(object_or_dict, instance, **updates):
        usage = usage_of(object_or_dict, instance, **updates)
        flavor = (object_or_dict if isinstance(object_or_dict, objects.Flavor)
                  else instance.flavor)
        usage['nova_k8s'] = (instance.uuid, need_of(
            instance, flavor, numa_topology=usage.get('numa_topology')))
        return usage

    def update_usage(usage, nodename, sign=1):
        count(usage, nodename, sign=sign)
        change = ledger.add if sign > 0 else ledger.remove
        change(*usage['nova_k8s'])
        if not counting:
            tell_used(nodename)

    def tell_used(nodename):
        compute_node = tracker.compute_nodes[nodename]
        compute_node.memory_mb_used = used_mb()
        compute_node.free_ram_mb = (
            compute_node.memory_mb - compute_node.memory_mb_used)

    def or_as_before(stock):
        @functools.wraps(stock)
        def audit(*args):
            try:
                return stock(*args)
            except Exception:
                # Nova will count again at its next audit. Until then, what
                # it did not come to would be room for others.
                with excutils.save_and_reraise_exception():
                    ledger.restore(known)
        return audit

    recount = or_as_before(tracker._update_usage_from_instances)

    def update_usage_from_instances(context, instances, nodename):
        nonlocal known, counting
        known, counting = ledger.clear(), True
        ledger.stop(each.uuid for each in instances
                    if each.vm_state in _STOPPED and not each.task_state)
        try:
            found = recount(context, instances, nodename)
        finally:
            counting = False
        tell_used(nodename)
        return found

    tracker._get_usage_dict = get_usage_dict
    tracker._update_usage = update_usage
    tracker._update_usage_from_instances = update_usage_from_instances
    # What an audit does next, until all is counted.
    tracker._ensure_compute_id_for_instances = or_as_before(
        tracker._ensure_compute_id_for_instances)
    count_migrations = or_as_before(tracker._update_usage_from_migrations)

    def update_usage_from_migrations(*args):
        count_migrations(*args)
        ledger.complete = True

    tracker._update_usage_from_migrations = update_usage_from_migrations


def count_no_refusals(tracker):
    """Keep a refused claim from counting as a failed build.

    Nova's BuildFailureWeigher shuns a host after a failed build until one
    succeeds. A node that is full is not broken. Nova calls
    ResourceTracker.build_failed() in the thread in which the claim failed.
    """
    build_failed = tracker.build_failed

    def only_failures(nodename):
        if getattr(_refused, 'here', False):
            _refused.here = False
        else:
            build_failed(nodename)

    tracker.build_failed = only_failures
