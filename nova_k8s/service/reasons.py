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

"""Why the compute service is disabled: a set of reasons.

The service record in Nova is shared with administrators. What they disabled
is theirs. What they enabled stays enabled as long as the reasons for which it
was disabled do not change.

There is one decision, decide(): from what is wanted and what is written, the
next single thing to write. So it does not matter after which of them
nova-compute ends: the next start decides from what it finds.
"""

import dataclasses
import typing as ty

from nova_k8s.confinement import findings
from nova_k8s.confinement import guests_pod
from nova_k8s.kube import node as nodes
from nova_k8s.limits import messages

LIBVIRT = 'libvirt not connected'

NO_BUDGET = 'no budget'

# The guests are being moved away.
DRAINING = 'draining'

# In the order in which they are shown.
REASONS = (DRAINING, nodes.SHUTTING_DOWN, nodes.CORDONED, nodes.NOT_READY,
           LIBVIRT, NO_BUDGET, guests_pod.ENDING, findings.ESCAPED,
           findings.NOT_HELD)

# Nova's libvirt driver begins the reason with this where it disables the
# service itself, and enables again only what begins so. So do we: whoever
# returns to Nova's driver is not left with a disabled service.
PREFIX = 'AUTO: '

# Nova's column.
_LONGEST = 255

# What is written where an administrator's own reason was overwritten.
OVERWRITTEN = ('disabled by an administrator; the reason given was '
               'overwritten by a change at the same moment')


@dataclasses.dataclass(frozen=True)
class Record:
    """What Nova has written of the compute service, as far as it matters."""

    disabled: bool
    reason: ty.Optional[str] = None

    @property
    def ours(self):
        """Nova's driver or this one wrote it last, not an administrator.

        Where the service is enabled, this one was about to disable it.
        """
        return (self.reason or '').startswith(PREFIX)


@dataclasses.dataclass(frozen=True)
class Kept:
    """What must be known beside the record, and survive a restart."""

    acted: ty.FrozenSet[str] = frozenset()
    """The reasons that were acted upon: they are news no more."""

    overridden: ty.FrozenSet[str] = frozenset()
    """Those in spite of which an administrator enabled the service."""


def describe(reasons, node_name=None):
    """Return the reason that Nova shows."""
    shown = PREFIX + ', '.join(each for each in REASONS if each in reasons)
    if node_name and reasons & nodes.REASONS:
        shown += f' (Kubernetes node {node_name}'
        return shown[:_LONGEST - 1] + ')'
    return shown


def parse(record):
    """Return the reasons that the text of a record names."""
    if not record.ours:
        return frozenset()
    listed = record.reason[len(PREFIX):].split(' (')[0].split(', ')
    # Any other text is that of Nova's driver, which knows one reason.
    return frozenset(listed) & frozenset(REASONS) or frozenset((LIBVIRT,))


def assume(record):
    """Return the Kept to begin with, where none was kept."""
    return Kept(parse(record) if record.disabled else frozenset())


def last_seen(record, known):
    """Return the reasons that were last seen, for what is not known now."""
    if record.ours and not record.disabled:
        # It was written first, for reasons that were not yet kept.
        return parse(record) | known.overridden
    return known.acted


def decide(wanted, record, known, node_name=None):
    """Return the next thing to write: a Record, a Kept, or None.

    :param wanted: the reasons there are to disable the service
    :param record: the Record, as read just now
    :param known: the Kept
    """
    if record.disabled and not record.ours:
        # Theirs. When they enable it, it will be in spite of this.
        return _differs(Kept(wanted), known)
    if record.ours:
        spite = known.overridden
    else:
        # Enabled after all that was acted upon: in spite of it.
        spite = known.acted
    overridden = spite & wanted
    if wanted & nodes.REASONS != known.acted & nodes.REASONS:
        # An override of the node's reasons lasts until its next change.
        overridden -= nodes.REASONS
    goal = Kept(wanted, overridden)
    effective = wanted - overridden
    if not effective:
        # First kept, then enabled: of the enabled service nobody could tell
        # whether it is so in spite of what is kept.
        return (_differs(goal, known) or
                _differs(Record(False), record if record.ours
                         else Record(False)))
    shown = describe(effective, node_name)
    if not record.disabled and not record.ours:
        # Disabling takes two steps, or a crash before it and an administrator
        # after it would look the same: the service enabled, the reason acted
        # upon. So the reason is written first, while the service is still
        # enabled. An administrator who enables the service clears it.
        return (_differs(Kept(known.acted, spite), known) or
                Record(False, shown))
    return _differs(goal, known) or _differs(Record(True, shown), record)


def give_way(enabled, record, began):
    """Return the Record that gives an administrator's word back, or None.

    Nova cannot write a record on condition that it is still what was read, so
    a word that comes between the two is overwritten.

    :param enabled: what an administrator has just said
    :param record: what was written last, and not by an administrator
    :param began: the Record that was found before anything of it was written
    """
    if enabled:
        if record.disabled and record.ours and not began.disabled:
            # The word was on an enabled service, and is heard late: it cannot
            # have been in spite of what came after it.
            return None
        return _differs(Record(False), record)
    if record.disabled and not record.ours:
        return None
    return Record(True, OVERWRITTEN)


def _differs(goal, present):
    return None if goal == present else goal


def tell(before, after, wanted, host, changed):
    """Return the messages.Line on what was done, or None.

    :param before: the Record at first
    :param after: the Record in the end
    :param wanted: the reasons there are
    :param changed: whether those of the node are others than before
    """
    who = f'The compute service of {host}'
    if before.disabled and not before.ours:
        if changed:
            return messages.Line(
                messages.NORMAL, 'ComputeServiceLeft',
                f'{who} stays disabled, because an administrator disabled '
                f'it: {before.reason or "no reason given"}.')
        return None
    if after.disabled and not after.ours:
        # An administrator came between; it is told at the next change.
        return None
    if after.disabled and before != after:
        how = 'stays' if before.disabled else 'is'
        return messages.Line(
            messages.NORMAL, 'ComputeServiceDisabled',
            f'{who} {how} disabled: {after.reason[len(PREFIX):]}. No new '
            f'guests are placed here, those that are here '
            f'{"leave" if DRAINING in wanted else "stay"}.')
    if before.disabled and not after.disabled:
        return messages.Line(
            messages.NORMAL, 'ComputeServiceEnabled',
            f'{who} is enabled again.' + (
                f' An administrator enabled it in spite of: '
                f'{", ".join(sorted(wanted))}.' if wanted else ''))
    return None
