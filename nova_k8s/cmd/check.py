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

"""nova-k8s check: are the guests of this node held by what Nova was told?"""

import json
import os
import sys

import nova.conf
from rich import console
from rich import table
import yaml

from nova_k8s.accounting import usage
from nova_k8s.cmd import configuration
from nova_k8s.cmd import files
from nova_k8s.confinement import cgroup
from nova_k8s.confinement import controller
from nova_k8s.confinement import findings
from nova_k8s.confinement import guests_pod
from nova_k8s.confinement import snapshot
from nova_k8s import errors
from nova_k8s.kube import client as kube_client
from nova_k8s.limits import quantity

CONF = nova.conf.CONF


def add_parser(commands):
    parser = commands.add_parser(
        'check', help='whether the guests of this node are held',
        description='Look whether what holds guests on this node is as it '
                    'has to be, and whether each guest is where it belongs. '
                    'Run it on the node, or in the container of nova-compute. '
                    'Ends with 1 where there is a problem.')
    files.add_arguments(parser)
    parser.add_argument(
        '--kubelet-config', metavar='FILE',
        default='/var/lib/kubelet/config.yaml',
        help='configuration of the kubelet, where it can be seen '
             '(default: %(default)s)')
    parser.add_argument('--format', choices=('table', 'json'),
                        default='table')
    return parser


def run(args):
    configuration.load(args)
    seen = look(args.kubelet_config)
    found = findings.find(seen)
    if args.format == 'json':
        print(json.dumps({
            'guests': [{'uuid': each.uuid, 'name': each.name,
                        'cgroup': each.cgroup, 'inside': each.inside}
                       for each in seen.guests],
            'findings': [each.as_dict() for each in found]}, indent=2))
    else:
        show(seen, found, console.Console(file=sys.stdout))
    problems = sum(each.severity == findings.PROBLEM for each in found)
    if problems:
        raise errors.Refused(
            f'{problems} problem{"s" if problems > 1 else ""} found')


def look(kubelet_config, tree=None, proc='/proc', told=guests_pod.UID_FILE):
    """Return the snapshot.Snapshot of this node."""
    pod = problem = None
    name = kube_client.guests_pod(CONF, os.environ)
    if name:
        try:
            pod = controller.from_conf(CONF).read()
        except errors.LimitsError as exc:
            problem = str(exc)
    return snapshot.read(
        tree or cgroup.node_tree(),
        usage.pids(proc), pod, problem, bool(name),
        shutdown_grace(kubelet_config), proc, told,
        CONF.kubernetes.guest_slice)


def shutdown_grace(path):
    """Return the seconds that critical pods get at a shutdown.

    None where the kubelet does not notice one, or its configuration is not
    seen here.
    """
    try:
        with open(path, encoding='utf-8') as f:
            found = yaml.safe_load(f) or {}
        return quantity.parse_seconds(
            found.get('shutdownGracePeriodCriticalPods') or '0s') or None
    except (OSError, ValueError, AttributeError, yaml.YAMLError):
        return None


def show(seen, found, out):
    """Print it for people."""
    if seen.guests:
        grid = table.Table('guest', 'held', 'cgroup')
        for each in seen.guests:
            grid.add_row(each.name, 'yes' if each.inside else 'no',
                         each.cgroup)
        out.print(grid)
    if not found:
        out.print('Nothing is wrong.')
        return
    grid = table.Table('', 'check', 'what', 'how to mend it')
    for each in found:
        grid.add_row(each.severity, each.check,
                     f'{each.subject}: {each.text}', each.fix)
    out.print(grid)
