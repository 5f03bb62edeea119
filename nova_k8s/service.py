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


"""Why the compute service is disabled: a set of reasons.

The service record in Nova is shared with administrators. What they disabled
is theirs. What they enabled stays enabled as long as the reasons for which it
was disabled do not change.

There is one decision, decide(): from what is wanted and what is written, the
next single thing to write. So it does not matter after which of them
nova-compute ends: the next start decides from what it finds.
"""

import dataclasses
import os
import time
import typing as ty

from nova import context as nova_context
from nova import exception
from nova import objects
from oslo_log import log as logging

from nova_k8s import errors
from nova_k8s import kept
from nova_k8s import node as nodes
from nova_k8s import story
from nova_k8s import watch
from nova_k8s import worker

LOG = logging.getLogger(__name__)

LIBVIRT = 'libvirt not connected'
NO_BUDGET = 'no budget'

# In the order in which they are shown.
REASONS = (nodes.SHUTTING_DOWN, nodes.CORDONED, nodes.NOT_READY, LIBVIRT,
           NO_BUDGET)

# Nova's libvirt driver begins the reason with this where it disables the
# service itself, and enables again only what begins so. So do we: whoever
# returns to Nova's driver is not left with a disabled service.
PREFIX = 'AUTO: '

# Nova's column.
_LONGEST = 255

# How long a change is given to be followed by more, in seconds.
SETTLE = 0.02

# Seconds between attempts while Nova does not answer: doubled from the first
# to the last.
FIRST_RETRY, LAST_RETRY = 1, 30

_FILE = 'nova-k8s-service.json'

_SCHEMA = {
    'type': 'object',
    'additionalProperties': False,
    'required': ['key', 'acted', 'overridden'],
    'properties': {
        'key': {'type': 'object'},
        **dict.fromkeys(('acted', 'overridden'), {
            'type': 'array', 'items': {'enum': sorted(REASONS)}}),
    },
}


@dataclasses.dataclass(frozen=True)
class Record:
    """What Nova has written of the compute service, as far as it matters."""

    disabled: bool
    reason: ty.Optional[str] = None

    @property
    def ours(self):
        """Nova's driver or this one wrote it last, not an administrator.

        Where the service is enabled, this one was about to disable it.
        """
        return (self.reason or '').startswith(PREFIX)


@dataclasses.dataclass(frozen=True)
class Kept:
    """What must be known beside the record, and survive a restart."""

    acted: ty.FrozenSet[str] = frozenset()
    """The reasons that were acted upon: they are news no more."""

    overridden: ty.FrozenSet[str] = frozenset()
    """Those in spite of which an administrator enabled the service."""


def text(reasons, node_name=None):
    """Return the reason that Nova shows."""
    shown = PREFIX + ', '.join(each for each in REASONS if each in reasons)
    if node_name and reasons & nodes.REASONS:
        shown += f' (Kubernetes node {node_name}'
        return shown[:_LONGEST - 1] + ')'
    return shown


def named(record):
    """Return the reasons that the text of a record names."""
    if not record.ours:
        return frozenset()
    listed = record.reason[len(PREFIX):].split(' (')[0].split(', ')
    # Any other text is that of Nova's driver, which knows one reason.
    return frozenset(listed) & frozenset(REASONS) or frozenset((LIBVIRT,))


def assumed(record):
    """Return the Kept to begin with, where none was kept."""
    return Kept(named(record) if record.disabled else frozenset())


def last(record, known):
    """Return the reasons that were last seen, for what is not known now."""
    if record.ours and not record.disabled:
        # It was written first, for reasons that were not yet kept.
        return named(record) | known.overridden
    return known.acted


def decide(wanted, record, known, node_name=None):
    """Return the next thing to write: a Record, a Kept, or None.

    :param wanted: the reasons there are to disable the service
    :param record: the Record, as read just now
    :param known: the Kept
    """
    if record.disabled and not record.ours:
        # Theirs. When they enable it, it will be in spite of this.
        return _differs(Kept(wanted), known)
    if record.ours:
        spite = known.overridden
    else:
        # Enabled after all that was acted upon: in spite of it.
        spite = known.acted
    overridden = spite & wanted
    if wanted & nodes.REASONS != known.acted & nodes.REASONS:
        # An override of the node's reasons lasts until its next change.
        overridden -= nodes.REASONS
    goal = Kept(wanted, overridden)
    effective = wanted - overridden
    if not effective:
        # First kept, then enabled: of the enabled service nobody could tell
        # whether it is so in spite of what is kept.
        return (_differs(goal, known) or
                _differs(Record(False), record if record.ours
                         else Record(False)))
    shown = text(effective, node_name)
    if not record.disabled and not record.ours:
        # Disabling takes two steps, or a crash before it and an administrator
        # after it would look the same: the service enabled, the reason acted
        # upon. So the reason is written first, while the service is still
        # enabled. An administrator who enables the service clears it.
        return (_differs(Kept(known.acted, spite), known) or
                Record(False, shown))
    return _differs(goal, known) or _differs(Record(True, shown), record)


def _differs(goal, present):
    return None if goal == present else goal


def told(before, after, wanted, host, changed):
    """Return the story.Line on what was done, or None.

    :param before: the Record at first
    :param after: the Record in the end
    :param wanted: the reasons there are
    :param changed: whether those of the node are others than before
    """
    who = f'The compute service of {host}'
    if before.disabled and not before.ours:
        if changed:
            return story.Line(
                story.NORMAL, 'ComputeServiceLeft',
                f'{who} stays disabled, because an administrator disabled '
                f'it: {before.reason or "no reason given"}.')
        return None
    if after.disabled and not after.ours:
        # An administrator came between; it is told at the next change.
        return None
    if after.disabled and before != after:
        how = 'stays' if before.disabled else 'is'
        return story.Line(
            story.NORMAL, 'ComputeServiceDisabled',
            f'{who} {how} disabled: {after.reason[len(PREFIX):]}. No new '
            f'guests are placed here, those that are here stay.')
    if before.disabled and not after.disabled:
        return story.Line(
            story.NORMAL, 'ComputeServiceEnabled',
            f'{who} is enabled again.' + (
                f' An administrator enabled it in spite of: '
                f'{", ".join(sorted(wanted))}.' if wanted else ''))
    return None


class File:
    """Where the Kept is kept.

    :param folder: Nova's state_path
    """

    def __init__(self, folder, host, node_name):
        self._path = os.path.join(folder, _FILE)
        self._key = {'host': host, 'node': node_name}
        self._failed = False

    def load(self):
        """Return the Kept, or None."""
        record = kept.read(self._path, _SCHEMA, self._key)
        return record and Kept(frozenset(record['acted']),
                               frozenset(record['overridden']))

    def forget(self):
        """Others decide from now on; what was kept would be wrong later."""
        try:
            os.unlink(self._path)
        except OSError:
            # There is none, as nearly always.
            pass

    def save(self, known):
        """Keep it; without a file, all is well but for a restart."""
        problem = None
        try:
            kept.write(self._path, {
                'key': self._key, 'acted': sorted(known.acted),
                'overridden': sorted(known.overridden)})
        except OSError as exc:
            problem = str(exc)
        # Not in the handler: there, oslo.log says the problem a second time.
        if problem and not self._failed:
            LOG.warning('After a restart it will not be known in spite of '
                        'what the compute service was enabled: %s', problem)
        self._failed = bool(problem)


class ComputeService:
    """The compute service of this host, in Nova.

    :param virtapi: nova.virt.virtapi.VirtAPI
    """

    def __init__(self, host, virtapi):
        self.host = host
        self._virtapi = virtapi
        self._service = None

    def read(self):
        self._service = objects.Service.get_by_compute_host(
            nova_context.get_admin_context(), self.host)
        return self._record()

    def write(self, record):
        """Write the record that was read just before; return what it is."""
        self._service.disabled = record.disabled
        self._service.disabled_reason = record.reason
        self._service.save()
        return self._record()

    def _record(self):
        return Record(self._service.disabled, self._service.disabled_reason)

    def report(self):
        """Have Placement know at once what was written.

        Nova's driver calls the same, and leaves it to the next periodic task
        when it fails.
        """
        self._virtapi.update_compute_provider_status(
            nova_context.get_admin_context(), self._service.compute_node.uuid,
            enabled=not self._service.disabled)


def from_conf(conf, host, virtapi, budget, source, tell):
    """Return the Switch of this host, or None where no node is followed.

    Then all is as in Nova's own driver, which enables what was disabled here
    as soon as libvirt is connected.
    """
    file = File(conf.state_path, host, source and source.name)
    if not source:
        file.forget()
        return None
    return Switch(ComputeService(host, virtapi), file, budget, source,
                  conf.kubernetes.not_ready_grace, tell)


class Switch:
    """Keeps the compute service disabled while there is a reason.

    :param service: a ComputeService
    :param file: a File
    :param budget: returns the Budget, or None where it was lost
    :param source: nova_k8s.node.Source
    :param grace: [kubernetes] not_ready_grace
    :param tell: called with a story.Line and the Node, or None
    """

    def __init__(self, service, file, budget, source, grace, tell,
                 clock=time.monotonic):
        self._service = service
        self._file = file
        self._budget = budget
        self._source = source
        self._grace = grace
        self._tell = tell
        self._clock = clock
        # None is not known: what was last seen still holds.
        self._connected = None
        self._reasons = None
        # As last seen, and why it may have changed since.
        self._node = None
        self._problem = watch.NOT_YET
        self._unready_since = None
        self._known = None
        # What is written, where all is as wanted.
        self._settled = None
        # The record before a change that is not complete.
        self._before = None
        self._unreported = False
        self._failure = None
        self._retry = FIRST_RETRY
        self._worker = worker.Worker(
            'nova-k8s-service', self.step, source.watch, SETTLE)

    def start(self):
        self._worker.wake()
        self._worker.start()

    def stop(self):
        self._worker.stop()

    def wake(self):
        """Have it look again, because something may have changed."""
        self._worker.wake()

    def libvirt(self, connected):
        """Libvirt's connection came or went; never waits."""
        self._connected = connected
        self.wake()

    def step(self):
        """Make the record so; return seconds until the next look, or None."""
        try:
            wait = self._make_so()
        except Exception as exc:
            failure = ' '.join(str(exc).split())
            # Before the first start Nova creates the record a little later.
            early = isinstance(exc, exception.ComputeHostNotFound)
        else:
            self._failure, self._retry = None, FIRST_RETRY
            return wait
        # Not in the handler: there, oslo.log says the failure a second time.
        if failure != self._failure and not early:
            LOG.warning('The compute service could not be brought up to '
                        'date, trying again until it can: %s', failure)
        self._failure = failure
        self._settled = None
        wait, self._retry = self._retry, min(LAST_RETRY, self._retry * 2)
        return wait

    def _make_so(self):
        self._look()
        seen, record = self._settled, None
        if seen is None:
            record = self._service.read()
            if self._known is None:
                self._load(record)
            seen = last(record, self._known)
        wanted, wait = self._wanted(seen)
        if wanted != self._settled:
            self._write(record or self._service.read(), wanted)
            self._settled = wanted
        if self._unreported:
            self._service.report()
            self._unreported = False
        return wait

    def _load(self, record):
        self._known = self._file.load()
        if self._known is None:
            self._keep(assumed(record))

    def _keep(self, known):
        self._file.save(known)
        self._known = known

    def _write(self, record, wanted):
        if self._before is None:
            self._before = record, (wanted ^ self._known.acted) & nodes.REASONS
        while True:
            found = decide(wanted, record, self._known, self._source.name)
            if found is None:
                break
            if isinstance(found, Kept):
                self._keep(found)
                # An administrator may come in between.
                record = self._service.read()
            else:
                # Before it is written: an answer may be lost.
                self._unreported = True
                record = self._service.write(found)
        line = told(self._before[0], record, wanted, self._service.host,
                    self._before[1])
        self._before = None
        if line:
            self._tell(line, self._node)

    def _look(self):
        """See what the node is like; while it is not known, go on as is."""
        try:
            self._node = self._source.latest()
            problem = None
        except errors.LimitsError as exc:
            problem = str(exc)
        if problem and problem != self._problem:
            LOG.warning('%s. Cordon and readiness of the node are not '
                        'followed until then; what was last known stays.',
                        problem)
        elif self._problem and not problem:
            LOG.info('Cordon and readiness of Kubernetes node %s are '
                     'followed.', self._source.name)
        self._problem = problem

    def _wanted(self, seen):
        """Return (the reasons there are, seconds until there may be more)."""
        wanted, wait = set(), None
        lost = LIBVIRT in seen if self._connected is None else (
            not self._connected)
        if lost:
            wanted.add(LIBVIRT)
        if not self._budget():
            wanted.add(NO_BUDGET)
        if self._reasons is None:
            self._reasons = seen & nodes.REASONS
        if self._problem:
            # Nor is it known whether it is still not ready.
            self._unready_since = None
        else:
            self._reasons, wait = self._reasons_of_node()
        return frozenset(wanted | self._reasons), wait

    def _reasons_of_node(self):
        """Return (the node's reasons, seconds until there may be more)."""
        if self._node.ready:
            self._unready_since = None
            unready_for = 0
        else:
            now = self._clock()
            self._unready_since = self._unready_since or now
            unready_for = now - self._unready_since
        found = nodes.reasons(self._node, self._reasons, unready_for,
                              self._grace)
        if self._node.ready or found & {nodes.NOT_READY,
                                        nodes.SHUTTING_DOWN}:
            return found, None
        return found, self._grace - unready_for
