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

"""The worker that moves the boundary: it looks, decides, tells and asks.

Nothing that Nova calls waits for it. While anything that it must know is not
known, nothing moves.
"""

import dataclasses
import math
import os
import time

from oslo_log import log as logging

from nova_k8s.elastic import bounds
from nova_k8s.elastic import observed
from nova_k8s.elastic import telling
from nova_k8s.elastic import values
from nova_k8s.elastic import wish
from nova_k8s import errors
from nova_k8s.kube import resize
from nova_k8s.util import statefile
from nova_k8s.util import worker

LOG = logging.getLogger(__name__)

# How long a change is given to be followed by more, in seconds.
SETTLE = 0.05

# Seconds until it looks again: always, after a failure, and after a refusal.
LONGEST, RETRY, REST = 60, 5, 300

# Seconds after which a wish that was not answered, and that the pod does not
# show, was not taken.
LOST = 10

_ROOM = {'type': 'array', 'items': {'type': 'integer'}, 'minItems': 2,
         'maxItems': 2}
_SCHEMA = {
    'type': 'object',
    'required': ['key', 'smallest', 'largest', 'wished', 'allocated',
                 'enforced', 'used', 'why'],
    'properties': {'why': {'type': 'string'}, **dict.fromkeys(
        ('smallest', 'largest', 'wished', 'allocated', 'enforced', 'used'),
        _ROOM)}}


@dataclasses.dataclass(frozen=True)
class Ways:
    """How the mover looks and acts; what does I/O says so."""

    pod: object
    """Returns the pod as the API server has it, a dict."""

    node: object
    """Returns a kube.node.Node, or None where none is followed."""

    neighbours: object
    """Returns the pods of the node as dicts, or None where nobody looks."""

    drained: object
    """Returns why guests are moved away from here, or None."""

    demand: object
    """Returns the values.Room of guests and others, given a Room that
    Placement has allocated; raises errors.Unreadable before Nova has counted
    them all."""

    usages: object
    """Returns the values.Room that Placement has allocated. Asks it."""

    changed: object
    """Has somebody else tell Placement what is to be reported now."""

    publish: object
    """Waits until Placement has what is to be reported, as ``cap`` bounds
    it."""

    held: object
    """Has the pod say what guests hold now, as the policies want it of a
    shrink; returns the pod as it is then, or None where its spec is another
    one by then. Does I/O."""

    resize: object
    """Called with pod, container and quantities; returns the generation of
    the pod with this wish; see kube.resize.wish(). Does I/O."""


class Mover:
    """Keeps the pod as large as wish.decide() says.

    :param settings: values.Settings, as from bounds.from_conf()
    :param container: [kubernetes] container
    :param ways: Ways
    :param say: called with a messages.Line
    :param path: of the file for ``nova-k8s status``
    :ivar cap: the values.Room that the pod is about to shrink to, until it
        shows that itself; None else
    :ivar decided: whether it is to bound claims, too. Before it is decided,
        a guest that Placement has sent here is to be let in.
    """

    def __init__(self, settings, container, ways, say, path):
        self.cap, self.decided = None, False
        self.moves = {'grow': 0, 'shrink': 0}
        self.seconds = None
        # Called with the seconds that each resize took.
        self.took = lambda seconds: None
        self.resting = False
        self.seen = self.bounds = None
        self.used = values.Room()
        self._settings = settings
        self._container = container
        self._ways = ways
        self._say = say
        self._path = path
        self._past = values.Past()
        # What was wished last, whether the pod has shown it, and when; the
        # generation with it, None where that was not answered.
        self._mine, self._shown, self._asked_at = None, False, None
        self._generation = None
        self._cpu = True
        self._told = {}
        self._rest_until = 0.0
        self._failing_since = self._blind_since = None
        self._worker = worker.Worker('nova-k8s-elastic', self._step,
                                     settle=SETTLE)
        # Never blocks.
        self.wake = self._worker.wake
        self.stop = self._worker.stop
        self.stopping = self._worker.stopping

    def start(self):
        self._worker.wake()
        self._worker.start()

    def _step(self):
        try:
            delay = self._move(time.monotonic())
        except (errors.LimitsError, errors.NotWritten) as exc:
            self._failing_since = self._failing_since or time.monotonic()
            # At first it is no news: nova-compute has just started, or an
            # API server has.
            if time.monotonic() >= self._failing_since + LONGEST:
                self._once('problem', telling.for_rest(str(exc), 'elastic'))
            return RETRY
        except Exception:
            LOG.exception('Could not move the boundary; trying again in %s s',
                          RETRY)
            if not self._waiting:
                self._uncap()
            return RETRY
        self._failing_since = None
        self._forget('problem')
        return delay

    def _move(self, now):
        """Look, and move what is to be moved; return seconds to wait."""
        body = self._ways.pod()
        seen = self._see(body, now)
        if self._waiting and self._generation is None and (
                now >= self._asked_at + LOST):
            self._mine = None
            self._uncap()
        settings, node = self._for_node(now)
        self.bounds = settings
        why = self._stands_still(seen, settings, now)
        if why:
            self._keep(seen, settings or self._settings, why)
            # Nobody has looked meanwhile whether room was needed.
            self._past = dataclasses.replace(self._past, idle_since=None,
                                             calm_since=None)
            return 1 if self._waiting else LONGEST
        self._answered(seen)
        if self._waiting:
            return 1
        self.used = self._ways.demand(values.Room())
        made = self._decide(settings, seen, node, self.used, now)
        self._keep(seen, settings, telling.WHY[made.reason])
        if made.room == seen.pod.wished:
            self._past = made.past
        elif now < self._rest_until:
            return min(LONGEST, self._rest_until - now)
        elif self._ask(seen, made, body, now):
            self._past = made.past
        else:
            return RETRY
        return (LONGEST if made.again is None else
                min(LONGEST, max(0.1, made.again - now)))

    @property
    def _waiting(self):
        """Whether the pod does not show yet what was wished last."""
        return self._mine is not None and not self._shown

    def _decide(self, settings, seen, node, used, now):
        settings = dataclasses.replace(settings, cpu=self._cpu)
        return wish.decide(settings, used, seen.pod, node, self._past, now)

    # What is looked at

    def _see(self, body, now):
        metadata = body.get('metadata') or {}
        self._who = (f'Pod {metadata.get("namespace")}/'
                     f'{metadata.get("name")}')
        seen = observed.see(body, self._container, self._who)
        if self.seen and self.seen.uid != seen.uid:
            # Another pod, of which nothing is known.
            self._past, self._mine = values.Past(), None
            self._cpu, self._told, self._rest_until = True, {}, 0.0
            self._asked_at = None
            self._uncap()
        before, self.seen = self.seen, seen
        if not before or before.pod.sure != seen.pod.sure:
            self._ways.changed()
        if self._mine == seen.pod.wished or self._waiting and (
                self._generation or math.inf) <= seen.generation:
            self._shown = True
            # The pod says so itself from now on, and nobody is told more
            # than that: see ways.
            self._uncap()
            if self._asked_at is not None and (
                    seen.pod.sure == self._mine and not seen.busy):
                self.seconds, self._asked_at = now - self._asked_at, None
                self.took(self.seconds)
        return seen

    def _for_node(self, now):
        """Return (Settings, values.Node); None for both where it is off."""
        node = self._ways.node()
        settings = self._settings
        if node:
            settings = bounds.for_node(settings, node)
        pods = None
        if settings and node and any(settings.spare):
            try:
                pods = self._ways.neighbours()
                self._blind_since = None
                self._forget('neighbours')
            except errors.LimitsError as exc:
                if self._blind_since is None:
                    self._blind_since = now
                # At first it is no news, as in _step().
                if now >= self._blind_since + LONGEST:
                    self._once('neighbours', telling.for_rest(
                        f'for containers, as what is free of the node is not '
                        f'known: {exc}', self._who))
        if pods is None:
            return settings, values.Node()
        return settings, values.Node(observed.free(node.allocatable, pods))

    def _stands_still(self, seen, settings, now):
        """Return why nothing may be moved, or None.

        That guests are to leave is an operator's will and no news.
        """
        why = ('off: annotation of the node' if settings is None else
               'the pod is being deleted' if seen.ending else
               self._ways.drained())
        rest = None if why else self._rests(seen)
        self.resting = bool(rest) or (not why and now < self._rest_until)
        return why or rest

    def _rests(self, seen):
        """Return what keeps the boundary from being moved, or None."""
        why = None
        if seen.vpa:
            why = ('a Vertical Pod Autoscaler sizes this pod; take one of '
                   'both away')
        elif self._mine and self._shown and seen.pod.wished != self._mine:
            why = (f'{seen.resized_by or "somebody"} resized the pod to '
                   f'{bounds.shown(seen.pod.wished)}; restart nova-compute to '
                   f'have it moved again')
        if why:
            self._once('rest', telling.for_rest(why, self._who))
            return f'rests: {why}'
        self._forget('rest')
        return None

    def _answered(self, seen):
        if seen.no_cpu:
            self._cpu = False
            self._once('cpu', telling.for_answer(seen, self._who))
        elif seen.pod.answer:
            self._once('answer', telling.for_answer(seen, self._who),
                       seen.pod.answer)
        else:
            self._forget('answer')

    # What is done

    def _ask(self, seen, made, body, now):
        """Ask Kubernetes for another size; return whether it took it."""
        before = seen.pod.wished
        if not made.room.covers(before):
            body = self._reported_first(seen, made, body)
            if not body:
                return False
        try:
            self._generation = None
            self._generation = self._ways.resize(
                body, seen.container, made.room.quantities(before))
        except resize.Changed as exc:
            LOG.debug('The pod was changed meanwhile: %s', exc)
            self._uncap()
            return False
        except resize.Refusal as exc:
            self._uncap()
            self._rest_until, self.resting = now + REST, True
            self._once('refused', telling.for_rest(
                f'{exc.reason}: {exc.text}', self._who), exc.reason)
            return False
        except errors.LimitsError:
            # It may have been done all the same.
            self._mine, self._shown, self._asked_at = made.room, False, now
            raise
        self._forget('refused')
        self.moves['grow' if made.room.covers(before) else 'shrink'] += 1
        self._mine, self._shown, self._asked_at = made.room, False, now
        self._say(telling.for_move(before, made.room, self.used, made.reason,
                                   self._who))
        return True

    def _reported_first(self, seen, made, body):
        """Have Placement sell no more than the pod is about to have.

        What it has allocated by then is seen after it, and what guests hold
        is written at the pod, by which the policies go.

        :returns: the pod to shrink as it is then, None where it must not be
        """
        self.cap = made.room.least(seen.pod.sure)
        try:
            self._ways.publish()
            allocated = self._ways.usages()
            body = self._ways.held(body)
            # Who is let in from now on finds room in what stays, and who was
            # let in before is counted.
            self.decided = True
            needed = self._ways.demand(allocated)
        except Exception:
            # Nothing was asked for.
            self._uncap()
            raise
        if body and all(after >= min(need, before) for after, need, before in
                        zip(made.room, needed, seen.pod.sure)):
            return body
        LOG.info('A guest has come or the pod has changed meanwhile; it '
                 'stays as large as it is.')
        self._uncap()
        return None

    def _uncap(self):
        self.decided = False
        if self.cap is not None:
            self.cap = None
            self._ways.changed()

    def _keep(self, seen, settings, why):
        """For nova-k8s status."""
        record = {
            'key': seen.uid, 'smallest': settings.smallest,
            'largest': settings.largest, 'wished': seen.pod.wished,
            'allocated': seen.pod.allocated, 'enforced': seen.pod.enforced,
            'used': self.used, 'why': why}
        if self._told.get('kept') != record:
            self._told['kept'] = record
            try:
                statefile.write(self._path, record)
            except OSError as exc:
                LOG.debug('Not kept for nova-k8s status: %s', exc)

    def _once(self, what, line, key=None):
        if self._told.get(what) != (key or line.text):
            self._told[what] = key or line.text
            self._say(line)

    def _forget(self, what):
        self._told.pop(what, None)


def path(conf):
    return os.path.join(conf.state_path, 'k8s_elastic.json')


def load(conf, uid):
    """Return what was kept of a pod, or None."""
    return statefile.read(path(conf), _SCHEMA, uid)
