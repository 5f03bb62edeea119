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

"""What to do about the guests of a node that is drained.

Only decisions: from how the guests and their migrations are, and what came of
the attempts so far, to one verdict for each guest. Nothing is remembered here
that Nova knows: whoever is ended and started again goes on from what he
finds.
"""

import dataclasses
import typing as ty

from nova_k8s.drain import guests

# What is asked of Nova.
LIVE, COLD, STOP = 'live', 'cold', 'stop'
CONFIRM, ABORT = 'confirm', 'abort'
ACTIONS = frozenset((LIVE, COLD, STOP, CONFIRM, ABORT))

# A migration of the guest is under way.
MOVES = 'moves'
# For its turn, for Nova, or for the next attempt.
WAITS = 'waits'
# Nothing will be done about it, for the reason that is given.
STAYS = 'stays'
# It was tried as often as it may be. Tried again when something changed.
FAILED = 'failed'

SKIP = 'skip'
WISHES = (LIVE, COLD, STOP, SKIP)

# What may be said of shut-off guests.
IGNORE = 'ignore'

# Nova's check_instance_state of live_migrate, resize and stop.
POSSIBLE = {LIVE: ('ACTIVE', 'PAUSED'), COLD: ('ACTIVE', 'SHUTOFF'),
            STOP: ('ACTIVE',)}

# Seconds for which Nova may have answered a request and nothing is to be seen
# of it: the conductor makes the record of a migration.
UNSEEN = 30

# Seconds until the next attempt: doubled from the first to the last.
FIRST_RETRY, LAST_RETRY = 10, 300

# Statuses in which a guest stays, and what to do about it.
_STAYS = {
    'SUSPENDED': 'it is suspended, and its memory lies on this node; resume '
                 'it, and it is moved',
    'RESCUE': 'it is in rescue mode; unrescue it, and it is moved',
    'SHELVED': 'it is shelved; Nova offloads it after [DEFAULT] '
               'shelved_offload_time, or with openstack server shelve '
               '--offload',
    'VERIFY_RESIZE': 'its resize waits for an answer; confirm or revert it',
    'SOFT_DELETED': 'it is deleted, and reclaimed after [DEFAULT] '
                    'reclaim_instance_interval',
}

_SHUT_OFF = ('it is shut off; with a local disk it is here only, on shared '
             'storage it can be evacuated later')


@dataclasses.dataclass(frozen=True)
class Policy:
    """What the operator wants.

    :ivar parallel: migrations at a time
    :ivar attempts: before a guest is left where it is
    :ivar shut_off: STAYS, COLD, or IGNORE: they stay, and do not count
    :ivar timeout: seconds after which a running migration is aborted
    """

    parallel: int = 1
    attempts: int = 3
    shut_off: str = STAYS
    timeout: ty.Optional[float] = None


@dataclasses.dataclass(frozen=True)
class Try:
    """What came of moving one guest so far."""

    failures: int = 0
    reason: ty.Optional[str] = None
    """Of the last failure, in Nova's words."""
    not_before: float = 0
    asked: ty.Optional[str] = None
    """The action whose end is not known yet."""
    asked_at: float = 0
    after: int = 0
    """The id of its newest migration record before that."""
    running_since: ty.Optional[float] = None
    aborted: bool = False
    left_at: ty.Optional[float] = None
    """When it was first seen that it is here no more."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What is to be done about a guest, or is being done.

    :ivar what: one of ACTIONS, MOVES, WAITS, STAYS or FAILED
    :ivar why: for people; of an action, which attempt it is
    :ivar counts: whether the node is not empty because of it
    """

    guest: guests.Guest
    what: str
    why: str = ''
    migration: ty.Optional[guests.Migration] = None
    counts: bool = True

    @property
    def open(self):
        """Whether something will still happen by itself."""
        return self.what not in (STAYS, FAILED)


def outcome(guest, policy):
    """Return (what, why) of a guest, if nothing hinders: the table."""
    status, wish = guest.status, guest.wish
    if guest.task:
        return WAITS, f'Nova is at it: {guest.task}'
    if status == 'BUILD':
        return WAITS, 'it is being built'
    if status == 'ERROR':
        return STAYS, f'it is in ERROR: {guest.fault or "no fault given"}'
    if status in _STAYS:
        return STAYS, _STAYS[status]
    if status not in ('ACTIVE', 'PAUSED', 'SHUTOFF'):
        return STAYS, f'its status is {status}'
    if wish is not None and wish not in WISHES:
        return STAYS, (f'nova-k8s:drain says {wish}, which is none of '
                       f'{", ".join(WISHES)}')
    if wish == SKIP:
        return STAYS, 'nova-k8s:drain says skip'
    if status == 'SHUTOFF' and wish != COLD:
        if policy.shut_off == COLD and wish is None:
            return COLD, ''
        return STAYS, _SHUT_OFF
    what = wish or LIVE
    if status not in POSSIBLE[what]:
        return STAYS, (f'nova-k8s:drain says {what}, which Nova does not do '
                       f'to a guest that is {status}')
    return what, ''


def settle(view, tries, now):
    """Compare what was asked for with what came of it.

    :param tries: the Try of guests, by id
    :returns: (the new tries, [(id, the Migration that failed, or None)])
    """
    outgoing = view.outgoing()
    found, broken = {}, []
    for guest in view.guests:
        known = tries.get(guest.id, Try())
        under_way = outgoing.get(guest.id)
        if under_way:
            # Whoever asked for it: how it ends counts.
            if not known.asked:
                known = dataclasses.replace(
                    known, asked=under_way.kind, asked_at=now,
                    after=under_way.id - 1)
            if (known.running_since is None and
                    under_way.status in guests.RUNNING):
                known = dataclasses.replace(known, running_since=now)
        elif known.asked:
            known, failure = _ended(view, guest, known, now)
            if failure:
                broken.append((guest.id, failure[0]))
        if known != Try():
            found[guest.id] = dataclasses.replace(known, left_at=None)
    here = {guest.id for guest in view.guests}
    for guest in (outgoing.keys() | view.elsewhere.keys()) - here:
        if guest in tries:
            known = tries[guest]
            found[guest] = dataclasses.replace(
                known, left_at=now if known.left_at is None
                else known.left_at)
    return found, broken


def _ended(view, guest, known, now):
    """Return (the Try, a tuple of the Migration or None if it failed)."""
    last = view.newest(guest.id, known.after)
    if guest.task:
        return known, None
    if last and last.status in guests.BROKEN:
        return known, (last,)
    if known.asked == STOP and guest.status in guests.OFF:
        return dataclasses.replace(known, asked=None), None
    if now - known.asked_at <= UNSEEN:
        # Its end may be in one of the two lists, and not yet in the other.
        return known, None
    if not last:
        return known, (None,)
    # It left, and came back by somebody's hand.
    return dataclasses.replace(known, asked=None), None


def failed(known, reason, now):
    """Return the Try after one more failure."""
    return Try(
        failures=known.failures + 1, reason=reason,
        not_before=now + min(LAST_RETRY, FIRST_RETRY * 2 ** known.failures))


def asked(known, what, view, guest, now):
    """Return the Try of a guest of which something was just asked."""
    if what == ABORT:
        return dataclasses.replace(known, aborted=True)
    if what == CONFIRM:
        # Nova says so in the record at once; until it does, not again.
        return dataclasses.replace(known, not_before=now + UNSEEN)
    last = view.newest(guest.id)
    return dataclasses.replace(
        known, asked=what, asked_at=now, after=last.id if last else 0,
        running_since=None, aborted=False)


def relent(tries, policy, now):
    """Return the tries where what was given up is tried once more."""
    return {
        guest: dataclasses.replace(
            known, failures=policy.attempts - 1, not_before=now)
        if known.failures >= policy.attempts else known
        for guest, known in tries.items()}


def judge(view, tries, policy, now, hold=None):
    """Return the Verdict on each guest, those here first.

    :param tries: as settle() returned them
    :param hold: why nothing new is to be begun, or None
    """
    outgoing = view.outgoing()
    here = {guest.id for guest in view.guests}
    verdicts, ready = {}, []
    for guest in view.guests:
        known = tries.get(guest.id, Try())
        verdict = (_moving(guest, known, outgoing.get(guest.id), policy, now)
                   or _resting(guest, known, policy, now, hold))
        verdicts[guest.id] = verdict
        if verdict.what in (LIVE, COLD, STOP):
            ready.append(verdict)
    taken = sum(each.what in (MOVES, ABORT) for each in verdicts.values())
    for verdict in ordered(ready, policy)[max(0, policy.parallel - taken):]:
        verdicts[verdict.guest.id] = waiting(verdict)
    return (*verdicts.values(), *_incoming(view, here),
            *_remains(view, here, tries, policy, now, hold))


def waiting(verdict):
    """Return the verdict on a guest for which no slot is free."""
    return dataclasses.replace(verdict, what=WAITS, why='for its turn')


def ordered(ready, policy):
    """Largest first: a long one that comes last is waited for alone.

    One after the other takes as long in any order; smallest first, then,
    because whatever happens most are gone.
    """
    sign = -1 if policy.parallel > 1 else 1
    return sorted(ready, key=lambda each: (
        sign * each.guest.memory_mb, each.guest.name, each.guest.id))


def _moving(guest, known, migration, policy, now):
    """The Verdict on a guest that is on its way, or None."""
    if migration is None:
        if known.asked:
            return Verdict(guest, MOVES, 'it was asked for')
        return None
    if (policy.timeout and migration.kind == guests.LIVE_MIGRATION and
            migration.status in guests.RUNNING and not known.aborted and
            known.running_since is not None and
            now - known.running_since > policy.timeout):
        return Verdict(guest, ABORT, f'it is not done after '
                       f'{policy.timeout:g} s', migration)
    return Verdict(guest, MOVES, migration.status, migration)


def _resting(guest, known, policy, now, hold):
    """The Verdict on a guest of which no migration is under way."""
    what, why = outcome(guest, policy)
    if what == STAYS:
        ignored = policy.shut_off == IGNORE and guest.status in guests.OFF
        return Verdict(guest, STAYS, why, counts=not ignored)
    if what == WAITS:
        return Verdict(guest, WAITS, why)
    return due(guest, known, what, policy, now, hold)


def due(guest, known, what, policy, now, hold):
    """Return the Verdict on a guest to which something is to be done."""
    if hold:
        return Verdict(guest, STAYS, hold)
    if known.failures >= policy.attempts:
        return Verdict(guest, FAILED, known.reason or '')
    if now < known.not_before:
        return Verdict(guest, WAITS, f'tried again after: {known.reason}')
    return Verdict(guest, what, f'attempt {known.failures + 1} of '
                   f'{policy.attempts}')


def _incoming(view, here):
    """Verdicts on guests that are about to come here."""
    for each in view.incoming().values():
        guest = view.elsewhere.get(each.guest)
        # Without a task, the record is what a crash left behind.
        if guest and guest.task and guest.id not in here:
            yield Verdict(guest, WAITS, f'it comes from {each.source}', each)


def _remains(view, here, tries, policy, now, hold):
    """Verdicts on guests that left, and of which something is still here."""
    for each in view.migrations:
        if each.source != view.host or each.guest in here:
            continue
        guest = view.elsewhere.get(each.guest, guests.Guest(id=each.guest))
        known = tries.get(guest.id, Try())
        if each.status in guests.UNDER_WAY:
            if guest.task or (known.left_at is not None and
                              now - known.left_at <= UNSEEN):
                yield Verdict(guest, MOVES, each.status, each)
        elif (each.status == guests.FINISHED and
              guest.status == 'VERIFY_RESIZE'):
            yield _unconfirmed(guest, known, each, policy, now, hold)


def _unconfirmed(guest, known, migration, policy, now, hold):
    """The Verdict on a guest whose old disk is still here."""
    if guest.task:
        return Verdict(guest, WAITS, f'Nova is at it: {guest.task}',
                       migration)
    asked_for = guest.wish == COLD or (
        policy.shut_off == COLD and not guest.powered)
    if migration.kind != guests.MIGRATION or not asked_for:
        return Verdict(
            guest, STAYS, f'its {migration.kind} to {migration.dest} waits '
            f'for an answer; confirm or revert it', migration)
    return dataclasses.replace(
        due(guest, known, CONFIRM, policy, now, hold), migration=migration)
