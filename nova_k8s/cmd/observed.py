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


"""What nova-k8s status asks: Kubernetes, Nova, Placement and libvirt."""

import dataclasses
import datetime
import typing as ty

import libvirt
from nova.conductor import rpcapi as conductor
import nova.conf
from nova import context as nova_context
from nova import objects
from nova.objects import base as objects_base
from nova import rpc
from nova.scheduler.client import report as placement_client
from nova import servicegroup

from nova_k8s.cmd import comparison
from nova_k8s.confinement import cgroup
from nova_k8s import errors
from nova_k8s.inventory import placement
from nova_k8s.kube import node as nodes
from nova_k8s.limits import checkpoint
from nova_k8s.limits import sources
from nova_k8s.limits import watcher
from nova_k8s.service import reasons
from nova_k8s.util import deadline

CONF = nova.conf.CONF


@dataclasses.dataclass(frozen=True)
class Nova:
    """What Nova knows of this compute node."""

    record: reasons.Record
    uuid: str
    """Of the service record."""

    up: bool
    last_seen: ty.Optional[datetime.datetime]
    vcpus: ty.Optional[int]
    memory_mb: ty.Optional[int]
    guests: int
    provider: str
    """UUID of its resource provider in Placement."""


def within(seconds, who, ask):
    """Return (what ask returns, None), or (None, why it is not known)."""
    try:
        # Nova's messaging waits for ever for a server that is away.
        return deadline.call(lambda _given_up: ask(), seconds, who), None
    except deadline.NoAnswer:
        return None, (f'{comparison.UNKNOWN}: {who}: no answer within '
                      f'{seconds} s')
    except Exception as exc:
        words = ' '.join(str(exc).split()) or type(exc).__name__
        return None, f'{comparison.UNKNOWN}: {who}: {words}'


def ask_nova():
    """Return what Nova knows, in the way of nova-compute: by the conductor.

    All that it takes stands in the nova.conf of nova-compute; an account for
    Nova's API does not.
    """
    if rpc.TRANSPORT is None:
        objects.register_all()
        rpc.set_defaults(control_exchange='nova')
        rpc.init(CONF)
        objects_base.NovaObject.indirection_api = conductor.ConductorAPI()
    context = nova_context.get_admin_context()
    found = objects.Service.get_by_compute_host(context, CONF.host)
    nodes_ = objects.ComputeNodeList.get_all_by_host(context, CONF.host)
    return Nova(
        reasons.Record(found.disabled, found.disabled_reason), found.uuid,
        servicegroup.API().service_is_up(found), found.last_seen_up,
        nodes_[0].vcpus, nodes_[0].memory_mb,
        len(objects.InstanceList.get_uuids_by_host(context, CONF.host)),
        nodes_[0].uuid)


def ask_placement(provider):
    """Return (inventories, usages) that Placement has, by resource class.

    :raises errors.Unreadable: when it answers something else
    """
    found = []
    for name in ('inventories', 'usages'):
        answer = placement_client.report_client_singleton().get(
            f'/resource_providers/{provider}/{name}',
            version=placement.VERSION)
        if answer.status_code != 200:
            raise errors.Unreadable(
                f'answered {answer.status_code} on the {name} of resource '
                f'provider {provider}')
        found.append(answer.json()[name])
    return found


def limits(known):
    """Return (watcher.State, None), or (None, why the limits are not known).

    :param known: the Budget that nova-compute goes by, or None
    """
    try:
        return watcher.State(watcher.read_first(
            sources.from_conf(CONF), 0, known=known,
            enforced=cgroup.enforced_from_conf(CONF) or watcher.nothing)), None
    except errors.LimitsError as exc:
        return None, str(exc)


def kept():
    """Return what nova-compute read last and when, or None."""
    if CONF.kubernetes.limits_from != 'api':
        return None
    try:
        return checkpoint.load(CONF)
    except errors.LimitsError:
        return None


def node(name):
    """Return (nodes.Node, None), or (None, the state of its parts)."""
    if not CONF.kubernetes.follow_cordon:
        return None, f'{comparison.OFF}: [kubernetes] follow_cordon'
    if not name:
        return None, (f'{comparison.OFF}: NODE_NAME and [kubernetes] '
                      f'node_name are not set')
    source = nodes.from_conf(CONF, name)
    if not source:
        return None, (f'{comparison.OFF}: neither a service account of a pod '
                      f'nor [kubernetes] kubeconfig')
    try:
        return source.ask(), None
    except errors.LimitsError as exc:
        return None, f'{comparison.UNKNOWN}: {exc}'


def libvirt_guests():
    """Return how many guests run, or None where libvirt does not answer."""
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    try:
        connection = libvirt.openReadOnly(
            CONF.libvirt.connection_uri or 'qemu:///system')
    except libvirt.libvirtError:
        return None
    try:
        return connection.numOfDomains()
    finally:
        connection.close()
