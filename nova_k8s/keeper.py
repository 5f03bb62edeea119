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

import threading
import time

from oslo_log import log as logging

LOG = logging.getLogger(__name__)

# How long a change is given to be followed by more, in seconds.
SETTLE = 0.05

# Seconds until it is tried again, when Nova could not be told.
RETRY = 1

# Seconds between measurements.
MEASURE_EVERY = 60


class Keeper:
    """Calls publish() after each wake(), and measure() now and then.

    :param publish: may raise, and is then called again a little later
    :param measure: may do I/O; called every MEASURE_EVERY seconds
    """

    def __init__(self, publish, measure):
        self._publish = publish
        self._measure = measure
        self._stop = threading.Event()
        self._woken = threading.Event()
        self._failed = {}
        # A plain thread serves both of Nova's concurrency backends.
        self._thread = threading.Thread(target=self._work, daemon=True,
                                        name='nova-k8s-keeper')

    def start(self):
        self._thread.start()

    def stop(self):
        self._stop.set()
        self._woken.set()
        if self._thread.ident:
            self._thread.join()

    def wake(self):
        """Have publish() called soon. Never blocks."""
        self._woken.set()

    def _work(self):
        due = time.monotonic() + MEASURE_EVERY
        behind = False
        while True:
            self._woken.wait(RETRY if behind
                             else max(0, due - time.monotonic()))
            woken = self._woken.is_set()
            if woken:
                self._stop.wait(SETTLE)
                self._woken.clear()
            if self._stop.is_set():
                return
            if woken or behind:
                behind = not self._done(
                    self._publish, 'Could not tell Placement what is reserved '
                    'for guests, trying again: %s')
            if time.monotonic() >= due:
                self._done(
                    self._measure, 'Could not measure what guests and others '
                    'use, trying again later: %s')
                due = time.monotonic() + MEASURE_EVERY

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
