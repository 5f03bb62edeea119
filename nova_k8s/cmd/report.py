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


"""nova-k8s report: what Nova will be told, before anything is deployed."""

import json
import sys

import nova.conf
from rich import console
from rich import table
import yaml

from nova_k8s.accounting import instance_overhead
from nova_k8s.accounting import pod_reserve
from nova_k8s.accounting import usage
from nova_k8s.cmd import configuration
from nova_k8s.cmd import files
from nova_k8s import conf
from nova_k8s.confinement import cgroup
from nova_k8s.inventory import bounds
from nova_k8s.inventory import capacity
from nova_k8s.inventory import cpu_sets
from nova_k8s.inventory import host
from nova_k8s.inventory import hugepages
from nova_k8s.inventory import numa
from nova_k8s.inventory import picture
from nova_k8s.limits import checkpoint
from nova_k8s.limits import messages
from nova_k8s.limits import sources
from nova_k8s.limits import watcher

CONF = nova.conf.CONF


def add_parser(commands):
    parser = commands.add_parser(
        'report', help='what Nova will be told of this compute node',
        description='Show what Nova will be told, before anything is '
                    'deployed. Without --manifest, the limits are read from '
                    'where nova.conf says.')
    parser.add_argument(
        '--manifest', metavar='FILE',
        help='read the limits from this manifest')
    parser.add_argument(
        '--container', metavar='NAME',
        help='the container whose limits are meant for guests, * for all')
    files.add_arguments(parser)
    parser.add_argument(
        '--machine', metavar='cpus=N,memory=Q',
        help='the machine, where it is not this one '
             '(cpus=64,memory=256Gi,hugepages-2Mi=64Gi)')
    parser.add_argument(
        '--flavor', metavar='VCPUS,RAM_MB', action='append', default=[],
        help='how many guests of this size fit; may be repeated')
    parser.add_argument(
        '--format', choices=('table', 'json', 'yaml'), default='table')
    return parser


def run(args):
    configuration.load(args)
    result, budget = report(args.machine, args.flavor)
    if args.format == 'json':
        print(json.dumps(result, indent=2))
    elif args.format == 'yaml':
        print(yaml.safe_dump(result, sort_keys=False), end='')
    else:
        show(result, budget, console.Console(file=sys.stdout))


def report(machine_text=None, flavors=()):
    """Return what scripts get to see, and the Budget behind it.

    :param flavors: 'vcpus,ram_mb' of flavors to try
    """
    conf.check(CONF)
    sizes = [capacity.parse_size(text) for text in flavors]
    # Also without a flavor: nova-compute would not start with these options.
    settings = instance_overhead.settings_from(CONF)
    state = checkpoint.resume(
        CONF, sources.from_conf(CONF),
        cgroup.enforced_from_conf(CONF) or watcher.nothing)
    budget = state.budget
    unlimited = CONF.kubernetes.unlimited
    kept = pod_reserve.from_conf(CONF, budget.memory_bytes, look=False)
    bounds.check(budget, unlimited, bounds.reserved_by_class(CONF, kept.mb),
                 kept.option)
    machine = (host.parse(machine_text) if machine_text is not None else
               host.ask_libvirt(CONF.libvirt.connection_uri or
                                'qemu:///system') or
               host.ask_kernel())
    drawn, sets, problems = (
        look_at_cpus(budget) if machine_text is None else (None, None, []))
    pages = host.pages(machine, budget.hugepages_by_kb)
    stock = bounds.ordinary(
        host.stock_inventory(machine, CONF, kept.mb, sets), pages)
    limits = bounds.share_cores(
        bounds.limits(budget, unlimited),
        stock.get(bounds.PCPU, {}).get('total', 0),
        sets.lost_count if sets else 0)
    bounded = bounds.apply(*bounds.with_pages(stock, limits, pages), {},
                           closed=budget.terminating)
    warning = bounds.warn_of_ratio(
        bounded.get(bounds.MEMORY_MB),
        bounds.limits(budget, unlimited)[bounds.MEMORY_MB],
        budget.source)
    result = {
        'machine': {'cpus': machine.cpus, 'memory_mb': machine.memory_mb,
                    'source': machine.source},
        'budget': budget.as_dict(),
        'inventory': bounded,
        'memory': memory_pools(
            budget, machine, pages,
            stock.get(bounds.MEMORY_MB, {'total': 0})['total']),
        'cpus': drawn,
        'warnings': [
            *problems,
            *([f'stale: {state.problem}'] if state.stale else []),
            *(line.text for line in messages.for_change(
                None, watcher.State(budget), unlimited)
              if line.type == messages.WARNING),
            *bounds.list_warnings(budget, stock, pages),
            *([warning] if warning else [])],
        'notes': notes(bounded),
    }
    if sizes:
        result['flavors'] = [
            capacity.describe(bounded, size, settings,
                              CONF.kubernetes.reserve_ahead,
                              pages.offered_mb) for size in sizes]
    return result, budget


def look_at_cpus(budget):
    """Return (what scripts get to see of CPUs, the cpus.Sets, problems).

    Of this machine, and of the guests' pod where that is seen.
    """
    guests, layout = picture.look(usage.pids()), numa.read()
    seen, sets, problems = cpu_sets.preview(
        CONF, budget, frozenset().union(*(each.pinned for each in guests)),
        layout=layout)
    return picture.describe(layout, seen, sets, guests), sets, problems


def memory_pools(budget, machine, pages, ordinary_mb):
    """Return what MEMORY_MB is made of, and the node keeps apart.

    :param pages: hugepages.Pages
    :param ordinary_mb: memory of the machine that is not in huge pages
    """
    offered, has = dict(pages.by_size), dict(machine.huge_mb)
    limits = budget.hugepages_by_kb
    memory_mb = budget.memory_mb
    return [
        {'pages': 'ordinary', 'machine_mb': ordinary_mb,
         'limit_mb': memory_mb,
         'offered_mb': (ordinary_mb if memory_mb is None
                        else min(ordinary_mb, memory_mb))},
        *({'pages': hugepages.name(size_kb),
           'machine_mb': has.get(size_kb, 0),
           'limit_mb': limits.get(size_kb, 0) // 2 ** 20,
           'offered_mb': offered.get(size_kb, 0)}
          for size_kb in sorted({*has, *limits}))]


def notes(inventory):
    """Return what to know of the figures that is no reason to worry."""
    found = []
    if pod_reserve.configured_mb(CONF)[0] is None:
        found.append(
            'The memory reserved for other processes is the least: it is '
            'measured where nova-compute runs, as [kubernetes] '
            'reserved_memory_mb = auto.')
    open_ = [resource_class for resource_class in inventory
             if resource_class in host.RATIOS and
             not CONF[host.RATIOS[resource_class]]]
    if open_:
        options = ' or '.join(host.RATIOS[each] for each in open_)
        found.append(
            f'The ratio of {" and ".join(open_)} is that of a new compute '
            f'node. One that Placement knows already keeps its own, which '
            f'nova-k8s status shows, unless [DEFAULT] {options} is set.')
    return found


def draw_pools(pools):
    """What MEMORY_MB is made of, for people."""
    grid = table.Table(title='MEMORY_MB by size of pages, in MiB')
    grid.add_column('')
    for heading in ('machine', 'limit', 'offered'):
        grid.add_column(heading, justify='right')
    for pool in pools:
        limit_mb = pool['limit_mb']
        grid.add_row(pool['pages'], str(pool['machine_mb']),
                     'none' if limit_mb is None else str(limit_mb),
                     str(pool['offered_mb']))
    return grid


def show(result, budget, out):
    """Print the report for people."""
    out.print(f'Limits of {budget.source}', highlight=False, markup=False,
              soft_wrap=True)
    out.print(f'Machine: {result["machine"]["source"]}', highlight=False,
              soft_wrap=True)
    machine = {bounds.VCPU: result['machine']['cpus'],
               bounds.PCPU: result['machine']['cpus'],
               bounds.MEMORY_MB: result['machine']['memory_mb']}
    limits = bounds.limits(budget, 'host')
    limits[bounds.PCPU] = limits[bounds.VCPU]
    grid = table.Table()
    grid.add_column('')
    for heading in ('machine', 'limit', 'total', 'reserved', 'ratio', 'sold'):
        grid.add_column(heading, justify='right')
    for resource_class, record in result['inventory'].items():
        limit = limits[resource_class]
        grid.add_row(
            resource_class, str(machine[resource_class]),
            'none' if limit is None else str(limit), str(record['total']),
            str(record['reserved']), str(record['allocation_ratio']),
            str(capacity.sold(record)))
    out.print(grid)
    if len(result['memory']) > 1:
        out.print(draw_pools(result['memory']))
    if result['cpus']:
        for each in picture.draw(result['cpus']):
            out.print(each, highlight=False, soft_wrap=True)
    for line in result['notes']:
        out.print(line, highlight=False, markup=False, soft_wrap=True)
    if 'flavors' in result:
        memory = result['inventory'].get(bounds.MEMORY_MB)
        for grid in capacity.draw_tables(
                result['flavors'], memory['total'] if memory else 0):
            out.print(grid)
        out.print('What a guest costs is an estimate, and so is whether those '
                  "that Nova's own driver takes would fit.", highlight=False,
                  soft_wrap=True)
    for line in result['warnings']:
        out.print(f'Warning: {line}', highlight=False, markup=False,
                  soft_wrap=True)
