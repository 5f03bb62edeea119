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

"""The metrics, as text."""

import collections
import time
import types
import urllib.request

import fixtures
import prometheus_client

from nova_k8s.elastic import values
from nova_k8s.inventory import bounds
from nova_k8s.limits import budget
from nova_k8s.limits import watcher
from nova_k8s.metrics import exporter
from tests.unit import base
from tests.unit.elastic import test_mover

Room = values.Room


class ExporterTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.watcher = types.SimpleNamespace(
            state=watcher.State(budget.Budget('Pod a/b', 7500, 2 ** 33)),
            read_at=time.monotonic() - 5)
        self.reported = types.SimpleNamespace(records={
            bounds.MEMORY_MB: {'total': 8192, 'reserved': 300},
            bounds.VCPU: {'total': 7, 'reserved': 0}})
        self.accounts = types.SimpleNamespace(
            overheads_mb=lambda: (200, 250), others_mb=100,
            refused=collections.Counter(claim=3))
        self.guests_pod = self.drainer = None
        self.mover = types.SimpleNamespace(
            moves={'grow': 4, 'shrink': 1}, resting=False,
            used=Room(2048, 1000), bounds=test_mover.SETTINGS,
            seen=types.SimpleNamespace(pod=values.Pod(
                Room(8192, 4000), Room(6144, 3000), Room(4096, 2000),
                values.DEFERRED)))

    def exporter(self, **options):
        conf = self.conf(**options)
        return exporter.Exporter(
            conf.kubernetes, exporter.Collector(
                self.watcher, self.reported, self.accounts, self.mover,
                self.guests_pod, self.drainer), self.mover)

    def lines(self, found=None):
        found = found or self.exporter()
        return [line for line in prometheus_client.generate_latest(
            found.registry).decode().splitlines()
            if not line.startswith('#')]

    def test_limits(self):
        lines = self.lines()
        for line in ('nova_k8s_limits_stale 0.0', 'nova_k8s_limits_lost 0.0',
                     'nova_k8s_limit_memory_bytes 8.589934592e+09',
                     'nova_k8s_limit_cpu_cores 7.5',
                     'nova_k8s_inventory_vcpus 7.0',
                     'nova_k8s_pod_reserve_bytes 1.048576e+08'):
            self.assertIn(line, lines)
        age, = [line.split()[1] for line in lines
                if line.startswith('nova_k8s_limits_age_seconds')]
        self.assertAlmostEqual(5, float(age), delta=2)

    def test_lost(self):
        self.watcher.state = watcher.State(None, 'gone')
        self.reported.records = {}
        lines = self.lines()
        self.assertIn('nova_k8s_limits_lost 1.0', lines)
        self.assertEqual([], [line for line in lines if
                              'limit_memory' in line or 'inventory' in line])

    def test_guests(self):
        lines = self.lines()
        for line in (
                'nova_k8s_guest_overhead_bytes{source="estimated"} '
                '2.097152e+08',
                'nova_k8s_guest_overhead_bytes{source="measured"} '
                '2.62144e+08',
                'nova_k8s_guest_refusals_total{operation="claim"} 3.0',
                'nova_k8s_guest_refusals_total{operation="start"} 0.0'):
            self.assertIn(line, lines)

    def test_the_boundary(self):
        lines = self.lines()
        for line in (
                'nova_k8s_elastic_resizes_total{direction="grow"} 4.0',
                'nova_k8s_elastic_pending{reason="Deferred"} 1.0',
                'nova_k8s_elastic_pending{reason="Infeasible"} 0.0',
                'nova_k8s_elastic_pod_cpu_cores{kind="enforced"} 2.0',
                'nova_k8s_elastic_pod_memory_bytes{kind="wished"} '
                '8.589934592e+09',
                'nova_k8s_elastic_bound_cpu_cores{kind="max"} 32.0',
                'nova_k8s_elastic_demand_cpu_cores{kind="used"} 1.0'):
            self.assertIn(line, lines)

    def found(self, word):
        return [line for line in self.lines() if word in line]

    def test_guests_that_escaped(self):
        self.assertEqual([], self.found('escaped'))
        self.guests_pod = types.SimpleNamespace(escaped=None)
        # It has not looked yet.
        self.assertEqual([], self.found('escaped'))
        for number in (0, 3):
            self.guests_pod.escaped = number
            self.assertEqual([f'nova_k8s_guests_escaped {number:.1f}'],
                             self.found('escaped'))

    def test_a_drain(self):
        self.assertEqual([], self.found('drain'))
        self.drainer = types.SimpleNamespace(reasons=frozenset, left=None)
        self.assertEqual(['nova_k8s_draining 0.0',
                          'nova_k8s_drain_guests_left 0.0'],
                         self.found('drain'))
        self.drainer.reasons = lambda: {'drain'}
        # Nobody knows how many there are.
        self.assertEqual(['nova_k8s_draining 1.0'], self.found('drain'))
        self.drainer.left = 4
        self.assertEqual(['nova_k8s_draining 1.0',
                          'nova_k8s_drain_guests_left 4.0'],
                         self.found('drain'))

    def test_not_elastic(self):
        self.mover = None
        self.assertEqual([], [line for line in self.lines()
                              if 'elastic' in line])

    def test_nothing_is_known_of_the_pod_yet(self):
        self.mover.seen = self.mover.bounds = None
        self.assertEqual([], [line for line in self.lines()
                              if 'elastic_pod' in line])

    def test_how_long_resizes_take(self):
        found = self.exporter()
        for seconds in (0.7, 2.5):
            self.mover.took(seconds)
        lines = self.lines(found)
        name = 'nova_k8s_elastic_resize_duration_seconds'
        self.assertIn(f'{name}_bucket{{le="1.0"}} 1.0', lines)
        self.assertIn(f'{name}_bucket{{le="3.0"}} 2.0', lines)
        self.assertIn(f'{name}_count 2.0', lines)

    def test_the_port(self):
        found = self.exporter(metrics_port=0)
        found.start()
        port = found._server.server_address[1]
        try:
            opener = urllib.request.build_opener(
                urllib.request.ProxyHandler({}))
            with opener.open(f'http://127.0.0.1:{port}/metrics',
                             timeout=5) as answer:
                self.assertIn(b'nova_k8s_limits_stale', answer.read())
            log = self.useFixture(fixtures.FakeLogger('nova_k8s'))
            other = self.exporter(metrics_port=port)
            other.start()
            self.assertIn(f'There are no metrics at 127.0.0.1:{port}: ',
                          log.output)
            other.stop()
        finally:
            found.stop()

    def test_off_by_default(self):
        self.assertIsNone(exporter.from_conf(
            self.conf(), self.watcher, self.reported, self.accounts, None))
