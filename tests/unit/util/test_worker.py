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


"""When a worker takes its next step."""

import queue
import time

from nova_k8s.util import worker
from tests.unit import base
from tests import waiting


class WorkerTest(base.TestCase):

    def start(self, *delays, settle=0):
        """Have a worker whose steps return these, one after the other."""
        self.delays, self.steps = list(delays), queue.Queue()
        self.worker = worker.Worker('nova-k8s-test', self.step, settle=settle)
        self.worker.start()
        self.addCleanup(self.worker.stop)
        self.began = time.monotonic()

    def step(self):
        self.steps.put(time.monotonic() - self.began)
        return self.delays.pop(0) if self.delays else None

    def next(self, seconds=waiting.PATIENCE):
        return self.steps.get(timeout=seconds)

    def none(self, seconds=0.3):
        self.assertRaises(queue.Empty, self.next, seconds)

    def test_only_when_woken(self):
        self.start()
        self.none()
        self.worker.wake()
        self.next()
        self.none()

    def test_a_wake_shortens_a_delay(self):
        self.start(60)
        self.worker.wake()
        self.next()
        self.worker.wake()
        self.next()

    def test_a_wake_does_not_shorten_a_pause(self):
        self.start(worker.Pause(1))
        self.worker.wake()
        begin = self.next()
        for _ in range(5):
            self.worker.wake()
            time.sleep(0.05)
        self.assertGreaterEqual(self.next() - begin, 1)
        # What came meanwhile was seen by that.
        self.none()

    def test_an_end_shortens_it(self):
        self.start(worker.Pause(60))
        self.worker.wake()
        self.next()
        begin = time.monotonic()
        self.worker.stop()
        self.assertLess(time.monotonic() - begin, 30)

    def test_many_wakes_are_one_step(self):
        self.start(settle=0.3)
        for _ in range(10):
            self.worker.wake()
        self.assertGreaterEqual(self.next(), 0.3)
        self.none(0.5)
