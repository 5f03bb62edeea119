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

"""nova-k8s drain: move the guests of a compute node away."""

import json
import os
import sys
import time

import nova.conf
from rich import console as consoles
from rich import table

from nova_k8s.cmd import configuration
from nova_k8s.cmd import files
from nova_k8s.cmd import progress
from nova_k8s.drain import engine
from nova_k8s.drain import nova_api
from nova_k8s.drain import plan
from nova_k8s.drain import sdk
from nova_k8s import errors

CONF = nova.conf.CONF

# The exit status where guests are left, and where it could not be tried.
LEFT, FAILURE = 1, 2

REASON = 'nova-k8s drain'


def add_parser(commands):
    parser = commands.add_parser(
        'drain', help='move the guests of a compute node away',
        description='Disable the compute service of a node and move its '
                    'guests away by live migration, wherever the scheduler '
                    'says. Ended at any moment and started again, it goes '
                    'on. The exit status is 0 when the node is empty, 1 when '
                    'guests are left, which are listed, and 2 when it could '
                    'not be tried.')
    add_arguments(parser, parallel=1)
    parser.add_argument(
        '--migration-timeout', type=_positive, metavar='SECONDS',
        help='abort a live migration that runs for longer; by default only '
             'the options of Nova decide')
    parser.add_argument(
        '--shut-off', choices=('stays', 'ignore', 'cold'), default='stays',
        help='guests that are shut off: they stay, and count (the default); '
             'they stay, and do not count; or they are migrated, and the '
             'migration is confirmed')
    parser.add_argument(
        '--ignore-tenants', action='store_true',
        help='nothing that servers say of themselves (nova-k8s:drain in '
             'their tags and metadata) counts')
    return parser


def add_arguments(parser, parallel):
    """Add what drain and evacuate have in common."""
    parser.add_argument(
        '--host', metavar='NODE', required=True,
        help='the host of the compute service, or the name of its '
             'hypervisor, which is that of the Kubernetes node')
    parser.add_argument(
        '--parallel', type=_positive, metavar='N', default=parallel,
        help=f'guests at a time (default: {parallel})')
    parser.add_argument(
        '--attempts', type=_positive, metavar='N', default=3,
        help='how often it is tried to move a guest (default: 3)')
    parser.add_argument(
        '--dry-run', action='store_true',
        help='only show what would happen to each guest')
    parser.add_argument(
        '--patience', type=_positive, metavar='SECONDS', default=300,
        help='how long Nova may not answer (default: 300)')
    parser.add_argument(
        '--cloud', metavar='NAME',
        help='ask the Nova of this cloud of clouds.yaml; default: that of '
             'the environment, otherwise with the account of nova.conf')
    files.add_arguments(
        parser, 'nova.conf with [kubernetes_drain] or [service_user]')
    parser.add_argument(
        '--format', choices=('text', 'json'), default='text',
        help='json: a summary at the end, and the lines on stderr')


def _positive(text):
    number = int(text)
    if number < 1:
        raise ValueError
    return number


_positive.__name__ = 'whole number above 0'


def run(args):
    try:
        nova = connect(args, not args.ignore_tenants)
        service = nova.service(args.host)
        policy = plan.Policy(
            parallel=args.parallel, attempts=args.attempts,
            shut_off=args.shut_off, timeout=args.migration_timeout)
        if args.dry_run:
            return show_plan(args, plan.judge(
                nova.look(service.host), {},
                # That of each guest, not who is first.
                plan.Policy(parallel=sys.maxsize, shut_off=args.shut_off),
                0), service.host)
        if service.enabled:
            nova.disable(service, REASON)
        loop = engine.Engine(nova, service.host, policy)
        return finish(args, service.host, go(args, nova, loop))
    except (nova_api.Unreachable, nova_api.Forbidden,
            nova_api.Refused) as exc:
        raise errors.Refused(str(exc)) from None


def connect(args, tenants_decide=True):
    """Return the Nova that the arguments, or the environment, name.

    :raises errors.Refused: when there is none
    """
    if args.cloud or not (args.config_file or args.config_dir) and (
            'OS_CLOUD' in os.environ or 'OS_AUTH_URL' in os.environ):
        return sdk.from_cloud(args.cloud, tenants_decide)
    configuration.load(args)
    if not tenants_decide:
        CONF.set_override('tenants_decide', False, 'kubernetes_drain')
    try:
        return sdk.from_conf(CONF)
    except errors.Refused as exc:
        raise errors.Refused(
            f'{exc} in nova.conf (--config-file); nor is a cloud given '
            f'(--cloud, OS_CLOUD)') from None


def go(args, nova, loop):
    """Run the engine and show how far it is; return the last State."""
    if args.format == 'json':
        screen = progress.Lines(sys.stderr)
    elif sys.stdout.isatty():
        screen = progress.Screen(nova)
    else:
        screen = progress.Lines(sys.stdout)
    states = [engine.State()]

    def show(state):
        states.append(state)
        screen(state)

    try:
        with screen:
            loop.run(show, time.sleep, args.patience)
    except KeyboardInterrupt:
        print('nova-k8s: interrupted; migrations under way go on, and the '
              'same command again goes on with the others', file=sys.stderr)
    return states[-1]


def finish(args, host, state):
    """Print the end of it; return the exit status."""
    if args.format == 'json':
        print(json.dumps(progress.summary(host, state), indent=2))
    elif state.empty:
        print(f'{host} is empty: {len(state.moved)} guests have left')
    else:
        print(f'{host} is not empty: {len(state.moved)} guests have left, '
              f'{len(state.left)} are here:')
        for verdict in state.left:
            print(f'  {verdict.guest.id} {progress.text(verdict)}')
    return 0 if state.empty else LEFT


def show_plan(args, verdicts, host, note=lambda guest: ''):
    """Print what would happen; return the exit status.

    :param note: what more there is to say of a guest, from the Guest
    """
    stay = [each for each in verdicts if each.counts and not each.open]
    if args.format == 'json':
        print(json.dumps({
            'host': host, 'guests': [
                {**progress.left(each), 'note': note(each.guest)}
                for each in verdicts]}, indent=2))
        return LEFT if stay else 0
    grid = table.Table(title=f'{host}: {len(verdicts)} guests, '
                       f'{len(stay)} would stay', title_justify='left')
    for heading in ('guest', 'id', 'status', 'what', 'why'):
        grid.add_column(heading, overflow='fold')
    for each in verdicts:
        why = each.why if not each.open or each.what in (
            plan.WAITS, plan.MOVES) else ''
        grid.add_row(each.guest.name, each.guest.id, each.guest.status,
                     each.what, '; '.join(filter(None, (
                         why, note(each.guest)))))
    consoles.Console(file=sys.stdout).print(grid)
    return LEFT if stay else 0
