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

"""The guests' pod: one pod that is the guests' share of a Kubernetes node.

Its limits are what Nova is told, and QEMU is born in a child of its cgroup.
It belongs to the Node object, as one that is made and not scheduled from a
set of replicas: whatever counts replicas picks victims.

What others build on:

- Its name is ``guests-<node>``.
- The file UID_FILE on the node tells which pod it is, as
  ``{"uid": ..., "name": ..., "namespace": ..., "container": ...}``, with the
  ID of its container; the driver writes it once the pod runs, whole or not at
  all, for everybody to read.
- Below the cgroup of the pod lies the cgroup CHILD, made by whatever starts
  libvirtd. libvirtd is in its leaf ``libvirtd``, guests are below
  ``machine``. Whoever made it keeps its CPUs and memory nodes those of the
  container.
- The annotation HELD says how much memory guests hold, in bytes. The
  admission policies of etc/kubernetes refuse what would take it from them.
"""

import copy
import dataclasses
import re
import typing as ty

import yaml

from nova_k8s import errors
from nova_k8s.limits import quantity

UID_FILE = '/run/nova-k8s/guests-pod.json'
CHILD = 'guests'
HELD = 'nova-k8s/guests-held-memory'

# Of the Node: nova-k8s/guests-memory, -cpu, -hugepages-2Mi and so on.
SIZE_PREFIX = 'nova-k8s/guests-'

_HUGEPAGES = 'hugepages-'
_SHARE = re.compile(r'(\d{1,3}(?:\.\d{1,6})?)%')
_MIB = 1024 * 1024

# What phase() returns.
MISSING, PENDING, RUNS, ENDS, ENDED = (
    'missing', 'pending', 'runs', 'ends', 'ended')

# Why no guest is placed, as Nova shows it.
ENDING = "guests' pod ending"

# By how much what guests hold must fall before it is written again.
_FALL = 0.9

# That of a pod, and Kubernetes takes no longer one.
_LONGEST_NAME = 253

# Guests stay while the node is not reachable or not ready, for however long.
_STAY = {'operator': 'Exists', 'effect': 'NoExecute'}


@dataclasses.dataclass(frozen=True)
class Host:
    """What has to be known of the Kubernetes node."""

    name: str
    uid: str
    annotations: ty.Mapping[str, str]
    allocatable: ty.Mapping[str, str]


def parse_template(text, path):
    """Return the template, a Pod as a dict.

    :param path: where it was read from, for messages
    :raises errors.Refused: when no guests' pod can be made of it
    """
    try:
        body = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise errors.Refused(
            f'{path}: no YAML: {" ".join(str(exc).split())}') from None
    if not isinstance(body, dict) or body.get('kind') != 'Pod':
        raise errors.Refused(f'{path}: it holds no object of kind Pod')
    spec = body.get('spec')
    if not isinstance(spec, dict):
        raise errors.Refused(f'{path}: spec is missing')
    containers = spec.get('containers')
    if not isinstance(containers, list) or len(containers) != 1 or (
            not isinstance(containers[0], dict)):
        raise errors.Refused(
            f'{path}: spec.containers must be one container, whose limits '
            f'are those of all guests together')
    for field in ('initContainers', 'resources'):
        if spec.get(field):
            raise errors.Refused(
                f'{path}: spec.{field} is set; the limits of the guests are '
                f'those of the one container')
    if spec.get('nodeName'):
        # The scheduler would not be asked, and the kubelet ends other pods
        # to make room for a critical one.
        raise errors.Refused(
            f'{path}: spec.nodeName is set; the pod is bound to its node by '
            f'an affinity that is added')
    return body


def size(template, host, path, first=None):
    """Return the limits of the pod, by resource, as Kubernetes writes them.

    Those of the template, unless an annotation of the Node says otherwise:
    nova-k8s/guests-memory, nova-k8s/guests-cpu, nova-k8s/guests-hugepages-2Mi
    and so on. Either may be a share of what is allocatable on the node, such
    as ``75%``.

    :param first: what else it starts with, by resource: of a pod that grows
        and shrinks, neither counts
    :raises errors.Refused: when it cannot be told
    """
    container = template['spec']['containers'][0]
    resources = container.get('resources') or {}
    wished = {}
    for resource, value in (resources.get('limits') or {}).items():
        wished[resource] = (value, f'{path}: spec.containers[0].resources.'
                                   f'limits.{resource}')
    for key, value in host.annotations.items():
        resource = key[len(SIZE_PREFIX):]
        if key.startswith(SIZE_PREFIX) and (
                resource in ('cpu', 'memory') or
                resource.startswith(_HUGEPAGES)):
            wished[resource] = (value, f'Node {host.name}: annotation {key}')
    found = {resource: _amount(resource, value, where, host)
             for resource, (value, where) in wished.items()
             if resource not in (first or {})}
    found.update(first or {})
    for resource in ('cpu', 'memory'):
        if not found.get(resource):
            raise errors.Refused(
                f'{path}: no {resource} for the guests of Node {host.name}; '
                f'set spec.containers[0].resources.limits.{resource}, or the '
                f'annotation {SIZE_PREFIX}{resource} of the Node')
    return {resource: value for resource, value in found.items() if value}


def _amount(resource, value, where, host):
    """Return one limit; None for 0, which takes a resource away."""
    match = _SHARE.fullmatch(str(value).strip())
    if not match:
        amount = quantity.parse(value, where)
        if resource.startswith(_HUGEPAGES):
            page = quantity.parse(resource[len(_HUGEPAGES):], where)
            if not page or amount % page:
                raise errors.Refused(
                    f'{where}: {errors.shown(value)} is no multiple of the '
                    f'page size')
        return str(value) if amount else None
    if resource not in host.allocatable:
        raise errors.Refused(
            f'{where}: {value} of nothing: Node {host.name} has no '
            f'status.allocatable.{resource}')
    whole = quantity.parse(host.allocatable[resource],
                           f'Node {host.name}: status.allocatable.{resource}')
    # Exact, as Decimal; down, because the rest belongs to others.
    amount = whole * quantity.parse(match[1], where) / 100
    if amount > whole:
        raise errors.Refused(f'{where}: {value} is more than all')
    if resource == 'cpu':
        amount = int(amount * 1000)
        return f'{amount}m' if amount else None
    unit = (int(quantity.parse(resource[len(_HUGEPAGES):], where))
            if resource.startswith(_HUGEPAGES) else _MIB)
    amount = int(amount // unit) * unit
    if not amount:
        return None
    return f'{amount // _MIB}Mi' if amount % _MIB == 0 else str(amount)


def render(template, host, name, namespace, grace, path, first=None):
    """Return the manifest of the guests' pod of a node.

    :param template: as from parse_template()
    :param host: the Host
    :param name: of the pod
    :param grace: spec.terminationGracePeriodSeconds
    :param path: of the template, for messages
    :param first: as for size()
    :raises errors.Refused: when it cannot be made
    """
    if len(name) > _LONGEST_NAME:
        raise errors.Refused(
            f'Node {host.name}: {name} is too long for the name of a pod')
    pod = copy.deepcopy(template)
    metadata = dict(pod.get('metadata') or {}, name=name, namespace=namespace)
    metadata['ownerReferences'] = [{
        'apiVersion': 'v1', 'kind': 'Node', 'name': host.name,
        'uid': host.uid, 'controller': True}]
    spec = pod['spec']
    affinity = dict(spec.get('affinity') or {})
    # By the name of the object: the label kubernetes.io/hostname may differ.
    affinity['nodeAffinity'] = {
        'requiredDuringSchedulingIgnoredDuringExecution': {
            'nodeSelectorTerms': [{'matchFields': [{
                'key': 'metadata.name', 'operator': 'In',
                'values': [host.name]}]}]}}
    spec['affinity'] = affinity
    tolerations = list(spec.get('tolerations') or [])
    spec['tolerations'] = tolerations + (
        [] if _STAY in tolerations else [dict(_STAY)])
    spec['terminationGracePeriodSeconds'] = grace
    limits = size(template, host, path, first)
    # The same: what Kubernetes promises to nobody else, and Guaranteed, which
    # goes last when the node runs short.
    spec['containers'][0]['resources'] = {
        'requests': dict(limits), 'limits': limits}
    return {'apiVersion': 'v1', 'kind': 'Pod', 'metadata': metadata,
            'spec': spec}


def phase(pod):
    """Return (phase, why it is not RUNS) of the guests' pod.

    :param pod: as a dict; None where there is none
    """
    if pod is None:
        return MISSING, 'it is not there'
    status = pod.get('status') or {}
    if status.get('phase') in ('Failed', 'Succeeded'):
        return ENDED, status.get('reason') or status['phase']
    if status.get('phase') == 'Running':
        return (ENDS if pod['metadata'].get('deletionTimestamp') else RUNS,
                'it is being deleted')
    for condition in status.get('conditions') or []:
        if condition.get('status') == 'False' and condition.get('message'):
            return PENDING, condition['message']
    return PENDING, 'it has not started'


def record(pod):
    """Return what UID_FILE says of a pod.

    :param pod: as a dict
    """
    found = {key: pod['metadata'][key] for key in ('uid', 'name', 'namespace')}
    for each in (pod.get('status') or {}).get('containerStatuses') or []:
        # containerd://<id>; none before it started first.
        container = (each.get('containerID') or '').rpartition('://')[2]
        if container:
            found['container'] = container
    return found


def is_news(known, held):
    """Whether what guests hold is worth writing.

    A rise is, because a shrink must not take it. A fall is when it is large,
    or to nothing: until then a little too much is refused.

    :param known: the annotation, as text, or None
    :param held: bytes, or None where it is not known yet
    """
    if held is None:
        return False
    try:
        known = int(known)
    except (TypeError, ValueError):
        return True
    return held > known or held < known * _FALL
