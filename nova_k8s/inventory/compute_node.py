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

"""The name of Nova's compute node, on which inventory and allocations hang."""

from nova import context as nova_context
from nova import exception
from nova import objects

from nova_k8s import errors
from nova_k8s.inventory import hugepages
from nova_k8s.kube import client as kube_client


def find(host):
    """Return the objects.ComputeNode that Nova has of a host."""
    try:
        return list(objects.ComputeNodeList.get_all_by_host(
            nova_context.get_admin_context(), host))
    except exception.ComputeHostNotFound:
        return []


def offer_pages(numa_topology, offered):
    """Return a compute node's NUMA topology with other huge pages offered.

    What guests use of them stays counted.

    :param numa_topology: as the record has it, JSON or None
    :param offered: as from hugepages.offer()
    """
    if not numa_topology:
        return numa_topology
    found = objects.NUMATopology.obj_from_db_obj(numa_topology)
    hugepages.reserve(found, offered)
    return found._to_json()


def most_sold(node):
    """Return the most that guests may have of it, as sold has it.

    Of its memory, huge pages are no part that could be told apart.

    :param node: objects.ComputeNode
    """
    cells = objects.NUMATopology.obj_from_db_obj(
        node.numa_topology).cells if node.numa_topology else ()
    dedicated = frozenset().union(*(cell.pcpuset for cell in cells))
    return node.memory_mb or 0, 1000 * ((node.vcpus or 0) + len(dedicated))


def choose_name(conf, environ, budget, known=()):
    """Return the name of the compute node; None for libvirt's.

    :param conf: nova.conf.CONF
    :param budget: budget.Budget, or None where there is none now
    :param known: as from find()
    :raises errors.Refused: in a pod that does not know its node
    """
    name = (conf.kubernetes.hypervisor_hostname or
            kube_client.node_name(conf, environ) or
            (budget and budget.node_name))
    if not name and not budget and known:
        # What the limits told at the last start, or libvirt.
        name = known[0].hypervisor_hostname
    if not name and 'KUBERNETES_SERVICE_HOST' in environ:
        raise errors.Refused(
            'The name of the Kubernetes node is not known, and the host '
            'name of a pod is random; set NODE_NAME in the environment '
            'from spec.nodeName, or [kubernetes] node_name, or '
            '[kubernetes] hypervisor_hostname, = $host where the pod has '
            "the node's host name (hostNetwork)")
    return name


def check_name(host, name, known):
    """Refuse to become a second compute node beside a running one.

    Nova itself refuses too, but cannot name the way out.

    :param host: [DEFAULT] host
    :param name: of the compute node, or None
    :param known: as from find()
    :raises errors.Refused: with the option to set
    """
    if not name:
        return
    if not known:
        _check_host(nova_context.get_admin_context(), host, name)
        return
    names = [node.hypervisor_hostname for node in known]
    if name not in names:
        raise errors.Refused(
            f'Nova knows the compute node of host {host} as '
            f'{", ".join(names)}, and now it would be {name}. '
            f'To keep the record and its allocations, set [kubernetes] '
            f'hypervisor_hostname = {names[0]}')


def _check_host(context, host, name):
    """Refuse the name of a compute node of another host."""
    try:
        other = objects.ComputeNode.get_by_nodename(context, name)
    except exception.ComputeHostNotFound:
        return
    raise errors.Refused(
        f'Nova knows compute node {name} as that of host '
        f'{other.host}, and this host is {host}. If that is this machine '
        f'under another host name, as each new pod has one, set '
        f'[DEFAULT] host = {other.host} (OS_DEFAULT__HOST in the '
        f'environment); if not, give this one a name of its own in '
        f'[kubernetes] hypervisor_hostname')
