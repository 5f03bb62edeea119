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

"""The worker that tells Placement what is reserved, and measures.

Nova's claims never write an inventory that changed, as that can make them fail
(see placement). They leave it to this worker, which writes once for many of
them, and can try again.
"""

import time

from oslo_log import log as logging

from nova_k8s.util import worker

LOG = logging.getLogger(__name__)

# How long a change is given to be followed by more, in seconds.
SETTLE = 0.05

# Seconds until it is tried again, when Placement could not be told: doubled
# from the first to the last.
FIRST_RETRY, LAST_RETRY = 1, 30

# Seconds until the first measurement, and the next one after a failure.
MEASURE_EVERY = 60


class Publisher:
    """Calls publish() after each wake(), and measure() now and then.

    :param publish: may raise, and is then called again a little later
    :param measure: may do I/O; returns the seconds until it is called again,
        and publish() is called after it
    """

    def __init__(self, publish, measure):
        self._publish = publish
        self._measure = measure
        self._due = 0
        # When it is tried again after a failure, and how long after the next.
        self._not_before = 0
        self._retry = FIRST_RETRY
        self._failed = set()
        self._worker = worker.Worker(
            'nova-k8s-publisher', self._step, settle=SETTLE)
        self.stop = self._worker.stop
        # Never blocks.
        self.wake = self._worker.wake

    def start(self):
        self._due = time.monotonic() + MEASURE_EVERY
        self._worker.wake()
        self._worker.start()

    def _step(self):
        if time.monotonic() >= self._due:
            wait = MEASURE_EVERY

            def measure():
                nonlocal wait
                wait = self._measure()

            self._done(measure, 'Could not measure what guests and others '
                                'use, trying again later: %s')
            self._due = time.monotonic() + wait
        # Whoever wakes it meanwhile changes nothing about that.
        wait = self._not_before - time.monotonic()
        if wait > 0:
            return wait
        if not self._done(
                self._publish, 'Could not tell Placement what there is for '
                'guests, trying again until it can: %s'):
            wait, self._retry = self._retry, min(LAST_RETRY, self._retry * 2)
            self._not_before = time.monotonic() + wait
            return wait
        self._retry = FIRST_RETRY
        return max(0, self._due - time.monotonic())

    def _done(self, function, problem):
        try:
            function()
        except Exception as exc:
            failure = ' '.join(str(exc).split()) or type(exc).__name__
        else:
            self._failed.discard(problem)
            return True
        # Once: a conflict is what a busy Placement answers, what cannot be
        # reached now may be in a second, and the cause may read differently
        # each time. Not in the handler: there, oslo.log says it again.
        if problem not in self._failed:
            LOG.warning(problem, failure)
        self._failed.add(problem)
        return False
