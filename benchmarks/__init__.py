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

"""What is measured, and what it makes: python -m benchmarks.

A benchmark is a module with a function rows(). It returns or yields what it
found: (what, value, unit), all of them text.
"""

import os

# In the order of the page.
BENCHMARKS = ('audit', 'change', 'cluster_size', 'config', 'cordon', 'drain',
              'elastic', 'idle')

# Set by --quick: whether it works, not how fast it is.
QUICK = bool(os.environ.get('NOVA_K8S_BENCH_QUICK'))


def times(full, quick):
    """How often, how many or how long: in earnest or in a quick run."""
    return quick if QUICK else full


def percentile(values, percent):
    """The smallest of the values that so many percent do not exceed."""
    ordered = sorted(values)
    return ordered[-(-len(ordered) * percent // 100) - 1]
