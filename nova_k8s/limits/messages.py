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


def for_change(before, after, unlimited):
    """Return the Lines for a change from one follow.State to the next.

    Each change has its lines once: the same state twice has none.

    :param before: None at start
    :param unlimited: [kubernetes] unlimited
    """
    lines = []
    known = before.budget if before else None
    if after.problem and after.problem != (before and before.problem):
        if after.stale and not (before and before.stale):
            # Once: while it lasts, the cause may read differently each time.
            lines.append(Line(
                WARNING, 'LimitsStale',
                f'{after.problem}. The last known limits stay in force: '
                f'{describe(after.budget)}.'))
        elif not after.budget:
            lines.append(Line(
                WARNING, 'LimitsLost',
                f'{after.problem}. Until that is mended, nothing new is '
                f'placed on this compute node.'))
    if not after.budget:
        return lines
    short = budget.find_shortfall(after.budget, unlimited)
    if short and short != (known and budget.find_shortfall(known, unlimited)):
        lines.append(Line(
            WARNING, 'LimitMissing',
            f'{short}. Until that is mended, nothing new is placed on this '
            f'compute node.'))
    if before and before.problem and not after.problem:
        lines.append(Line(
            NORMAL, 'LimitsRead',
            f'The limits can be read again: {describe(after.budget)}, '
            f'{after.budget.source}.'))
    elif not before and not after.problem:
        lines.append(Line(
            NORMAL, 'LimitsAdopted',
            f'Guests may use {describe(after.budget)}, '
            f'{after.budget.source}.'))
    elif known and describe(known) != describe(after.budget):
        lines.append(Line(
            NORMAL, 'LimitsFollowed',
            f'Guests may use {describe(after.budget)} now, before '
            f'{describe(known)}, {after.budget.source}.'))
    pending = after.budget.resize_pending
    if pending and _reason(pending) != _reason(known and known.resize_pending):
        lines.append(Line(
            WARNING, 'ResizePending',
            f'{after.budget.source}: a resize is {pending}. The limits in '
            f'force stay: {describe(after.budget)}.'))
    return lines


def _reason(pending):
    # What follows the colon counts what other pods use, and changes with it.
    return pending and pending.partition(':')[0]


def describe(found):
    """The limits in words."""
    cpu, memory_mb = found.cpu_millicores, found.memory_mb
    return '%s and %s' % (
        'no CPU limit' if cpu is None else f'{cpu} millicores of CPU',
        'no memory limit' if memory_mb is None
        else f'{memory_mb} MiB of memory')
