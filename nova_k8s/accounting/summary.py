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

"""The accounts in six figures, and the file in which others find them.

nova-compute alone knows what guests were seen to cost. It leaves the figures
for `nova-k8s status`, which is another process.
"""

import dataclasses
import os

from nova_k8s.accounting import ledger
from nova_k8s.util import statefile

_FILE = 'nova-k8s-accounts.json'


@dataclasses.dataclass(frozen=True)
class Summary:
    """What is reserved of MEMORY_MB, and for what; all in MiB."""

    others_mb: int
    """For what runs in the pod besides guests."""

    guests_mb: int
    """For what guests cost beyond what Placement has allocated for them."""

    ahead_mb: int
    """For guests that Placement may have allocated already."""

    largest_mb: int
    """The most that one guest costs so."""

    used_mb: int
    """What guests take of the memory limit, with their cost."""

    guests: int

    huge_used_mb: int = 0
    """What guests have in huge pages."""

    huge_mb: int = 0
    """What they may have there."""

    @property
    def reserved_mb(self):
        return self.others_mb + self.guests_mb + self.ahead_mb


def make(needs, others_mb, ahead, pages_mb=None):
    """Return the Summary of guests; ledger.reserved_mb() is its sum.

    :param needs: the overhead.Need of each
    :param ahead: [kubernetes] reserve_ahead
    :param pages_mb: as for claims.find_pages_refusal()
    """
    beyond = [need.reserved_mb for need in needs]
    largest = max(beyond, default=0)
    return Summary(others_mb, sum(beyond), ahead * largest, largest,
                   ledger.used_mb(needs), len(needs),
                   sum(need.huge_mb for need in needs),
                   sum((pages_mb or {}).values()))


def _path(conf):
    return os.path.join(conf.state_path, _FILE)


def save(conf, found):
    """Leave it where load() finds it.

    :raises OSError: when it cannot be written
    """
    statefile.write(_path(conf), {
        'key': {'host': conf.host}, 'accounts': dataclasses.asdict(found)})


def load(conf):
    """Return the Summary that nova-compute left last, or None."""
    names = [field.name for field in dataclasses.fields(Summary)]
    record = statefile.read(_path(conf), {
        'type': 'object',
        'required': ['key', 'accounts'],
        'properties': {'accounts': {
            'type': 'object', 'additionalProperties': False,
            'required': names,
            'properties': dict.fromkeys(
                names, {'type': 'integer', 'minimum': 0})}},
    }, {'host': conf.host})
    return record and Summary(**record['accounts'])
