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

"""Nova's periodic audit of a compute node: our driver against Nova's.

Both drivers audit the same guests, in turns, in one process. Nova's is there
twice: what its two copies differ in is the noise.
"""

import collections
import gc
import statistics
import time

import fixtures
from nova.compute import resource_tracker
from nova import context as nova_context
from nova.virt.libvirt import driver as libvirt_driver

import benchmarks
from benchmarks import calls
from benchmarks import compute

# Runs by the number of guests: the shorter they are, the more they differ.
RUNS = benchmarks.times({0: 200, 50: 100, 200: 50}, {0: 3, 5: 3})

OURS, STOCK, AGAIN = 'ours', 'stock', 'stock again'


def ratio(ours, theirs):
    """The median of the ratios of runs that followed each other.

    What slows the machine down for a while slows both down.
    """
    return statistics.median(a / b for a, b in zip(ours, theirs))


class Audit(compute.Compute):

    def setUp(self):
        super().setUp()
        # Whichever audit is the first after five minutes asks Placement for
        # more than the others.
        self.flags(resource_provider_association_refresh=0, group='compute')
        # Nova writes its record where anything in it changed, such as the
        # machine's load. So that each audit does the same, something always
        # has.
        uptime = libvirt_driver.LibvirtDriver.get_host_uptime
        self.useFixture(fixtures.MonkeyPatch(
            'nova.virt.libvirt.driver.LibvirtDriver.get_host_uptime',
            lambda driver: f'{uptime(driver)} {time.perf_counter_ns()}'))

    def measure(self):
        self.drivers = {OURS: (self.driver, self.manager.rt),
                        STOCK: self.stock(), AGAIN: self.stock()}
        for guests in RUNS:
            self.have_guests(guests)
            for state, begin, end in (
                    ('up', None, None),
                    ('stopped', self.plane.stop_api_server,
                     self.plane.start_api_server),
                    ('hanging', self.plane.pause_api_server,
                     self.plane.resume_api_server)):
                if begin:
                    begin()
                try:
                    self.compare(f'Audit, {guests} guests, API server '
                                 f'{state}')
                finally:
                    if end:
                        end()

    def stock(self):
        """Nova's driver with the state of ours, and a tracker for it."""
        stock = object.__new__(libvirt_driver.LibvirtDriver)
        stock.__dict__.update(vars(self.driver))
        tracker = resource_tracker.ResourceTracker(compute.HOST, stock)
        if self.manager.rt.service_ref:
            tracker.set_service_ref(self.manager.rt.service_ref)
        return stock, tracker

    def use(self, which):
        self.manager.driver, self.manager.rt = self.drivers[which]

    def compare(self, name):
        counts = {}
        for which in self.drivers:
            self.use(which)
            # What changed for one of them is written to Nova by the first.
            self.audit()
            self.audit()
            counts[which] = self.count()
        self.assertEqual(counts[STOCK], counts[AGAIN])
        for kind in calls.KINDS:
            self.assertLessEqual(counts[OURS][kind], counts[STOCK][kind],
                                 f'{name}: {kind} calls')
        self.row(f'{name}: RPC, HTTP, file, libvirt calls, ours',
                 ', '.join(str(counts[OURS][kind]) for kind in calls.KINDS))
        self.row(f'{name}: RPC, HTTP, file, libvirt calls, Nova\'s',
                 ', '.join(str(counts[STOCK][kind]) for kind in calls.KINDS))
        for what, seconds in zip(('time', 'CPU time'), self.time()):
            self.row(f'{name}: median {what}, Nova\'s',
                     '%.1f' % (statistics.median(seconds[STOCK]) * 1000), 'ms')
            self.row(f'{name}: {what}, ours / Nova\'s',
                     '%.3f' % ratio(seconds[OURS], seconds[STOCK]))
            self.row(f'{name}: {what}, Nova\'s / Nova\'s (noise)',
                     '%.3f' % ratio(seconds[AGAIN], seconds[STOCK]))

    def count(self):
        counter = calls.Counter()
        tracker = self.manager.rt
        update = tracker.update_available_resource

        def counted(*args, **kwargs):
            # Since Nova 34 in a thread of its own.
            with counter.here():
                return update(*args, **kwargs)
        with fixtures.MonkeyPatch(
                'nova.objects.base.NovaObject.indirection_api',
                calls.Conductor(counter)):
            tracker.update_available_resource = counted
            try:
                with counter.here():
                    self.audit()
            finally:
                del tracker.update_available_resource
        return counter.calls

    def time(self):
        """Return the seconds of the runs by driver, and those of the CPU.

        On a busy machine the first say little.
        """
        seconds = collections.defaultdict(list)
        busy = collections.defaultdict(list)
        names = list(self.drivers)
        context = nova_context.get_admin_context()
        # Collecting takes longer than an audit, unless what is there stays.
        gc.collect()
        gc.freeze()
        self.addCleanup(gc.unfreeze)
        with self.remembering_allocations():
            for i in range(RUNS[self.guests]):
                # Each follows each of the others equally often.
                order = names if i % 2 else names[::-1]
                for which in order[i % 3:] + order[:i % 3]:
                    self.use(which)
                    gc.collect()
                    gc.disable()
                    begin, cpu = time.perf_counter(), time.process_time()
                    self.manager.update_available_resource(context)
                    seconds[which].append(time.perf_counter() - begin)
                    busy[which].append(time.process_time() - cpu)
                    gc.enable()
        return seconds, busy

    def remembering_allocations(self):
        """Answer from memory what an audit asks Placement for each guest.

        Placement runs in this very process, and would be most of what is
        measured: without it, a difference is easier to see.
        """
        answers = {}
        get = self.manager.reportclient.get

        def remember(client, url, *args, **kwargs):
            if not url.startswith('/allocations/'):
                return get(url, *args, **kwargs)
            if url not in answers:
                answers[url] = get(url, *args, **kwargs)
            return answers[url]
        return fixtures.MonkeyPatch(
            'nova.scheduler.client.report.SchedulerReportClient.get',
            remember)


def rows():
    return compute.run(Audit)
