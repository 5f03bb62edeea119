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

"""What room for memory is left on a node that has guests.

Pure functions over what Placement says and what nova-compute keeps of its
accounts.
"""

from nova_k8s.inventory import bounds
from nova_k8s.inventory import capacity


def describe(inventory, usages, found):
    """Return what scripts get to see of MEMORY_MB, None where there is none.

    :param inventory: what Placement has, records by resource class
    :param usages: what it has allocated, by resource class
    :param found: the summary.Summary of the accounts, or None
    """
    record = inventory.get(bounds.MEMORY_MB)
    if not record:
        return None
    used_mb = usages.get(bounds.MEMORY_MB, 0)
    return {
        'total_mb': record['total'],
        'reserved_mb': record['reserved'],
        'reserved_for': found and {
            'others_mb': found.others_mb, 'guests_mb': found.guests_mb,
            'ahead_mb': found.ahead_mb, 'guests': found.guests},
        'used_mb': used_mb,
        'free_mb': capacity.sold(record) - used_mb,
        'huge_pages': found and {
            'total_mb': found.huge_mb, 'used_mb': found.huge_used_mb},
        'ordinary': found and {
            'total_mb': max(0, record['total'] - found.huge_mb),
            'used_mb': found.others_mb + found.used_mb},
    }


def count_more(inventory, usages, found, need, ahead):
    """Return how many more guests of one kind end up here.

    Both have to agree, as in capacity.count_guests(): Placement, with what is
    reserved for those that are here by then, and the node in real MiB.

    :param inventory: as for describe(), with MEMORY_MB
    :param usages: as for describe()
    :param found: as for describe(), not None
    :param need: the overhead.Need of one of them
    :param ahead: [kubernetes] reserve_ahead
    """
    vcpu = inventory.get(bounds.VCPU)
    free = capacity.sold(vcpu) - usages.get(bounds.VCPU, 0) if vcpu else 0
    most = max(0, free) // need.vcpus
    more = 0
    while more < most and _one_more(
            inventory[bounds.MEMORY_MB], usages.get(bounds.MEMORY_MB, 0),
            found, need, ahead, more):
        more += 1
    return more


def _one_more(record, used_mb, found, need, ahead, more):
    """Whether there is room for one beside so many more."""
    total = record['total']
    if record['reserved'] >= total:
        # Closed: whatever the accounts say.
        return False
    largest = max(found.largest_mb, need.reserved_mb if more else 0)
    reserved = min(total, found.others_mb + found.guests_mb +
                   more * need.reserved_mb + ahead * largest)
    sold = capacity.sold(dict(record, reserved=reserved))
    return (used_mb + (more + 1) * need.allocated_mb <= sold and
            found.others_mb + found.used_mb +
            (more + 1) * need.total_mb <= total - found.huge_mb)


def words(memory):
    """Return describe() in lines for people, with its flavors where asked."""
    reserved, parts = memory['reserved_for'], ''
    if reserved:
        parts = (
            f' ({reserved["others_mb"]} for other processes, '
            f'{reserved["guests_mb"]} for what {reserved["guests"]} guests '
            f'cost beyond their memory, {reserved["ahead_mb"]} ahead)')
    return [
        f'Memory in Placement: {memory["total_mb"]} MiB, '
        f'{memory["reserved_mb"]} reserved{parts}, {memory["used_mb"]} used, '
        f'{memory["free_mb"]} free.',
        *_pools(memory),
        *(f'Of {each["vcpus"]} vCPUs and {each["memory_mb"]} MiB, '
          f'{each["fit"]} more fit.' for each in memory.get('flavors', ()))]


def _pools(memory):
    """What the node keeps apart, and Placement does not; with huge pages."""
    huge, ordinary = memory['huge_pages'], memory['ordinary']
    if not huge or not (huge['total_mb'] or huge['used_mb']):
        return []
    return [f'Of it, {huge["total_mb"]} MiB are huge pages, '
            f'{huge["used_mb"]} used, and {ordinary["total_mb"]} MiB are '
            f'other memory, {ordinary["used_mb"]} used.']


def describe_disk(inventory, usages):
    """Return what scripts get to see of DISK_GB, None where there is none.

    :param inventory, usages: as for describe()
    """
    record = inventory.get(bounds.DISK_GB)
    return record and {
        'total_gb': record['total'], 'reserved_gb': record['reserved'],
        'used_gb': usages.get(bounds.DISK_GB, 0)}


def words_of_disk(disk):
    """Return describe_disk() for people."""
    return (f'Local disk in Placement: {disk["total_gb"]} GiB, '
            f'{disk["reserved_gb"]} reserved, {disk["used_gb"]} used.')
