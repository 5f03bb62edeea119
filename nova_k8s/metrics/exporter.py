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

"""The metrics of a compute node, and the port at which they are.

Names and units are those of Prometheus' conventions: base units, and
``_total`` for what only grows. Everything is read from memory.
"""

import time

from oslo_log import log as logging
import prometheus_client
from prometheus_client import core

from nova_k8s.elastic import values
from nova_k8s.inventory import bounds

LOG = logging.getLogger(__name__)

MIB = 1024 * 1024

# Seconds from a wish to what the kubelet has made of it.
BUCKETS = (0.5, 1, 2, 3, 5, 10, 30, 60, 300, 1800)


class Collector:
    """Reads what the parts of the driver know.

    :param watcher: limits.watcher.Watcher
    :param reported: inventory.reported.Reported
    :param accounts: accounting.accounts.Accounts
    :param mover: elastic.mover.Mover, or None
    :param where: confinement.controller.Controller or
        confinement.holding.Holding, or None
    :param drainer: drain.drainer.Drainer, or None
    """

    def __init__(self, watcher, reported, accounts, mover=None,
                 where=None, drainer=None):
        self._watcher = watcher
        self._reported = reported
        self._accounts = accounts
        self._mover = mover
        self._where = where
        self._drainer = drainer

    def collect(self):
        yield from self._limits()
        yield from self._inventory()
        yield from self._guests()
        yield from self._whereabouts()
        if self._mover:
            yield from self._elastic()

    def _whereabouts(self):
        """Guests that are not where they belong, and those that are to go."""
        escaped = self._where and self._where.escaped
        if escaped is not None:
            yield _gauge('guests_escaped', 'Guests outside of their pod, or '
                         'of guest_slice: no limit holds them.', escaped)
        if self._drainer:
            draining, left = self._drainer.reasons(), self._drainer.left
            yield _gauge('draining', 'Whether guests are moved away from '
                         'here.', int(bool(draining)))
            if left is not None or not draining:
                # Else it has not looked yet, or cannot.
                yield _gauge('drain_guests_left', 'Guests that are still to '
                             'leave, while they are moved away.', left or 0)

    def _limits(self):
        state = self._watcher.state
        yield _gauge('limits_age_seconds', 'Since the limits of the pod '
                     'could be read last.',
                     time.monotonic() - self._watcher.read_at)
        yield _gauge('limits_stale', 'Whether the limits may have changed '
                     'since they were read.', int(state.stale))
        yield _gauge('limits_lost', 'Whether there are no limits, and '
                     'nothing new is placed.', int(not state.budget))
        if state.budget and state.budget.memory_bytes is not None:
            yield _gauge('limit_memory_bytes', 'The memory limit that the '
                         'inventory is made of.', state.budget.memory_bytes)
        if state.budget and state.budget.cpu_millicores is not None:
            yield _gauge('limit_cpu_cores', 'The CPU limit that the '
                         'inventory is made of.',
                         state.budget.cpu_millicores / 1000)

    def _inventory(self):
        records = self._reported.records
        memory = records.get(bounds.MEMORY_MB)
        if memory:
            yield _gauge('inventory_memory_bytes', 'MEMORY_MB that Placement '
                         'has of this compute node.', memory['total'] * MIB)
            yield _gauge('inventory_memory_reserved_bytes', 'What of it is '
                         'reserved: other processes of the pod, and what '
                         'guests cost beyond their memory.',
                         memory['reserved'] * MIB)
        cpu = records.get(bounds.VCPU)
        if cpu:
            yield _gauge('inventory_vcpus', 'VCPU that Placement has of this '
                         'compute node.', cpu['total'])

    def _guests(self):
        estimated, measured = self._accounts.overheads_mb()
        overhead = core.GaugeMetricFamily(
            'nova_k8s_guest_overhead_bytes',
            'What guests cost beyond their memory, all that were measured.',
            labels=['source'])
        overhead.add_metric(['estimated'], estimated * MIB)
        overhead.add_metric(['measured'], measured * MIB)
        yield overhead
        yield _gauge('pod_reserve_bytes', 'Kept for what runs in the pod '
                     'besides guests.', self._accounts.others_mb * MIB)
        refused = core.CounterMetricFamily(
            'nova_k8s_guest_refusals',
            'Guests that the memory limit had no room for.',
            labels=['operation'])
        for what in ('claim', 'live migration', 'start'):
            refused.add_metric([what.replace(' ', '_')],
                               self._accounts.refused[what])
        yield refused

    def _elastic(self):
        mover = self._mover
        seen, settings = mover.seen, mover.bounds
        moves = core.CounterMetricFamily(
            'nova_k8s_elastic_resizes', 'Resizes that Kubernetes took.',
            labels=['direction'])
        for direction, number in mover.moves.items():
            moves.add_metric([direction], number)
        yield moves
        yield _gauge('elastic_resting', 'Whether something keeps the '
                     'boundary from moving: a quota, a policy, somebody else '
                     'who resizes the pod.', int(mover.resting))
        yield from _rooms('elastic_demand', 'What guests and others hold.',
                          {'used': mover.used})
        if settings:
            yield from _rooms('elastic_bound', 'What the pod may have.', {
                'min': settings.smallest, 'max': settings.largest})
        if not seen:
            return
        yield from _rooms('elastic_pod', 'The pod that holds the guests.', {
            'wished': seen.pod.wished, 'allocated': seen.pod.allocated,
            'enforced': seen.pod.enforced})
        pending = core.GaugeMetricFamily(
            'nova_k8s_elastic_pending',
            'Whether the kubelet has not taken the wish.', labels=['reason'])
        for reason in (values.DEFERRED, values.INFEASIBLE):
            pending.add_metric([reason], int(seen.pod.answer == reason))
        yield pending


def _gauge(name, text, value):
    return core.GaugeMetricFamily(f'nova_k8s_{name}', text, value=value)


def _rooms(name, text, rooms):
    """Two gauges of a values.Room each, by kind."""
    memory = core.GaugeMetricFamily(f'nova_k8s_{name}_memory_bytes', text,
                                    labels=['kind'])
    cpu = core.GaugeMetricFamily(f'nova_k8s_{name}_cpu_cores', text,
                                 labels=['kind'])
    for kind, room in rooms.items():
        memory.add_metric([kind], room.memory_mb * MIB)
        cpu.add_metric([kind], room.cpu_millicores / 1000)
    return memory, cpu


class Exporter:
    """Serves a Collector's metrics, and how long resizes take.

    :param options: [kubernetes] of nova.conf.CONF
    """

    def __init__(self, options, collector, mover=None):
        self._options = options
        self._server = None
        self.registry = prometheus_client.CollectorRegistry()
        self.registry.register(collector)
        if mover:
            mover.took = prometheus_client.Histogram(
                'nova_k8s_elastic_resize_duration_seconds',
                'From a wish to what the kubelet has made of it.',
                buckets=BUCKETS, registry=self.registry).observe

    def start(self):
        """Listen; what fails is told, and guests do without metrics."""
        address = self._options.metrics_address, self._options.metrics_port
        try:
            self._server, _thread = prometheus_client.start_http_server(
                address[1], address[0], self.registry)
        except OSError as exc:
            LOG.warning('There are no metrics at %s:%s: %s. See [kubernetes] '
                        'metrics_port and metrics_address.', *address, exc)

    def stop(self):
        if self._server:
            self._server.shutdown()
            self._server.server_close()


def from_conf(conf, watcher, reported, accounts, elastic, where=None,
              drainer=None):
    """Return the Exporter that nova.conf asks for, or None."""
    if not conf.kubernetes.metrics_port:
        return None
    mover = elastic and elastic.mover
    return Exporter(conf.kubernetes,
                    Collector(watcher, reported, accounts, mover, where,
                              drainer), mover)
