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


"""Nova's libvirt driver for compute nodes that run as Kubernetes pods."""

import atexit
import functools
import os
import sys
import threading
import time

from nova.compute import resource_tracker
import nova.conf
from nova import context as nova_context
from nova import exception
from nova import objects
from nova import utils
from nova.virt.libvirt import driver
from nova.virt.libvirt.volume import mount
from oslo_config import cfg
from oslo_log import log as logging
from oslo_utils import excutils

from nova_k8s.accounting import claims
from nova_k8s.accounting import instance_overhead
from nova_k8s.accounting import ledger
from nova_k8s.accounting import pod_reserve
from nova_k8s import conf
from nova_k8s import errors
from nova_k8s.inventory import bounds
from nova_k8s.inventory import placement
from nova_k8s.inventory import publisher
from nova_k8s.kube import client as kube_client
from nova_k8s.kube import events
from nova_k8s.kube import node
from nova_k8s.limits import budget
from nova_k8s.limits import checkpoint
from nova_k8s.limits import messages
from nova_k8s.limits import sources
from nova_k8s.limits import watcher
from nova_k8s.service import switch

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

conf.register_opts(CONF)

# Where the compute node's record has what Placement has in its inventory.
COMPUTE_NODE_FIELDS = ((bounds.VCPU, 'vcpus'),
                       (bounds.MEMORY_MB, 'memory_mb'))


def _locked(function, *args):
    """Call it under the lock of Nova's claims and audits."""
    return utils.synchronized(resource_tracker.COMPUTE_RESOURCE_SEMAPHORE,
                              fair=True)(function)(*args)


class K8sLibvirtDriver(driver.LibvirtDriver):
    """Nova's libvirt driver, bounded by what its Kubernetes pod may use."""

    def __init__(self, virtapi, read_only=False):
        super().__init__(virtapi, read_only)
        # Until init_host() there is no budget and no name of our own, and
        # everything is as in Nova's driver.
        self._follower = None
        self._service = None
        self._recorder = None
        self._node_name = None
        self._reported = {}
        self._warned = None
        self._ledger = ledger.Ledger()
        self._needs = None
        self._others = None
        self._keeper = None
        self._stock = {}

    def init_host(self, host):
        """Start, or end nova-compute with one line that says why not."""
        problem = None
        try:
            conf.check(CONF)
            self._init_accounts()
            self._init_limits(host)
        except (errors.LimitsError, cfg.Error) as exc:
            problem = ' '.join(str(exc).split())
        # Not in the handler: there, oslo.log says the problem a second time.
        if problem:
            LOG.error('nova-compute does not start: %s', problem)
            _end()
        super().init_host(host)
        self._follower.start()
        self._keeper.start()
        if self._service:
            self._service.start()

    def _init_limits(self, host):
        source = sources.from_conf(CONF)
        try:
            state = checkpoint.resume(CONF, source)
        except errors.Refused:
            # Or what was before would be there again at the next start, once
            # the API server is away.
            checkpoint.forget(CONF)
            raise
        if not state.stale:
            # As little as it may be: see above.
            checkpoint.save(CONF, state.budget)
        self._others = pod_reserve.from_conf(CONF)
        bounds.check(state.budget, CONF.kubernetes.unlimited,
                     bounds.reserved_by_class(CONF, self._others.mb),
                     self._others.option)
        self._node_name = (
            CONF.kubernetes.hypervisor_hostname or
            kube_client.node_name(CONF, os.environ) or state.budget.node_name)
        self._check_name(host)
        if not self._node_name and 'KUBERNETES_SERVICE_HOST' in os.environ:
            raise errors.Refused(
                'The name of the Kubernetes node is not known, and the host '
                'name of a pod is random; set NODE_NAME in the environment '
                'from spec.nodeName, or [kubernetes] node_name, or '
                '[kubernetes] hypervisor_hostname, = $host where the pod has '
                "the node's host name (hostNetwork)")
        kube_node = (kube_client.node_name(CONF, os.environ) or
                     state.budget.node_name)
        node_source = node.from_conf(CONF, kube_node)
        if CONF.kubernetes.limits_from == 'api' or node_source:
            self._recorder = events.Recorder(
                functools.partial(kube_client.api_client, CONF),
                kube_node or host,
                CONF.kubernetes.api_timeout)
            self._recorder.start()
        self._follower = watcher.Watcher(
            source, state, self._tell, self._publish)
        self._service = switch.from_conf(
            CONF, host, self.virtapi, lambda: self._follower.state.budget,
            node_source, self._tell_of_service)
        self._tell(None, state)

    def _init_accounts(self):
        """Have guests counted and claims asked for, as Nova does both."""
        self._needs = instance_overhead.InstanceOverhead(
            instance_overhead.settings_from(CONF))
        self._keeper = publisher.Publisher(self._publish, self._measure)
        tracker = self._tracker()
        if tracker:
            claims.guard(tracker, self._admit)
            claims.follow(tracker, self._ledger, self._needs)
            claims.count_no_refusals(tracker)

    def _tracker(self):
        """Nova's resource tracker; None in what uses no compute manager."""
        manager = getattr(self.virtapi, '_compute', None)
        return manager and manager.rt

    def _check_name(self, host):
        """Refuse to become a second compute node beside a running one.

        Nova itself refuses too, but cannot name the way out.
        """
        if not self._node_name:
            return
        context = nova_context.get_admin_context()
        try:
            nodes = objects.ComputeNodeList.get_all_by_host(context, host)
        except exception.ComputeHostNotFound:
            self._check_host(context, host)
            return
        names = [node.hypervisor_hostname for node in nodes]
        if names and self._node_name not in names:
            raise errors.Refused(
                f'Nova knows the compute node of host {host} as '
                f'{", ".join(names)}, and now it would be {self._node_name}. '
                f'To keep the record and its allocations, set [kubernetes] '
                f'hypervisor_hostname = {names[0]}')

    def _check_host(self, context, host):
        """Refuse the name of a compute node of another host."""
        try:
            other = objects.ComputeNode.get_by_nodename(
                context, self._node_name)
        except exception.ComputeHostNotFound:
            return
        raise errors.Refused(
            f'Nova knows compute node {self._node_name} as that of host '
            f'{other.host}, and this host is {host}. If that is this machine '
            f'under another host name, as each new pod has one, set '
            f'[DEFAULT] host = {other.host} (OS_DEFAULT__HOST in the '
            f'environment); if not, give this one a name of its own in '
            f'[kubernetes] hypervisor_hostname')

    def cleanup_host(self, host):
        for each in (self._service, self._follower, self._keeper,
                     self._recorder):
            if each:
                each.stop()
        super().cleanup_host(host)

    # Nova's driver calls this when libvirt's connection comes and goes. It
    # knows no other reason, and would enable a cordoned node again. What it
    # does beside, for network file systems, is done here too.
    def _set_host_enabled(self, enabled,
                          disable_reason=driver.DISABLE_REASON_UNDEFINED):
        if not self._service:
            super()._set_host_enabled(enabled, disable_reason)
            return
        self._service.libvirt(enabled)
        if enabled:
            mount.get_manager().host_up(self._host)
        else:
            mount.get_manager().host_down()

    def get_available_nodes(self, refresh=False):
        if self._node_name:
            return [self._node_name]
        return super().get_available_nodes(refresh=refresh)

    def get_nodenames_by_uuid(self, refresh=False):
        nodes = super().get_nodenames_by_uuid(refresh=refresh)
        if self._node_name:
            return dict.fromkeys(nodes, self._node_name)
        return nodes

    def get_available_resource(self, nodename):
        data = super().get_available_resource(nodename)
        if self._node_name:
            data['hypervisor_hostname'] = self._node_name
        if self._follower:
            limits = self._limits()
            for resource_class, field in COMPUTE_NODE_FIELDS:
                before = self._reported.get(resource_class)
                if data[field] or before:
                    data[field] = bounds.total(
                        data[field], limits[resource_class],
                        before['total'] if before else 0)[0]
        return data

    def update_provider_tree(self, provider_tree, nodename, allocations=None):
        super().update_provider_tree(
            provider_tree, nodename, allocations=allocations)
        if not self._follower:
            return
        self._stock = provider_tree.data(nodename).inventory
        self._warn()
        wanted = self._wanted()
        if not self._reported or not self._keeper:
            self._reported = wanted
        elif placement.differ(self._reported, wanted):
            # Nova's claims write nothing new, see keeper.
            self._keeper.wake()
        # That is for Nova's driver to say: it may have been set through
        # Placement's API.
        self._reported = {
            resource_class: dict(record, allocation_ratio=wanted[
                resource_class]['allocation_ratio'])
            for resource_class, record in self._reported.items()}
        bounded = {
            **{resource_class: record
               for resource_class, record in self._stock.items()
               if resource_class not in bounds.FIELDS},
            **self._reported}
        provider_tree.update_inventory(nodename, bounded)
        # Nova's driver keeps a copy, for what is claimed from the tree later.
        self.provider_tree.update_inventory(nodename, bounded)

    def _wanted(self):
        """The records to report of what the pod's limits bound."""
        bounded = bounds.apply(
            self._stock, self._limits(), self._reported,
            ledger.reserved_mb(
                self._ledger.needs(time.monotonic()), self._others.mb,
                CONF.kubernetes.reserve_ahead) if self._others else None)
        return {resource_class: bounded[resource_class]
                for resource_class in bounds.FIELDS
                if resource_class in bounded}

    def _publish(self):
        """Have Nova know what is to be reported now.

        Not by an audit, which walks the disks of all guests and asks
        Placement about each of them: the next one is a periodic task away.

        :raises errors.NotWritten: and what Nova's client of Placement raises
        """
        tracker = self._tracker()
        for nodename in self.get_available_nodes():
            # Disabled: before the first periodic update, which will report.
            if tracker and not tracker.disabled(nodename):
                self._write_inventory(tracker, nodename)

    # The lock of Nova's claims and audits: between them, the accounts are
    # whole.
    @utils.synchronized(resource_tracker.COMPUTE_RESOURCE_SEMAPHORE, fair=True)
    def _write_inventory(self, tracker, nodename):
        wanted = self._wanted()
        if not placement.differ(self._reported, wanted):
            return
        compute_node = tracker.compute_nodes[nodename]
        inventories, generation = placement.write(
            tracker.reportclient, compute_node.uuid, wanted)
        self._reported = wanted
        # What Nova's client knows of Placement, or it would write back what
        # was before. To have it forget and ask again is no way: meanwhile
        # nobody could disable the compute service in Placement.
        known = tracker.reportclient._provider_tree
        if known.exists(compute_node.uuid):
            known.update_inventory(compute_node.uuid, inventories,
                                   generation=generation)
        totals = {field: wanted[resource_class]['total']
                  for resource_class, field in COMPUTE_NODE_FIELDS
                  if resource_class in wanted}
        if any(getattr(compute_node, field) != total
               for field, total in totals.items()):
            for field, total in totals.items():
                setattr(compute_node, field, total)
            compute_node.free_ram_mb = (
                compute_node.memory_mb - compute_node.memory_mb_used)
            compute_node.save()

    def _measure(self):
        """Look what others and guests use. Blocks: only for the keeper."""
        # None before the first audit: what Nova has not counted yet.
        self._others.measure(_locked(self._ledger.uuids) or None)
        self._needs.measure(self._ledger, _locked)

    def _memory_limit(self):
        """What guests and others may use together, in MiB; None without."""
        machine = self._stock.get(bounds.MEMORY_MB)
        limit = self._limits()[bounds.MEMORY_MB]
        return min((each for each in (limit, machine and machine['total'])
                    if each is not None), default=None)

    def _refusal(self, need, without):
        return claims.find_refusal(
            self._memory_limit(), self._others.mb,
            self._ledger.needs(time.monotonic(), without), need)

    def _admit(self, claim):
        """Return why a claim cannot be met, or None; see admission."""
        return self._refusal(*self._needs.of_claim(claim))

    def check_can_live_migrate_destination(self, context, instance,
                                           src_compute_info, dst_compute_info,
                                           block_migration=False,
                                           disk_over_commit=False):
        if self._follower:
            _locked(self._hold, instance)
        try:
            return super().check_can_live_migrate_destination(
                context, instance, src_compute_info, dst_compute_info,
                block_migration, disk_over_commit)
        except Exception:
            with excutils.save_and_reraise_exception():
                self._release(instance)

    def _hold(self, instance):
        """Nova claims nothing for a guest that comes by live migration."""
        need = self._needs(instance, instance.flavor)
        reason = self._refusal(need, instance.uuid)
        if reason:
            LOG.info('Failed to take a live migration: %s', reason,
                     instance=instance)
            # What makes the conductor try another host.
            raise exception.MigrationPreCheckError(reason=reason)
        self._ledger.hold(
            instance.uuid, need,
            time.monotonic() + instance_overhead.hold_time(
                CONF.update_resources_interval))
        self._keeper.wake()

    def _release(self, instance):
        if self._follower:
            _locked(self._ledger.release, instance.uuid)
            self._keeper.wake()

    def rollback_live_migration_at_destination(self, context, instance,
                                               network_info,
                                               block_device_info,
                                               destroy_disks=True,
                                               migrate_data=None):
        try:
            super().rollback_live_migration_at_destination(
                context, instance, network_info, block_device_info,
                destroy_disks, migrate_data)
        finally:
            self._release(instance)

    def _limits(self):
        return bounds.limits(self._follower.state.budget,
                             CONF.kubernetes.unlimited)

    def _warn(self):
        stock = {resource_class: self._stock[resource_class]
                 for resource_class in bounds.FIELDS
                 if resource_class in self._stock}
        dedicated = self._stock.get('PCPU', {}).get('total', 0)
        # What is reserved changes all the time, and is no news.
        seen = (self._follower.state.budget, dedicated,
                {name: record['total'] for name, record in stock.items()})
        if seen != self._warned and seen[0]:
            if self._others and bounds.MEMORY_MB in stock:
                stock[bounds.MEMORY_MB] = dict(
                    stock[bounds.MEMORY_MB], reserved=self._others.mb)
            for line in bounds.list_warnings(seen[0], stock, dedicated):
                LOG.warning('%s', line)
            line = bounds.warn_of_ratio(
                self._stock.get(bounds.MEMORY_MB),
                self._limits()[bounds.MEMORY_MB],
                seen[0].source)
            if line:
                LOG.warning('%s', line)
        self._warned = seen

    def _tell(self, before, after):
        """Say once what changed, and keep it for the next start."""
        # What it starts with is kept before it is checked.
        if before and before != after and after.budget and not after.problem:
            checkpoint.save(CONF, after.budget)
        if not after.budget:
            checkpoint.forget(CONF)
        subject = after.budget or (before and before.budget)
        for line in messages.for_change(
                before, after, CONF.kubernetes.unlimited):
            self._say(line, subject and subject.pod)
        if self._service:
            self._service.wake()

    def _tell_of_service(self, line, kube_node):
        self._say(line, kube_node and budget.Reference(
            'Node', kube_node.name, kube_node.uid))

    def _say(self, line, reference):
        (LOG.info if line.type == messages.NORMAL else LOG.warning)(
            '%s', line.text)
        if self._recorder and reference:
            self._recorder.record(reference, *line)


def _end():
    """End nova-compute with status 1 and without a traceback.

    Nova logs one for every exception from init_host(). It ends itself this
    way where it cannot load its driver.
    """
    if threading.current_thread() is not threading.main_thread():
        # Under eventlet, services start in a green thread, and what it ends
        # with is caught and forgotten: the status would be 0.
        atexit.register(os._exit, 1)
    sys.exit(1)
