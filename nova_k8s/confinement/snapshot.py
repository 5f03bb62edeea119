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

"""What the kernel and Kubernetes say of where guests are: a frozen value.

The reader only reads; what it means is for findings to say.
"""

import dataclasses
import pathlib
import re
import typing as ty

from nova_k8s.confinement import cgroup
from nova_k8s.confinement import guest_slice as slices
from nova_k8s.confinement import guests_pod
from nova_k8s.util import statefile

# QEMU's name of a guest, as libvirt writes it.
_NAME = re.compile(rb'\0-name\0(?:guest=)?([^,\0]+)')

# The cgroup of any pod, with either of the kubelet's drivers.
_POD = re.compile(r'/(?:[^/]*-)?pod[0-9a-f]{8}[-_][^/]+')

# The kernel's own process, which is seen in the PID namespace of the machine
# alone.
_KTHREADD = 'kthreadd'


@dataclasses.dataclass(frozen=True)
class Guest:
    """One guest, and where it really is."""

    uuid: str
    name: str
    pid: int
    cgroup: str
    inside: bool
    """Below the cgroup of the guests' pod, or the one that guests are in."""

    @property
    def in_another_pod(self):
        return not self.inside and bool(_POD.search(self.cgroup))


@dataclasses.dataclass(frozen=True)
class Pod:
    """The guests' pod, as the API server tells it."""

    name: str
    uid: str
    phase: str
    qos: str


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """All that the check looks at. None is not known, unless it says else."""

    v2: bool
    """Whether the node has cgroup v2 alone."""

    node_pids: bool
    """Whether the processes of the node are seen."""

    expected: bool = True
    """Whether there is to be a guests' pod."""

    guest_slice: ty.Optional[str] = None
    """[kubernetes] guest_slice; None where guests are in a pod."""

    unlimited: ty.Tuple[str, ...] = ()
    """Files of that cgroup in which there is no limit."""

    pod: ty.Optional[Pod] = None
    """None where there is none."""

    pod_problem: ty.Optional[str] = None
    """Why it is not known whether there is one."""

    told_uid: ty.Optional[str] = None
    """The pod that libvirt was told of; None for none."""

    folder: ty.Optional[str] = None
    """The cgroup of the guests' pod, or that of guest_slice; None where it
    is not seen."""

    controllers: ty.Optional[ty.FrozenSet[str]] = None
    """Those that guests have; None before libvirt made its cgroup."""

    oom_group: bool = False
    """Whether the kernel ends all of the pod at once."""

    pids_max: ty.Optional[int] = None
    """None for no limit; so the next one."""

    descendants_max: ty.Optional[int] = None
    pids: int = 0
    descendants: int = 0
    swap_bytes: int = 0
    """What the node has of it, as far as the pod may use it."""

    shutdown_grace: ty.Optional[float] = None
    """Seconds that the kubelet gives to critical pods at a shutdown."""

    guests: ty.Tuple[Guest, ...] = ()


def read(tree, guests, pod=None, pod_problem=None, expected=True,
         shutdown_grace=None, proc='/proc', told=guests_pod.UID_FILE,
         guest_slice=None):
    """Return the Snapshot of now. Does I/O.

    :param tree: the folder of the node's cgroup tree
    :param guests: PID by UUID of the guests that are seen
    :param pod: the guests' pod as a dict, None where there is none
    :param guest_slice: [kubernetes] guest_slice, where guests are in no pod
    """
    record = statefile.read_plain(told)
    uid = pod and pod['metadata']['uid']
    # Without the API server, what was told last is the best that is known.
    uid = uid or (pod_problem and record and record.get('uid'))
    folder = uid and cgroup.pod_folder(tree, uid)
    if guest_slice:
        guest_slice = slices.normalize(guest_slice)
        folder = str(pathlib.Path(tree, guest_slice.lstrip('/')))
        if not pathlib.Path(folder, 'cgroup.controllers').exists():
            folder = None
    inside = cgroup.pids_below(folder) if folder else set()
    found = {
        'v2': pathlib.Path(tree, 'cgroup.controllers').exists(),
        'node_pids': cgroup.read_text(f'{proc}/2', 'comm') == _KTHREADD,
        'expected': expected, 'pod_problem': pod_problem,
        'told_uid': record.get('uid') if isinstance(record, dict) else None,
        'folder': folder, 'shutdown_grace': shutdown_grace,
        'guest_slice': guest_slice,
        'guests': tuple(_guest(proc, uuid, pid, pid in inside)
                        for uuid, pid in sorted(guests.items())),
    }
    if pod:
        status = pod.get('status') or {}
        found['pod'] = Pod(pod['metadata']['name'], uid,
                           status.get('phase', '?'),
                           status.get('qosClass', '?'))
    if folder:
        found.update(_limits(folder, proc), pids=len(inside))
    if folder and guest_slice:
        found['unlimited'] = tuple(
            name for name in ('memory.max', 'cpu.max')
            if (cgroup.read_text(folder, name) or 'max').startswith('max'))
    return Snapshot(**found)


def _limits(folder, proc):
    child = f'{folder}/{guests_pod.CHILD}'
    controllers = cgroup.read_text(child, 'cgroup.subtree_control')
    stat = dict(line.split() for line in (cgroup.read_text(
        folder, 'cgroup.stat') or '').splitlines())
    total = re.search(r'^SwapTotal:\s+(\d+)', cgroup.read_text(
        proc, 'meminfo') or '', re.MULTILINE)
    swap = int(total.group(1)) * 1024 if total else 0
    allowed = cgroup.read_limit(folder, 'memory.swap.max')
    return {
        'controllers': (None if controllers is None
                        else frozenset(controllers.split())),
        'oom_group': cgroup.read_text(folder, 'memory.oom.group') == '1',
        'pids_max': cgroup.read_limit(folder, 'pids.max'),
        'descendants_max': cgroup.read_limit(folder,
                                             'cgroup.max.descendants'),
        'descendants': int(stat.get('nr_descendants', 0)),
        'swap_bytes': swap if allowed is None else min(swap, allowed),
    }


def _guest(proc, uuid, pid, inside):
    command = b''
    try:
        command = pathlib.Path(proc, str(pid), 'cmdline').read_bytes()
    except OSError:
        pass
    name = _NAME.search(command)
    lines = (cgroup.read_text(f'{proc}/{pid}', 'cgroup') or '').splitlines()
    where = next((line.split(':', 2)[2] for line in lines
                  if line.startswith('0::')), '?')
    return Guest(uuid, name.group(1).decode(errors='replace') if name
                 else uuid, pid, where, inside)
