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

"""From a change of the pod's limit to Placement.

The time begins as the API server is asked for what decides: for a smaller
limit the wish in the spec, for a larger one the status. It ends when
Placement has answered that it took the new inventory.
"""

import random
import threading
import time

import fixtures
import nova.conf
from nova.scheduler.client import report

import benchmarks
from benchmarks import compute
from nova_k8s.inventory import bounds

CONF = nova.conf.CONF

GUESTS = benchmarks.times((0, 200), (0, 5))
CHANGES = benchmarks.times(200, 10)

# Longest time between two changes, in seconds. At random, so that no change
# meets what another one left behind always at the same point.
APART = 0.3


class Change(compute.Compute):

    def measure(self):
        self.written = threading.Condition()
        self.total = None
        put = report.SchedulerReportClient.put

        def noted(client, url, data, **kwargs):
            answer = put(client, url, data, **kwargs)
            if url.endswith('/inventories') and answer.status_code == 200:
                with self.written:
                    self.total = data['inventories'][
                        bounds.MEMORY_MB]['total']
                    self.written.notify_all()
            return answer
        self.useFixture(fixtures.MonkeyPatch(
            'nova.scheduler.client.report.SchedulerReportClient.put', noted))
        for guests in GUESTS:
            self.have_guests(guests)
            self.audit()
            seconds = [self.change(i) for i in range(CHANGES)]
            name = f'Limit to Placement, {guests} guests'
            for percent in (50, 99):
                self.row(f'{name}: p{percent}', '%.2f' % benchmarks.percentile(
                    seconds, percent), 's')
            self.row(f'{name}: longest', '%.2f' % max(seconds), 's')
        self.row('Without following, by Nova\'s periodic task: its period',
                 str(max(60, CONF.update_resources_interval)), 's')

    def change(self, i):
        """Change the limit and return the seconds until Placement knows."""
        time.sleep(random.uniform(0, APART))
        # Now smaller, now larger, and never what it was before.
        mib = 40000 + i if i % 2 else 60000 - i
        limits = {'cpu': '8', 'memory': f'{mib}Mi'}
        if i % 2:
            begin = time.perf_counter()
            self.compute.resize(actual=False, **limits)
            seconds = self.wait_for_total(mib) - begin
            self.plane.set_pod_status(self.compute.pod)
            return seconds
        self.compute.resize(actual=False, **limits)
        begin = time.perf_counter()
        self.plane.set_pod_status(self.compute.pod)
        return self.wait_for_total(mib) - begin

    def wait_for_total(self, mib):
        with self.written:
            self.assertTrue(self.written.wait_for(
                lambda: self.total == mib, 60), f'{mib} MiB never came')
        return time.perf_counter()


def rows():
    return compute.run(Change)
