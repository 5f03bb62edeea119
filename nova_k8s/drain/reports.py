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

"""What operators are told of a drain: log lines and events."""

from nova_k8s.drain import plan
from nova_k8s.limits import messages

# How many guests a message names.
_GUESTS = 10


def begun(host, reason):
    return messages.Line(
        messages.NORMAL, 'DrainStarted',
        f'The guests of {host} are moved away, because {reason}.')


def ended(host, state, hold):
    """Return the Line on a drain after which nothing goes on."""
    if hold:
        return messages.Line(
            messages.NORMAL, 'DrainCalledOff',
            f'No further guests of {host} are moved away, because {hold}. '
            f'{len(state.moved)} have left, {describe(state)}.')
    if state.empty:
        rest = f'; {describe(state)}' if state.verdicts else ''
        return messages.Line(
            messages.NORMAL, 'Drained',
            f'{host} is empty: {len(state.moved)} guests have left{rest}.')
    return messages.Line(
        messages.WARNING, 'DrainIncomplete',
        f'Guests are left on {host}, and nothing more can be done about '
        f'them until something changes: {describe(state)}.')


def moved(each):
    """Return the Line on a guest that is no longer here."""
    where = f'is on {each.dest} now' if each.dest else 'is gone'
    took = '' if each.seconds is None else f', after {each.seconds:.0f} s'
    return messages.Line(
        messages.NORMAL, 'GuestLeft',
        f'Server {each.guest.id} ({each.guest.name}) {where}{took}.')


def not_moved(verdict):
    """Return the Line on a guest of which an attempt failed, or that stays.

    :returns: None where there is nothing to tell
    """
    guest = verdict.guest
    if verdict.what == plan.FAILED:
        return messages.Line(
            messages.WARNING, 'GuestNotMoved',
            f'Server {guest.id} ({guest.name}) could not be moved: '
            f'{verdict.why}')
    if verdict.what == plan.STAYS and verdict.counts:
        return messages.Line(
            messages.WARNING, 'GuestStays',
            f'Server {guest.id} ({guest.name}) stays: {verdict.why}')
    return None


def describe(state):
    """Return who is left, and why, in one line."""
    if not state.verdicts:
        return 'none is left'
    named = [f'{each.guest.name or each.guest.id} ({each.what}'
             f'{": " if each.why else ""}{each.why})'
             for each in sorted(state.verdicts, key=lambda each: (
                 not each.counts, each.open))[:_GUESTS]]
    rest = len(state.verdicts) - len(named)
    return (f'{len(state.verdicts)} left: {", ".join(named)}' +
            (f' and {rest} more' if rest else ''))
