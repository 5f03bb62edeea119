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

"""The guests of a host and their migrations, as Nova's API shows them."""

import dataclasses
import typing as ty

# Guests without a process: nothing of them runs on the node.
OFF = frozenset(('SHUTOFF', 'SHELVED', 'SOFT_DELETED'))

# Statuses in which a guest is on no node.
GONE = frozenset(('DELETED', 'SHELVED_OFFLOADED'))

LIVE_MIGRATION, MIGRATION = 'live-migration', 'migration'
RESIZE, EVACUATION = 'resize', 'evacuation'

# Of a migration record. There is no list of them in Nova: 'done' and
# 'completed' end an evacuation and a live migration, and 'finished' is a
# resize or cold migration that waits to be confirmed.
RUNNING = frozenset(('preparing', 'running'))
UNDER_WAY = RUNNING | {
    'accepted', 'queued', 'pre-migrating', 'migrating', 'post-migrating',
    'reverting', 'confirming'}
BROKEN = frozenset(('error', 'failed', 'cancelled'))
FINISHED = 'finished'


@dataclasses.dataclass(frozen=True)
class Guest:
    """What matters here of a server, as the API shows it."""

    id: str
    name: str = ''
    status: str = 'ACTIVE'
    task: ty.Optional[str] = None
    memory_mb: int = 0
    wish: ty.Optional[str] = None
    """What is said of it: one of WISHES, or what else stands there."""
    fault: ty.Optional[str] = None
    local_disk: bool = True
    """Whether it has a disk that is no volume."""
    powered: bool = True
    """Whether it has a process, as far as Nova knows."""


@dataclasses.dataclass(frozen=True)
class Migration:
    """What matters here of a migration record."""

    id: int
    guest: str
    kind: str = LIVE_MIGRATION
    status: str = 'running'
    source: ty.Optional[str] = None
    dest: ty.Optional[str] = None


@dataclasses.dataclass(frozen=True)
class View:
    """What Nova answered, at one time.

    :ivar guests: of this host
    :ivar migrations: from and to this host
    :ivar elsewhere: guests by id that are no longer here, and whose migration
        from here waits to be confirmed
    """

    host: str
    guests: ty.Tuple[Guest, ...] = ()
    migrations: ty.Tuple[Migration, ...] = ()
    elsewhere: ty.Mapping[str, Guest] = dataclasses.field(
        default_factory=dict)

    def outgoing(self):
        """The migrations from here that are under way, by guest."""
        return {each.guest: each for each in self.migrations
                if each.source == self.host and each.status in UNDER_WAY}

    def incoming(self):
        return {each.guest: each for each in self.migrations
                if each.dest == self.host and each.source != self.host and
                each.status in UNDER_WAY}

    def newest(self, guest, after=0):
        """The newest migration of a guest from here, or None."""
        return max((each for each in self.migrations
                    if each.guest == guest and each.id > after and
                    each.source == self.host),
                   key=lambda each: each.id, default=None)
