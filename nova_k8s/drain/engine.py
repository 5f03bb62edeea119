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

"""The loop of a drain: look, decide, ask, and look again.

The same for nova-compute and for the command. What it remembers are the
attempts that failed; all else is in Nova, so whoever ends it and starts it
again loses nothing.
"""

import dataclasses
import time
import typing as ty

from nova_k8s.drain import guests
from nova_k8s.drain import nova_api
from nova_k8s.drain import plan

# Seconds between two looks.
INTERVAL = 2

# Seconds between attempts while Nova does not answer: doubled from the first
# to the last.
FIRST_RETRY, LAST_RETRY = 1, 30

# A record that says that the guest is somewhere else now.
_MOVED = frozenset(('completed', 'finished', 'confirmed', 'done'))


@dataclasses.dataclass(frozen=True)
class Moved:
    """A guest that is no longer here.

    :ivar dest: the host it is on, None where it is gone
    :ivar seconds: since its migration was first seen or asked for, or None
    """

    guest: guests.Guest
    dest: ty.Optional[str] = None
    seconds: ty.Optional[float] = None


@dataclasses.dataclass(frozen=True)
class State:
    """How far it is.

    :ivar verdicts: on the guests that are left
    :ivar moved: those that left, in order
    :ivar problem: why nothing newer is known, or None
    """

    verdicts: ty.Tuple[plan.Verdict, ...] = ()
    moved: ty.Tuple[Moved, ...] = ()
    problem: ty.Optional[str] = None

    @property
    def left(self):
        """The verdicts because of which the node is not empty."""
        return tuple(each for each in self.verdicts if each.counts)

    @property
    def empty(self):
        return not self.problem and not self.left

    @property
    def over(self):
        """Whether nothing more will happen by itself."""
        return not self.problem and not any(
            each.open for each in self.verdicts)


class Engine:
    """Moves the guests of one host away.

    :param nova: nova_api.Nova, or what answers like it
    :param host: of the compute service
    :param policy: plan.Policy
    :param rules: the module that decides: plan, or evacuation
    :param hold: returns why nothing new is to be begun, or None
    :param turn: returns whether guests may begin to leave now
    :param act: what asks Nova for a verdict, instead of nova.act
    :ivar delay: seconds to wait until the next step
    """

    def __init__(self, nova, host, policy, rules=plan, hold=lambda: None,
                 turn=lambda: True, act=None, clock=time.monotonic):
        self._nova = nova
        self._host = host
        self._policy = policy
        self._rules = rules
        self._hold = hold
        self._turn = turn
        self._act = act or nova.act
        self._clock = clock
        self._tries = {}
        # Every guest that was seen here and is not known to have left.
        self._seen = {}
        self._began = {}
        self._moved = []
        self._verdicts = ()
        # What may help a guest that could not be moved.
        self._scene = None
        # When Nova answered last.
        self._heard = None
        self._failing = False
        self.delay = INTERVAL

    def step(self):
        """Look, and ask for what is due; return the State.

        :raises nova_api.Forbidden: where a role is missing
        :raises nova_api.Refused: where Nova does not know what is asked for
        """
        try:
            view = self._nova.look(self._host)
            self._heard = self._clock()
            self._learn(view)
            self._verdicts = self._carry_out(view)
        except nova_api.Unreachable as exc:
            self.delay = min(LAST_RETRY, max(
                FIRST_RETRY, self.delay * 2 if self._failing else 0))
            self._failing = True
            return State(self._verdicts, tuple(self._moved), str(exc))
        self._failing, self.delay = False, INTERVAL
        return State(self._verdicts, tuple(self._moved))

    def run(self, show, wait, patience):
        """Go on until nothing more happens by itself; return the State.

        :param show: called with each State
        :param wait: called with seconds
        :param patience: seconds for which Nova may not answer
        :raises nova_api.Unreachable: when it does not for longer, or not even
            once
        """
        while True:
            state = self.step()
            if state.problem and (self._heard is None or
                                  self._clock() - self._heard > patience):
                raise nova_api.Unreachable(state.problem)
            show(state)
            if state.over:
                return state
            wait(self.delay)

    def _learn(self, view):
        """Take in what came of what was asked for."""
        now = self._clock()
        here = {guest.id: guest for guest in view.guests}
        self._seen.update(here)
        outgoing = view.outgoing()
        for guest in outgoing:
            self._began.setdefault(guest, now)
        for guest in [each for each in self._seen
                      if each not in here and each not in outgoing]:
            self._note_moved(self._seen.pop(guest), view, now)
        self._tries, broken = self._rules.settle(view, self._tries, now)
        for guest, migration in broken:
            self._tries[guest] = plan.failed(
                self._tries[guest], self._reason(guest, migration), now)
            self._began.pop(guest, None)
        self._relent(frozenset(here), now)

    def _note_moved(self, guest, view, now):
        last = view.newest(guest.id)
        began = self._began.pop(guest.id, None)
        if last and last.status in _MOVED:
            self._moved.append(Moved(guest, last.dest,
                                     began and now - began))
        else:
            # Deleted, most likely.
            self._moved.append(Moved(guest))

    def _reason(self, guest, migration):
        """Return why a guest could not be moved, in Nova's words."""
        known = self._tries[guest]
        if known.aborted:
            return (f'aborted, because it was not done after '
                    f'{self._policy.timeout:g} s')
        try:
            told = self._nova.why(guest)
        except (nova_api.Refused, nova_api.Unreachable):
            told = None
        if told:
            return told
        if migration:
            return f'its {migration.kind} ended with {migration.status}'
        return f'Nova took the request ({known.asked}) and did nothing'

    def _relent(self, here, now):
        """Try once more what was given up, if it may be better now."""
        if all(each.failures < self._policy.attempts
               for each in self._tries.values()):
            self._scene = None
            return
        hosts = frozenset(each.host for each in self._nova.services()
                          if each.up and each.enabled)
        before, self._scene = self._scene, (hosts, here)
        if before and (hosts - before[0] or before[1] - here):
            self._tries = plan.relent(self._tries, self._policy, now)

    def _carry_out(self, view):
        """Ask for all that is due; return the verdicts after that."""
        done, policy = set(), self._policy
        if not self._turn():
            policy = dataclasses.replace(policy, parallel=0)
        while True:
            verdicts = self._rules.judge(view, self._tries, policy,
                                         self._clock(), self._hold())
            due = [each for each in verdicts
                   if each.what in self._rules.ACTIONS and
                   (each.guest.id, each.what) not in done]
            if not due:
                return tuple(
                    dataclasses.replace(each, guest=self._seen.get(
                        each.guest.id, each.guest)) for each in verdicts)
            for verdict in due:
                done.add((verdict.guest.id, verdict.what))
                self._ask(verdict, view)

    def _ask(self, verdict, view):
        guest, now = verdict.guest, self._clock()
        known = self._tries.get(guest.id, plan.Try())
        # Before it is asked: an answer may be lost.
        self._tries[guest.id] = plan.asked(
            known, verdict.what, view, guest, now)
        self._began.setdefault(guest.id, now)
        try:
            self._act(verdict)
        except nova_api.Refused as exc:
            if verdict.what == plan.ABORT:
                # It ended just now.
                return
            self._tries[guest.id] = plan.failed(known, str(exc), now)
            self._began.pop(guest.id, None)
