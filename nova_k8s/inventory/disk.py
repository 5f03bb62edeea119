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
"""How much local disk there is for guests: DISK_GB, and why.

The pod that counts is the one that nova-compute runs in, whichever pod the
limits of CPU and memory are of. An emptyDir belongs to one pod, a writable
layer to one container, and nova-compute has the disks of guests and the image
cache at [DEFAULT] instances_path: where that is on one of them, the pod of
nova-compute is what the kubelet evicts for it. QEMU must have the same folder
there, so it is in that pod too; anywhere else, the folder is one of the node
or of a claim.

Neither the volumes of a pod nor its limits of storage change while it is
there: this is looked at when nova-compute starts.
"""

import dataclasses
import os
import pathlib
import typing as ty

from oslo_log import log as logging

from nova_k8s import errors
from nova_k8s.kube import client as kube_client
from nova_k8s.kube import pods
from nova_k8s.limits import budget
from nova_k8s.limits import pod_spec
from nova_k8s.limits.sources import manifest
from nova_k8s.limits import volumes
from nova_k8s.util import statefile

LOG = logging.getLogger(__name__)

GIB = 1024 ** 3

_FILE = 'nova-k8s-disk.json'

_SCHEMA = {
    'type': 'object',
    'required': ['key', 'limit_bytes'],
    'properties': {
        'key': {'type': 'object'},
        'limit_bytes': {'type': ['integer', 'null'], 'minimum': 0}},
}


@dataclasses.dataclass(frozen=True)
class Disk:
    """What bounds local disk beside its file system."""

    where: str
    """What the disks of guests are on, for people."""

    limit_gb: ty.Optional[int] = None
    """GiB; None for as much as there is, 0 where it is not known."""

    counted: bool = False
    """The kubelet counts it, the image cache included."""

    problem: ty.Optional[str] = None
    """Why the limit is not known, and what to do about it."""


# Volumes in Ceph and LVM are no files here.
_NO_FILES = ('rbd', 'lvm')


def find(conf, environ=os.environ, mountinfo='/proc/self/mountinfo'):
    """Return the Disk. Does I/O.

    :param conf: nova.conf.CONF
    :param mountinfo: path of what the kernel tells of mounts
    """
    given_gb = conf.kubernetes.disk_limit_gb
    if conf.libvirt.images_type in _NO_FILES:
        return Disk(f'[libvirt] images_type = {conf.libvirt.images_type}')
    place = _find_place(conf, environ, mountinfo)
    where = f'{conf.instances_path} on {place or "a file system of its own"}'
    if given_gb is not None:
        return Disk(f'{where}, [kubernetes] disk_limit_gb', given_gb,
                    bool(place))
    if not place:
        return Disk(where)
    try:
        amount = _ask(conf, environ, place)
    except errors.LimitsError as exc:
        return Disk(where, 0, True, (
            f'How much of {where} guests may use is not known: {exc}. The '
            f'kubelet evicts the pod that has more there than it may, with '
            f'all guests, so that no guest with a local disk is placed; set '
            f'[kubernetes] disk_limit_gb, or put instances_path on a volume '
            f'of the kind hostPath or on a claim'))
    if amount is None:
        return Disk(where, counted=True)
    return Disk(where, amount // GIB, True, None if amount >= GIB else (
        f'{where} has a limit of {amount} bytes, which is below one GiB: no '
        f'guest with a local disk is placed'))


def adopt(conf):
    """Return the Disk for nova-compute to start with, and say what it is."""
    found = find(conf)
    if found.counted:
        _reserve_image_cache(conf)
    if found.problem:
        LOG.warning('%s.', found.problem)
    elif found.counted and found.limit_gb is None:
        LOG.warning(
            'Guests may fill the file system of %s: no limit is set there. '
            'The kubelet evicts pods when the node is short of disk; set '
            'sizeLimit, or use a volume of the kind hostPath.', found.where)
    elif found.limit_gb is not None:
        LOG.info('Guests may have %s GiB of local disk: %s', found.limit_gb,
                 found.where)
    return found


def _reserve_image_cache(conf):
    """Have Nova reserve what its image cache takes of DISK_GB.

    For a folder that the kubelet counts. What the operator has set stays.
    """
    name, group = 'reserve_disk_resource_for_image_cache', 'workarounds'
    if not conf.get_location(name, group).location.is_user_controlled:
        conf.set_override(name, True, group)


def _find_place(conf, environ, mountinfo):
    if 'KUBERNETES_SERVICE_HOST' not in environ:
        # In no pod: whatever it is, no kubelet counts it.
        return None
    path = os.path.realpath(conf.instances_path)
    return volumes.find_place(path, pathlib.Path(mountinfo).read_text())


def _ask(conf, environ, place):
    """Return the bytes that may be there; None for no limit.

    :raises errors.LimitsError: when that is not known
    """
    if conf.kubernetes.limits_from == 'manifest':
        return _read_manifest(conf.kubernetes.manifest, place)
    if conf.kubernetes.limits_from != 'api':
        raise errors.Unreadable(
            f'[kubernetes] limits_from = {conf.kubernetes.limits_from} does '
            f'not tell it')
    name = environ.get('POD_NAME')
    if not name:
        raise errors.Unreadable(
            'the pod of nova-compute is not known (POD_NAME in the '
            'environment, from metadata.name)')
    namespace = (environ.get('POD_NAMESPACE') or
                 kube_client.namespace(conf, environ))
    key = {'host': conf.host, 'volume': place.volume, 'uid': place.pod_uid,
           'pod': f'{namespace}/{name}'}
    path = os.path.join(conf.state_path, _FILE)
    try:
        pod = pods.Pod(lambda: kube_client.api_client(conf), namespace, name,
                       conf.kubernetes.api_timeout).read()
    except errors.LimitsError:
        # It does not change while the pod is there.
        kept = statefile.read(path, _SCHEMA, key)
        if not kept:
            raise
        return kept['limit_bytes']
    amount = _limit_of(pod, place, f'Pod {namespace}/{name}')
    _keep(path, {'key': key, 'limit_bytes': amount})
    return amount


def _keep(path, record):
    problem = None
    try:
        statefile.write(path, record)
    except OSError as exc:
        problem = str(exc)
    # Not in the handler: there, oslo.log says the problem a second time.
    if problem:
        LOG.warning('The limit of local disk could not be kept for a restart '
                    'without an API server: %s', problem)


def _limit_of(pod, place, who):
    uid = ((pod or {}).get('metadata') or {}).get('uid')
    if not pod or place.pod_uid not in (None, uid):
        raise errors.Unreadable(f'{who} is not the pod that has {place}')
    try:
        return volumes.limit_bytes(pod, place)
    except errors.LimitsError as exc:
        raise errors.Unreadable(f'{who}: {exc}') from None


def _read_manifest(path, place):
    """The same of the pods in a file: of several the least."""
    found, problems = [], []
    for pod in manifest.load(path):
        try:
            found.append(_limit_of(pod, volumes.Place(place.volume),
                                   pod_spec.describe(pod)))
        except errors.Unreadable as exc:
            problems.append(str(exc))
    if not found:
        raise errors.Unreadable(f'{path}: {errors.listed(problems)}')
    return budget.least(*found)
