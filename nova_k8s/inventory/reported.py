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

"""What Nova and Placement were told of this compute node, and are to be told.
"""

import functools

from nova_k8s.accounting import claims
from nova_k8s.inventory import bounds
from nova_k8s.inventory import caveats
from nova_k8s.inventory import compute_node as compute_nodes
from nova_k8s.inventory import hugepages
from nova_k8s.inventory import pinning
from nova_k8s.inventory import placement
from nova_k8s.inventory import sold
from nova_k8s.limits import budget as budgets
from nova_k8s.util import deadline

# Seconds that Placement has for one change. [placement] timeout, where it is
# set, ends what was given up; Nova's default is to wait for ever.
DEADLINE = 10

# Where the compute node's record has what Placement has in its inventory.
COMPUTE_NODE_FIELDS = ((bounds.VCPU, 'vcpus'),
                       (bounds.MEMORY_MB, 'memory_mb'))


class Reported:
    """The records that the pod's limits bound, as they were told last.

    :param budget: returns the present budget.Budget, or None where it was
        lost
    :param unlimited: [kubernetes] unlimited
    :param known: the objects.ComputeNode that Nova has; None where it has none
    :param ram: whether guests have memory of the machine; if not, there are
        no huge pages either ([libvirt] file_backed_memory)
    :param disk_gb: the most local disk, None for as much as there is, 0 where
        the limit is not known
    """

    def __init__(self, budget, unlimited, known=None, ram=True,
                 disk_gb=None):
        self._budget = budget
        self._unlimited = unlimited
        self._known = known
        # What Nova may be told at most, and what those may use whom it lets
        # in: (MiB, millicores), or None.
        self.cap = self.claim_cap = lambda: None
        # See hold().
        self._held_to = None
        self._disk = {} if disk_gb is None else {bounds.DISK_GB: disk_gb}
        # What is bounded, and where the compute node's record has it.
        self._classes = (*bounds.FIELDS, *self._disk)
        self._fields = COMPUTE_NODE_FIELDS + tuple(
            (name, 'local_gb') for name in self._disk)
        self._ram = ram
        # The huge pages of the machine, see hugepages.cells(); the NUMA nodes
        # whose pages are the pod's; and which of them the record of the
        # compute node offers.
        self._cells = {}
        self._nodes = frozenset()
        self._offered = {}
        # accounting.accounts.Accounts; None for what Nova's driver reserves.
        self.accounts = None
        # The cpus.Sets that Nova has; None where it has its own.
        self.sets = lambda: None
        # Whether Placement may have something else than what was told: a
        # write that failed may still have arrived.
        self._unsure = False
        self._sold = sold.Sold()
        # What Nova's driver said last, before any limit.
        self._stock = {}
        self._records = {}
        # The totals of the last start, for a node that starts closed: a class
        # that is allocated stays as it is.
        self._totals = {
            resource_class: getattr(known, field)
            for resource_class, field in self._fields
        } if known else {}
        self._caveats = caveats.Caveats()

    @property
    def limits(self):
        return self._limits(self.cap(), self._held())

    def hold(self, most):
        """Tell no more than the cgroup enforces that all guests are in.

        :param most: returns (MiB, millicores) of it, None for no limit; from
            memory
        """
        self._held_to = most
        if self._known:
            self._sold = sold.Sold(compute_nodes.most_sold(self._known))

    def _held(self):
        return self._held_to and self._held_to()

    def _limits(self, *most):
        sets = self.sets()
        # Before Nova's driver said what there is, only the sets tell.
        dedicated = (sets.dedicated_count if sets else
                     self._stock.get(bounds.PCPU, {}).get('total', 0))
        limits = functools.reduce(
            bounds.cap, most, bounds.limits(self._budget(), self._unlimited))
        return dict(bounds.share_cores(
            limits, dedicated, sets.lost_count if sets else 0), **self._disk)

    def ratio(self, resource_class):
        """How often Placement sells one of it."""
        return self._records.get(resource_class, {}).get(
            'allocation_ratio') or 1.0

    @property
    def records(self):
        """What was told last, by resource class."""
        return dict(self._records)

    def is_told(self):
        """Whether Placement has what is to be reported, for certain."""
        return claims.locked(self._is_told)

    def _is_told(self):
        return not self._unsure and not placement.differ(
            self._records, self._wanted())

    def told(self):
        """Return (MiB, millicores, certain): what Nova was told at most.

        Huge pages apart, see sold. Before Placement has answered for the
        first time, the record of the compute node is the best that is known.
        """
        return claims.locked(
            lambda: (*self._sold.at_most, self._sold.certain))

    @property
    def closed(self):
        """Guests stay, and no new ones come: their pod is being deleted."""
        present = self._budget()
        return bool(present and present.terminating)

    def pages(self):
        """Return the hugepages.Pages of now."""
        return hugepages.summarize(self._cells, self._offer())

    def pages_mb(self):
        """MiB of huge pages for guests by size in KiB, None for as there are.

        As start_limit_mb(): while the limits are not known.
        """
        return dict(self.pages().by_size) if self._budget() else None

    def _offer(self):
        present = self._budget()
        return hugepages.offer(
            {cell_id: counts for cell_id, counts in self._cells.items()
             if cell_id in self._nodes},
            present.hugepages_by_kb if present else {})

    def bound_topology(self, topology, mems):
        """Return Nova's NUMA topology within what the pod has.

        Its huge pages come on top of the memory that its limit bounds.

        :param topology: as Nova's driver has just made it, or None
        :param mems: IDs of the NUMA nodes whose memory the pod may use; None
            for all
        """
        if not topology:
            return topology
        self._cells = hugepages.cells(topology) if self._ram else {}
        self._nodes = frozenset(
            cell.id for cell in topology.cells
            if mems is None or cell.id in mems)
        hugepages.withhold(topology)
        bounded = pinning.bound(topology, mems, self.memory_limit_mb())
        if bounded:
            hugepages.reserve(bounded, self._offer())
        return bounded

    def memory_limit_mb(self):
        """What guests and others may use together, in MiB; None without.

        Huge pages apart.
        """
        return self._memory_mb(self.claim_cap(), self._held())

    def _memory_mb(self, *most):
        machine = bounds.ordinary(self._stock, self.pages()).get(
            bounds.MEMORY_MB)
        limit = self._limits(*most)[bounds.MEMORY_MB]
        return budgets.least(limit, machine and machine['total'])

    def start_limit_mb(self):
        """What a guest that is here must fit in to be started; None for any.

        While the limits are not known, nothing new comes. But those that are
        here were let in, and refusing them after a boot of the machine would
        have Nova put them into ERROR for what passes in seconds.
        """
        if not self._budget():
            return None
        held = self._held()
        if held and held[0] == 0:
            # So it is while the cgroup of guests cannot be held.
            held = None
        return self._memory_mb(self.claim_cap(), held)

    def memory_used_mb(self):
        """What is reserved of MEMORY_MB, or allocated.

        Before Nova's driver said what there is, nothing bounds what is
        reserved; its first audit says it again.
        """
        record = self._wanted().get(bounds.MEMORY_MB)
        reserved_mb = (record['reserved'] if record
                       else self.accounts.reserved_mb())
        return reserved_mb + self.accounts.allocated_mb()

    def bound_resources(self, data):
        """Bound what the record of the compute node is made of.

        :param data: of get_available_resource()
        """
        self._offered = self._offer()
        machine, limits = self._with_pages({
            resource_class: {'total': int(data[field])}
            for resource_class, field in self._fields})
        stock_gb = data.get('local_gb')
        for resource_class, field in self._fields:
            last = self._last_total(resource_class)
            if data[field] or last:
                data[field] = bounds.total(
                    machine[resource_class]['total'], limits[resource_class],
                    last)[0]
        if self._disk:
            # What of the file system is not for guests counts as used: a
            # live migration that copies disks looks at what is left.
            data['disk_available_least'] -= max(
                0, stock_gb - data['local_gb'])

    def bound(self, stock):
        """Return (records to report, whether others are to be published).

        :param stock: the records of Nova's driver by resource class
        """
        self._stock = stock
        self._warn()
        pages = self.pages()
        wanted = self._wanted(pages)
        changed = False
        if not self._records:
            self._records = wanted
            self._sold.begin(sold.of_records(wanted, pages))
            if self._held_to:
                # Nova writes it, or fails to. It matters whether it did.
                self._unsure = changed = True
        else:
            # Nova's claims write nothing new, see publisher.
            changed = placement.differ(self._records, wanted)
        # That is for Nova's driver to say: it may have been set through
        # Placement's API.
        self._records = {
            resource_class: dict(record, allocation_ratio=wanted[
                resource_class]['allocation_ratio'])
            for resource_class, record in self._records.items()}
        return {
            **{resource_class: record for resource_class, record
               in stock.items() if resource_class not in self._classes},
            **self._records}, changed

    def _last_total(self, resource_class):
        record = self._records.get(resource_class)
        return (record['total'] if record
                else self._totals.get(resource_class) or 0)

    def _with_pages(self, stock, pages=None):
        """Return (stock, limits) with the huge pages that are offered."""
        pages = pages or self.pages()
        return bounds.with_pages(
            bounds.ordinary(stock, pages), self.limits, pages)

    def _wanted(self, pages=None):
        """The records to report of what the pod's limits bound."""
        last = self._records or {
            resource_class: dict(record, total=self._totals[resource_class])
            for resource_class, record in self._stock.items()
            if self._totals.get(resource_class)}
        stock = bounds.count_cpus(self._stock, self.sets())
        reserved_mb, largest = None, None
        if self.accounts:
            reserved_mb = self.accounts.reserved_mb()
            largest = dict(zip((bounds.VCPU, bounds.MEMORY_MB),
                               self.accounts.largest()))
        if bounds.DISK_GB in self._stock and self._disk:
            # No guest here has more. It does not change while this runs.
            largest = dict(largest or {}, **{
                bounds.DISK_GB: self._stock[bounds.DISK_GB]['total']})
        bounded = bounds.apply(
            *self._with_pages(stock, pages), last, reserved_mb, largest,
            self.closed)
        return {resource_class: bounded[resource_class]
                for resource_class in self._classes
                if resource_class in bounded}

    def publish(self, tracker, nodename):
        """Have Placement and Nova know what is to be reported now.

        Not by an audit, which walks the disks of all guests and asks
        Placement about each of them: the next one is a periodic task away.

        :param tracker: Nova's resource tracker
        :raises errors.NotWritten: and what Nova's client of Placement raises;
            TimeoutError when it does not answer
        """
        # Disabled: before the first periodic update, which will report.
        while not tracker.disabled(nodename):
            found = claims.locked(self._find_change, tracker, nodename)
            if not found:
                return
            # Not under the lock: claims would wait for Placement as well.
            compute_node, wanted, amount = found
            answer = deadline.call(
                functools.partial(placement.write, tracker.reportclient,
                                  compute_node.uuid, wanted),
                DEADLINE, 'Placement')
            claims.locked(self._keep, tracker, compute_node, wanted, amount,
                          *answer)

    def _find_change(self, tracker, nodename):
        """Return (compute node, records, what is sold then), or None."""
        pages = self.pages()
        wanted = self._wanted(pages)
        if (not self._unsure and self._offered == self._offer() and
                not placement.differ(self._records, wanted)):
            return None
        self._unsure = True
        amount = sold.of_records(wanted, pages)
        self._sold.write(amount)
        return tracker.compute_nodes[nodename], wanted, amount

    def _keep(self, tracker, compute_node, wanted, amount, inventories,
              generation):
        """Have Nova know what Placement has."""
        self._records = wanted
        # What Nova's client knows of Placement, or it would write back what
        # was before. To have it forget and ask again is no way: meanwhile
        # nobody could disable the compute service in Placement.
        known = tracker.reportclient._provider_tree
        self._unsure = False
        if known.exists(compute_node.uuid):
            its = known.data(compute_node.uuid).generation
            # Nova wrote after us, perhaps what was before: look again.
            self._unsure = its is not None and its > generation
            if not self._unsure:
                known.update_inventory(compute_node.uuid, inventories,
                                       generation=generation)
        self._sold.keep(amount, not self._unsure)
        self._save(compute_node, wanted)

    def _save(self, compute_node, records):
        """Have the record of the compute node say the same."""
        fields = {field: records[resource_class]['total']
                  for resource_class, field in self._fields
                  if resource_class in records}
        if self.accounts:
            fields['memory_mb_used'] = self.memory_used_mb()
        self._offered = self._offer()
        if self._cells:
            fields['numa_topology'] = compute_nodes.offer_pages(
                compute_node.numa_topology, self._offered)
        if any(getattr(compute_node, field) != value
               for field, value in fields.items()):
            for field, value in fields.items():
                setattr(compute_node, field, value)
            compute_node.free_ram_mb = (
                compute_node.memory_mb - compute_node.memory_mb_used)
            compute_node.save()

    def _warn(self):
        self._caveats.tell(
            self._budget(), self._stock, self.pages(),
            self.limits[bounds.MEMORY_MB], self._ram,
            self.accounts and self.accounts.others_mb)
