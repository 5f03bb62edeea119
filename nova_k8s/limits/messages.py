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


"""What operators are told when the limits change: log lines and events."""

import typing as ty

from nova_k8s.limits import budget

NORMAL, WARNING = 'Normal', 'Warning'


class Line(ty.NamedTuple):
    """One line of the log, and one event on the pod."""

    type: str
    """NORMAL or WARNING, the types of Kubernetes' events."""

    reason: str
    """In Kubernetes' way: one word, for machines."""

    text: str


class Use(ty.NamedTuple):
    """What guests take of the memory, each with what QEMU costs beyond."""

    used_mb: int
    """By those that run, and by what else runs in the pod, in MiB."""

    stopped_mb: int = 0
    """By those that are stopped, in MiB. To start one, Nova claims nothing."""


def for_change(before, after, unlimited, use=None):
    """Return the Lines for a change from one watcher.State to the next.

    Each change has its lines once: the same state twice has none.

    :param before: None at start
    :param unlimited: [kubernetes] unlimited
    :param use: the Use, None where it is not known
    """
    known = before.budget if before else None
    lines = _problems(before, after)
    if not after.budget:
        return lines
    short = budget.find_shortfall(after.budget, unlimited)
    if short and short != (known and budget.find_shortfall(known, unlimited)):
        lines.append(Line(
            WARNING, 'LimitMissing',
            f'{short}. Until that is mended, nothing new is placed on this '
            f'compute node.'))
    if not short:
        lines += _amounts(before, after, known, unlimited, use)
    return lines + _resizes(known, after.budget)


def _problems(before, after):
    """What is wrong with the limits as a whole."""
    if not after.problem or after.problem == (before and before.problem):
        return []
    if not after.budget:
        return [Line(
            WARNING, 'LimitsLost',
            f'{after.problem}. Until that is mended, nothing new is placed '
            f'on this compute node.')]
    if before and before.stale:
        # Once: while it lasts, the cause may read differently each time.
        return []
    return [Line(
        WARNING, 'LimitsStale',
        f'{after.problem}. The last known limits stay in force: '
        f'{budget.describe(after.budget)}.')]


def _amounts(before, after, known, unlimited, use):
    """How much guests may use now."""
    present = after.budget
    has = _allowed(present)
    if present.terminating:
        return [] if known and known.terminating else [Line(
            WARNING, 'PodTerminating',
            f'{present.source}: the pod is being deleted, and is to be gone '
            f'at {present.deletion_time}. Guests stay, and no new ones are '
            f'placed on this compute node.')]
    if before and before.problem and not after.problem:
        return [Line(
            NORMAL, 'LimitsRead',
            f'The limits can be read again: {budget.describe(present)}, '
            f'{present.source}.')]
    if not before and after.problem:
        return []
    if not known or known.terminating or budget.find_shortfall(
            known, unlimited):
        return [Line(NORMAL, 'LimitsFollowed' if before else 'LimitsAdopted',
                     f'Guests may use {has}, {present.source}.')]
    if budget.describe(known) == budget.describe(present):
        return []
    text = (f'Guests may use {has} now, before {_allowed(known)}, '
            f'{present.source}.')
    over = use and _overuse(present, use)
    return [Line(WARNING, 'LimitsBelowUse', f'{text} {over}') if over
            else Line(NORMAL, 'LimitsFollowed', text)]


def _allowed(present):
    """What guests may use, in words."""
    cpu, memory_mb = present.cpu_millicores, present.memory_mb
    return '%s and %s%s' % (
        'all CPUs' if cpu is None else f'{cpu} millicores of CPU',
        'all memory of the machine' if memory_mb is None
        else f'{memory_mb} MiB of memory', budget.describe_pages(present))


def _overuse(present, use):
    """Return what to know where guests may use more than the limit."""
    limit_mb = present.memory_mb
    if limit_mb is None or use.used_mb + use.stopped_mb <= limit_mb:
        return None
    return (
        f'They may use more than that: {use.used_mb} MiB in use and '
        f'{use.stopped_mb} MiB of stopped guests, which start without any '
        f'claim, against a limit of {limit_mb} MiB. Above it the kernel ends '
        f'guests: move some away.')


def _resizes(known, present):
    """What a resize waits for, and what is said and does not count."""
    lines = []
    pending = present.resize_pending
    if pending and _reason(pending) != _reason(known and known.resize_pending):
        lines.append(Line(
            WARNING, 'ResizePending',
            f'{present.source}: a resize is {pending}. The limits in force '
            f'stay: {budget.describe(present)}.'))
    if present.resize_error and not (known and known.resize_error):
        lines.append(Line(
            WARNING, 'ResizeRefused',
            f'{present.source}: the kubelet does not do a resize: '
            f'{present.resize_error}. Until it does, or the resize is taken '
            f'back, what was wished counts where it is less: '
            f'{budget.describe(present)}.'))
    if present.withheld and present.withheld != (known and known.withheld):
        lines.append(Line(
            WARNING, 'GrowthWithheld',
            f'{present.source}: {present.withheld}. What counts is '
            f'{budget.describe(present)}.'))
    return lines


def _reason(pending):
    # What follows the colon counts what other pods use, and changes with it.
    return pending and pending.partition(':')[0]
