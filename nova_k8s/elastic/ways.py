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
from nova_k8s.elastic import observed
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
    :param drained: returns why guests are moved away from here, or None
    :param annotate: has the pod say what guests hold, as
        confinement.controller.Controller.refresh(); None where it says
        nothing
    """

    def __init__(self, conf, source, node_source, accounts, reported,
                 tracker, publish, say, drained, annotate=None):
        options = conf.kubernetes
        self._accounts, self._reported = accounts, reported
        self._tracker, self._node_source = tracker, node_source
        self._source, self._container = source, options.container
        self._publish, self._annotate = publish, annotate
        # What the pod showed last, the least of the three values.
        self._sure = None
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
                pod=self._pod, node=self._node,
                neighbours=(self._neighbours.latest if self._neighbours
                            else lambda: None),
                drained=drained,
                demand=self._demand, usages=self._usages,
                changed=publish, publish=self._have_published,
                held=self._held, resize=functools.partial(
                    resize.wish, connect, timeout=options.api_timeout)),
            say, mover.path(conf))
        reported.cap, reported.claim_cap = self.cap, self.claim_cap
        self.wake = self.mover.wake

    def start(self):
        if self._neighbours:
            self._neighbours.start()
        self.mover.start()

    def stop(self):
        for each in (self.mover, self._neighbours):
            if each:
                each.stop()

    def cap(self):
        """Return the values.Room that Nova may be told at most, or None.

        The least of what the pod wishes, was allocated and is held to, and of
        what it is about to shrink to. From memory, and of this moment: whoever
        follows the limits does so a little later, and does not look at what
        was allocated. While the API server is away, what was seen last.
        """
        return self._capped(self.mover.cap)

    def claim_cap(self):
        """Return what guests that are let in may use at most, or None.

        That is more than cap() while it is not decided whether to shrink.
        """
        # In this order: it is taken back first, see mover.
        about = self.mover.cap
        return self._capped(about if self.mover.decided else None)

    def _capped(self, about):
        try:
            self._pod()
        except errors.LimitsError:
            pass
        if about is None or self._sure is None:
            return about or self._sure
        return about.least(self._sure)

    def _pod(self):
        body = self._source.pod()
        self._sure = observed.see(body, self._container, 'Pod').pod.sure
        return body

    def _held(self, body):
        """Have the pod say what guests hold; see mover.Ways."""
        after = self._annotate(body) if self._annotate else body
        if not after or any(
                after['metadata'].get(field) != body['metadata'].get(field)
                for field in ('uid', 'generation', 'deletionTimestamp')):
            return None
        return after

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
        guests = self._accounts.guests(lambda: compute_node.vcpus_used)
        if guests is None:
            # Of some of the guests it would be too little.
            raise errors.Unreadable('Nova has not counted its guests yet')
        return wish.demand(
            *guests, self._accounts.others_mb, allocated,
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


def first(conf, guests, others_mb, node):
    """Return what a guests' pod that is made starts with, by resource.

    :param conf: nova.conf.CONF
    :param guests: returns (needs, VCPU) of the guests that will be in it
    :param others_mb: what is kept for what runs in the pod besides them
    :param node: its kube.node.Node
    :returns: None where it is not elastic
    :raises errors.LimitsError: where what the operator wants is not clear
    """
    if not conf.kubernetes.elastic:
        return None
    settings = bounds.for_node(bounds.from_conf(
        conf.kubernetes, instance_overhead.settings_from(conf)), node)
    if not settings:
        return None
    # What Nova sells of a core; it grows where that is more by now.
    ratio = conf.cpu_allocation_ratio or conf.initial_cpu_allocation_ratio
    room = wish.first(settings, wish.demand(
        *guests(), others_mb, values.Room(), ratio or 1.0))
    return room.quantities()


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
