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

import datetime
import json
import os
import sys

import nova.conf
from rich import console
from rich import table
from rich import text

from nova_k8s.accounting import instance_overhead
from nova_k8s.accounting import overhead
from nova_k8s.accounting import summary
from nova_k8s.cmd import comparison
from nova_k8s.cmd import configuration
from nova_k8s.cmd import files
from nova_k8s.cmd import observed
from nova_k8s.inventory import capacity
from nova_k8s.inventory import host
from nova_k8s.inventory import room
from nova_k8s.kube import client as kube_client
from nova_k8s.service import record as records

CONF = nova.conf.CONF


def add_parser(commands):
    parser = commands.add_parser(
        'status', help='this node as Kubernetes and Nova see it',
        description='Show this node as Kubernetes and Nova see it, and '
                    'whether each part follows. To be run where nova-compute '
                    'runs: it asks Nova through the conductor, with what '
                    'stands in nova.conf.')
    files.add_arguments(parser)
    parser.add_argument(
        '--format', choices=('table', 'json'), default='table')
    parser.add_argument(
        '--flavor', metavar='VCPUS,RAM_MB', action='append', default=[],
        help='say how many more guests of this size fit; may be repeated')
    parser.set_defaults(manifest=None, container=None)
    return parser


def run(args):
    configuration.load(args)
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
    timeout = CONF.kubernetes.api_timeout
    kept = observed.kept()
    state, problem = observed.limits(kept and kept[0])
    name = kube_client.node_name(CONF, os.environ) or (
        state and state.budget and state.budget.node_name)
    node, node_state = observed.node(name)
    nova, nova_problem = observed.within(
        timeout, "Nova's conductor", observed.ask_nova)
    inventory, inventory_problem = None, nova_problem
    if nova:
        inventory, inventory_problem = observed.within(
            timeout, 'Placement',
            lambda: observed.ask_placement(nova.provider))
    inventory, usages = inventory or (None, None)
    guests, _ = observed.within(timeout, 'libvirt', observed.libvirt_guests)
    now = datetime.datetime.now(datetime.timezone.utc)
    found = {
        'kubernetes': _kubernetes(name, node, state),
        'nova': _nova(nova),
        'budget': kept and {
            'limits': kept[0].as_dict(),
            'read_at': kept[1],
            'age_seconds': comparison.age(kept[1], now),
        },
        'placement': inventory and {
            resource_class: inventory[resource_class]
            for resource_class in host.RATIOS if resource_class in inventory},
        'memory': inventory and _memory(inventory, usages, sizes),
        'disk': inventory and room.describe_disk(inventory, usages),
        'libvirt': {'guests': guests},
    }
    known = nova and records.File(
        CONF.state_path, CONF.host, name).load(nova.uuid)
    lost = nova_problem or (None if nova.up else
                            f'{comparison.STALE}: nova-compute is down')
    found['parts'] = [part._asdict() for part in (
        comparison.cordoned(node, node_state, nova, known, lost),
        comparison.ready(node, node_state, nova, known, lost, now),
        *comparison.draining(name, nova, known, lost),
        comparison.limits(state, problem, nova, kept, lost),
        comparison.budget(found['budget'], kept, state),
        *comparison.elastic(state),
        comparison.ratios(found['placement'], inventory_problem),
        comparison.guests(found, lost))]
    return found


def _kubernetes(name, node, state):
    return {
        'node': name,
        'cordoned': node and node.cordoned,
        'ready': node and node.ready,
        'shutting_down': node and node.shutting_down,
        'limits': (state.budget.as_dict() if state and not state.problem
                   else None),
    }


def _nova(nova):
    return {
        'host': CONF.host,
        'status': nova and ('disabled' if nova.record.disabled
                            else 'enabled'),
        'reason': nova and nova.record.reason,
        'up': nova and nova.up,
        'vcpus': nova and nova.vcpus,
        'memory_mb': nova and nova.memory_mb,
        'guests': nova and nova.guests,
    }


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
    if result['disk']:
        out.print(room.words_of_disk(result['disk']), highlight=False,
                  markup=False, soft_wrap=True)
