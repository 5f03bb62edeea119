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
from oslo_log import log as logging

from nova_k8s import conf
from nova_k8s import errors
from nova_k8s import events
from nova_k8s import follow
from nova_k8s import inventory
from nova_k8s import kube
from nova_k8s import last
from nova_k8s import sources
from nova_k8s import story

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

conf.register_opts(CONF)

# Where the compute node's record has what Placement has in its inventory.
COMPUTE_NODE_FIELDS = ((inventory.VCPU, 'vcpus'),
                       (inventory.MEMORY_MB, 'memory_mb'))


class K8sLibvirtDriver(driver.LibvirtDriver):
    """Nova's libvirt driver, bounded by what its Kubernetes pod may use."""

    def __init__(self, virtapi, read_only=False):
        super().__init__(virtapi, read_only)
        # Until init_host() there is no budget and no name of our own, and
        # everything is as in Nova's driver.
        self._follower = None
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

    def _init_limits(self, host):
        source = sources.from_conf(CONF)
        state = last.first(CONF, source)
        inventory.check(state.budget, CONF.kubernetes.unlimited,
                        inventory.reserved(CONF))
        self._node_name = (
            CONF.kubernetes.hypervisor_hostname or
            kube.node_name(CONF, os.environ) or state.budget.node_name)
        self._check_name(host)
        if CONF.kubernetes.limits_from == 'api':
            self._recorder = events.Recorder(
                functools.partial(kube.api_client, CONF),
                kube.node_name(CONF, os.environ) or
                state.budget.node_name or host,
                CONF.kubernetes.api_timeout)
            self._recorder.start()
        self._follower = follow.Follower(source, state, self._tell, self._push)
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
        if self._follower:
            self._follower.stop()
        if self._recorder:
            self._recorder.stop()
        super().cleanup_host(host)

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
            (LOG.info if line.type == story.NORMAL else LOG.error)(
                '%s', line.text)
            if self._recorder and subject and subject.pod:
                self._recorder.record(subject.pod, *line)

    def _push(self):
        """Have Nova report now, not at its next periodic task."""
        tracker = self.virtapi._compute.rt
        context = nova_context.get_admin_context()
        for nodename in self.get_available_nodes():
            # Disabled: before the first periodic update, which will report.
            if not tracker.disabled(nodename):
                self._push_inventory(context, tracker, nodename)

    # What Nova's audit would write, under its lock, but without it: before it
    # writes it asks Placement about each guest, which takes seconds where
    # there are many.
    @utils.synchronized(resource_tracker.COMPUTE_RESOURCE_SEMAPHORE, fair=True)
    def _push_inventory(self, context, tracker, nodename):
        node = tracker.compute_nodes[nodename]
        client = tracker.reportclient
        tree = client.get_provider_tree_and_ensure_root(
            context, node.uuid, name=nodename)
        # The generation that Nova keeps is old as soon as a guest comes or
        # goes. And classes that are not the driver's have to stay.
        present = client._refresh_and_get_inventory(
            context, node.uuid)['inventories']
        tree.update_inventory(nodename, present)
        self.update_provider_tree(tree, nodename)
        client.set_inventory_for_provider(
            context, node.uuid, {**present, **self._reported})
        for resource_class, field in COMPUTE_NODE_FIELDS:
            if resource_class in self._reported:
                setattr(node, field, self._reported[resource_class]['total'])
        node.free_ram_mb = node.memory_mb - node.memory_mb_used
        node.save()
