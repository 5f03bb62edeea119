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

"""The budget as last known, and the worker that keeps it so."""

import threading
import time

from oslo_log import log as logging

from nova_k8s import errors

LOG = logging.getLogger(__name__)

# How long a change is given to be followed by more, in seconds: a storm of
# changes ends in few updates.
SETTLE = 0.05

# Seconds until Nova is told again, when it could not be told.
RETRY = 1


def first(source, timeout):
    """Return the first budget.

    :param timeout: seconds to try for, while it cannot be read
    :raises errors.LimitsError: the last one, when the time is over; at once
        when it could be read and is not fit for use
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            return source.read()
        except errors.Unreadable:
            if time.monotonic() >= deadline:
                raise
            time.sleep(min(1, timeout / 10))


class Follower:
    """Keeps ``budget`` up to date; None says that the limits were lost.

    Readers read the attribute: it is replaced, never changed.

    :param source: see nova_k8s.sources
    :param present: the budget to begin with
    :param push: called after each change; may raise, and is then called
        again a little later
    """

    # Plain threads serve both of Nova's concurrency backends: under eventlet
    # they are patched to be green ones.

    def __init__(self, source, present, push):
        self.budget = present
        self._source = source
        self._push = push
        self._problem = None
        self._stop = threading.Event()
        self._changed = threading.Event()
        self._threads = [
            threading.Thread(target=self._watch, daemon=True,
                             name='nova-k8s-watch'),
            threading.Thread(target=self._work, daemon=True,
                             name='nova-k8s-follow')]

    def start(self):
        for each in self._threads:
            each.start()

    def stop(self):
        self._stop.set()
        self._changed.set()
        for each in self._threads:
            each.join()

    def refresh(self):
        """Read the source; return whether the budget is another one now."""
        try:
            budget = self._source.read()
            problem = None
        except errors.Unreadable as exc:
            budget = self.budget
            problem = f'{exc}. The last known limits stay in force.'
        except errors.Refused as exc:
            budget = None
            problem = f'{exc}. No more guests are placed here until then.'
        if problem and problem != self._problem:
            LOG.error('%s', problem)
        elif self._problem and not problem:
            LOG.info('The limits can be read again: %s', budget.source)
        self._problem = problem
        before, self.budget = self.budget, budget
        return before != budget

    def _watch(self):
        self._source.watch(self._changed.set, self._stop)

    def _work(self):
        behind = False
        while True:
            self._changed.wait(RETRY if behind else None)
            self._stop.wait(SETTLE)
            self._changed.clear()
            if self._stop.is_set():
                return
            behind = self.refresh() or behind
            if behind:
                behind = not self._pushed()

    def _pushed(self):
        try:
            self._push()
        except Exception:
            LOG.exception('Could not tell Nova about changed limits; trying '
                          'again in %s s', RETRY)
            return False
        return True
