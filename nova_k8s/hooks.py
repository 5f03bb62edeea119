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

"""What of Nova is relied on beyond its interface for drivers.

Nova owes nobody that its private names stay. Where one is missing, a node
would report numbers that are wrong, or none, in the middle of an audit. So
nova-compute does not start, and says which one.
"""

import inspect
import pkgutil

from nova.compute import manager
from nova import version
from oslo_log import log as logging

from nova_k8s import errors

LOG = logging.getLogger(__name__)

# The major releases that this one is tested with. setup.cfg says the same to
# pip, which is not asked where Nova is a package of a distribution.
OLDEST, NEWEST = 31, 34

_TRACKER = 'nova.compute.resource_tracker:ResourceTracker'
_CLIENT = 'nova.scheduler.client.report:SchedulerReportClient'

_TREE = 'nova.compute.provider_tree:ProviderTree'
_DRIVER = 'nova.virt.libvirt.driver:LibvirtDriver'

# What is called or replaced, and with which arguments; architecture.rst has
# the reasons. After ... it takes more, which is handed on.
FUNCTIONS = {
    'nova.compute.claims:Claim._claim_test': ('self', 'node', None),
    f'{_TRACKER}._get_usage_dict': ('self', 'instance', 'instance'),
    f'{_TRACKER}._update_usage': ('self', {}, 'node'),
    f'{_TRACKER}._update_usage_from_instances':
        ('self', 'context', [], 'node'),
    f'{_TRACKER}._ensure_compute_id_for_instances':
        ('self', 'context', [], 'node'),
    f'{_TRACKER}._update_usage_from_migrations':
        ('self', 'context', [], 'node'),
    f'{_TRACKER}.build_failed': ('self', 'node'),
    f'{_TRACKER}.disabled': ('self', 'node'),
    f'{_CLIENT}.get': ('self', 'url'),
    f'{_CLIENT}.put': ('self', 'url', {}),
    f'{_TREE}.data': ('self', 'uuid'),
    f'{_TREE}.exists': ('self', 'uuid'),
    f'{_TREE}.update_inventory': ('self', 'uuid', {}),
    'nova.compute.manager:ComputeVirtAPI.update_compute_provider_status':
        ('self', 'context', 'uuid', True),
    'nova.conf.devices:register_dynamic_opts': ('conf',),
    'nova.objects.numa:NUMATopology._to_json': ('self',),
    'nova.utils:synchronized': ('name', ...),
    'nova.virt.hardware:get_cpu_dedicated_set': (),
    'nova.virt.hardware:get_cpu_shared_set': (),
    'nova.virt.hardware:get_vcpu_pin_set': (),
    f'{_DRIVER}._set_host_enabled': ('self', True, 'reason'),
    f'{_DRIVER}._hard_reboot': ('self', 'context', 'instance', ...),
    f'{_DRIVER}._get_host_numa_topology': ('self',),
    f'{_DRIVER}._live_migration_operation':
        ('self', 'context', 'instance', 'dest', False, 'data', 'guest', []),
    f'{_DRIVER}._uri': (),
    'nova.virt.libvirt.host:Host.list_guests': ('self',),
    'nova.virt.libvirt.volume.mount:get_manager': (),
}

# What is read of modules.
VALUES = ('nova.compute.resource_tracker:COMPUTE_RESOURCE_SEMAPHORE',
          'nova.compute.vm_states:STOPPED',
          'nova.compute.vm_states:SUSPENDED',
          'nova.objects.fields:CPUAllocationPolicy',
          'nova.virt.libvirt.config:LibvirtConfigCaps',
          'nova.virt.libvirt.driver:DISABLE_REASON_UNDEFINED')

# What is read of objects: what their constructors set.
SET = {'nova.compute.claims:Claim': ('_pci_requests', 'instance', 'tracker'),
       'nova.virt.libvirt.guest:Guest': ('_domain',),
       _DRIVER: ('_host', 'provider_tree')}

# What is read of the virtapi that nova-compute hands to its driver.
ATTRIBUTES = ('_compute.rt.compute_nodes',
              '_compute.rt.reportclient._provider_tree')


def check(virtapi):
    """Refuse a Nova in which something is missing, and warn of a new one.

    :param virtapi: nova.virt.virtapi.VirtAPI
    :raises errors.Refused: with the name and Nova's version
    """
    found = version.version_string()
    missing = find_missing(virtapi)
    if missing:
        raise errors.Refused(
            f'Nova {found} has no {errors.listed(missing)} as this driver '
            f'uses it; install Nova {OLDEST} to {NEWEST}, or a release of '
            f'nova-k8s for Nova {found.partition(".")[0]}')
    major = found.partition('.')[0]
    if major.isdigit() and not OLDEST <= int(major) <= NEWEST:
        LOG.warning('Nova %s is none of those that this driver was tested '
                    'with, %s to %s; all that it relies on is there.', found,
                    OLDEST, NEWEST)


def find_missing(virtapi):
    """Return the names of what is not as it is used."""
    missing = []
    for name, arguments in FUNCTIONS.items():
        try:
            signature = inspect.signature(pkgutil.resolve_name(name))
            if ... in arguments:
                signature.bind_partial(*arguments[:-1])
            else:
                signature.bind(*arguments)
        except (ImportError, AttributeError, TypeError):
            missing.append(name.replace(':', '.'))
    for name in VALUES:
        try:
            pkgutil.resolve_name(name)
        except (ImportError, AttributeError):
            missing.append(name.replace(':', '.'))
    for name, attributes in SET.items():
        missing += [f'{name.replace(":", ".")}.{each}'
                    for each in attributes if each not in _set_by(name)]
    # Tests of Nova have another, without a compute manager.
    if isinstance(virtapi, manager.ComputeVirtAPI):
        for path in ATTRIBUTES:
            try:
                _walk(virtapi, path)
            except AttributeError:
                missing.append(f'ComputeVirtAPI.{path}')
    return missing


def _set_by(name):
    """Return the names that the constructor of a class has to do with."""
    try:
        function = inspect.unwrap(pkgutil.resolve_name(name).__init__)
        return function.__code__.co_names
    except (ImportError, AttributeError):
        return ()


def _walk(value, path):
    for name in path.split('.'):
        value = getattr(value, name)
