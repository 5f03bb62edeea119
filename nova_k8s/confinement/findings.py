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

"""What is wrong with where guests are, and how to mend it: pure."""

import dataclasses
import typing as ty

# Guests are not held, or will not be; and what may become so.
PROBLEM, WARNING = 'problem', 'warning'

# Why no guest is placed, as Nova shows it.
ESCAPED = 'guests outside of their pod'
NOT_HELD = 'guests not held'

# What libvirt needs to hold one guest and to know what it uses.
_CONTROLLERS = frozenset(('cpu', 'cpuset', 'io', 'memory', 'pids'))

# Threads and cgroups of a guest of 8 VCPUs, with some for I/O: libvirt makes
# about vCPUs + 3 cgroups.
_PIDS, _CGROUPS = 32, 11

# Of either limit that is left for more guests.
_TIGHT = 0.8

# Guests that a node is thought to have room for, where none says how many.
_MANY = 32


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong."""

    severity: str
    check: str
    """What was looked at, in one word."""

    subject: str
    """The object: a file, a pod, a guest."""

    text: str
    fix: str

    def as_dict(self):
        return dataclasses.asdict(self)

    def __str__(self):
        return f'{self.subject}: {self.text}. {self.fix}.'


def find(seen):
    """Return the Findings of a snapshot.Snapshot, the worst first."""
    if not seen.v2:
        # Nothing of what follows is the same there.
        return [Finding(
            PROBLEM, 'cgroup-version', 'the node',
            'it has cgroup v1, or both, and nothing holds guests there',
            'Start it with cgroup v2 alone (systemd.unified_cgroup_hierarchy='
            '1)')]
    found = [*(_slice(seen) if seen.guest_slice else _pod(seen)),
             *_kernel(seen), *_node(seen), *_guests(seen)]
    return sorted(found, key=lambda each: each.severity != PROBLEM)


def _pod(seen) -> ty.Iterator[Finding]:
    if not seen.expected:
        yield Finding(
            WARNING, 'guests-pod', 'the node',
            'it has no guests\' pod: guests end with the container of '
            'libvirt, or no limit holds them',
            'Set [kubernetes] guests_pod')
        return
    if seen.pod_problem:
        yield Finding(
            WARNING, 'guests-pod', 'the guests\' pod',
            f'whether it is there is not known ({seen.pod_problem})',
            'See whether the API server can be reached')
        return
    if not seen.pod:
        yield Finding(
            PROBLEM, 'guests-pod', 'the guests\' pod',
            'there is none, so no guest is placed here',
            'Uncordon the node, or see what nova-compute logs')
        return
    if seen.pod.phase != 'Running':
        yield Finding(
            PROBLEM, 'guests-pod', seen.pod.name,
            f'it does not run ({seen.pod.phase})',
            f'See kubectl describe pod {seen.pod.name}')
        return
    if seen.told_uid != seen.pod.uid:
        told = f'was told of {seen.told_uid}' if seen.told_uid else (
            'was told of none')
        yield Finding(
            PROBLEM, 'uid', seen.pod.name,
            f'its UID is {seen.pod.uid}, and libvirt {told}',
            'See whether nova-compute runs, and whether /run/nova-k8s of the '
            'node is mounted in its container and in that of libvirt')
    if not seen.folder:
        yield Finding(
            PROBLEM, 'cgroup', seen.pod.name,
            'its cgroup is not seen here',
            'Mount /sys/fs/cgroup of the node at /node/cgroup')
    if seen.pod.qos != 'Guaranteed':
        yield Finding(
            WARNING, 'qos', seen.pod.name,
            f'its QoS class is {seen.pod.qos}: it may be throttled, and it '
            f'goes before others when the node runs short',
            'Make its requests the same as its limits; the pod has to be '
            'made anew for it')


def _slice(seen) -> ty.Iterator[Finding]:
    if not seen.folder:
        yield Finding(
            PROBLEM, 'guest-slice', seen.guest_slice,
            'there is no such cgroup, so nothing holds guests',
            'Set [kubernetes] guest_slice to the cgroup that guests are in, '
            'or mount /sys/fs/cgroup of the node at /node/cgroup')
        return
    for name in seen.unlimited:
        yield Finding(
            PROBLEM, 'guest-slice', f'{seen.folder}/{name}',
            'there is no limit, so nothing holds guests',
            'See whether nova-compute runs, and what it logs')


def _kernel(seen) -> ty.Iterator[Finding]:
    if not seen.folder:
        return
    name = seen.folder
    missing = (_CONTROLLERS - seen.controllers if seen.controllers is not None
               else ())
    if missing:
        yield Finding(
            PROBLEM, 'controllers', f'{name}/guests',
            f'guests lack the controllers {", ".join(sorted(missing))}',
            'See whether the kubelet delegates them (its flag '
            '--cgroups-per-qos), and restart the container of libvirt')
    if seen.oom_group:
        yield Finding(
            PROBLEM, 'oom-group', name,
            'memory.oom.group is 1: when one guest is too large, the kernel '
            'ends all of them',
            f'Write 0 to {name}/memory.oom.group')
    for check, limit, used, each in (
            ('pids.max', seen.pids_max, seen.pids, _PIDS),
            ('cgroup.max.descendants', seen.descendants_max,
             seen.descendants, _CGROUPS)):
        if limit is None:
            continue
        many = max(_MANY, len(seen.guests))
        if used >= limit * _TIGHT:
            yield Finding(
                PROBLEM, check, name,
                f'{used} of {limit} are used: guests will not start, or '
                f'lose threads', _raise(check, seen))
        elif limit < many * each:
            yield Finding(
                WARNING, check, name,
                f'{limit} is enough for about {limit // each} guests',
                _raise(check, seen))
    if seen.swap_bytes:
        yield Finding(
            WARNING, 'swap', name,
            f'guests may be swapped out, to {seen.swap_bytes >> 20} MiB',
            f'Turn swap off on the node, or write 0 to '
            f'{name}/memory.swap.max' if seen.guest_slice else
            'Turn swap off on the node, or leave it to the kubelet '
            '(memorySwap: swapBehavior: NoSwap)')


def _raise(check, seen):
    if seen.guest_slice:
        return 'Raise it on the node; of a unit of systemd it is TasksMax'
    if check == 'pids.max':
        return ('Raise podPidsLimit in the configuration of the kubelet, and '
                'make the pod anew')
    return 'Raise the limit that the kubelet or the distribution sets'


def _node(seen) -> ty.Iterator[Finding]:
    if not seen.node_pids:
        yield Finding(
            PROBLEM, 'host-pid', 'nova-compute',
            'it does not see the processes of the node, so neither what '
            'guests cost nor where they are',
            'Set hostPID: true for its pod')
    if seen.shutdown_grace is not None and seen.pod:
        yield Finding(
            WARNING, 'shutdown', 'the kubelet',
            f'when the machine is shut down, it ends guests after '
            f'{seen.shutdown_grace:g} s',
            'Drain the node before, or raise '
            'shutdownGracePeriodCriticalPods')


def _guests(seen) -> ty.Iterator[Finding]:
    if not seen.node_pids:
        return
    if seen.guest_slice:
        yield from _outside_of_slice(seen)
        return
    if not seen.expected:
        return
    if not seen.folder and (seen.pod or seen.pod_problem):
        # There is one, and it cannot be told what is in it.
        return
    for guest in seen.guests:
        if guest.inside:
            continue
        if 'machine.slice' in guest.cgroup or (
                'machine-qemu' in guest.cgroup):
            yield Finding(
                PROBLEM, 'machined', f'guest {guest.name}',
                f'systemd-machined put it into {guest.cgroup}: no limit of '
                f'Kubernetes holds it',
                'Take /run/dbus of the node from the container of libvirt, '
                'and start the guest again')
        elif guest.in_another_pod:
            yield Finding(
                PROBLEM, 'escaped', f'guest {guest.name}',
                f'it is in the cgroup {guest.cgroup} of another pod, which '
                f'Kubernetes may believe to be gone: its memory is promised '
                f'to others',
                'Move the guest to another node')
        else:
            yield Finding(
                PROBLEM, 'escaped', f'guest {guest.name}',
                f'it is in the cgroup {guest.cgroup}, outside of the guests\' '
                f'pod: no limit of Kubernetes holds it',
                'Move the guest to another node, or start it again')


def _outside_of_slice(seen):
    if not seen.folder:
        return
    for guest in seen.guests:
        if not guest.inside:
            yield Finding(
                PROBLEM, 'escaped', f'guest {guest.name}',
                f'it is in the cgroup {guest.cgroup}, outside of '
                f'{seen.guest_slice}: the limits do not hold it',
                'Set [kubernetes] guest_slice to the cgroup that all guests '
                'are in, or move the guest to another node')


def escaped(found):
    """Return those of find() on guests that no limit holds."""
    return [each for each in found if each.check in ('escaped', 'machined')]


def reasons(seen, found, on_escape):
    """Return why no guest may be placed.

    Guests of a pod that Kubernetes has forgotten are one always: their memory
    is promised twice.

    :param found: as from find()
    :param on_escape: [kubernetes] on_escape
    """
    forgotten = not seen.guest_slice and any(
        guest.in_another_pod for guest in seen.guests)
    if escaped(found) and (on_escape == 'disable' or forgotten):
        return frozenset((ESCAPED,))
    return frozenset()
