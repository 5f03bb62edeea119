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

from nova_k8s import conf
from nova_k8s.config import sighup
from nova_k8s.confinement import controller
from nova_k8s.confinement import holding
from nova_k8s import errors
from nova_k8s import hooks
from nova_k8s.inventory import affinity
from nova_k8s.inventory import compute_node
from nova_k8s.inventory import host as machine
from nova_k8s.limits import checkpoint
from nova_k8s import parts

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

conf.register_opts(CONF)

# nova-compute has loaded what it is launched with, and has not launched yet.
sighup.repair()


class K8sLibvirtDriver(parts.Parts, driver.LibvirtDriver):
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
        self._holding = None
        self._elastic = None
        self._exporter = None
        self._drainer = None
        self._cpu_sets = None

    def init_host(self, host):
        """Start, or end nova-compute with one line that says why not."""
        problem = None
        try:
            hooks.check(self.virtapi)
            conf.check(CONF)
            # A compute node that Nova knows may have guests, who can be
            # managed only while nova-compute runs.
            known, absent = compute_node.find(host), None
            self._guests_pod = controller.from_conf(
                CONF, first=functools.partial(self._first_size, host))
            self._holding = holding.from_conf(CONF)
            if self._guests_pod:
                absent = self._guests_pod.await_pod(
                    bool(known), bool(checkpoint.load(CONF)),
                    lambda: machine.ask_libvirt(self._uri()))
                machine.await_libvirt(self._uri())
            self._construct(host, known, absent)
        except (errors.LimitsError, cfg.Error) as exc:
            problem = ' '.join(str(exc).split())
        # Not in the handler: there, oslo.log says the problem a second time.
        if problem:
            LOG.error('nova-compute does not start: %s', problem)
            _end()
        super().init_host(host)
        self._watcher.start()
        self._publisher.start()
        for each in (self._service, self._guests_pod, self._holding,
                     self._cpu_sets, self._elastic, self._exporter):
            if each:
                each.start()
        if self._drainer:
            self._drainer.start(self._service.wake)

    def cleanup_host(self, host):
        for each in (self._exporter, self._drainer, self._elastic,
                     self._cpu_sets, self._holding, self._guests_pod,
                     self._service, self._watcher, self._publisher,
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

    # What get_available_resource() tells NUMATopologyFilter and the claims of
    # live migrations, and what a guest's XML is made with: one place.
    def _get_host_numa_topology(self):
        found = super()._get_host_numa_topology()
        if not self._reported:
            return found
        return self._reported.bound_topology(found, self._cpu_sets.mems)

    # Nova writes the destination's shared CPUs into the XML of a guest that
    # leaves, and does not know what it was pinned to since it started.
    def _live_migration_operation(self, context, instance, dest,
                                  block_migration, migrate_data, guest,
                                  device_names):
        if self._cpu_sets:
            stock = guest.get_xml_desc
            guest.get_xml_desc = lambda *args, **options: (
                affinity.without_pins(stock(*args, **options)))
        super()._live_migration_operation(
            context, instance, dest, block_migration, migrate_data, guest,
            device_names)

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
