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


"""From kubectl cordon to a disabled compute service: how long it takes.

Real Nova and Placement in one process, a real API server, no load beside it.
"""

import os
import statistics
import time

import testtools

from tests.functional import test_cordon

# As `python -m benchmarks --quick` asks for.
CHANGES = 5 if os.environ.get('NOVA_K8S_BENCH_QUICK') else 200


class _Cordon(test_cordon.CordonTestBase):
    """A test case, for its fixtures; what it measures is in _seconds.

    Nova's tests drop all attributes without an underscore at their end.
    """

    _seconds = None

    def runTest(self):
        self.start()
        self.boot()
        core = self.plane.core
        # Of kubectl too the first thing is to load what it is.
        self.cordon()
        self.wait_for_state(self.disabled('cordoned'))
        self.uncordon()
        self.wait_for_state(test_cordon.ENABLED)
        done = []
        client = self.computes[self.HOST].manager.reportclient
        set_traits = client.set_traits_for_provider

        def note(*args, **kwargs):
            answer = set_traits(*args, **kwargs)
            done.append(time.monotonic())
            return answer

        # Not by asking again and again, which would be load. The service is
        # disabled before Placement knows.
        client.set_traits_for_provider = note
        times = {True: [], False: []}
        for index in range(CHANGES):
            for cordoned in (True, False):
                done.clear()
                # The one request in which kubectl cordon consists; to start
                # kubectl takes longer than all the rest.
                begin = time.monotonic()
                core.patch_node(self.node,
                                {'spec': {'unschedulable': cordoned}})
                while not done:
                    if time.monotonic() > begin + 10:
                        raise AssertionError('not in 10 s')
                    time.sleep(0.001)
                times[cordoned].append(done[0] - begin)
                if not index:
                    self.assertEqual(
                        self.disabled('cordoned') if cordoned
                        else test_cordon.ENABLED, self.state())
                time.sleep(0.05)
        self._seconds = times


def rows():
    """Return the rows of the table: (name, value, unit), all of them text."""
    # Nova's tests end after some minutes, without a word.
    os.environ['OS_TEST_TIMEOUT'] = '0'
    case = _Cordon()
    result = testtools.TestResult()
    case.run(result)
    problems = [*result.errors, *result.failures]
    if problems or not case._seconds:
        raise RuntimeError('\n'.join(text for _case, text in problems))
    measured = []
    for cordoned, what in ((True, 'cordon to disabled in Placement'),
                           (False, 'uncordon to enabled in Placement')):
        found = case._seconds[cordoned]
        cuts = statistics.quantiles(found, n=100, method='inclusive')
        measured += [
            (f'{what}, {name} of {len(found)}', f'{cut * 1000:.0f}', 'ms')
            for name, cut in (('p50', cuts[49]), ('p99', cuts[98]),
                              ('longest', max(found)))]
    return measured
