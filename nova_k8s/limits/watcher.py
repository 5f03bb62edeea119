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


"""What is known of the budget, and the worker that keeps it so.

It looks at the source at each change, at once, so that no wish is missed: a
shrink that lasts for a moment may be what the kernel has (see growth). What
follows from it is told a little later, once for many.
"""

import dataclasses
import threading
import time
import typing as ty

from oslo_log import log as logging

from nova_k8s import errors
from nova_k8s.limits import budget
from nova_k8s.limits import growth
from nova_k8s.util import worker

LOG = logging.getLogger(__name__)

# How long a change is given to be followed by more, in seconds: a storm of
# changes ends in few updates.
SETTLE = 0.05

# Seconds between looks at what the kernel enforces, which nobody tells of.
LOOK_AGAIN = 5


@dataclasses.dataclass(frozen=True)
class State:
    """What is known of the budget. Never changed, only replaced."""

    budget: ty.Optional[budget.Budget]
    """None says that the limits were lost: nothing may be placed."""

    problem: ty.Optional[str] = None
    """Why it was lost or is stale."""

    @property
    def stale(self):
        """It may have changed since it was read."""
        return bool(self.budget and self.problem)


def nothing():
    """What the kernel enforces, where that cannot be seen."""
    return None


def read_first(source, timeout, patience=None, known=None, enforced=nothing):
    """Return the first budget.

    :param timeout: seconds to try for, while it cannot be read
    :param patience: seconds to wait for limits that do not hold guests yet;
        timeout by default
    :param known: the budget of before, None for none
    :param enforced: returns what the kernel enforces, as for growth.follow()
    :raises errors.LimitsError: the last one, when the time is over; at once
        when it could be read and is not fit for use
    """
    began = time.monotonic()
    if patience is None:
        patience = timeout
    while True:
        try:
            return growth.follow(known, source.read(), enforced())
        except errors.Unreadable:
            if time.monotonic() >= began + timeout:
                raise
        except errors.NotYet:
            if time.monotonic() >= began + patience:
                raise
        time.sleep(min(1, max(timeout, patience) / 10))


def look_again(source, state, enforced=nothing):
    """Return the state after one more look at the source.

    :param enforced: as for read_first()
    """
    try:
        return State(growth.follow(state.budget, source.read(), enforced()))
    except errors.Unreadable as exc:
        # Why it was lost is still why, whatever else fails meanwhile.
        return State(state.budget, str(exc)) if state.budget else state
    except errors.Refused as exc:
        return State(None, str(exc))


class Watcher:
    """Keeps ``state`` up to date.

    :param source: see nova_k8s.limits.sources
    :param state: the State to begin with
    :param tell: called once for each change, with the states before and after
    :param push: called after each change of the budget; neither blocks nor
        fails
    :param enforced: returns what the kernel enforces, as for growth.follow();
        looked at now and then; None where it cannot be seen
    """

    def __init__(self, source, state, tell, push, enforced=None):
        self.state = state
        # What is known, which is told and published a little later.
        self._seen = state
        # When it could be read last; the start counts.
        self.read_at = time.monotonic()
        self._looking = threading.Lock()
        # Whether the source said something that was not told yet: what it
        # said may matter to somebody, and be the same limits.
        self._heard = True
        self._enforced = enforced
        # As last seen.
        self._allowed = None
        self._source = source
        self._tell = tell
        self._push = push
        self._worker = worker.Worker(
            'nova-k8s-limits', self._step, self._watch, SETTLE)
        self._stop = self._worker.stopping

    def start(self):
        self._worker.start()

    def stop(self):
        self._worker.stop()

    def refresh(self):
        """Look at the source; return whether the budget is another one."""
        self._look()
        heard, self._heard = self._heard, False
        before, after = self.state, self._seen
        self.state = after
        if heard or before != after:
            self._tell(before, after)
        return before.budget != after.budget

    def _look(self):
        with self._looking:
            self._seen = look_again(self._source, self._seen, self._allow)
            if not self._seen.problem:
                self.read_at = time.monotonic()

    def _allow(self):
        self._allowed = self._enforced and self._enforced()
        return self._allowed

    def _watch(self, changed, stop):
        def look():
            try:
                self._look()
            except Exception:
                # The step looks too, and says it. This thread must go on.
                pass
            self._heard = True
            changed()
        self._source.watch(look, stop)

    def _step(self):
        try:
            changed = not self._is_same() and self.refresh()
        except Exception:
            # Nothing may end this thread: nobody would notice, and Nova would
            # go on with the limits of that moment. Nor is it known whether
            # the budget changed before.
            LOG.exception('Could not follow the limits')
            changed = True
        if changed:
            self._push()
        return LOOK_AGAIN if self._enforced else None

    def _is_same(self):
        """Whether there is nothing to look at: the kernel's files are short.

        What the source says is a pod, and most looks are at one that nobody
        has changed.
        """
        if self._heard or self._seen.problem or self._enforced is None or (
                self._enforced() != self._allowed):
            return False
        self.read_at = time.monotonic()
        return True
