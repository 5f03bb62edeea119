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

"""The cgroups of the kernel: where they are, and what they are charged."""

import os
import pathlib

# Where the manifests mount the node's tree, and where a process without a
# cgroup namespace of its own has it.
TREES = ('/node/cgroup', '/sys/fs/cgroup')

# Below kubepods.slice/kubepods-burstable.slice, below a cgroup root of the
# kubelet's own.
_DEEPEST = 5


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
