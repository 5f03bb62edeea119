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


"""nova-k8s status: this node as Kubernetes and Nova see it, side by side."""

import dataclasses
import datetime
import json
import os
import sys
import typing as ty

import libvirt
from nova.conductor import rpcapi as conductor
import nova.conf
from nova import context as nova_context
from nova import objects
from nova.objects import base as objects_base
from nova import rpc
from nova.scheduler.client import report as placement_client
from nova import servicegroup
from rich import console
from rich import table
from rich import text

from nova_k8s.accounting import instance_overhead
from nova_k8s.accounting import overhead
from nova_k8s.accounting import summary
from nova_k8s.cmd import report
from nova_k8s.confinement import cgroup
from nova_k8s.drain import drainer
from nova_k8s.elastic import mover
from nova_k8s import errors
from nova_k8s.inventory import bounds
from nova_k8s.inventory import capacity
from nova_k8s.inventory import host
from nova_k8s.inventory import placement
from nova_k8s.inventory import room
from nova_k8s.kube import client as kube_client
from nova_k8s.kube import node as nodes
from nova_k8s.limits import budget as budgets
from nova_k8s.limits import checkpoint
from nova_k8s.limits import sources
from nova_k8s.limits import watcher
from nova_k8s.service import reasons
from nova_k8s.service import record as records
from nova_k8s.util import deadline

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


@dataclasses.dataclass(frozen=True)
class Nova:
    """What Nova knows of this compute node."""

    record: reasons.Record
    uuid: str
    """Of the service record."""

    up: bool
    last_seen: ty.Optional[datetime.datetime]
    vcpus: ty.Optional[int]
    memory_mb: ty.Optional[int]
    guests: int
    provider: str
    """UUID of its resource provider in Placement."""


def add_parser(commands):
    parser = commands.add_parser(
        'status', help='this node as Kubernetes and Nova see it',
        description='Show this node as Kubernetes and Nova see it, and '
                    'whether each part follows. To be run where nova-compute '
                    'runs: it asks Nova through the conductor, with what '
                    'stands in nova.conf.')
    parser.add_argument(
        '--config-file', metavar='FILE', action='append',
        help='nova.conf; may be repeated')
    parser.add_argument(
        '--format', choices=('table', 'json'), default='table')
    parser.add_argument(
        '--flavor', metavar='VCPUS,RAM_MB', action='append', default=[],
        help='say how many more guests of this size fit; may be repeated')
    parser.set_defaults(manifest=None, container=None)
    return parser


def run(args):
    report.configure(args)
    result = status(args.flavor)
    if args.format == 'json':
        print(json.dumps(result, indent=2))
    else:
        show(result, console.Console(file=sys.stdout))


def status(flavors=()):
    """Return what scripts get to see.

    :param flavors: each as 'vcpus,ram_mb'
    :raises errors.Refused: when a flavor is something else
    """
    sizes = [capacity.parse_size(text) for text in flavors]
    now = datetime.datetime.now(datetime.timezone.utc)
    kept = _kept()
    state, problem = limits(kept and kept[0])
    name = kube_client.node_name(CONF, os.environ) or (
        state and state.budget and state.budget.node_name)
    node, node_state = _node(name)
    nova, nova_problem = _within(
        CONF.kubernetes.api_timeout, "Nova's conductor", ask_nova)
    inventory, inventory_problem = None, nova_problem
    if nova:
        inventory, inventory_problem = _within(
            CONF.kubernetes.api_timeout, 'Placement',
            lambda: ask_placement(nova.provider))
    inventory, usages = inventory or (None, None)
    known = nova and records.File(
        CONF.state_path, CONF.host, name).load(nova.uuid)
    found = {
        'kubernetes': {
            'node': name,
            'cordoned': node and node.cordoned,
            'ready': node and node.ready,
            'shutting_down': node and node.shutting_down,
            'limits': (state.budget.as_dict() if state and not state.problem
                       else None),
        },
        'nova': {
            'host': CONF.host,
            'status': nova and ('disabled' if nova.record.disabled
                                else 'enabled'),
            'reason': nova and nova.record.reason,
            'up': nova and nova.up,
            'vcpus': nova and nova.vcpus,
            'memory_mb': nova and nova.memory_mb,
            'guests': nova and nova.guests,
        },
        'budget': kept and {
            'limits': kept[0].as_dict(),
            'read_at': kept[1],
            'age_seconds': _age(kept[1], now),
        },
        'placement': inventory and {
            resource_class: inventory[resource_class]
            for resource_class in host.RATIOS if resource_class in inventory},
        'memory': inventory and _memory(inventory, usages, sizes),
        'libvirt': {'guests': _within(CONF.kubernetes.api_timeout, 'libvirt',
                                      _libvirt_guests)[0]},
    }
    lost = nova_problem or (None if nova.up else
                            f'{STALE}: nova-compute is down')
    found['parts'] = [part._asdict() for part in (
        _cordoned(node, node_state, nova, known, lost),
        _ready(node, node_state, nova, known, lost, now),
        *_draining(name, nova, known, lost),
        _limits(state, problem, nova, kept, lost),
        _budget(found['budget'], kept, state),
        *_elastic(state),
        _ratios(found['placement'], inventory_problem),
        _guests(found, lost))]
    return found


# What is asked


def _within(seconds, who, ask):
    """Return (what ask returns, None), or (None, why it is not known)."""
    try:
        # Nova's messaging waits for ever for a server that is away.
        return deadline.call(lambda _given_up: ask(), seconds, who), None
    except deadline.NoAnswer:
        return None, f'{UNKNOWN}: {who}: no answer within {seconds} s'
    except Exception as exc:
        words = ' '.join(str(exc).split()) or type(exc).__name__
        return None, f'{UNKNOWN}: {who}: {words}'


def ask_nova():
    """Return what Nova knows, in the way of nova-compute: by the conductor.

    All that it takes stands in the nova.conf of nova-compute; an account for
    Nova's API does not.
    """
    if rpc.TRANSPORT is None:
        objects.register_all()
        rpc.set_defaults(control_exchange='nova')
        rpc.init(CONF)
        objects_base.NovaObject.indirection_api = conductor.ConductorAPI()
    context = nova_context.get_admin_context()
    found = objects.Service.get_by_compute_host(context, CONF.host)
    nodes_ = objects.ComputeNodeList.get_all_by_host(context, CONF.host)
    return Nova(
        reasons.Record(found.disabled, found.disabled_reason), found.uuid,
        servicegroup.API().service_is_up(found), found.last_seen_up,
        nodes_[0].vcpus, nodes_[0].memory_mb,
        len(objects.InstanceList.get_uuids_by_host(context, CONF.host)),
        nodes_[0].uuid)


def ask_placement(provider):
    """Return (inventories, usages) that Placement has, by resource class.

    :raises errors.Unreadable: when it answers something else
    """
    found = []
    for name in ('inventories', 'usages'):
        answer = placement_client.report_client_singleton().get(
            f'/resource_providers/{provider}/{name}',
            version=placement.VERSION)
        if answer.status_code != 200:
            raise errors.Unreadable(
                f'answered {answer.status_code} on the {name} of resource '
                f'provider {provider}')
        found.append(answer.json()[name])
    return found


def limits(known):
    """Return (watcher.State, None), or (None, why the limits are not known).

    :param known: the Budget that nova-compute goes by, or None
    """
    try:
        return watcher.State(watcher.read_first(
            sources.from_conf(CONF), 0, known=known,
            enforced=cgroup.enforced_from_conf(CONF) or watcher.nothing)), None
    except errors.LimitsError as exc:
        return None, str(exc)


def _kept():
    """Return what nova-compute read last and when, or None."""
    if CONF.kubernetes.limits_from != 'api':
        return None
    try:
        return checkpoint.load(CONF)
    except errors.LimitsError:
        return None


def _node(name):
    """Return (nodes.Node, None), or (None, the state of its parts)."""
    if not CONF.kubernetes.follow_cordon:
        return None, f'{OFF}: [kubernetes] follow_cordon'
    if not name:
        return None, f'{OFF}: NODE_NAME and [kubernetes] node_name are not set'
    source = nodes.from_conf(CONF, name)
    if not source:
        return None, (f'{OFF}: neither a service account of a pod nor '
                      f'[kubernetes] kubeconfig')
    try:
        return source.ask(), None
    except errors.LimitsError as exc:
        return None, f'{UNKNOWN}: {exc}'


def _libvirt_guests():
    """Return how many guests run, or None where libvirt does not answer."""
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    try:
        connection = libvirt.openReadOnly(
            CONF.libvirt.connection_uri or 'qemu:///system')
    except libvirt.libvirtError:
        return None
    try:
        return connection.numOfDomains()
    finally:
        connection.close()


# What it means


def _memory(inventory, usages, sizes):
    """What Placement has of the memory, why, and what still fits."""
    accounts = summary.load(CONF)
    found = room.describe(inventory, usages, accounts)
    if found and accounts and sizes:
        settings = instance_overhead.settings_from(CONF)
        found['flavors'] = [{
            'vcpus': size.vcpus, 'memory_mb': size.memory_mb,
            'fit': room.count_more(
                inventory, usages, accounts,
                overhead.need(overhead.guest(
                    size.memory_mb, size.vcpus, {}, {}, settings), settings),
                CONF.kubernetes.reserve_ahead),
        } for size in sizes]
    return found


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


def _cordoned(node, node_state, nova, known, lost):
    shown = '?' if nova is None else 'enabled'
    if nova and nova.record.disabled:
        shown = f'disabled: {nova.record.reason or "no reason given"}'
    return Part(
        'cordoned', _yes(node and node.cordoned), shown,
        node_state or lost or compare(
            frozenset((nodes.CORDONED,)),
            nodes.reasons(node, frozenset(), 0, 1) & {nodes.CORDONED},
            nova.record, known))


def _draining(name, nova, known, lost):
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


def _ready(node, node_state, nova, known, lost, now):
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


def _limits(state, problem, nova, kept, lost):
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
    return all(not allowed[resource_class] or has <= allowed[resource_class]
               for resource_class, has in (
                   (bounds.VCPU, nova.vcpus),
                   (bounds.MEMORY_MB, nova.memory_mb)))


def _elastic(state):
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


def _budget(found, kept, state):
    if not found:
        return Part('budget', '', 'none kept',
                    OFF if CONF.kubernetes.limits_from != 'api' else UNKNOWN)
    same = state and kept[0] == state.budget
    return Part('budget', '', f'{budgets.describe(kept[0])}, of '
                              f'{words(found["age_seconds"])} ago',
                FOLLOWS if same else STALE)


def _ratios(inventory, problem):
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


def _guests(found, lost):
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


def _age(moment, now):
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


def show(result, out):
    """Print the status for people."""
    kubernetes, nova = result['kubernetes'], result['nova']
    grid = table.Table()
    grid.add_column('')
    grid.add_column(f'Kubernetes node {kubernetes["node"] or "?"}',
                    overflow='fold')
    grid.add_column(f'Nova host {nova["host"]}', overflow='fold')
    grid.add_column('state', overflow='fold')
    for part in result['parts']:
        # As text: what is in brackets is no markup.
        grid.add_row(*map(text.Text, part.values()))
    out.print(grid)
    if result['memory']:
        for line in room.words(result['memory']):
            out.print(line, highlight=False, markup=False, soft_wrap=True)
