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

"""The cgroups of the kernel: where they are, what they allow, what they hold.
"""

import dataclasses
import functools
import os
import pathlib
import typing as ty

from nova_k8s.confinement import guests_pod
from nova_k8s.kube import client as kube_client
from nova_k8s.util import statefile

# Where the manifests mount the node's tree, and where a process without a
# cgroup namespace of its own has it.
TREES = ('/node/cgroup', '/sys/fs/cgroup')

# Below kubepods.slice/kubepods-burstable.slice, below a cgroup root of the
# kubelet's own.
_DEEPEST = 5


@dataclasses.dataclass(frozen=True)
class Enforced:
    """What the kernel enforces: the least over all levels of a cgroup."""

    where: str
    """The files that say so, for messages."""

    cpu_millicores: ty.Optional[int]
    """None says that no level has a limit."""

    memory_bytes: ty.Optional[int]
    binding: bool
    """It holds for guests. If not, it can only confirm what is said."""


def enforced_from_conf(conf):
    """Return what to call to see what the kernel enforces, or None.

    Where the limits may be those of another pod or container than the one
    that this runs in, nothing is known of them until the operator says which
    cgroup they bound. A downward API volume may show those of another
    container of the pod: then the own cgroup is no bound.
    """
    options = conf.kubernetes
    if not options.pod_cgroup and kube_client.guests_pod(conf, os.environ):
        # Guests are in it, and its cgroup is another one for another pod.
        return functools.partial(_find_enforced_of, guests_pod_folder)
    if options.pod_cgroup:
        return functools.partial(find_enforced, options.pod_cgroup, True)
    downward = options.limits_from == 'downward_api'
    # A pod that is found by its own name, and has one container only.
    own = options.limits_from == 'api' and not (
        options.pod_selector or options.pod_name or options.container)
    folder = own_folder() if downward or own else None
    return folder and functools.partial(find_enforced, folder, own)


def _find_enforced_of(find):
    folder = find()
    return find_enforced(folder, True) if folder else None


def find_enforced(folder, binding):
    """Return the Enforced of a cgroup v2, None where there is nothing to see.

    What the kernel enforces is the least over the cgroup and all above it.
    From inside a container those above are not there to be seen. Does I/O.
    """
    least = {}
    level = pathlib.Path(folder)
    # In every cgroup, and nowhere else.
    while (level / 'cgroup.controllers').exists():
        for name, read in (('cpu.max', _cpu_millicores),
                           ('memory.max', _memory_bytes)):
            try:
                amount = read((level / name).read_text())
            except (OSError, ValueError):
                # The root has none, nor has a level without the controller.
                continue
            if amount is not None and (
                    name not in least or amount < least[name][0]):
                least[name] = amount, str(level / name)
        level = level.parent
    if not least:
        return None
    cpu, memory = (least.get(name, (None,))[0]
                   for name in ('cpu.max', 'memory.max'))
    return Enforced(' and '.join(where for _, where in least.values()),
                    cpu, memory, binding)


def _cpu_millicores(text):
    quota, period = text.split()
    return None if quota == 'max' else int(quota) * 1000 // int(period)


def _memory_bytes(text):
    return None if text.strip() == 'max' else int(text)


def own_limits(folder):
    """Return (millicores, bytes) of a cgroup v2 itself; None for no limit.

    :raises OSError: when it is not there, or lacks a controller
    :raises ValueError: when it says something else than a limit
    """
    return (_cpu_millicores(pathlib.Path(folder, 'cpu.max').read_text()),
            _memory_bytes(pathlib.Path(folder, 'memory.max').read_text()))


def node_tree(trees=TREES):
    """Return the folder of the node's cgroup tree."""
    return next((each for each in trees
                 if os.path.exists(os.path.join(each, 'cgroup.procs'))),
                trees[-1])


def pod_names(uid):
    """What the kubelet calls the cgroup of a pod, with either driver."""
    # cgroupfs: kubepods/burstable/pod<uid>; systemd:
    # kubepods-burstable-pod<uid>.slice, where "-" separates levels.
    return f'pod{uid}', f'pod{uid.replace("-", "_")}.slice'


def pod_folder(tree, uid):
    """Return the folder of a pod's cgroup, None where it is not there.

    :param tree: the folder of the node's cgroup tree
    """
    plain, slice_name = pod_names(uid)
    for folder, children, _ in os.walk(tree):
        for name in children:
            if name == plain or name.endswith(f'-{slice_name}'):
                return os.path.join(folder, name)
        if len(pathlib.Path(folder).relative_to(tree).parts) >= _DEEPEST - 1:
            children.clear()
    return None


def guests_pod_folder(file=guests_pod.UID_FILE):
    """Return the folder of the cgroup of the guests' pod, or None.

    It is the pod that libvirt was told of.
    """
    record = statefile.read_plain(file)
    uid = record.get('uid') if isinstance(record, dict) else None
    return uid and pod_folder(node_tree(), uid)


def read_text(folder, name):
    """Return what a file of a cgroup holds; None where it is not there."""
    try:
        return pathlib.Path(folder, name).read_text().strip()
    except OSError:
        return None


def read_limit(folder, name):
    """Return a limit of a cgroup; None for none, or where it is not there."""
    text = read_text(folder, name)
    return int(text) if text and text.isdigit() else None


def pids_below(folder):
    """Return the processes of a cgroup and of those below it."""
    found = set()
    for path, _, _ in os.walk(folder):
        found.update(map(int, (read_text(path, 'cgroup.procs') or '').split()))
    return found


def own_folder(proc='/proc', mounted='/sys/fs/cgroup'):
    """Return the folder of this process's memory cgroup, None without one.

    The root of all cgroups is none: it holds the whole machine.
    """
    try:
        lines = pathlib.Path(proc, 'self', 'cgroup').read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        hierarchy, controllers, path = line.split(':', 2)
        if hierarchy == '0' and not controllers:
            # With a cgroup namespace, as containers have it, the path is /
            # and the folder is the container's: only the true root lacks it.
            folder = pathlib.Path(mounted, path.lstrip('/'))
            limit = 'memory.max'
        elif controllers == 'memory' and path != '/':
            folder = pathlib.Path(mounted, 'memory', path.lstrip('/'))
            limit = 'memory.limit_in_bytes'
        else:
            continue
        if (folder / limit).exists():
            return str(folder)
    return None


def charged_kb(folder):
    """Return what a cgroup and those below it are charged, page cache apart.

    :raises OSError: when it is not there, or may not be read
    """
    stat = {}
    for line in pathlib.Path(folder, 'memory.stat').read_text().splitlines():
        name, _, value = line.partition(' ')
        if value.isdigit():
            stat[name] = int(value)
    if 'total_rss' in stat:
        # cgroup v1
        used = stat['total_rss'] + stat.get('total_shmem', 0)
    else:
        used = stat.get('anon', 0) + stat.get('shmem', 0)
        # One figure for all of it since Linux 5.18, without what is
        # reclaimable; older ones have the parts.
        used += (stat['kernel'] - stat.get('slab_reclaimable', 0)
                 if 'kernel' in stat else sum(
                     stat.get(each, 0) for each in
                     ('kernel_stack', 'pagetables', 'percpu', 'sock',
                      'slab_unreclaimable')))
    return used // 1024
