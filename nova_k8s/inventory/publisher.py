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

# Seconds until it is tried again, when Nova could not be told.
RETRY = 1

# Seconds between measurements.
MEASURE_EVERY = 60


class Publisher:
    """Calls publish() after each wake(), and measure() now and then.

    :param publish: may raise, and is then called again a little later
    :param measure: may do I/O; called every MEASURE_EVERY seconds, and
        publish() after it
    """

    def __init__(self, publish, measure):
        self._publish = publish
        self._measure = measure
        self._due = 0
        self._failed = {}
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
            self._done(
                self._measure, 'Could not measure what guests and others '
                'use, trying again later: %s')
            self._due = time.monotonic() + MEASURE_EVERY
        if not self._done(
                self._publish, 'Could not tell Placement what is reserved '
                'for guests, trying again: %s'):
            return RETRY
        return max(0, self._due - time.monotonic())

    def _done(self, function, problem):
        try:
            function()
        except Exception as exc:
            # A conflict is what a busy Placement answers, and what cannot be
            # reached now may be in a second.
            if repr(exc) != self._failed.get(problem):
                LOG.warning(problem, exc)
            self._failed[problem] = repr(exc)
            return False
        self._failed.pop(problem, None)
        return True
