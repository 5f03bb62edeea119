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

import functools
import os
import sys

from nova.compute import resource_tracker
import nova.conf
from nova import context as nova_context
from nova import exception
from nova import objects
from nova import utils
from nova.virt.libvirt import driver
from nova.virt.libvirt.volume import mount
from oslo_log import log as logging

from nova_k8s import budget
from nova_k8s import conf
from nova_k8s import errors
from nova_k8s import events
from nova_k8s import follow
from nova_k8s import inventory
from nova_k8s import kube
from nova_k8s import last
from nova_k8s import node
from nova_k8s import service
from nova_k8s import sources
from nova_k8s import story

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

conf.register_opts(CONF)


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

    def init_host(self, host):
        """Start, or end nova-compute with one line that says why not."""
        try:
            self._init_limits(host)
        except errors.LimitsError as exc:
            LOG.error('nova-compute does not start: %s', exc)
            # Nova logs a traceback for every exception from here. It ends
            # itself this way where it cannot load its driver.
            sys.exit(1)
        super().init_host(host)
        self._follower.start()
        if self._service:
            self._service.start()

    def _init_limits(self, host):
        source = sources.from_conf(CONF)
        state = last.first(CONF, source)
        inventory.check(state.budget, CONF.kubernetes.unlimited,
                        inventory.reserved(CONF))
        self._node_name = (
            CONF.kubernetes.hypervisor_hostname or
            kube.node_name(CONF, os.environ) or state.budget.node_name)
        self._check_name(host)
        kube_node = (kube.node_name(CONF, os.environ) or
                     state.budget.node_name)
        node_source = node.from_conf(CONF, kube_node)
        if CONF.kubernetes.limits_from == 'api' or node_source:
            self._recorder = events.Recorder(
                functools.partial(kube.api_client, CONF), kube_node or host,
                CONF.kubernetes.api_timeout)
            self._recorder.start()
        self._follower = follow.Follower(source, state, self._tell, self._push)
        self._service = service.from_conf(
            CONF, host, self.virtapi, lambda: self._follower.state.budget,
            node_source, self._tell_of_service)
        self._tell(None, state)

    def _check_name(self, host):
        """Refuse to become a second compute node beside a running one.

        Nova itself refuses too, but cannot name the way out.
        """
        if not self._node_name:
            return
        try:
            nodes = objects.ComputeNodeList.get_all_by_host(
                nova_context.get_admin_context(), host)
        except exception.ComputeHostNotFound:
            return
        names = [node.hypervisor_hostname for node in nodes]
        if names and self._node_name not in names:
            raise errors.Refused(
                f'Nova knows the compute node of host {host} as '
                f'{", ".join(names)}, and now it would be {self._node_name}. '
                f'To keep the record and its allocations, set [kubernetes] '
                f'hypervisor_hostname = {names[0]}')

    def cleanup_host(self, host):
        for each in (self._service, self._follower, self._recorder):
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
            for resource_class, field in ((inventory.VCPU, 'vcpus'),
                                          (inventory.MEMORY_MB, 'memory_mb')):
                before = self._reported.get(resource_class)
                if data[field] or before:
                    data[field] = inventory.total(
                        data[field], limits[resource_class],
                        before['total'] if before else 0)[0]
        return data

    def update_provider_tree(self, provider_tree, nodename, allocations=None):
        super().update_provider_tree(
            provider_tree, nodename, allocations=allocations)
        if not self._follower:
            return
        stock = provider_tree.data(nodename).inventory
        self._warn({resource_class: stock[resource_class]['total']
                    for resource_class in inventory.FIELDS
                    if resource_class in stock})
        bounded = inventory.bound(stock, self._limits(), self._reported)
        self._reported = {
            resource_class: bounded[resource_class]
            for resource_class in inventory.FIELDS
            if resource_class in bounded}
        provider_tree.update_inventory(nodename, bounded)
        # Nova's driver keeps a copy, for what is claimed from the tree later.
        self.provider_tree.update_inventory(nodename, bounded)

    def _limits(self):
        return inventory.limits(self._follower.state.budget,
                                CONF.kubernetes.unlimited)

    def _warn(self, machine):
        seen = (self._follower.state.budget, machine)
        if seen != self._warned and seen[0]:
            for line in inventory.warnings(*seen):
                LOG.warning('%s', line)
        self._warned = seen

    def _tell(self, before, after):
        """Say once what changed, and keep it for the next start."""
        if after.budget and not after.problem and (
                not before or before != after):
            last.save(CONF, after.budget)
        subject = after.budget or (before and before.budget)
        for line in story.of(before, after, CONF.kubernetes.unlimited):
            self._say(line, subject and subject.pod)
        if self._service:
            self._service.wake()

    def _tell_of_service(self, line, kube_node):
        self._say(line, kube_node and budget.Reference(
            'Node', kube_node.name, kube_node.uid))

    def _say(self, line, reference):
        (LOG.info if line.type == story.NORMAL else LOG.error)('%s', line.text)
        if self._recorder and reference:
            self._recorder.record(reference, *line)

    def _push(self):
        """Have Nova report now, not at its next periodic task."""
        tracker = self.virtapi._compute.rt
        context = nova_context.get_admin_context()
        for nodename in self.get_available_nodes():
            # Disabled: before the first periodic update, which will report.
            if not tracker.disabled(nodename):
                self._push_inventory(context, tracker, nodename)
                tracker.update_available_resource(context, nodename)

    # The audit above walks the disks of all guests before it reports. The
    # inventory must not wait for that, so what the audit does last is done
    # first, under the audit's own lock.
    @utils.synchronized(resource_tracker.COMPUTE_RESOURCE_SEMAPHORE, fair=True)
    def _push_inventory(self, context, tracker, nodename):
        tracker._update(context, tracker.compute_nodes[nodename])
