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

"""Saying once what an operator should know of limits and machine."""

from oslo_log import log as logging

from nova_k8s.inventory import bounds

LOG = logging.getLogger(__name__)


class Caveats:
    """Warns when limits or machine are others than before."""

    def __init__(self):
        self._known = None

    def tell(self, budget, stock, pages, limit_mb, ram=True, others_mb=None):
        """Say what is to be known, where that is news.

        :param budget: budget.Budget, or None where it was lost
        :param stock: the records of Nova's driver by resource class
        :param pages: hugepages.Pages
        :param limit_mb: the limit of MEMORY_MB, None for no limit
        :param ram: whether guests have memory of the machine
        :param others_mb: what is kept from guests of MEMORY_MB, None for what
            Nova's driver reserves
        """
        machine = bounds.ordinary(stock, pages)
        found = {resource_class: machine[resource_class]
                 for resource_class in bounds.FIELDS
                 if resource_class in machine}
        # What is reserved changes all the time, and is no news.
        known = (budget, pages, {
            name: record['total'] for name, record in found.items()})
        if known != self._known and budget:
            if others_mb is not None and bounds.MEMORY_MB in found:
                found[bounds.MEMORY_MB] = dict(
                    found[bounds.MEMORY_MB], reserved=others_mb)
            for line in bounds.list_warnings(
                    budget, found, pages if ram else None):
                LOG.warning('%s', line)
            line = bounds.warn_of_ratio(
                stock.get(bounds.MEMORY_MB), limit_mb, budget.source)
            if line:
                LOG.warning('%s', line)
        self._known = known
