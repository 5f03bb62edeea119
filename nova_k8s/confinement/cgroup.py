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

"""The cgroups of the kernel: where they are, what they allow and are charged.

"""

import dataclasses
import functools
import pathlib
import typing as ty


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
    if options.pod_cgroup:
        return functools.partial(find_enforced, options.pod_cgroup, True)
    downward = options.limits_from == 'downward_api'
    # A pod that is found by its own name, and has one container only.
    own = options.limits_from == 'api' and not (
        options.pod_selector or options.pod_name or options.container)
    folder = own_folder() if downward or own else None
    return folder and functools.partial(find_enforced, folder, own)


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
