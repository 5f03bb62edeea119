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

"""What to do about the guests of a node that is dead.

Its guests are rebuilt elsewhere. What lies on volumes and shared storage is
there again, what lies on a local disk is made anew from the image: lost. So
the node must be known to be off: two guests that write to one volume lose
that as well.
"""

import dataclasses

from nova_k8s.drain import guests
from nova_k8s.drain import plan

EVACUATE = 'evacuate'
ACTIONS = frozenset((EVACUATE,))

# Nova's check_instance_state of evacuate.
POSSIBLE = ('ACTIVE', 'SHUTOFF', 'ERROR')

# Status of the record until the node itself has destroyed what was evacuated,
# which nova-compute does when it starts, and says with 'completed'.
UNCLEANED = frozenset(('accepted', 'pre-migrating', 'done'))


def outcome(guest):
    """Return (what, why) of a guest, if nothing hinders."""
    if guest.task:
        return plan.STAYS, (
            f'its task {guest.task} cannot end on a dead node; '
            f'openstack server set --state error, then again')
    if guest.status in POSSIBLE:
        return EVACUATE, ''
    if guest.status == 'BUILD':
        return plan.STAYS, 'it was being built; delete it'
    return plan.STAYS, (
        f'Nova does not evacuate what is {guest.status}; openstack server '
        f'set --state error, then again')


def settle(view, tries, now):
    """As plan.settle(); any other migration of a dead node never ends."""
    return plan.settle(_evacuated(view), tries, now)


def _evacuated(view):
    return dataclasses.replace(view, migrations=tuple(
        each for each in view.migrations
        if each.kind == guests.EVACUATION))


def judge(view, tries, policy, now, hold=None):
    """Return the Verdict on each guest, as plan.judge() does."""
    outgoing = _evacuated(view).outgoing()
    verdicts, ready = {}, []
    for guest in view.guests:
        known = tries.get(guest.id, plan.Try())
        verdict = verdicts[guest.id] = _verdict(
            guest, known, outgoing.get(guest.id), policy, now, hold)
        if verdict.what == EVACUATE:
            ready.append(verdict)
    taken = sum(each.what == plan.MOVES for each in verdicts.values())
    for verdict in plan.ordered(ready, policy)[
            max(0, policy.parallel - taken):]:
        verdicts[verdict.guest.id] = plan.waiting(verdict)
    return (*verdicts.values(), *_rebuilt(view, outgoing))


def _rebuilt(view, outgoing):
    """Verdicts on guests that are elsewhere by now, and not yet done."""
    here = {guest.id for guest in view.guests}
    for each in outgoing.values():
        guest = view.elsewhere.get(each.guest)
        if guest and guest.task and guest.id not in here:
            yield plan.Verdict(guest, plan.MOVES, each.status, each)


def _verdict(guest, known, migration, policy, now, hold):
    if known.asked or migration:
        return plan.Verdict(guest, plan.MOVES, migration.status if migration
                            else 'it was asked for', migration)
    what, why = outcome(guest)
    if what == plan.STAYS:
        return plan.Verdict(guest, plan.STAYS, why)
    return plan.due(guest, known, what, policy, now, hold)


def uncleaned(view):
    """Return the evacuations from here whose remains are still here."""
    return tuple(each for each in view.migrations
                 if each.kind == guests.EVACUATION and
                 each.source == view.host and each.status in UNCLEANED)


def too_many(services, most=0.5):
    """Return why not to evacuate, or None.

    Where most nodes seem dead, what is broken is the network, the message
    bus or the database, and the guests live.

    :param services: nova_api.Service of all compute hosts
    :param most: the part of them that may be down
    """
    down = sum(not each.up for each in services)
    if down <= most * len(services):
        return None
    return (f'{down} of {len(services)} compute services are down: look for '
            f'the fault in the message bus, the database or the network '
            f'first')
