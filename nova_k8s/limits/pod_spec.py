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

"""What a pod may use, as its object says: from a pod to its Budget.

The rules are those of Kubernetes 1.37. Everything here is a pure function
over the dict that Kubernetes serialises.
"""

import dataclasses
import typing as ty

from nova_k8s import errors
from nova_k8s.limits import budget
from nova_k8s.limits import fields
from nova_k8s.limits import pod_status
from nova_k8s.limits import quantity

# [kubernetes] container: whichever container may use most.
WHOLE_POD = '*'

CPU = 'cpu'

MEMORY = 'memory'

EPHEMERAL_STORAGE = 'ephemeral-storage'

HUGEPAGES_PREFIX = 'hugepages-'


@dataclasses.dataclass(frozen=True)
class _Container:
    name: str
    path: str
    spec: ty.Mapping
    status: ty.Mapping


def describe(pod):
    """Return 'Kind namespace/name' of an object, for messages."""
    metadata = fields.mapping(pod.get('metadata'), 'metadata')
    name = errors.named(
        metadata.get('name') or metadata.get('generateName') or '?')
    namespace = metadata.get('namespace')
    return '%s %s' % (
        errors.named(pod.get('kind') or 'Pod'),
        f'{errors.named(namespace)}/{name}' if namespace else name)


def parse(pod, container=None, read_from='', running=False):
    """Return the Budget of a pod or of one of its containers.

    A growth counts when the status shows it, a shrink as soon as the spec
    wishes it: of the two, the smaller. A resize that is Deferred or
    Infeasible is no wish at all.

    That is not all: the status follows seconds after the kernel. Whether it
    can be believed stands in the Budget, see growth.follow().

    :param pod: the pod, as the dict that Kubernetes serialises
    :param container: name of a container or of a restartable init container;
        WHOLE_POD for the most that one of them may use, because the guests
        are all in one. Without any, the pod must have only one container.
    :param read_from: where the pod was read from, for messages
    :param running: whether the container must run, as its status says
    :raises errors.NoContainer: when the container is not there or not given
    :raises errors.NotYet: when it does not run
    :raises errors.Unreadable: when the object is not a valid pod
    """
    who = 'Pod'
    try:
        pod = fields.mapping(pod, 'the object')
        who = describe(pod)
        return _parse(pod, container, who, read_from, running)
    except errors.LimitsError as exc:
        where = f' ({read_from})' if read_from else ''
        raise type(exc)(f'{who}{where}: {exc}') from None


def _parse(pod, choice, who, read_from, running):
    spec = fields.mapping(pod.get('spec'), 'spec')
    status = fields.mapping(pod.get('status'), 'status')
    pending = pod_status.resize_not_accepted(pod, status)
    containers = _long_running(spec, status)
    _check_requests(spec, 'spec')
    pod_limits = _pod_limits(spec, status, pending)
    pod_requests = _pod_requests(spec, containers)

    if choice == WHOLE_POD:
        chosen, who = containers, f'{who}, all containers'
    else:
        chosen = [_choose(containers, choice, spec)]
        who = f'{who}, container {chosen[0].name}'

    if running:
        pod_status.check_running(chosen, status)
    limits, missing = {}, []
    own = [_container_limits(c, pending) for c in chosen]
    for resource in (CPU, MEMORY, EPHEMERAL_STORAGE):
        values = [budget.least(each.get(resource), pod_limits.get(resource))
                  for each in own]
        if None not in values:
            limits[resource] = max(values)
        elif resource != EPHEMERAL_STORAGE:
            missing += _missing(resource, chosen, values)
    hugepages = {}
    for resource in sorted({r for each in (*own, pod_limits) for r in each
                            if r.startswith(HUGEPAGES_PREFIX)}):
        total = max(each.get(resource, 0) for each in own)
        if resource in pod_limits:
            # Huge pages at the level of the pod are not divided among its
            # containers: one that names none may use them all.
            total = (pod_limits[resource] if choice == WHOLE_POD
                     else min(total or pod_limits[resource],
                              pod_limits[resource]))
        hugepages[resource[len(HUGEPAGES_PREFIX):]] = int(total)

    requests = {r: _request(r, choice, chosen, pod_requests, limits)
                for r in (CPU, MEMORY)}
    return budget.Budget(
        source=who + (f' ({read_from})' if read_from else ''),
        cpu_millicores=_integer(limits.get(CPU), 1000),
        memory_bytes=_integer(limits.get(MEMORY)),
        hugepages=tuple(hugepages.items()),
        ephemeral_storage_bytes=_integer(limits.get(EPHEMERAL_STORAGE)),
        cpu_request_millicores=_integer(requests[CPU], 1000),
        memory_request_bytes=_integer(requests[MEMORY]),
        missing=tuple(missing),
        node_name=errors.named(spec.get('nodeName') or '') or None,
        deletion_time=pod_status.deletion_time(pod),
        **pod_status.observed(pod, status),
        resize_error=pod_status.resize_error(status),
        resize_pending=pending.why,
        pod=_reference(pod),
        workload=_workload(pod))


def _missing(resource, chosen, values):
    """The paths of limits that are not set, of a resource."""
    found = []
    for each, value in zip(chosen, values):
        if value is None:
            path = f'{each.path}.resources.limits'
            wished = _parse_all(fields.mapping(
                each.spec.get('resources'), path), 'limits', each.path)
            found.append(f'{path}.{resource}' + (
                ' (0, which Kubernetes takes for none)'
                if resource in wished else ''))
    return found


def _reference(pod):
    metadata = fields.mapping(pod.get('metadata'), 'metadata')
    if not metadata.get('uid'):
        return None
    return budget.Reference('Pod', errors.named(metadata.get('name')),
                            errors.named(metadata['uid']),
                            errors.named(metadata.get('namespace') or ''))


def _workload(pod):
    """Return what replaces a pod that was deleted, or None.

    The guests' pod belongs to its Node, as mirror pods do: nothing makes
    another one.
    """
    metadata = fields.mapping(pod.get('metadata'), 'metadata')
    owners = fields.sequence(metadata.get('ownerReferences'),
                             'metadata.ownerReferences')
    for i, each in enumerate(owners):
        each = fields.mapping(each, f'metadata.ownerReferences[{i}]')
        if each.get('controller') and each.get('kind') != 'Node':
            return (f'{errors.named(each.get("kind"))} '
                    f'{errors.named(each.get("name"))}')
    return None


def _long_running(spec, status):
    """The containers that run as long as the pod: not plain init ones."""
    statuses = {}
    for field in ('containerStatuses', 'initContainerStatuses'):
        for i, each in enumerate(fields.sequence(
                status.get(field), f'status.{field}')):
            each = fields.mapping(each, f'status.{field}[{i}]')
            statuses[errors.named(each.get('name'))] = each
    found = []
    for field in ('containers', 'initContainers'):
        for i, each in enumerate(fields.sequence(
                spec.get(field), f'spec.{field}')):
            each = fields.mapping(each, f'spec.{field}[{i}]')
            if (field == 'initContainers' and
                    each.get('restartPolicy') != 'Always'):
                continue
            name = errors.named(each.get('name') or i)
            path = f'spec.{field}[{name}]'
            _check_requests(each, path)
            found.append(_Container(name, path, each,
                                    statuses.get(name, {})))
    if not found:
        raise errors.Unreadable('spec.containers: there is none')
    return found


def _choose(containers, name, spec):
    names = errors.listed(c.name for c in containers)
    if name:
        for each in containers:
            if each.name == name:
                return each
        if any(fields.mapping(c, 'spec.initContainers').get('name') == name
               for c in spec.get('initContainers') or []):
            raise errors.NoContainer(
                f'spec.initContainers[{name}] ends before the pod runs, its '
                f'limits hold no guests; set [kubernetes] container to one of '
                f'{names}')
        raise errors.NoContainer(
            f'spec.containers has no container {name}; set [kubernetes] '
            f'container to one of {names}')
    if len(containers) > 1:
        raise errors.NoContainer(
            f'spec.containers has several containers; set [kubernetes] '
            f'container to the one whose limits are meant for guests '
            f'({names})')
    return containers[0]


def _container_limits(container, pending):
    wished = _amounts(container.spec, 'limits', container.path)
    return _effective(wished, container.status,
                      f'status of {container.path}', pending)


def _pod_limits(spec, status, pending):
    wished = _amounts(spec, 'limits', 'spec')
    # The status holds all resources of the pod's cgroup; those that the spec
    # does not limit at the level of the pod are not the pod's own limits.
    actual = _effective(wished, status, 'status', pending)
    return {r: v for r, v in actual.items() if r in wished}


def _effective(wished, status, path, pending):
    if status.get('resources') is None:
        if pending.why and wished:
            raise errors.Unreadable(
                f'{path}: a resize is {pending.why}, and what is in force is '
                f'not told')
        return wished
    actual = _amounts(status, 'limits', path)
    if pending.certain:
        return actual
    return {r: budget.least(wished.get(r), actual.get(r))
            for r in {*wished, *actual}}


def _check_requests(spec, path):
    """The API server takes no request above its limit.

    Not for a status: while a resize is under way it shows the new request
    beside the old limit.
    """
    limits = _amounts(spec, 'limits', path)
    for resource, request in _amounts(spec, 'requests', path).items():
        if resource in limits and request > limits[resource]:
            raise errors.Unreadable(
                f'{path}.resources.requests.{errors.named(resource)}: '
                f'{request} is above the limit of {limits[resource]}')


def _amounts(holder, kind, path):
    """The limits or requests below holder['resources'].

    A limit of 0 is none: the kubelet and the kernel take it so.
    """
    resources = fields.mapping(holder.get('resources'), f'{path}.resources')
    amounts = _parse_all(resources, kind, path)
    if kind == 'limits':
        return {r: v for r, v in amounts.items() if v}
    return amounts


def _parse_all(resources, kind, path):
    path = f'{path}.resources.{kind}'
    amounts = {}
    for resource, value in fields.mapping(resources.get(kind), path).items():
        if not isinstance(resource, str):
            # YAML has keys that JSON has not.
            raise errors.Unreadable(
                f'{path}: {errors.shown(resource)} is not the name of a '
                f'resource')
        field = f'{path}.{errors.named(resource)}'
        amounts[resource] = quantity.parse(value, field)
        if resource.startswith(HUGEPAGES_PREFIX):
            size = quantity.parse(resource[len(HUGEPAGES_PREFIX):], field)
            if size < 1 or amounts[resource] % size:
                raise errors.Unreadable(
                    f'{field}: {errors.shown(value)} is not a multiple of the '
                    f'page size')
    return amounts


def _request(resource, choice, chosen, pod_requests, limits):
    """What the scheduler counts; where none is set, Kubernetes sets it."""
    if choice == WHOLE_POD and resource in pod_requests:
        return pod_requests[resource]
    values = [_container_request(each, resource) for each in chosen]
    if None in values:
        # It lives on what the pod has beside the others.
        return pod_requests.get(resource, limits.get(resource))
    return max(values)


def _container_request(container, resource):
    requests = _amounts(container.spec, 'requests', container.path)
    default = _amounts(container.spec, 'limits', container.path)
    return requests.get(resource, default.get(resource))


def _pod_requests(spec, containers):
    """The requests at the level of the pod, as the API server completes them.

    A pod with a limit of its own gets for its request what its containers
    request, even where only some of them do, and only else the limit.
    """
    requests = dict(_amounts(spec, 'requests', 'spec'))
    limits = _amounts(spec, 'limits', 'spec')
    if not limits:
        return requests
    for resource in (CPU, MEMORY):
        values = [value for value in (_container_request(each, resource)
                                      for each in containers)
                  if value is not None]
        if values:
            requests.setdefault(resource, sum(values))
        elif resource in limits:
            requests.setdefault(resource, limits[resource])
    return requests


def _integer(amount, factor=1):
    # Kubernetes rounds up: of 0.9999 the kubelet makes 1000 millicores. Down
    # is the side that cannot promise more than the kernel gives.
    return None if amount is None else int(amount * factor)
