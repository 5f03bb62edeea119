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


"""What nova-k8s status says of each part: whether one side follows the other.

Nobody is asked here; what nova-compute left in its files is read.
"""

import datetime
import typing as ty

import nova.conf

from nova_k8s.drain import drainer
from nova_k8s.elastic import mover
from nova_k8s.inventory import bounds
from nova_k8s.inventory import host
from nova_k8s.kube import node as nodes
from nova_k8s.limits import budget as budgets
from nova_k8s.service import reasons

CONF = nova.conf.CONF

# What the state of a part begins with. Guests are only counted.
COUNTED = 'counted'
FOLLOWS = 'follows'
BEHIND = 'behind'
STALE = 'stale'
ADMINISTRATOR = 'administrator'
KEPT = 'kept'
OFF = 'off'
UNKNOWN = 'unknown'


class Part(ty.NamedTuple):
    """One line of the table."""

    name: str
    kubernetes: str
    nova: str
    state: str


def compare(may_be, there, record, known):
    """Return the state of a part of the node.

    :param may_be: those reasons which the part may be
    :param there: those of them that there are
    :param record: reasons.Record
    :param known: the reasons.Kept of nova-compute, or None
    """
    known = known or reasons.assume(record)
    if there != known.acted & may_be:
        return f'{BEHIND}: nova-compute has not seen it'
    if record.disabled and not record.ours:
        return f'{ADMINISTRATOR}: disabled it'
    if there and not record.disabled or there & known.overridden:
        return f'{ADMINISTRATOR}: enabled it in spite of this'
    return FOLLOWS


def cordoned(node, node_state, nova, known, lost):
    shown = '?' if nova is None else 'enabled'
    if nova and nova.record.disabled:
        shown = f'disabled: {nova.record.reason or "no reason given"}'
    return Part(
        'cordoned', _yes(node and node.cordoned), shown,
        node_state or lost or compare(
            frozenset((nodes.CORDONED,)),
            nodes.reasons(node, frozenset(), 0, 1) & {nodes.CORDONED},
            nova.record, known))


def draining(name, nova, known, lost):
    """The part on a drain that goes on, as nova-compute last saw it."""
    seen = drainer.File(CONF.state_path, CONF.host, name).load()
    if not seen.reason:
        return
    there = frozenset((reasons.DRAINING,))
    state = lost or compare(there, there, nova.record, known)
    if seen.hold:
        state = (f'{OFF}: {seen.hold}; guests stay, and no new ones come '
                 f'until the pod was replaced')
    yield Part('draining', seen.reason, '?' if nova is None else
               f'{nova.guests} guests left', state)


def ready(node, node_state, nova, known, lost, now):
    shown = '?'
    if nova:
        shown = 'up' if nova.up else 'down'
        if nova.last_seen:
            shown += f', seen {words(_since(nova.last_seen, now))} ago'
    state = node_state or lost
    if not state:
        may_be = frozenset((nodes.NOT_READY, nodes.SHUTTING_DOWN))
        there = nodes.reasons(node, frozenset(), 1, 0) & may_be
        state = compare(may_be, there, nova.record, known)
        if there == {nodes.NOT_READY} and state.startswith(BEHIND):
            state = (f'{FOLLOWS}: after not_ready_grace = '
                     f'{CONF.kubernetes.not_ready_grace} s')
    ready = _yes(node and node.ready)
    return Part('ready', 'shutting down' if node and node.shutting_down
                else ready, shown, state)


def limits(state, problem, nova, kept, lost):
    shown = '?'
    if nova:
        shown = f'{nova.vcpus} VCPU and {nova.memory_mb} MiB'
    if problem:
        word = STALE if kept else UNKNOWN
        return Part('limits', '?', shown, f'{word}: {problem}')
    if lost:
        word = lost
    elif kept and kept[0] != state.budget or not _fits(state.budget, nova):
        word = f'{BEHIND}: nova-compute has not seen it'
    else:
        word = FOLLOWS
    return Part('limits', budgets.describe(state.budget), shown, word)


def _fits(budget, nova):
    """Whether Nova has no more than the limits.

    Where the limit is nothing, Nova keeps what there was and reserves it.
    """
    allowed = bounds.limits(budget, CONF.kubernetes.unlimited)
    if allowed[bounds.MEMORY_MB]:
        # Of which it may have less: those that the machine has.
        allowed[bounds.MEMORY_MB] += sum(
            budget.hugepages_by_kb.values()) // budgets.MIB
    return all(not allowed[resource_class] or has <= allowed[resource_class]
               for resource_class, has in (
                   (bounds.VCPU, nova.vcpus),
                   (bounds.MEMORY_MB, nova.memory_mb)))


def elastic(state):
    """The boundary, as nova-compute saw it last; nothing where it is off."""
    if not CONF.kubernetes.elastic:
        return ()
    pod = state and state.budget and state.budget.pod
    seen = pod and mover.load(CONF, pod.uid)
    if not seen:
        return (Part('boundary', '?', '?',
                     f'{UNKNOWN}: nova-compute has not looked yet'),)
    shown = {name: '%s MiB, %g cores' % (amount[0], amount[1] / 1000)
             for name, amount in seen.items() if isinstance(amount, list)}
    return (Part(
        'boundary',
        '\n'.join(f'{word} {shown[name]}' for word, name in (
            ('min', 'smallest'), ('wished', 'wished'),
            ('allocated', 'allocated'), ('enforced', 'enforced'),
            ('max', 'largest'))),
        f'used {shown["used"]}', seen['why']),)


def budget(found, kept, state):
    if not found:
        return Part('budget', '', 'none kept',
                    OFF if CONF.kubernetes.limits_from != 'api' else UNKNOWN)
    same = state and kept[0] == state.budget
    return Part('budget', '', f'{budgets.describe(kept[0])}, of '
                              f'{words(found["age_seconds"])} ago',
                FOLLOWS if same else STALE)


def ratios(inventory, problem):
    """How often Placement sells what is there.

    A new inventory begins with initial_..._allocation_ratio; one that is there
    keeps its own, which may have been set through Placement's API.
    """
    if problem:
        return Part('ratios', '', '?', problem)
    behind, kept = [], []
    for resource_class, record in inventory.items():
        name = host.RATIOS[resource_class]
        if CONF[name]:
            if record['allocation_ratio'] != CONF[name]:
                behind.append(f'{name} = {CONF[name]}')
        elif record['allocation_ratio'] != CONF[f'initial_{name}']:
            kept.append(f'not initial_{name} = {CONF[f"initial_{name}"]}, '
                        f'which a new inventory has; {name} would count')
    state = FOLLOWS
    if behind:
        state = f'{BEHIND}: [DEFAULT] {", ".join(behind)}'
    elif kept:
        state = f'{KEPT}: {", ".join(kept)}'
    return Part('ratios', '', ', '.join(
        f'{resource_class} {record["allocation_ratio"]}'
        for resource_class, record in inventory.items()), state)


def guests(found, lost):
    running, known = found['libvirt']['guests'], found['nova']['guests']
    state = COUNTED
    if lost:
        state = lost
    elif running is None:
        state = f'{UNKNOWN}: libvirt does not answer'
    return Part('guests', '?' if running is None else f'{running} running',
                '?' if known is None else str(known), state)


def _yes(value):
    return '?' if value is None else 'yes' if value else 'no'


def _since(moment, now):
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.timezone.utc)
    return max(0, int((now - moment).total_seconds()))


def age(moment, now):
    try:
        return _since(datetime.datetime.fromisoformat(moment), now)
    except ValueError:
        return None


def words(seconds):
    """Seconds in words: 12 s, 5 min, 3 h, 2 d."""
    if seconds is None:
        return '?'
    for unit, size in (('d', 86400), ('h', 3600), ('min', 60)):
        if seconds >= 2 * size:
            return f'{seconds // size} {unit}'
    return f'{seconds} s'
