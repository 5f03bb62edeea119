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

"""The worker that publishes and measures."""

import threading
import time
from unittest import mock

import fixtures

from nova_k8s.inventory import publisher
from tests.unit import base
from tests import waiting


class PublisherTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.log = self.useFixture(fixtures.FakeLogger('nova_k8s'))
        for name, value in (('SETTLE', 0.01), ('FIRST_RETRY', 0.01),
                            ('LAST_RETRY', 0.02)):
            self.useFixture(fixtures.MonkeyPatch(
                f'nova_k8s.inventory.publisher.{name}', value))
        self.published = []
        self.measured = threading.Event()
        self.failures = 0
        self.publisher = publisher.Publisher(self.publish, self.measure)
        self.addCleanup(self.publisher.stop)

    def measure(self):
        self.measured.set()
        return 60

    def publish(self):
        if self.failures:
            self.failures -= 1
            raise RuntimeError('conflict')
        self.published.append(time.monotonic())

    def wait(self, condition):
        waiting.until(condition, seconds=10, interval=0.01)

    def test_nothing_unless_it_is_woken(self):
        self.publisher.start()
        # It does not know what was before it.
        self.wait(lambda: self.published)
        time.sleep(0.05)
        self.assertEqual(1, len(self.published))
        self.publisher.wake()
        self.wait(lambda: len(self.published) > 1)

    def test_many_changes_are_one(self):
        for _ in range(100):
            self.publisher.wake()
        self.publisher.start()
        self.wait(lambda: self.published)
        self.assertEqual(1, len(self.published))

    def test_failures_are_tried_again_and_told_once(self):
        self.failures = 5
        self.publisher.start()
        self.publisher.wake()
        self.wait(lambda: self.published)
        self.assertEqual(1, self.log.output.count('conflict'))
        self.assertIn('Could not tell Placement', self.log.output)

    def test_who_wakes_it_does_not_hasten_it(self):
        for name in ('FIRST_RETRY', 'LAST_RETRY'):
            self.useFixture(fixtures.MonkeyPatch(
                f'nova_k8s.inventory.publisher.{name}', 60))
        self.publisher._retry = 60
        attempts = []

        def fail():
            attempts.append(1)
            raise OSError('away')

        self.publisher._publish = fail
        self.publisher.start()
        self.wait(lambda: attempts)
        for _ in range(20):
            self.publisher.wake()
            time.sleep(0.02)
        self.assertEqual(1, len(attempts))
        self.assertEqual(1, self.log.output.count('away'))

    def test_waits_longer_each_time(self):
        self.publisher._publish = mock.Mock(side_effect=OSError('away'))
        self.publisher._due = time.monotonic() + 60
        waits = []
        for name, value in (('FIRST_RETRY', 1), ('LAST_RETRY', 30)):
            self.useFixture(fixtures.MonkeyPatch(
                f'nova_k8s.inventory.publisher.{name}', value))
        self.publisher._retry = 1
        for _ in range(7):
            waits.append(self.publisher._step())
            self.publisher._not_before = 0
        self.assertEqual([1, 2, 4, 8, 16, 30, 30], waits)
        self.publisher._publish.side_effect = None
        self.publisher._step()
        self.assertEqual(1, self.publisher._retry)

    def test_failed_measurement_is_told_as_one(self):
        self.useFixture(fixtures.MonkeyPatch(
            'nova_k8s.inventory.publisher.MEASURE_EVERY', 0.01))
        failed = []

        def measure():
            failed.append(1)
            raise OSError('no cgroup')

        self.publisher._measure = measure
        self.publisher.start()
        self.wait(lambda: len(failed) > 2)
        self.assertEqual(1, self.log.output.count('no cgroup'))
        self.assertIn('Could not measure', self.log.output)
        self.assertNotIn('Placement', self.log.output)

    def test_measures(self):
        self.useFixture(fixtures.MonkeyPatch(
            'nova_k8s.inventory.publisher.MEASURE_EVERY', 0.01))
        self.publisher.start()
        self.assertTrue(self.measured.wait(waiting.PATIENCE))

    def test_stop_before_start(self):
        self.publisher.stop()
