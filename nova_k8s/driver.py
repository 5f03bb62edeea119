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

import nova.conf
from nova import exception
from nova.virt.libvirt import driver
from nova.virt.libvirt.volume import mount
from oslo_config import cfg
from oslo_log import log as logging
from oslo_utils import excutils

from nova_k8s.accounting import accounts
from nova_k8s.accounting import instance_overhead
from nova_k8s.accounting import pod_reserve
from nova_k8s.accounting import usage
from nova_k8s import conf
from nova_k8s.config import sighup
from nova_k8s.confinement import cgroup
from nova_k8s.confinement import controller
from nova_k8s.elastic import ways
from nova_k8s import errors
from nova_k8s import hooks
from nova_k8s.inventory import bounds
from nova_k8s.inventory import compute_node
from nova_k8s.inventory import host as machine
from nova_k8s.inventory import publisher
from nova_k8s.inventory import reported
from nova_k8s.kube import client as kube_client
from nova_k8s.kube import events
from nova_k8s.kube import node
from nova_k8s.limits import budget
from nova_k8s.limits import checkpoint
from nova_k8s.limits import messages
from nova_k8s.limits import sources
from nova_k8s.limits import watcher
from nova_k8s.metrics import exporter
from nova_k8s.service import switch

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

conf.register_opts(CONF)

# nova-compute has loaded what it is launched with, and has not launched yet.
sighup.repair()


class K8sLibvirtDriver(driver.LibvirtDriver):
    """Nova's libvirt driver, bounded by what its Kubernetes pod may use."""

    def __init__(self, virtapi, read_only=False):
        super().__init__(virtapi, read_only)
        # Until init_host() there is no budget and no name of our own, and
        # everything is as in Nova's driver.
        self._node_name = None
        self._recorder = None
        self._watcher = None
        self._reported = None
        self._accounts = None
        self._publisher = None
        self._service = None
        self._guests_pod = None
        self._elastic = None
        self._exporter = None

    def init_host(self, host):
        """Start, or end nova-compute with one line that says why not."""
        problem = None
        try:
            hooks.check(self.virtapi)
            conf.check(CONF)
            self._guests_pod = controller.from_conf(CONF)
            if self._guests_pod:
                self._guests_pod.await_pod(bool(checkpoint.load(CONF)))
                machine.await_libvirt(self._uri())
            self._construct(host)
        except (errors.LimitsError, cfg.Error) as exc:
            problem = ' '.join(str(exc).split())
        # Not in the handler: there, oslo.log says the problem a second time.
        if problem:
            LOG.error('nova-compute does not start: %s', problem)
            _end()
        super().init_host(host)
        self._watcher.start()
        self._publisher.start()
        for each in (self._service, self._guests_pod, self._elastic,
                     self._exporter):
            if each:
                each.start()

    def _construct(self, host):
        """Make all parts, once the limits are known and fit for use."""
        overhead = instance_overhead.InstanceOverhead(
            instance_overhead.settings_from(CONF))
        source = sources.from_conf(CONF)
        # A compute node that Nova knows may have guests, who can be managed
        # only while nova-compute runs.
        known = compute_node.find(host)
        enforced = cgroup.enforced_from_conf(CONF)
        state = checkpoint.start(
            CONF, source, enforced or watcher.nothing, closed=bool(known))
        found = state.budget
        reserve = pod_reserve.from_conf(CONF, found and found.memory_bytes)
        problem = state.problem if not found else bounds.find_shortage(
            found, CONF.kubernetes.unlimited,
            bounds.reserved_by_class(CONF, reserve.mb), reserve.option)
        if problem and not known:
            raise errors.Refused(problem)
        self._node_name = compute_node.choose_name(
            CONF, os.environ, found, known)
        compute_node.check_name(host, self._node_name, known)
        kube_node = (kube_client.node_name(CONF, os.environ) or
                     (found and found.node_name))
        node_source = node.from_conf(CONF, kube_node)
        if CONF.kubernetes.limits_from == 'api' or node_source:
            self._recorder = events.Recorder(
                functools.partial(kube_client.api_client, CONF),
                kube_node or host, CONF.kubernetes.api_timeout)
            self._recorder.start()
        self._publisher = publisher.Publisher(self._publish, self._measure)
        self._watcher = watcher.Watcher(
            source, state, self._tell, self._publisher.wake, enforced)
        self._reported = reported.Reported(
            self._budget, CONF.kubernetes.unlimited,
            next((each for each in known if self._node_name in (
                None, each.hypervisor_hostname)), None))
        self._accounts = accounts.Accounts(
            CONF, overhead, reserve, self._reported.memory_limit_mb,
            self._publisher.wake, lambda: self._reported.closed)
        self._reported.accounts = self._accounts
        tracker = self._tracker()
        if tracker:
            self._accounts.follow(tracker, self._reported.memory_used_mb)
        if self._guests_pod:
            self._guests_pod.connect(
                source.latest, self._accounts.held_bytes, usage.pids,
                self._tell_of_guests, self._wake_service)
        self._elastic = ways.from_conf(
            CONF, source, node_source, self._accounts, self._reported,
            tracker, self._publisher.wake,
            lambda line: self._say(line, self._budget() and
                                   self._budget().pod))
        self._exporter = exporter.from_conf(
            CONF, self._watcher, self._reported, self._accounts,
            self._elastic)
        self._service = switch.from_conf(
            CONF, host, self.virtapi, self._is_open, node_source,
            self._tell_of_service,
            self._guests_pod.reasons if self._guests_pod else frozenset)
        if problem:
            self._tell_closed(problem, found)
        else:
            self._tell(None, state)

    def cleanup_host(self, host):
        for each in (self._exporter, self._elastic, self._guests_pod,
                     self._service,
                     self._watcher, self._publisher, self._recorder):
            if each:
                each.stop()
        super().cleanup_host(host)

    def _budget(self):
        return self._watcher.state.budget

    def _is_open(self):
        """Whether the limits leave anything for guests."""
        found = self._budget()
        return bool(found) and not bounds.find_shortage(
            found, CONF.kubernetes.unlimited, bounds.reserved_by_class(
                CONF, self._accounts.others_mb))

    def _tracker(self):
        """Nova's resource tracker; None in what uses no compute manager."""
        manager = getattr(self.virtapi, '_compute', None)
        return manager and manager.rt

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

    # Nova's API has this called after each word of an administrator, and
    # never for what is written here (compute/api.py, service_update).
    def set_host_enabled(self, enabled):
        if self._service:
            self._service.heard(enabled)
        return super().set_host_enabled(enabled)

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
        if self._reported:
            self._reported.bound_resources(data)
        return data

    def update_provider_tree(self, provider_tree, nodename, allocations=None):
        super().update_provider_tree(
            provider_tree, nodename, allocations=allocations)
        if not self._reported:
            return
        records, changed = self._reported.bound(
            provider_tree.data(nodename).inventory)
        provider_tree.update_inventory(nodename, records)
        # Nova's driver keeps a copy, for what is claimed from the tree later.
        self.provider_tree.update_inventory(nodename, records)
        if changed:
            self._publisher.wake()
        # What guests hold may be something else now.
        for each in (self._guests_pod, self._elastic):
            if each:
                each.wake()

    def check_can_live_migrate_destination(self, context, instance,
                                           src_compute_info, dst_compute_info,
                                           block_migration=False,
                                           disk_over_commit=False):
        if self._accounts:
            reason = self._accounts.hold(instance)
            if reason:
                LOG.info('Failed to take a live migration: %s', reason,
                         instance=instance)
                # What makes the conductor try another host.
                raise exception.MigrationPreCheckError(reason=reason)
        try:
            return super().check_can_live_migrate_destination(
                context, instance, src_compute_info, dst_compute_info,
                block_migration, disk_over_commit)
        except Exception:
            with excutils.save_and_reraise_exception():
                self._release(instance)

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

    def attach_volume(self, context, connection_info, instance, mountpoint,
                      disk_bus=None, device_type=None, encryption=None):
        super().attach_volume(
            context, connection_info, instance, mountpoint, disk_bus=disk_bus,
            device_type=device_type, encryption=encryption)
        self._forget_volumes(instance)

    def detach_volume(self, context, connection_info, instance, mountpoint,
                      encryption=None):
        super().detach_volume(context, connection_info, instance, mountpoint,
                              encryption=encryption)
        self._forget_volumes(instance)

    def _forget_volumes(self, instance):
        if self._accounts:
            self._accounts.forget_volumes(instance.uuid)

    # Where power_on(), a hard reboot and resume_state_on_host_boot() meet;
    # none of them makes a claim, and a reboot may start a stopped guest.
    def _hard_reboot(self, context, instance, *args, **kwargs):
        self._check_start(instance)
        return super()._hard_reboot(context, instance, *args, **kwargs)

    def resume(self, context, instance, network_info, block_device_info=None,
               share_info=None):
        self._check_start(instance)
        return super().resume(
            context, instance, network_info,
            block_device_info=block_device_info, share_info=share_info)

    def _check_start(self, instance):
        """Refuse to start a guest for which the limit leaves no room."""
        if not self._accounts:
            return
        running = {guest.uuid for guest in self._host.list_guests()}
        if instance.uuid in running:
            return
        reason = self._accounts.start(instance, running)
        if reason:
            raise exception.ComputeResourcesUnavailable(reason=reason)

    def _release(self, instance):
        if self._accounts:
            self._accounts.release(instance.uuid)

    # Called by the workers, each in a thread of its own.

    def _publish(self):
        """Have Nova and Placement know what is to be reported now.

        :raises errors.NotWritten: and what Nova's client of Placement raises
        """
        tracker = self._tracker()
        for nodename in self.get_available_nodes():
            if tracker:
                self._reported.publish(tracker, nodename)

    def _measure(self):
        return self._accounts.measure()

    def _tell(self, before, after):
        """Say once what changed, and keep it for the next start."""
        # What it starts with is kept before it is checked.
        if before and before != after and after.budget and not after.problem:
            checkpoint.save(CONF, after.budget)
        if not after.budget:
            checkpoint.forget(CONF)
        subject = after.budget or (before and before.budget)
        use = None
        if before and before.budget != after.budget:
            use = messages.Use(*self._accounts.use())
        for line in messages.for_change(
                before, after, CONF.kubernetes.unlimited, use):
            self._say(line, subject and subject.pod)
        if self._guests_pod:
            self._guests_pod.look()
        if self._elastic:
            self._elastic.wake()
        self._wake_service()

    def _wake_service(self):
        if self._service:
            self._service.wake()

    def _tell_closed(self, problem, found):
        """Say why a node that was there before starts without room."""
        text = (f'{" ".join(problem.split())}. nova-compute starts, and '
                f'nothing new is placed on this compute node until that is '
                f'mended.')
        LOG.error('%s', text)
        if self._recorder and found and found.pod:
            self._recorder.record(
                found.pod, messages.WARNING, 'StartedClosed', text)

    def _tell_of_service(self, line, kube_node):
        self._say(line, kube_node and kube_node.name and budget.Reference(
            'Node', kube_node.name, kube_node.uid))

    def _tell_of_guests(self, line):
        known = self._budget()
        self._say(line, known and known.pod)

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
