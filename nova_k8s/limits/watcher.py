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


"""What is known of the budget, and the worker that keeps it so."""

import dataclasses
import time
import typing as ty

from oslo_log import log as logging

from nova_k8s import errors
from nova_k8s.limits import budget
from nova_k8s.util import worker

LOG = logging.getLogger(__name__)

# How long a change is given to be followed by more, in seconds: a storm of
# changes ends in few updates.
SETTLE = 0.05

# Seconds until Nova is told again, when it could not be told.
RETRY = 1


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


def read_first(source, timeout):
    """Return the first budget.

    :param timeout: seconds to try for, while it cannot be read
    :raises errors.LimitsError: the last one, when the time is over; at once
        when it could be read and is not fit for use
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            return source.read()
        except errors.Unreadable:
            if time.monotonic() >= deadline:
                raise
            time.sleep(min(1, timeout / 10))


def look_again(source, state):
    """Return the state after one more look at the source."""
    try:
        return State(source.read())
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
    :param push: called after each change of the budget; may raise, and is
        then called again a little later
    """

    def __init__(self, source, state, tell, push):
        self.state = state
        self._source = source
        self._tell = tell
        self._push = push
        self._behind = False
        self._worker = worker.Worker(
            'nova-k8s-limits', self._step, self._watch, SETTLE)
        self._stop = self._worker.stopping

    def start(self):
        self._worker.start()

    def stop(self):
        self._worker.stop()

    def refresh(self):
        """Look at the source; return whether the budget is another one."""
        before, after = self.state, look_again(self._source, self.state)
        self.state = after
        self._tell(before, after)
        return before.budget != after.budget

    def _watch(self, changed, stop):
        self._source.watch(changed, stop)

    def _step(self):
        self._behind = self._refreshed() or self._behind
        if self._behind:
            self._behind = not self._pushed()
        return RETRY if self._behind else None

    def _refreshed(self):
        try:
            return self.refresh()
        except Exception:
            # Nothing may end this thread: nobody would notice, and Nova would
            # go on with the limits of that moment. Nor is it known whether
            # the budget changed before.
            LOG.exception('Could not follow the limits')
            return True

    def _pushed(self):
        try:
            self._push()
        except Exception:
            LOG.exception('Could not tell Nova about changed limits; trying '
                          'again in %s s', RETRY)
            return False
        return True
