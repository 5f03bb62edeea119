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


"""The Kubernetes node: cordoned or not, ready or not, shutting down."""

import dataclasses
import functools
import typing as ty

from oslo_log import log as logging

from nova_k8s import errors
from nova_k8s.kube import client as kube_client
from nova_k8s.kube import watch

LOG = logging.getLogger(__name__)

# Reasons not to place guests on a node.
CORDONED = 'cordoned'
NOT_READY = 'node not ready'
SHUTTING_DOWN = 'node shutting down'

REASONS = frozenset((CORDONED, NOT_READY, SHUTTING_DOWN))

# What an operator says with a taint: that the machine is off, and that its
# guests are to leave.
OUT_OF_SERVICE = 'node.kubernetes.io/out-of-service'
DRAIN = 'nova-k8s/drain'

# How a kubelet that ends its pods before the machine goes down says so: the
# reason of the condition Ready, and a part of its message, which lists all
# that is wrong. There is no field for it.
_NOT_READY_REASON = 'KubeletNotReady'
_SHUTTING_DOWN_MESSAGE = 'node is shutting down'


@dataclasses.dataclass(frozen=True)
class Node:
    """What matters here of a node."""

    name: str
    uid: str
    cordoned: bool = False
    ready: bool = True
    shutting_down: bool = False
    annotations: ty.Mapping[str, str] = dataclasses.field(
        default_factory=dict, compare=False)
    allocatable: ty.Mapping[str, str] = dataclasses.field(
        default_factory=dict, compare=False)
    """Quantities by resource."""

    taints: ty.FrozenSet[str] = frozenset()
    """Their keys."""

    def has_taint(self, key):
        return key in self.taints


def from_dict(body):
    """Return the Node of the dict that Kubernetes serialises.

    :raises errors.Unreadable: when it is not a valid node
    """
    try:
        metadata = body['metadata']
        status = body.get('status') or {}
        spec = body.get('spec') or {}
        conditions = status.get('conditions') or []
        ready = {condition['type']: condition
                 for condition in conditions}.get('Ready') or {}
        # Unknown is what the control plane writes when a kubelet is silent.
        return Node(
            name=metadata['name'], uid=metadata['uid'],
            cordoned=bool(spec.get('unschedulable')),
            taints=frozenset(taint['key']
                             for taint in spec.get('taints') or ()),
            ready=ready.get('status') == 'True',
            shutting_down=(
                ready.get('status') == 'False' and
                ready.get('reason') == _NOT_READY_REASON and
                _SHUTTING_DOWN_MESSAGE in (ready.get('message') or '')),
            annotations=dict(metadata.get('annotations') or {}),
            allocatable=dict(status.get('allocatable') or {}))
    except (AttributeError, KeyError, TypeError, ValueError):
        raise errors.Unreadable(
            'What the API server answers is no node') from None


def reasons(node, last, unready_for, grace):
    """Return the reasons not to place guests on a node.

    :param last: the reasons so far
    :param unready_for: seconds for which the node has not been ready
    :param grace: [kubernetes] not_ready_grace: the seconds after which that
        is a reason, so that the restart of a kubelet is none
    """
    found = set()
    if node.cordoned:
        found.add(CORDONED)
    if node.shutting_down:
        found.add(SHUTTING_DOWN)
    # A node that has shut down is not ready at once: it does not return for
    # a minute in between.
    elif not node.ready and (unready_for >= grace or
                             last & {NOT_READY, SHUTTING_DOWN}):
        found.add(NOT_READY)
    return frozenset(found)


class Source:
    """Reads and watches one node, whatever the size of the cluster.

    :param connect: returns a kubernetes.client.ApiClient
    :param name: of the node
    :param timeout: seconds that one request may take
    """

    def __init__(self, connect, name, timeout):
        self.name = name
        self._open = functools.partial(
            watch.Watch, connect, kube_client.path('v1', 'nodes'),
            f'Node {name}', timeout=timeout,
            field_selector=f'metadata.name={name}')
        self._watch = None
        self._listeners = []

    def ask(self):
        """Return the Node as the API server answers now.

        :raises errors.LimitsError: when it does not
        """
        return self._only(self._open(changed=None).list()[0])

    def latest(self):
        """Return the Node as last seen, from memory.

        :raises errors.LimitsError: when it may have changed since
        """
        if not self._watch:
            raise errors.Unreadable(watch.NOT_YET)
        return self._only(self._watch.objects())

    def listen(self, changed):
        """Have it called too when the node may have changed.

        :param changed: must not block
        """
        self._listeners.append(changed)

    def watch(self, changed, stop):
        def all_changed():
            for each in (changed, *self._listeners):
                each()

        self._watch = self._open(changed=all_changed)
        self._watch.run(stop)

    def _only(self, nodes):
        if not nodes:
            raise errors.Refused(
                f'Node {self.name}: not found at the API server; set '
                f'NODE_NAME in the environment from spec.nodeName, or '
                f'[kubernetes] node_name')
        return from_dict(nodes[0])


class Unknown:
    """Stands for a node that cannot be followed: there is nothing against it.

    What else disables a compute service, does so all the same.
    """

    name = None

    def latest(self):
        return Node(None, None)

    def watch(self, changed, stop):
        stop.wait()


def from_conf(conf, name):
    """Return the Source of this pod's node, or None where none is followed.

    :param name: of the node, or None where it is not known
    """
    try:
        if not conf.kubernetes.follow_cordon:
            raise errors.Refused('[kubernetes] follow_cordon is off')
        if not name:
            raise errors.Refused(
                'its name is not known; set NODE_NAME in the environment '
                'from spec.nodeName, or [kubernetes] node_name')
        connect = functools.partial(kube_client.api_client, conf)
        if not conf.kubernetes.kubeconfig:
            connect()
    except errors.Refused as exc:
        LOG.info('Cordon and readiness of the Kubernetes node are not '
                 'followed: %s', exc)
        return None
    return Source(connect, name, conf.kubernetes.api_timeout)
