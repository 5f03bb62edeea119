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

"""How many guests of one size fit into an inventory, and what that is worth.

Pure functions; the arithmetic is the driver's own.
"""

import dataclasses

from rich import table as rich_table

from nova_k8s.accounting import overhead
from nova_k8s import errors
from nova_k8s.inventory import bounds

# [DEFAULT] reserved_host_memory_mb of Nova, where nobody sets it.
STOCK_RESERVED_MB = 512


@dataclasses.dataclass(frozen=True)
class Size:
    vcpus: int
    memory_mb: int


def parse_size(text):
    """Return the Size of 'vcpus,ram_mb'.

    :raises errors.Refused: when it is something else
    """
    try:
        vcpus, memory_mb = (int(part) for part in text.split(','))
        if vcpus < 1 or memory_mb < 1:
            raise ValueError
    except ValueError:
        raise errors.Refused(
            f'--flavor {text}: expected VCPUS,RAM_MB, for example 2,4096'
        ) from None
    return Size(vcpus, memory_mb)


def sold(record):
    """What Placement sells of a record, by its own formula."""
    return int((record['total'] - record['reserved']) *
               record['allocation_ratio'])


def count_guests(limit_mb, others_mb, need, ahead=1, ratio=1.0, huge_mb=0):
    """Return how many guests of one kind end up in a memory limit.

    The scheduler places one more while Placement has room, with what is
    reserved for those that are there; the node takes it while it fits.

    :param need: of a guest that uses no huge pages
    :param huge_mb: what Placement has beside the limit, in huge pages
    """
    number = 0
    while True:
        # As ledger.reserved_mb() of so many.
        reserved = min(limit_mb + huge_mb, others_mb + need.reserved_mb * (
            number + ahead if number else 0))
        sold = (number + 1) * need.allocated_mb
        if sold > int((limit_mb + huge_mb - reserved) * ratio) or (
                others_mb + (number + 1) * need.total_mb > limit_mb):
            return number
        number += 1


def describe(records, size, settings, ahead=1, huge_mb=0):
    """Return what scripts get to see of one size.

    :param records: the inventory of an empty node, by resource class
    :param huge_mb: what of its MEMORY_MB is in huge pages
    """
    guest = overhead.guest(size.memory_mb, size.vcpus, {}, {}, settings)
    need = overhead.need(guest, settings)
    memory = records.get(bounds.MEMORY_MB)
    limit_mb = max(0, memory['total'] - huge_mb) if memory else 0
    others_mb = memory['reserved'] if memory else 0
    by_memory = count_guests(limit_mb, others_mb, need, ahead,
                             memory['allocation_ratio'],
                             huge_mb) if memory else 0
    vcpu = records.get(bounds.VCPU)
    by_cpu = sold(vcpu) // size.vcpus if vcpu else 0
    fit = min(by_memory, by_cpu)
    stock = min(by_cpu, int(
        max(0, limit_mb - STOCK_RESERVED_MB) *
        (memory['allocation_ratio'] if memory else 1)) // size.memory_mb)
    used_mb = others_mb + stock * need.total_mb
    return {
        'vcpus': size.vcpus, 'memory_mb': size.memory_mb,
        'overhead_mb': need.overhead_mb,
        'fit': fit,
        'bounded_by': 'memory' if by_memory <= by_cpu else 'vcpus',
        'left_mb': limit_mb - others_mb - fit * need.total_mb,
        'stock': {'fit': stock, 'needs_mb': used_mb,
                  'survives': used_mb <= limit_mb},
    }


def draw_tables(results, limit_mb):
    """The same for people, within 80 columns.

    :param limit_mb: of memory
    """
    ours = _grid('vCPUs', 'memory', 'overhead', 'fit', 'bounded by',
                 'left over')
    stock = _grid('vCPUs', 'memory', 'placed', 'need', 'limit', 'estimate')
    stock.title = f"Nova's own driver, {STOCK_RESERVED_MB} MiB reserved"
    for each in results:
        size = str(each['vcpus']), f'{each["memory_mb"]} MiB'
        ours.add_row(
            *size, f'{each["overhead_mb"]} MiB', str(each['fit']),
            each['bounded_by'], f'{each["left_mb"]} MiB')
        stock.add_row(
            *size, str(each['stock']['fit']),
            f'{each["stock"]["needs_mb"]} MiB', f'{limit_mb} MiB',
            'fits' if each['stock']['survives'] else 'out of memory')
    return ours, stock


def _grid(*headings):
    grid = rich_table.Table()
    for heading in headings:
        grid.add_column(heading, justify='right')
    return grid
