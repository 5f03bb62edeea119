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

"""The worker that drains this node, as the pod and the node say."""

import functools
import os
import time

from oslo_log import log as logging

from nova_k8s.drain import engine
from nova_k8s.drain import nova_api
from nova_k8s.drain import plan
from nova_k8s.drain import reports
from nova_k8s.drain import sdk
from nova_k8s.drain import trigger
from nova_k8s import errors
from nova_k8s.kube import client
from nova_k8s.kube import conditions
from nova_k8s.kube import leases
from nova_k8s.limits import messages
from nova_k8s.service import reasons
from nova_k8s.util import statefile
from nova_k8s.util import worker

LOG = logging.getLogger(__name__)

# Seconds between two looks while nothing goes on: a guest may be started
# again, and one that could not be moved may be able to.
IDLE = 15

# Seconds until it is tried again where Nova does not let us.
DENIED = 60

_FILE = 'nova-k8s-drain.json'

_SCHEMA = {
    'type': 'object',
    'additionalProperties': False,
    'required': ['key', 'reason', 'cordoned', 'uncordoned'],
    'properties': {
        'key': {'type': 'object'},
        'reason': {'type': ['string', 'null']},
        **dict.fromkeys(('cordoned', 'uncordoned'), {'type': 'boolean'}),
    },
}


def from_conf(conf, host, limits, node_source, tell):
    """Return the Drainer of this host, or None where none is wanted.

    :param limits: returns the watcher.State
    :param node_source: kube.node.Source, or None where no node is followed
    :param tell: called with each messages.Line, and the kube.node.Node or
        None
    """
    drain_on = conf.kubernetes.drain_on
    if drain_on == 'never' or not node_source:
        return None
    nova, problem = None, None
    try:
        nova = sdk.from_conf(conf)
    except errors.Refused as exc:
        problem = str(exc)
    if problem:
        LOG.warning('Guests will not be moved away when this node is '
                    'drained: %s', problem)
    options = conf.kubernetes_drain
    policy = plan.Policy(
        parallel=(options.parallel or
                  conf.max_concurrent_live_migrations or 1),
        attempts=options.attempts,
        # Of what is shut off nothing runs: the pod may end.
        shut_off=(plan.COLD if options.shut_off == plan.COLD
                  else plan.IGNORE),
        timeout=options.migration_timeout)
    shown = conditions.Conditions(
        functools.partial(client.api_client, conf), node_source.name,
        conf.kubernetes.api_timeout)
    slots = None
    if options.nodes:
        slots = leases.Slots(
            functools.partial(client.api_client, conf),
            client.namespace(conf, os.environ), 'nova-k8s-drain',
            options.nodes, node_source.name, conf.kubernetes.api_timeout)
    return Drainer(nova, host, policy, drain_on, limits, node_source,
                   File(conf.state_path, host, node_source.name), tell,
                   shown, slots)


class File:
    """Where the trigger.Seen is kept.

    :param folder: Nova's state_path
    """

    def __init__(self, folder, host, node_name):
        self._path = os.path.join(folder, _FILE)
        self._key = {'host': host, 'node': node_name}

    def load(self):
        """Return the Seen."""
        record = statefile.read(self._path, _SCHEMA, self._key)
        return trigger.Seen(record['reason'], record['cordoned'],
                            record['uncordoned']) if record else trigger.Seen()

    def save(self, seen):
        """Keep it; without a file, all is well but for a restart."""
        try:
            statefile.write(self._path, {
                'key': self._key, 'reason': seen.reason,
                'cordoned': seen.cordoned, 'uncordoned': seen.uncordoned})
        except OSError as exc:
            LOG.warning('After a restart it will not be known whether the '
                        'node is drained, until Kubernetes says so: %s', exc)


class Drainer:
    """Has the guests moved away while there is a reason.

    :param nova: sdk.Nova, or None: then it is only said, and the node takes
        no new guests
    :param policy: plan.Policy
    :param drain_on: [kubernetes] drain_on
    :param file: a File
    :param conditions: kube.conditions.Conditions
    :param slots: kube.leases.Slots, or None where any number of nodes may be
        drained at a time
    :ivar left: how many guests keep the node from being empty, as seen last;
        None while it is not drained
    """

    def __init__(self, nova, host, policy, drain_on, limits, node_source,
                 file, tell, conditions, slots=None, clock=time.monotonic):
        self._nova = nova
        self._host = host
        self._policy = policy
        self._drain_on = drain_on
        self._limits = limits
        self._node_source = node_source
        self._file = file
        self._tell = tell
        self._conditions = conditions
        self._slots = slots
        self._clock = clock
        self._seen = file.load()
        self._engine = None
        self._checked = False
        self._problem = None
        # What was told of the drain that goes on.
        self._moved, self._not_moved, self._told = 0, {}, None
        self._shown = None
        self.left = None
        self._switched = lambda: None
        self._worker = worker.Worker('nova-k8s-drain', self.step)
        # Never blocks.
        self.wake = self._worker.wake

    def start(self, switched):
        """Begin.

        :param switched: called when reasons() may be other than before
        """
        self._switched = switched
        self._node_source.listen(self.wake)
        self._warn_of_workload()
        self._conditions.start()
        self._worker.wake()
        self._worker.start()

    def stop(self):
        self._worker.stop()
        self._conditions.stop()

    def _warn_of_workload(self):
        budget = self._limits().budget
        if (self._drain_on == trigger.EVICTION and budget and
                budget.workload):
            LOG.info('%s belongs to %s, which replaces it: that it is '
                     'deleted is no drain. Set [kubernetes] drain_on = '
                     'cordon or taint where guests are to be moved away.',
                     budget.source, budget.workload)

    def reasons(self):
        """Return why the compute service is to be disabled, from memory."""
        return frozenset((reasons.DRAINING,) if self._look().reason else ())

    def refusal(self):
        """Return why no guest may come, or None; from memory."""
        seen = self._look()
        return seen.reason and (
            f'{self._host} is being drained: {seen.reason}')

    def _look(self):
        """Return what is seen now."""
        state = self._limits()
        ending = None
        if state.budget and not state.problem:
            ending = state.budget.terminating and not state.budget.workload
        return trigger.see(self._drain_on, self._seen, ending, self._node())

    def _node(self):
        """Return the node as last seen, None where it may be otherwise."""
        try:
            return self._node_source.latest()
        except errors.LimitsError:
            return None

    def step(self):
        """Do what is due; return the seconds until the next step, or None."""
        try:
            return self._step()
        except nova_api.Forbidden as exc:
            problem = str(exc)
        except nova_api.Refused as exc:
            problem = f'Nova refuses: {exc}'
        except Exception as exc:
            # Nothing may end this thread: nobody would notice.
            LOG.exception('The drain failed; trying again in %s s', DENIED)
            problem = repr(exc)
        # Not in the handler: there, oslo.log says the problem a second time.
        self._tell_problem(problem)
        return worker.Pause(DENIED)

    def _step(self):
        seen = self._look()
        if seen != self._seen:
            if not seen.reason and not self._engine:
                # It ended while nova-compute was away.
                self._show(False, False, '')
            self._seen = seen
            self._file.save(seen)
            self._switched()
        if not seen.reason and not self._engine:
            self._check()
            return None
        if not self._nova:
            self._tell_problem('neither [kubernetes_drain] nor '
                               '[service_user] has an account')
            return None if seen.reason else self._end()
        if not self._engine:
            self._engine = engine.Engine(
                self._nova, self._host, self._policy,
                hold=lambda: self._seen.hold, clock=self._clock,
                turn=self._slots.hold if self._slots else lambda: True)
            self._say(reports.begun(self._host, seen.reason))
        state = self._engine.step()
        self._report(state)
        if state.over and self._slots:
            # What is left waits for something else than its turn.
            self._slots.release()
        if not seen.reason and state.over:
            return self._end()
        return IDLE if state.over else self._engine.delay

    def _end(self):
        self._engine = self.left = None
        self._moved, self._not_moved, self._told = 0, {}, None
        self._show(False, False, '')

    def _check(self):
        """Ask Nova once whether it would let us.

        A warning now, and not at three in the morning.
        """
        if self._checked or not self._nova:
            return
        self._checked = True
        problem = None
        try:
            self._nova.check(self._host)
        except (nova_api.Forbidden, nova_api.Refused,
                nova_api.Unreachable) as exc:
            problem = str(exc)
        if problem:
            LOG.warning('If this node were drained now, its guests could not '
                        'be moved away: %s', problem)

    def _report(self, state):
        """Say what is new, each once."""
        for each in state.moved[self._moved:]:
            self._say(reports.moved(each))
        self._moved = len(state.moved)
        if state.problem:
            self._tell_problem(state.problem)
            return
        self._problem = None
        self.left = len(state.left)
        lines = {each.guest.id: reports.not_moved(each)
                 for each in state.verdicts}
        if not self._seen.hold:
            for guest, line in lines.items():
                if line and self._not_moved.get(guest) != line:
                    self._say(line)
        self._not_moved = lines
        if not state.over:
            self._told = None
            self._show(True, False, reports.describe(state))
            return
        line = reports.ended(self._host, state, self._seen.hold)
        if line != self._told:
            self._told = line
            self._say(line)
        self._show(not state.empty and bool(self._seen.reason), state.empty,
                   reports.describe(state))

    def _tell_problem(self, problem):
        if problem != self._problem:
            self._say(messages.Line(
                messages.WARNING, 'DrainHindered',
                f'The guests of {self._host} cannot be moved away now: '
                f'{problem}'))
        self._problem = problem

    def _say(self, line):
        self._tell(line, self._node())

    def _show(self, *state):
        if state != self._shown:
            self._shown = state
            self._conditions.show(*state)
