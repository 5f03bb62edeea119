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

"""nova-k8s evacuate: rebuild the guests of a dead compute node elsewhere."""

import os
import sys

import nova.conf

from nova_k8s.cmd import drain
from nova_k8s import conf
from nova_k8s.drain import engine
from nova_k8s.drain import evacuation
from nova_k8s.drain import nova_api
from nova_k8s.drain import plan
from nova_k8s import errors
from nova_k8s.kube import client
from nova_k8s.kube import node

CONF = nova.conf.CONF

FAILURE = drain.FAILURE

REASON = 'nova-k8s evacuate'


def add_parser(commands):
    parser = commands.add_parser(
        'evacuate', help='rebuild the guests of a dead compute node elsewhere',
        description=f'Rebuild the guests of a compute node that is off. '
                    f'Whether it is off is for you to see to: the taint '
                    f'{node.OUT_OF_SERVICE} of the Kubernetes node says so. '
                    f'Guests stay shut off (API 2.95). Once the node is back '
                    f'and nova-compute has cleaned up, --enable.')
    drain.add_arguments(parser, parallel=8)
    parser.add_argument(
        '--node', metavar='NAME',
        help='the Kubernetes node, where it has another name than --host')
    parser.add_argument(
        '--kubeconfig', metavar='FILE',
        help='for the taint; default: KUBECONFIG, nova.conf, or the service '
             'account of the pod')
    parser.add_argument(
        '--i-know-it-is-off', action='store_true',
        help='do not ask Kubernetes; if the node is not off, volumes of '
             'guests that run twice are destroyed')
    parser.add_argument(
        '--start', action='store_true',
        help='have Nova start the guests that ran')
    parser.add_argument(
        '--most-down', metavar='PERCENT', type=int, default=50,
        help='refuse while more of all compute services are down '
             '(default: 50)')
    parser.add_argument(
        '--enable', action='store_true',
        help='only this: enable the compute service of a node that is back, '
             'once nothing is left on it of what was evacuated')
    return parser


def run(args):
    try:
        nova = drain.connect(args)
        service = nova.service(args.host)
        if args.enable:
            return enable(nova, service)
        if args.dry_run:
            return drain.show_plan(args, evacuation.judge(
                nova.look(service.host), {},
                plan.Policy(parallel=sys.maxsize), 0), service.host,
                lambda guest: lost(guest, args.start))
        problem = evacuation.too_many(nova.services(), args.most_down / 100)
        if problem:
            raise errors.Refused(problem + ' (--most-down)')
        if not args.i_know_it_is_off:
            check_off(args)
        if not service.forced_down:
            nova.force_down(service)
        if service.enabled:
            nova.disable(service, REASON)
        loop = engine.Engine(
            nova, service.host,
            plan.Policy(parallel=args.parallel, attempts=args.attempts),
            evacuation, act=lambda verdict: nova.act(verdict, args.start))
        return drain.finish(args, service.host, drain.go(args, nova, loop))
    except (nova_api.Unreachable, nova_api.Forbidden,
            nova_api.Refused) as exc:
        raise errors.Refused(str(exc)) from None


def enable(nova, service):
    """Enable a service that is back, unless something is left there.

    :raises errors.Refused: when there is
    """
    left = evacuation.uncleaned(nova.look(service.host, None))
    if left:
        raise errors.Refused(
            f'{service.host} may still run guests that were evacuated, '
            f'until its nova-compute has started and destroyed them: '
            f'{errors.listed(each.guest for each in left)}')
    nova.enable(service)
    print(f'The compute service of {service.host} is enabled')
    return 0


def check_off(args):
    """See that the Kubernetes node is said to be off.

    :raises errors.LimitsError: when it is not, or is not known
    """
    # With a cloud of clouds.yaml, nova.conf was not read.
    conf.register_opts(CONF)
    kubeconfig = args.kubeconfig or os.environ.get('KUBECONFIG')
    if kubeconfig:
        CONF.set_override('kubeconfig', kubeconfig, 'kubernetes')
    name = args.node or args.host
    way_out = (f'once it is off, kubectl taint node {name} '
               f'{node.OUT_OF_SERVICE}=nodeshutdown:NoExecute, or '
               f'--i-know-it-is-off')
    try:
        found = node.Source(lambda: client.api_client(CONF), name,
                            CONF.kubernetes.api_timeout).ask()
    except errors.LimitsError as exc:
        raise errors.Refused(
            f'Whether {name} is off is not known: {exc}; {way_out}') from None
    if not found.has_taint(node.OUT_OF_SERVICE):
        raise errors.Refused(
            f'Node {name} has no taint {node.OUT_OF_SERVICE}, so it may '
            f'still run its guests; {way_out}')


def lost(guest, start):
    """Return what an evacuation takes from a guest."""
    notes = []
    if guest.local_disk:
        notes.append('its local disk is made anew from its image, unless '
                     '[DEFAULT] instances_path is shared')
    if guest.powered and not start:
        notes.append('it stays shut off (--start)')
    return '; '.join(notes)
