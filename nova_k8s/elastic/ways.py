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

"""What the mover looks at and acts with, in a running compute node."""

import functools
import time

from nova_k8s.accounting import instance_overhead
from nova_k8s.elastic import bounds
from nova_k8s.elastic import mover
from nova_k8s.elastic import values
from nova_k8s.elastic import wish
from nova_k8s import errors
from nova_k8s.inventory import bounds as inventory
from nova_k8s.inventory import placement
from nova_k8s.inventory import reported
from nova_k8s.kube import client as kube_client
from nova_k8s.kube import neighbours
from nova_k8s.kube import resize
from nova_k8s.util import deadline

# Seconds for Placement to take a smaller inventory, before it is shrunk.
PATIENCE = 30


class Elastic:
    """The mover, and what it needs to be kept running.

    :param conf: nova.conf.CONF
    :param source: of the limits, one of an API server
    :param node_source: kube.node.Source, or None
    :param accounts: accounting's Accounts
    :param reported: inventory's Reported
    :param tracker: Nova's resource tracker
    :param publish: wakes the publisher, the only one to write to Placement
    :param say: called with a messages.Line
    """

    def __init__(self, conf, source, node_source, accounts, reported,
                 tracker, publish, say):
        options = conf.kubernetes
        self._accounts, self._reported = accounts, reported
        self._tracker, self._node_source = tracker, node_source
        self._publish = publish
        connect = functools.partial(kube_client.api_client, conf)
        self._neighbours = None
        if node_source and any(options.elastic_spare):
            self._neighbours = neighbours.Neighbours(
                connect, node_source.name, options.api_timeout,
                lambda: self.mover.wake())
        self.mover = mover.Mover(
            bounds.from_conf(
                options, instance_overhead.settings_from(conf)),
            options.container, mover.Ways(
                pod=source.pod, node=self._node,
                neighbours=(self._neighbours.latest if self._neighbours
                            else lambda: None),
                demand=self._demand, usages=self._usages,
                publish=self._have_published,
                resize=functools.partial(
                    resize.wish, connect, timeout=options.api_timeout)),
            say, mover.path(conf))
        reported.cap = lambda: self.mover.cap
        self.wake = self.mover.wake

    def start(self):
        if self._neighbours:
            self._neighbours.start()
        self.mover.start()

    def stop(self):
        for each in (self.mover, self._neighbours):
            if each:
                each.stop()

    def _have_published(self):
        """Wait until Placement has no more than the pod is about to have."""
        self._publish()
        until = time.monotonic() + PATIENCE
        while self.mover.cap and not self._reported.is_told():
            if time.monotonic() > until or self.mover.stopping.is_set():
                raise errors.NotWritten(
                    f'Placement was not told in {PATIENCE} s what the pod is '
                    f'about to have')
            time.sleep(0.05)

    def _node(self):
        return self._node_source and self._node_source.latest()

    def _compute_node(self):
        for each in list(self._tracker.compute_nodes.values()):
            return each
        raise errors.Unreadable('Nova has not counted its guests yet')

    def _demand(self, allocated):
        compute_node = self._compute_node()
        return wish.demand(
            self._accounts.needs(), compute_node.vcpus_used,
            self._accounts.others_mb, allocated,
            self._reported.ratio(inventory.VCPU))

    def _usages(self):
        provider = self._compute_node().uuid
        try:
            found = deadline.call(
                lambda _given_up: placement.usages(
                    self._tracker.reportclient, provider),
                reported.DEADLINE, 'Placement')
        except TimeoutError as exc:
            raise errors.NotWritten(str(exc)) from None
        return values.Room(found.get(inventory.MEMORY_MB, 0),
                           1000 * found.get(inventory.VCPU, 0))


def from_conf(conf, source, *args):
    """Return the Elastic that nova.conf asks for, or None.

    :raises errors.Refused: where it cannot be
    """
    if not conf.kubernetes.elastic:
        return None
    if conf.kubernetes.limits_from != 'api':
        raise errors.Refused(
            '[kubernetes] elastic is on, and the pod is not known: it needs '
            'limits_from = api')
    return Elastic(conf, source, *args)
