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

import pathlib


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
