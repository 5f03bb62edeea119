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

"""One cgroup that holds all guests to the budget: [kubernetes] guest_slice.

What may be told to Nova and what is written to the cgroup, in which order:
pure functions over frozen values; holding acts. A growth is written first and
told then. A shrink is told first and written then, never below what guests
use. So what Nova was told is never more than what the kernel enforces.
"""

import dataclasses
import posixpath
import re
import typing as ty

from nova_k8s.limits import budget

# What the limit of memory stays above what is in use, at least and as a part
# of that: guests go on while it is written.
MARGIN = 128 * budget.MIB
MARGIN_PART = 16

# A smaller step down is not worth a write, unless it is the last one.
STEP = 16 * budget.MIB

# The least quota that the kernel takes: 1 ms of each 100.
LEAST_MILLICORES = 10

# What a unit of systemd is called, whose cgroup is systemd's to write.
_UNIT = re.compile(r'.*\.(slice|scope|service)')

# What the kubelet calls the cgroups of all pods, and that of one pod, with
# either of its drivers, and with a root of its own.
_PODS = re.compile(
    r'(.*-)?kubepods(-.*)?(\.slice)?'
    r'|(.*-)?pod[0-9a-f]{8}[-_][0-9a-f_-]+(\.slice)?')

# What the node itself lives in: the kubelet, sshd, the first process.
_OF_THE_NODE = ('/init.scope', '/system.slice', '/user.slice')


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of a cgroup. None is no limit."""

    memory_bytes: ty.Optional[int] = None
    cpu_millicores: ty.Optional[int] = None


@dataclasses.dataclass(frozen=True)
class Seen:
    """What the kernel has."""

    own: Limits
    """Those of the cgroup itself."""

    enforced: Limits
    """The least over the cgroup and all above it."""

    used_bytes: int
    """Memory that it cannot give back."""


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is to be known of a cgroup before it is touched."""

    v2: bool
    """Whether the node has cgroup v2 alone."""

    exists: bool = True
    limits: bool = True
    """Whether it has files for limits of memory and CPU."""

    own: bool = False
    """Whether the process that asks is in it."""

    pods: ty.Optional[str] = None
    """A cgroup of pods below it."""


def normalize(text):
    """Return the path of a cgroup, as /proc/PID/cgroup shows it."""
    return posixpath.normpath('/' + text.strip().lstrip('/'))


def unit_of(path):
    """Return the unit of systemd whose cgroup this is by its name, or None."""
    name = posixpath.basename(path)
    return name if _UNIT.fullmatch(name) else None


def is_of_pods(name):
    """Whether the kubelet calls the cgroup of pods, or of one, like this."""
    return bool(_PODS.fullmatch(name))


def find_harm(path, facts):
    """Return why a cgroup must never be limited, or None.

    :param path: as from normalize()
    """
    if not facts.v2:
        return ('the node has cgroup v1, or both, and nothing holds guests '
                'there; start it with cgroup v2 alone '
                '(systemd.unified_cgroup_hierarchy=1), or unset the option')
    if path == '/':
        return 'that is the root, in which all of the node is'
    if path in _OF_THE_NODE:
        return 'the node itself lives in it'
    if any(map(is_of_pods, path.split('/'))):
        return ('it is the kubelet\'s, which writes the limits of pods '
                'itself; for guests in a pod there is [kubernetes] guests_pod')
    if facts.pods:
        return f'pods are in it ({facts.pods})'
    if facts.own:
        return 'nova-compute itself is in it'
    return None


def find_lack(path, facts, folder):
    """Return why a cgroup cannot be limited now, or None.

    :param folder: where it would be
    """
    unit = unit_of(path)
    if not facts.exists:
        how = (f'systemctl add-wants multi-user.target {unit}, and systemctl '
               f'start {unit}' if unit and unit.endswith('.slice') else
               'make it before nova-compute and libvirt start')
        return (f'there is no such cgroup ({folder}); name the one that '
                f'guests are in, mount the node\'s tree at /node/cgroup, or '
                f'on the node: {how}')
    if not facts.limits and not unit:
        parent = posixpath.dirname(folder)
        return (f'it lacks the controllers cpu and memory; on the node: echo '
                f'+cpu +memory > {parent}/cgroup.subtree_control')
    return None


def wanted(present, unlimited):
    """Return the Limits that a budget asks for; None to touch nothing.

    Whole MiB, as Nova is told: the kernel rounds to pages.

    :param present: budget.Budget, None where it was lost: guests that are
        here stay held to what they had
    :param unlimited: [kubernetes] unlimited
    """
    if present is None:
        return None
    memory_mb, millicores = present.memory_mb, present.cpu_millicores
    if None in (memory_mb, millicores) and unlimited != 'host':
        return None
    return Limits(
        None if memory_mb is None else memory_mb * budget.MIB,
        None if millicores is None else max(LEAST_MILLICORES, millicores))


@dataclasses.dataclass(frozen=True)
class Told:
    """What Nova has been told at most."""

    limits: Limits
    certain: bool
    """False where that is the best that is known."""


def _aims(goal, own, told):
    """Return the Limits to aim at, what is in use apart."""
    def one(goal, own, limit):
        if goal is None or (own is not None and goal >= own):
            return goal
        if own is not None and not told.certain:
            return own
        # Not below what Nova has been told, and no growth for that either.
        return budget.least(own, max(goal, limit))
    return _each(one, goal, own, told.limits)


def _each(function, *limits):
    return Limits(*(function(*values) for values in zip(
        *map(dataclasses.astuple, limits))))


def bound(goal, seen, report):
    """Return the Limits up to which Nova may be told while it is written.

    Before a smaller limit is written they have to be in force already.

    :param report: those up to now: where the cgroup has no limit yet, that
        of the goal is none to be told of
    """
    return _each(budget.least, goal, seen.enforced, report)


def report(goal, seen):
    """Return the Limits up to which Nova may be told, as it is now.

    Nothing where a limit is wanted and the cgroup has none: nothing would
    hold guests.
    """
    def one(goal, own, enforced):
        if goal is not None and own is None:
            return 0
        return budget.least(goal, enforced)
    return _each(one, goal, seen.own, seen.enforced)


def floor(used_bytes):
    """Return the least limit of memory with what is in use."""
    return used_bytes + max(MARGIN, used_bytes // MARGIN_PART)


def decide(goal, seen, told):
    """Return the Limits to write, None where there is nothing to write.

    :param goal: as from wanted()
    :param told: Told
    """
    target = _aims(goal, seen.own, told)
    own = seen.own.memory_bytes
    memory = target.memory_bytes
    if memory is not None and (own is None or memory < own):
        memory = max(memory, -(-floor(seen.used_bytes) // STEP) * STEP)
        if own is not None and memory > target.memory_bytes and (
                memory > own - STEP):
            # Guests use it. To raise it for them is not what is wanted.
            memory = own
    target = dataclasses.replace(target, memory_bytes=memory)
    return None if target == seen.own else target


def find_wait(goal, seen, told):
    """Return what guests use that keeps the cgroup from what is wanted.

    None where it is as is wanted, or Nova has been told more yet.
    """
    if seen.own == goal or _aims(goal, seen.own, told) != goal:
        return None
    return (f'guests use {seen.used_bytes // budget.MIB} MiB of memory, and '
            f'with less than {floor(seen.used_bytes) // budget.MIB} MiB the '
            f'kernel would end some')


def describe(limits):
    """The limits in words."""
    return budget.describe(budget.Budget(
        '', limits.cpu_millicores, limits.memory_bytes))
