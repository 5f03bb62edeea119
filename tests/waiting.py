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

"""Waiting for what has to happen."""

import time

# Seconds. Nearly all of it takes less than one; the rest is for a machine that
# stands still at times, as those of a CI do. How fast it is, benchmarks say.
PATIENCE = 120


class TooLong(AssertionError):
    """It did not happen."""


def until(condition, what='It', seconds=PATIENCE, interval=0.05):
    """Wait until condition() is true, and return what it is.

    :param what: what does not happen, for whoever reads the failure; a
        callable is asked for it
    :raises TooLong: after so many seconds
    """
    deadline = time.monotonic() + seconds
    while True:
        # First: a machine that stands still now has one more look.
        late = time.monotonic() > deadline
        found = condition()
        if found:
            return found
        if late:
            raise TooLong('%s: not after %d s' % (
                what() if callable(what) else what, seconds))
        time.sleep(interval)
