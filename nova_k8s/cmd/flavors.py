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

"""nova-k8s flavors: what guests cost, and the property that says so."""

import json
import sys

import nova.conf
from rich import console
from rich import table
import yaml

from nova_k8s.accounting import instance_overhead
from nova_k8s.accounting import overhead
from nova_k8s.cmd import configuration
from nova_k8s.cmd import files
from nova_k8s import errors
from nova_k8s.inventory import capacity

CONF = nova.conf.CONF


def add_parser(commands):
    parser = commands.add_parser(
        'flavors', help='what guests of each flavor cost beyond their memory',
        description='Show what guests cost beyond their memory, and the '
                    'property with which Placement accounts for it itself: '
                    'openstack flavor set --property PROPERTY FLAVOR. It '
                    'counts for guests that are made afterwards.')
    parser.add_argument(
        '--cloud', metavar='NAME',
        help='read the flavors of this cloud of clouds.yaml; without --cloud '
             'and --flavor, of the one in the environment')
    parser.add_argument(
        '--flavor', metavar='VCPUS,RAM_MB', action='append', default=[],
        help='a flavor given by hand; may be repeated')
    parser.add_argument(
        '--image-property', metavar='NAME=VALUE', action='append', default=[],
        help='a property of the image, for example hw_firmware_type=uefi')
    files.add_arguments(parser, 'nova.conf of the compute nodes')
    parser.add_argument(
        '--format', choices=('table', 'json', 'yaml'), default='table')
    return parser


def run(args):
    configuration.load(args)
    properties = dict(each.partition('=')[::2]
                      for each in args.image_property)
    given = [(text, capacity.parse_size(text), {}) for text in args.flavor]
    if args.cloud or not given:
        given += of_cloud(args.cloud)
    settings = instance_overhead.settings_from(CONF)
    rows = [row(name, size, specs, properties, settings)
            for name, size, specs in given]
    if args.format == 'json':
        print(json.dumps(rows, indent=2))
    elif args.format == 'yaml':
        print(yaml.safe_dump(rows, sort_keys=False), end='')
    else:
        show(rows, console.Console(file=sys.stdout))


def of_cloud(name):
    """Return (name, fit.Size, extra specs) of each flavor of a cloud.

    :raises errors.Refused: when they cannot be read
    """
    # Takes half a second, which a flavor given by hand needs not wait.
    import openstack

    try:
        with openstack.connect(cloud=name) as cloud:
            return [(flavor.name, capacity.Size(flavor.vcpus, flavor.ram),
                     dict(flavor.extra_specs or {}))
                    for flavor in cloud.compute.flavors(
                        details=True, get_extra_specs=True)]
    except Exception as exc:
        raise errors.Refused(
            f'The flavors of the cloud cannot be read: '
            f'{" ".join(str(exc).split())}; name one with --cloud, or give '
            f'flavors with --flavor') from None


def row(name, size, specs, properties, settings):
    """Return what is shown of one flavor."""
    guest = overhead.guest(size.memory_mb, size.vcpus, specs, properties,
                           settings)
    need = overhead.need(guest, settings)
    wanted = overhead.placement_property(guest, settings)
    return {
        'name': name, 'vcpus': size.vcpus, 'memory_mb': size.memory_mb,
        'overhead_mb': need.overhead_mb, 'property': wanted,
        'is_set': overhead.asked('MEMORY_MB', specs) == need.total_mb,
    }


def show(rows, out):
    """Print them for people."""
    grid = table.Table()
    for heading in ('flavor', 'vCPUs', 'memory', 'overhead', 'property',
                    'is set'):
        grid.add_column(heading, justify='left' if heading in (
            'flavor', 'property') else 'right', overflow='fold')
    for each in rows:
        grid.add_row(each['name'], str(each['vcpus']),
                     f'{each["memory_mb"]} MiB', f'{each["overhead_mb"]} MiB',
                     each['property'], 'yes' if each['is_set'] else 'no')
    out.print(grid)
