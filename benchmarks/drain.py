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

"""A drain: how near it is to the ideal, how soon it begins, what it asks.

The first part has a Nova with time of its own, so that 40 guests take no
hours; the second one real Nova over HTTP and a real API server.
"""

import os
import random
import time

import testtools

from nova_k8s.drain import engine
from nova_k8s.drain import guests
from nova_k8s.drain import plan
from tests.functional import test_kubectl_drain
from tests.unit.drain import simulated_nova

QUICK = bool(os.environ.get('NOVA_K8S_BENCH_QUICK'))

GUESTS = 40

# Of the model of a network: bytes a second in GiB of a network of 25 Gbit/s,
# of one connection of QEMU (a core), and what a guest writes meanwhile.
_NETWORK, _CONNECTION, _WRITES = 2.9, 1.0, 0.25


def simulate(lengths, parallel):
    """Return (seconds that a drain took, the ideal, calls of Nova's API).

    :param lengths: seconds of each migration
    """
    clock = simulated_nova.Clock()
    nova = simulated_nova.Nova(
        clock, hosts=('a', 'b', 'c', 'd'), concurrent=parallel,
        length=lambda guest: lengths[int(guest.id)])
    nova.set_host('a', enabled=False)
    for each, length in enumerate(lengths):
        # What a migration takes goes with the memory.
        nova.add(guests.Guest(str(each), memory_mb=round(length * 100)))
    loop = engine.Engine(nova, 'a', plan.Policy(parallel=parallel),
                         clock=clock)
    begin = clock()
    state = loop.run(lambda state: None, clock.wait, 60)
    if not state.empty:
        raise RuntimeError('guests are left')
    # None can be done sooner, whoever decides.
    ideal = max(sum(lengths) / parallel, max(lengths))
    return clock() - begin, ideal, nova.calls


def ratios():
    found = random.Random(1)
    lengths = [found.uniform(20, 120) for _ in range(GUESTS)]
    for parallel in (1, 2, 4):
        took, ideal, calls = simulate(lengths, parallel)
        who = (f'drain of {GUESTS} guests, {parallel} at a time, migrations '
               f'of 20 to 120 s (simulated)')
        yield f'{who}: time against the ideal', f'{took / ideal:.3f}', ''
        yield (f'{who}: calls of Nova per guest', f'{calls / GUESTS:.1f}', '')


def migration_seconds(memory_gib, parallel, connections):
    """Return what one of several migrations takes, by a simple model.

    Each gets its part of the network, and no more than its connections can
    carry; what the guest writes meanwhile is sent again.
    """
    speed = min(_NETWORK / parallel, _CONNECTION * connections)
    return memory_gib / (speed - _WRITES)


def parallels():
    for parallel, connections in ((1, 1), (1, 4), (4, 1), (8, 1)):
        one = migration_seconds(16, parallel, connections)
        took, _, _ = simulate([one] * GUESTS, parallel)
        who = (f'drain of {GUESTS} guests of 16 GiB (simulated), {parallel} '
               f'at a time, {connections} connections each')
        yield f'{who}: whole', f'{took / 60:.1f}', 'min'
        yield f'{who}: one migration', f'{one:.0f}', 's'


class _Drain(test_kubectl_drain.KubectlDrainTestBase):
    """A test case, for its fixtures; what it measures is in _found.

    Nova's tests drop all attributes without an underscore at their end.
    """

    interval = 2

    _found = None

    def runTest(self):
        self.flags(cpu_allocation_ratio=4.0)
        self.start_nodes()
        seconds, requests = [], 0
        count = 1 if QUICK else 4
        hosts = self.HOSTS[:1 if QUICK else 2]
        for host in hosts:
            for _ in range(count):
                self.boot_on(host, memory_mb=128)
        for host in hosts:
            asked = []
            self.http.note = lambda method, path: asked.append(
                time.monotonic()) if path.endswith('/action') else None
            self.http.requests.clear()
            guests_here = len(self.running_on(host))
            metadata = self.pods[host].metadata
            self.plane.kubectl('cordon', self.nodes[host])
            begin = time.monotonic()
            self.plane.core.create_namespaced_pod_eviction(
                metadata.name, self.namespace,
                {'metadata': {'name': metadata.name}})
            self.wait_for([], lambda: self.running_on(host), 120)
            seconds.append(asked[0] - begin)
            requests += len(self.http.requests) / guests_here
            self.disable(host)
        self._found = seconds, requests / len(hosts)


def real():
    # Nova's tests end after some minutes, without a word.
    os.environ['OS_TEST_TIMEOUT'] = '0'
    case = _Drain()
    result = testtools.TestResult()
    case.run(result)
    problems = [*result.errors, *result.failures]
    if problems or not case._found:
        raise RuntimeError('\n'.join(text for _case, text in problems))
    seconds, requests = case._found
    yield ('eviction of the guests\' pod to the first request for a '
           f'migration, longest of {len(seconds)}',
           f'{max(seconds) * 1000:.0f}', 'ms')
    yield ('requests to Nova per drained guest, real Nova, migrations that '
           'take no time', f'{requests:.1f}', '')


def rows():
    """Return the rows of the table: (name, value, unit), all of them text."""
    return [*ratios(), *parallels(), *real()]


if __name__ == '__main__':
    for row in rows():
        print('%s: %s %s' % row)
