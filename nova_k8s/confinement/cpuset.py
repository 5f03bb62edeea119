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

"""The CPUs and memory nodes that the kubelet gave to the guests' container.

With the static CPU manager only the container of a pod gets its CPUs; the
pod's own cgroup has all. libvirt.sh keeps the cgroup of the guests equal to
what is read here.
"""

import dataclasses
import os
import typing as ty

from nova_k8s.confinement import cgroup
from nova_k8s.confinement import guests_pod
from nova_k8s.util import cpulist
from nova_k8s.util import statefile


@dataclasses.dataclass(frozen=True)
class Seen:
    """What the kernel lets the container have."""

    cpus: ty.FrozenSet[int]
    mems: ty.FrozenSet[int]
    """Memory nodes."""

    assigned: bool = False
    """The kubelet wrote the CPUs: its CPU manager is the static one."""


def container_folder(pod, container):
    """Return the folder of a container's cgroup, None where it is not there.

    :param pod: the folder of its pod's cgroup
    :param container: its ID, without the name of the runtime
    """
    # <id> with the kubelet's cgroupfs driver; cri-containerd-<id>.scope,
    # crio-<id>.scope and the like with systemd.
    try:
        names = os.listdir(pod)
    except OSError:
        return None
    return next((os.path.join(pod, name) for name in sorted(names)
                 if name == container or
                 name.endswith(f'-{container}.scope')), None)


def read(folder):
    """Return the Seen of a container's cgroup, None where nothing is seen.

    None as well where it has no CPU: a container that is on its way out. Does
    I/O.
    """
    try:
        cpus, mems = (
            cpulist.parse(cgroup.read_text(folder, f'{name}.effective') or '')
            for name in ('cpuset.cpus', 'cpuset.mems'))
    except ValueError:
        return None
    if not cpus or not mems:
        return None
    return Seen(cpus, mems, bool(cgroup.read_text(folder, 'cpuset.cpus')))


class Reader:
    """Looks again and again, and walks the node's tree only when it must.

    :param tree: the folder of the node's cgroup tree
    """

    def __init__(self, tree=None, told=guests_pod.UID_FILE):
        self._tree = tree or cgroup.node_tree()
        self._told = told
        self._which = self._folder = None

    def look(self, pod=None):
        """Return the Seen of the guests' pod, None where nothing is seen.

        :param pod: as a dict; None where it is not known now: then it is the
            one that libvirt was told of
        """
        record = (guests_pod.record(pod) if pod else
                  statefile.read_plain(self._told))
        if not isinstance(record, dict):
            return None
        which = record.get('uid'), record.get('container')
        if not all(which):
            return None
        if which != self._which or not self._folder or (
                not os.path.isdir(self._folder)):
            folder = cgroup.pod_folder(self._tree, which[0])
            self._folder = folder and container_folder(folder, which[1])
            self._which = which
        return read(self._folder) if self._folder else None
