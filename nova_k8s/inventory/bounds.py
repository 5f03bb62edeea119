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

"""What Nova is told: the machine's inventory, bounded by the pod's Budget.

Pure functions over the records that Nova's driver reports to Placement.
"""

from nova_k8s import errors
from nova_k8s.inventory import hugepages
from nova_k8s.limits import budget as budgets

VCPU = 'VCPU'
PCPU = 'PCPU'
MEMORY_MB = 'MEMORY_MB'
DISK_GB = 'DISK_GB'

# What the pod's limits bound, and the field of the limit.
FIELDS = {VCPU: 'cpu', PCPU: 'cpu', MEMORY_MB: 'memory'}


def reserved_by_class(conf, memory_mb):
    """By resource class, what is kept from guests.

    :param conf: nova.conf.CONF
    :param memory_mb: of MEMORY_MB
    """
    return {VCPU: conf.reserved_host_cpus, MEMORY_MB: memory_mb}


def limits(budget, unlimited):
    """Return the limit by resource class, in Placement's units.

    0 says that nothing may be placed: there is no budget, or it has no limit.
    None says that the machine is the limit.

    :param budget: budget.Budget, or None where it was lost
    :param unlimited: [kubernetes] unlimited: 'error' or 'host'
    """
    if budget is None:
        return {VCPU: 0, MEMORY_MB: 0}
    no_limit = None if unlimited == 'host' else 0
    cores, memory_mb = budget.cpu_cores, budget.memory_mb
    return {VCPU: no_limit if cores is None else cores,
            MEMORY_MB: no_limit if memory_mb is None else memory_mb}


def cap(limits, most):
    """Return the limits, none above what there is to be soon.

    :param limits: as from limits()
    :param most: (MiB, millicores), or None; so may be either of them
    """
    memory_mb, millicores = most or (None, None)
    mine = {MEMORY_MB: memory_mb,
            VCPU: None if millicores is None else millicores // 1000}
    return {name: budgets.least(limit, mine[name])
            for name, limit in limits.items()}


def share_cores(limits, dedicated, lost=0):
    """Return the limits, with one for dedicated CPUs as well.

    Those and the shared ones together are no more cores than the limit. What
    is lost is reserved, so it promises nothing.

    :param limits: as from limits()
    :param dedicated: how many CPUs Nova may pin guests to
    :param lost: how many of them the pod does not have any more
    """
    cores = limits[VCPU]
    if cores is None:
        return dict(limits, **{PCPU: None})
    mine = min(dedicated - lost, cores)
    return dict(limits, **{VCPU: cores - mine, PCPU: mine + lost})


def count_cpus(stock, sets):
    """Return the records of Nova's driver, with the CPUs that are now.

    Nova's driver says it anew at its next audit only, and does not know of
    CPUs that the pod has lost.

    :param sets: the cpus.Sets that Nova has; None for no others
    """
    if not sets:
        return stock
    found = dict(stock)
    for resource_class, number, reserved in (
            (VCPU, sets.shared_count, 0),
            (PCPU, sets.dedicated_count, sets.lost_count)):
        record = found.pop(resource_class, None)
        if record and number:
            found[resource_class] = dict(
                record, total=number, max_unit=number,
                reserved=max(record['reserved'], reserved))
    return found


def ordinary(stock, pages):
    """Return the records without what of the machine's memory is huge pages.

    :param stock: the records of Nova's driver by resource class
    :param pages: hugepages.Pages
    """
    record = stock.get(MEMORY_MB)
    if not record:
        return stock
    return dict(stock, **{MEMORY_MB: dict(
        record, total=max(0, record['total'] - pages.machine_mb))})


def add_pages(machine_mb, limit_mb, pages):
    """Return (machine, limit) of MEMORY_MB with the huge pages for guests.

    Nova allocates MEMORY_MB for all memory of a guest. The memory of a
    machine includes its huge pages, the memory limit of a pod does not. A
    guest in huge pages needs some ordinary memory too: without that, nothing
    is offered.

    :param machine_mb: what is not in huge pages, see ordinary()
    :param limit_mb: as from limits()
    :param pages: hugepages.Pages
    """
    if machine_mb < 1 or limit_mb is not None and limit_mb < 1:
        return machine_mb, limit_mb
    return (machine_mb + pages.offered_mb,
            None if limit_mb is None else limit_mb + pages.offered_mb)


def with_pages(stock, limits, pages):
    """Return (records, limits) with the huge pages for guests.

    :param stock: as from ordinary()
    :param limits: as from limits()
    :param pages: hugepages.Pages
    """
    record = stock.get(MEMORY_MB)
    if not record:
        return stock, limits
    has_mb, limit_mb = add_pages(record['total'], limits[MEMORY_MB], pages)
    return (dict(stock, **{MEMORY_MB: dict(record, total=has_mb)}),
            dict(limits, **{MEMORY_MB: limit_mb}))


def total(machine, limit, last):
    """Return (total, closed) of one resource class.

    closed says that all of the total must be reserved. A class once reported
    never disappears: Placement refuses to remove one that is allocated, and
    would keep the old, larger inventory.

    :param machine: what the machine has
    :param limit: as from limits()
    :param last: the total last reported, 0 for none
    """
    if limit is None:
        return (machine, False) if machine else (max(1, last), True)
    bounded = min(machine, limit)
    if bounded < 1:
        return max(1, last), True
    return bounded, False


def apply(stock, limits, last, reserved_mb=None, largest=None,
          closed=False):
    """Return the inventory of the compute node, within the limits.

    :param stock: the records of Nova's driver by resource class
    :param limits: as from limits()
    :param last: the records last returned from here by resource class
    :param reserved_mb: what is reserved of MEMORY_MB, where that is not what
        Nova's driver reserves
    :param largest: by resource class, the largest allocation that is here
    :param closed: nothing new may be placed, whatever the limits are
    """
    inventory = dict(stock)
    for resource_class, limit in limits.items():
        before = last.get(resource_class)
        record = stock.get(resource_class)
        if record is None and before is None:
            # Nova offers none of it: [compute] cpu_dedicated_set, say.
            continue
        machine = record['total'] if record else 0
        if record and reserved_mb is not None and (
                resource_class == MEMORY_MB):
            record = dict(record, reserved=reserved_mb)
        bounded, full = total(machine, limit,
                              before['total'] if before else 0)
        inventory[resource_class] = _bound_record(
            record or before, (largest or {}).get(resource_class, 0),
            bounded, full or closed)
    return inventory


def _bound_record(record, largest, total, closed):
    # Placement looks at units again when an allocation is moved to a
    # migration: with a smaller max_unit, or a step that does not divide it, a
    # guest that is here could never leave. Capacity keeps new ones out.
    step = record['step_size']
    return dict(
        record,
        total=total,
        min_unit=min(record['min_unit'], total),
        max_unit=max(largest, total if closed
                     else min(record['max_unit'], total)),
        step_size=step if step <= total else 1,
        reserved=total if closed else min(record['reserved'], total))


def check(budget, unlimited, reserved,
          memory_option='reserved_host_memory_mb'):
    """Refuse what is not enough for a compute node to begin with.

    :raises errors.Refused: with what find_shortage() returns
    """
    problem = find_shortage(budget, unlimited, reserved, memory_option)
    if problem:
        raise errors.Refused(problem)


def find_shortage(budget, unlimited, reserved,
                  memory_option='reserved_host_memory_mb'):
    """Return why a budget leaves nothing for guests, or None.

    :param reserved: by resource class, what is kept from guests
    :param memory_option: the option that says so of MEMORY_MB
    :returns: a line with the field and the option to set
    """
    if budget.missing and unlimited != 'host':
        return (
            f'{budget.source}: no limit is set at '
            f'{" and ".join(budget.missing)}; set one, or [kubernetes] '
            f'unlimited = host to offer the whole machine')
    options = {VCPU: 'reserved_host_cpus',
               MEMORY_MB: memory_option}
    units = {VCPU: 'core', MEMORY_MB: 'MiB'}
    for resource_class, limit in limits(budget, unlimited).items():
        if limit is None:
            continue
        field = f'resources.limits.{FIELDS[resource_class]}'
        unit = units[resource_class]
        if limit < 1:
            return (
                f'{budget.source}: {field} is below one {unit}, which leaves '
                f'nothing for guests; raise it, or name another container in '
                f'[kubernetes] container')
        if limit < reserved[resource_class]:
            return (
                f'{budget.source}: {field} is {limit} {unit}, below the '
                f'{reserved[resource_class]} that '
                f'{options[resource_class]} keeps from guests; raise the '
                f'limit or lower {options[resource_class]}')
    return None


def list_warnings(budget, stock, pages=None):
    """Return what an operator should know, a line each.

    :param stock: the records of Nova's driver by resource class, of memory
        what is not in huge pages
    :param pages: hugepages.Pages; None where it is not known what there are
    """
    found = [f'{budget.source}: {each}' for each in budget.caveats]
    for what, limit, request in (
            ('cpu', budget.cpu_millicores, budget.cpu_request_millicores),
            ('memory', budget.memory_bytes, budget.memory_request_bytes)):
        if limit is not None and request is not None and request < limit:
            unit = 'millicores' if what == 'cpu' else 'bytes'
            found.append(
                f'{budget.source}: resources.requests.{what} of {request} '
                f'{unit} is below the limit of {limit}: Kubernetes may '
                f'promise the difference to other pods. Set the request to '
                f'the limit.')
    for resource_class, limit in limits(budget, 'host').items():
        record = stock.get(resource_class)
        if record is None:
            continue
        has, reserved = record['total'], record['reserved']
        if resource_class == VCPU:
            has += stock.get(PCPU, {}).get('total', 0)
        field = f'resources.limits.{FIELDS[resource_class]}'
        if limit is None:
            limit = has
        if limit > has:
            found.append(
                f'{budget.source}: {field} allows {limit} {resource_class}, '
                f'the machine has {has}: {has} is reported.')
        if 1 <= min(limit, has) <= reserved:
            found.append(
                f'{budget.source}: of {min(limit, has)} {resource_class}, '
                f'{reserved} are reserved: nothing is left for guests.')
    offered = dict(pages.by_size) if pages else {}
    for size_kb, amount in budget.hugepages_by_kb.items():
        has_mb, limit_mb = offered.get(size_kb, 0), amount // 2 ** 20
        if pages and has_mb < limit_mb:
            found.append(
                f'{budget.source}: resources.limits.hugepages-'
                f'{hugepages.name(size_kb)} allows {limit_mb} MiB, the '
                f'machine has {has_mb} MiB for guests: {has_mb} MiB are '
                f'offered.')
    return found


def warn_of_ratio(record, limit, source):
    """Return what to know of memory that is sold more than once, or None.

    :param record: the inventory of MEMORY_MB, None where there is none
    :param limit: the limit of MEMORY_MB, None without one
    """
    ratio = record['allocation_ratio'] if record else 1
    if limit is None or ratio <= 1:
        return None
    return (
        f'{source}: the allocation ratio of MEMORY_MB is {ratio}, and the '
        f'kernel ends guests that use more than the limit. Guests are taken '
        f'only while their memory fits in the limit once: set '
        f'ram_allocation_ratio = 1.0, or the scheduler tries this node in '
        f'vain.')
