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

"""Keeping the compute service disabled while there is a reason."""

import time

from nova import exception
from oslo_log import log as logging

from nova_k8s import errors
from nova_k8s.kube import node as nodes
from nova_k8s.kube import watch
from nova_k8s.service import reasons
from nova_k8s.service import record as records
from nova_k8s.util import worker

LOG = logging.getLogger(__name__)

# How long a change is given to be followed by more, in seconds.
SETTLE = 0.02

# Seconds between attempts while Nova does not answer: doubled from the first
# to the last.
FIRST_RETRY, LAST_RETRY = 1, 30


def from_conf(conf, host, virtapi, budget, source, tell, more=frozenset):
    """Return the Switch of this host, or None with follow_cordon off.

    Then all is as in Nova's own driver, which enables what was disabled here
    as soon as libvirt is connected.

    :param source: nova_k8s.kube.node.Source, None where no node is followed
    """
    file = records.File(conf.state_path, host, source and source.name)
    if not conf.kubernetes.follow_cordon:
        file.forget()
        return None
    return Switch(records.ComputeService(host, virtapi), file, budget,
                  source or nodes.Unknown(), conf.kubernetes.not_ready_grace,
                  tell, more=more)


class Switch:
    """Keeps the compute service disabled while there is a reason.

    :param service: a record.ComputeService
    :param file: a record.File
    :param budget: returns whether there is one that leaves room for guests
    :param source: nova_k8s.kube.node.Source
    :param grace: [kubernetes] not_ready_grace
    :param tell: called with a messages.Line and the Node, or None
    :param more: returns further reasons, from memory
    """

    def __init__(self, service, file, budget, source, grace, tell,
                 clock=time.monotonic, more=frozenset):
        self._service = service
        self._file = file
        self._budget = budget
        self._source = source
        self._grace = grace
        self._tell = tell
        self._more = more
        self._clock = clock
        # None is not known: what was last seen still holds.
        self._connected = None
        self._reasons = None
        # As last seen, and why it may have changed since.
        self._node = None
        self._problem = watch.NOT_YET
        self._unready_since = None
        self._known = None
        # The UUID of the service record to which that belongs.
        self._uuid = None
        # What is written, where all is as wanted.
        self._settled = None
        # What an administrator said and was not looked at yet, and what was
        # written last.
        self._words = []
        self._written = None
        # What was found before that.
        self._began = None
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

    def heard(self, enabled):
        """An administrator has just written the record; never waits."""
        self._words.append(enabled)
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
        return worker.Pause(wait)

    def _make_so(self):
        self._look()
        if self._words:
            self._settled = None
        seen, record = self._settled, None
        if seen is None:
            record = self._read()
            seen = reasons.last_seen(record, self._known)
        wanted, wait = self._wanted(seen)
        if wanted != self._settled:
            self._write(record or self._read(), wanted)
            self._settled = wanted
        if self._unreported:
            self._service.report()
            self._unreported = False
        return wait

    def _read(self):
        """Return the Record, and know what belongs to it."""
        record = self._service.read()
        uuid = self._service.uuid
        if uuid != self._uuid:
            self._known = self._file.load(uuid)
            if self._known is None:
                self._keep(reasons.assume(record))
            self._uuid = uuid
        return record

    def _keep(self, known):
        self._file.save(known, self._service.uuid)
        self._known = known

    def _put(self, record):
        # Before it is written: an answer may be lost.
        self._unreported = True
        self._written = record
        self._written = self._service.write(record)
        return self._written

    def _hear(self, record):
        """Give back an administrator's word that was overwritten.

        :param record: the Record, as read before
        :returns: the Record, as it is now
        """
        number = len(self._words)
        if not number:
            return record
        enabled = self._words[number - 1]
        record = self._read()
        found = None
        # Any other is the administrator's, or what came of it.
        if record == self._written:
            found = reasons.give_way(enabled, record, self._began)
        if found:
            record = self._put(found)
            LOG.info('An administrator %s the compute service of %s while '
                     'it was being written; that is what counts.',
                     'enabled' if enabled else 'disabled',
                     self._service.host)
        del self._words[:number]
        return record

    def _write(self, record, wanted):
        if self._before is None:
            self._before = record, (wanted ^ self._known.acted) & nodes.REASONS
        record = self._hear(record)
        self._began = record
        while True:
            record = self._hear(record)
            found = reasons.decide(wanted, record, self._known,
                                   self._source.name)
            if found is None:
                break
            if isinstance(found, reasons.Kept):
                self._keep(found)
                # An administrator may come in between.
                record = self._read()
            else:
                record = self._put(found)
        line = reasons.tell(self._before[0], record, wanted,
                            self._service.host, self._before[1])
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
        elif self._problem and not problem and self._source.name:
            LOG.info('Cordon and readiness of Kubernetes node %s are '
                     'followed.', self._source.name)
        self._problem = problem

    def _wanted(self, seen):
        """Return (the reasons there are, seconds until there may be more)."""
        wanted, wait = set(), None
        lost = reasons.LIBVIRT in seen if self._connected is None else (
            not self._connected)
        if lost:
            wanted.add(reasons.LIBVIRT)
        if not self._budget():
            wanted.add(reasons.NO_BUDGET)
        wanted |= self._more()
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
