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

"""nova-k8s guests-pod: the manifest of the pod that holds a node's guests."""

import functools
import os

import nova.conf
import yaml

from nova_k8s.cmd import configuration
from nova_k8s.cmd import files
from nova_k8s.confinement import controller
from nova_k8s.confinement import guests_pod
from nova_k8s import errors
from nova_k8s.kube import client as kube_client
from nova_k8s.kube import node as nodes

CONF = nova.conf.CONF


def add_parser(commands):
    parser = commands.add_parser(
        'guests-pod', help='the manifest of the pod that holds the guests',
        description='Print the manifest of the pod that is the guests\' '
                    'share of a Kubernetes node, made of the template and of '
                    'the Node, as the driver makes it. For who does not give '
                    'the driver the right to make pods.')
    parser.add_argument(
        '--node', metavar='NAME', help='name of the node; by default this one')
    parser.add_argument(
        '--template', metavar='FILE',
        help='the template, where it is not [kubernetes] guests_pod')
    files.add_arguments(parser)
    return parser


def run(args):
    configuration.load(args)
    template = args.template or CONF.kubernetes.guests_pod
    if not template:
        raise errors.Refused(
            '[kubernetes] guests_pod is not set; name the template with '
            '--template')
    node = args.node or kube_client.node_name(CONF, os.environ)
    if not node:
        raise errors.Refused(
            'The name of the node is not known; give --node, or set '
            '[kubernetes] node_name')
    print(yaml.safe_dump(manifest(template, node), sort_keys=False), end='')


def manifest(template, node):
    """Return the guests' pod of a node.

    :param template: path of the template
    :param node: name of the node, which the API server is asked about
    :raises errors.LimitsError: where it cannot be made
    """
    body = controller.read_template(template)
    found = nodes.Source(
        functools.partial(kube_client.api_client, CONF), node,
        CONF.kubernetes.api_timeout).ask()
    # What a manifest says of its namespace is meant.
    namespace = (body.get('metadata') or {}).get(
        'namespace') or kube_client.namespace(CONF, os.environ)
    return guests_pod.render(
        body, guests_pod.Host(found.name, found.uid, found.annotations,
                              found.allocatable),
        kube_client.guests_pod_name(node), namespace,
        CONF.kubernetes.guests_pod_grace, template)
