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


"""Threads that make things so: one watches, the other acts."""

import threading

from oslo_log import log as logging

LOG = logging.getLogger(__name__)

# Seconds until what watches is called again, when it returned or raised.
RETRY = 1


class Pause(float):
    """Seconds until the next step that no wake() shortens: after a failure.

    What wakes a worker often has to do with the failure, or just comes often.
    """


class Worker:
    """Calls ``step`` in a thread of its own, again whenever it is woken.

    However often it is woken meanwhile, the next step is one: it has to look
    at what is, not at what has happened.

    :param name: of the thread
    :param step: returns the seconds until it is called again even if nobody
        wakes it, or None, or a Pause
    :param watch: called in a thread of its own with two arguments: what to
        call to wake the worker, and an event that ends it
    :param settle: how long a change is given to be followed by more, in
        seconds
    :ivar stopping: the event that is set when it is to end
    """

    # Plain threads serve both of Nova's concurrency backends: under eventlet
    # they are patched to be green ones.

    def __init__(self, name, step, watch=None, settle=0):
        self._step = step
        self._settle = settle
        self.stopping = threading.Event()
        self._woken = threading.Event()
        self._threads = [threading.Thread(
            target=self._work, daemon=True, name=name)]
        if watch:
            self._threads.append(threading.Thread(
                target=self._keep_watching, args=(watch,), daemon=True,
                name=f'{name}-watch'))

    def start(self):
        for each in self._threads:
            each.start()

    def stop(self):
        self.stopping.set()
        self._woken.set()
        for each in self._threads:
            if each.ident:
                each.join()

    def wake(self):
        self._woken.set()

    def _keep_watching(self, watch):
        # Nothing may end this thread: nobody would notice, and what was known
        # at that moment would hold for ever.
        while not self.stopping.is_set():
            try:
                watch(self.wake, self.stopping)
            except Exception:
                LOG.exception('Could not watch; trying again in %s s', RETRY)
            self.stopping.wait(RETRY)

    def _work(self):
        delay = None
        while True:
            if isinstance(delay, Pause):
                self.stopping.wait(delay)
            # Without a change there is none that more could follow.
            elif self._woken.wait(delay):
                self.stopping.wait(self._settle)
            self._woken.clear()
            if self.stopping.is_set():
                return
            delay = self._step()
