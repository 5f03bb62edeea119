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
"""On which volume of a pod a folder lies, and how much may be in it.

The kubelet counts what a pod has on its node's disk: in volumes of the kind
emptyDir, in what containers write beside all volumes (their writable layers),
and in their logs. It evicts a pod, with all that runs in it, that has more in
an emptyDir than its sizeLimit, or more in all than the limits of its
containers for ephemeral-storage are together. Nothing of that counts what is
on other volumes: those are as large as their file systems.

The rules are those of Kubernetes 1.37 (pkg/kubelet/eviction). Pure functions
over what the kernel tells of mounts, and over the dict that Kubernetes
serialises.
"""

import dataclasses
import re
import typing as ty

from nova_k8s import errors
from nova_k8s.limits import fields
from nova_k8s.limits import quantity

_EPHEMERAL = 'ephemeral-storage'

# Where the kubelet keeps the volumes of a pod, below a folder of its own.
_EMPTY_DIR = re.compile(
    r'(?:^|/)pods/([^/]+)/volumes/kubernetes\.io~empty-dir/([^/]+)(?:/|$)')


@dataclasses.dataclass(frozen=True)
class Place:
    """What a folder lies on, as far as the kubelet counts it."""

    volume: ty.Optional[str]
    """The name of the emptyDir, None for the container's writable layer."""

    pod_uid: ty.Optional[str] = None
    """Of the pod whose emptyDir it is, where that is known."""

    def __str__(self):
        return (f'emptyDir {self.volume}' if self.volume else
                'the writable layer of its container')


def find_place(path, mountinfo):
    """Return the Place of a folder; None where the kubelet counts nothing.

    It tells what is mounted, which is what counts: the pod's object tells
    what was asked for, and not in which container this is. An emptyDir in
    memory is a file system of its own, whose size is its limit.

    :param path: absolute, without symbolic links
    :param mountinfo: the text of /proc/self/mountinfo of a process in the pod
    """
    found = None
    for line in mountinfo.splitlines():
        parts = line.split(' ')
        if len(parts) < 5:
            continue
        root, point = (_unescape(each) for each in parts[3:5])
        if path == point or path.startswith(point.rstrip('/') + '/'):
            # The longest one; of those, what was mounted over the others.
            if not found or len(point) >= len(found[1]):
                found = root, point
    if not found:
        return None
    root, point = found
    match = _EMPTY_DIR.search(root)
    if match:
        return Place(match[2], match[1])
    return Place(None) if point == '/' else None


def _unescape(text):
    """A path, of which the kernel writes blanks as octal numbers."""
    return re.sub(r'\\([0-7]{3})', lambda match: chr(int(match[1], 8)), text)


def limit_bytes(pod, place):
    """Return the bytes that may be in a place of a pod; None for no limit.

    What is meant for other volumes of the pod counts as used: the limit of
    the pod is one for all of them.

    :param pod: the dict that Kubernetes serialises
    :param place: a Place
    :raises errors.Unreadable: when that cannot be told, as of a volume that
        the pod has not
    """
    spec = fields.mapping(fields.mapping(pod, 'the object').get('spec'),
                          'spec')
    sizes = _empty_dirs(spec)
    if place.volume is not None and place.volume not in sizes:
        raise errors.Unreadable(
            f'spec.volumes has no emptyDir {place.volume}')
    containers = _container_limits(spec)
    limits = []
    if place.volume is not None:
        limits.append(sizes.pop(place.volume))
    elif containers:
        # Which of them this is, nothing tells: the smallest of all.
        limits.append(min(containers))
    if containers:
        others = sum(size for size in sizes.values() if size)
        limits.append(max(0, sum(containers) - others))
    return min((int(each) for each in limits if each is not None),
               default=None)


def _empty_dirs(spec):
    """By the names of emptyDirs on disk, their limits, None for none."""
    found = {}
    for i, each in enumerate(fields.sequence(spec.get('volumes'),
                                             'spec.volumes')):
        each = fields.mapping(each, f'spec.volumes[{i}]')
        if 'emptyDir' not in each:
            continue
        name = errors.named(each.get('name') or i)
        path = f'spec.volumes[{name}].emptyDir'
        source = fields.mapping(each['emptyDir'], path)
        if source.get('medium'):
            # Memory, or huge pages.
            continue
        size = source.get('sizeLimit')
        # 0 is none: the kubelet takes it so.
        found[name] = (None if size is None else
                       quantity.parse(size, f'{path}.sizeLimit') or None)
    return found


def _container_limits(spec):
    """The limits of the containers that run as long as the pod."""
    found = []
    for field in ('containers', 'initContainers'):
        for i, each in enumerate(fields.sequence(spec.get(field),
                                                 f'spec.{field}')):
            path = f'spec.{field}[{i}]'
            each = fields.mapping(each, path)
            if (field == 'initContainers' and
                    each.get('restartPolicy') != 'Always'):
                continue
            resources = fields.mapping(each.get('resources'),
                                       f'{path}.resources')
            limits = fields.mapping(resources.get('limits'),
                                    f'{path}.resources.limits')
            amount = limits.get(_EPHEMERAL)
            if amount is not None and (amount := quantity.parse(
                    amount, f'{path}.resources.limits.{_EPHEMERAL}')):
                found.append(amount)
    return found
