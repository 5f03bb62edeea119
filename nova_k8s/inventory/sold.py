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

"""How much of one cgroup guests may use, as Nova was told at most.

As a cgroup is held to: memory without huge pages, and dedicated CPUs like
others. Amounts are (MiB, millicores).
"""

from nova_k8s.inventory import bounds

NOTHING = (0, 0)


def of_records(records, pages):
    """Return what records of an inventory promise; of what is closed, nothing.

    :param records: by resource class
    :param pages: the hugepages.Pages of the same moment
    """
    def of(name):
        record = records.get(name)
        return (record['total'] if record and
                record['reserved'] < record['total'] else 0)

    pinned = records.get(bounds.PCPU)
    # What is reserved of them is lost: the pod does not have them any more.
    dedicated = pinned['total'] - pinned['reserved'] if pinned else 0
    return (max(0, of(bounds.MEMORY_MB) - pages.offered_mb),
            1000 * (of(bounds.VCPU) + dedicated))


def most(*amounts):
    """Return the largest memory and the largest CPU of them."""
    return tuple(map(max, *amounts))


class Sold:
    """The most that Placement may have, also by a write without an answer.

    :param before: what the last process may have told
    :ivar certain: whether Placement has ever answered what it has
    """

    def __init__(self, before=NOTHING):
        self._last, self._unsure = NOTHING, before
        self.certain = False

    @property
    def at_most(self):
        return most(self._last, self._unsure)

    def begin(self, amount):
        """Note what Nova's own first write has, which may fail."""
        self._last = amount

    def write(self, amount):
        """Note what is about to be written."""
        self._unsure = most(self._unsure, self._last, amount)

    def keep(self, amount, sure):
        """Note what was answered.

        :param sure: whether nobody wrote anything else meanwhile
        """
        self._last = amount
        if sure:
            self._unsure, self.certain = NOTHING, True
