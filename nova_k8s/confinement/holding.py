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

"""Holding one cgroup with all guests to the budget: [kubernetes] guest_slice.

It looks at what is and makes the next thing so. guest_slice decides, and what
is told to Nova is bounded here before the cgroup gets less, and after it has
more.
"""

import dataclasses
import os
import pathlib
import time

from oslo_log import log as logging

from nova_k8s.confinement import cgroup
from nova_k8s.confinement import findings
from nova_k8s.confinement import guest_slice
from nova_k8s.confinement import privileged
from nova_k8s.confinement import systemd
from nova_k8s.confinement import watching
from nova_k8s import errors
from nova_k8s.kube import client as kube_client
from nova_k8s.limits import budget
from nova_k8s.limits import messages
from nova_k8s.util import worker

LOG = logging.getLogger(__name__)

# Seconds until the next look: while something is to be done, after a failure,
# and while all is well, as nobody tells what the kernel has.
SOON, RETRY, LATER = 1, 5, 5

# Seconds in which systemd has written what it was told.
APPLIED = 5

# How deep below the cgroup those of pods are looked for.
_DEPTH = 3

_NOTHING = guest_slice.Limits(0, 0)


class Cgroup:
    """The cgroup that guests are in.

    :param text: [kubernetes] guest_slice
    :param tree: folder of the node's cgroup tree
    :param write: as privileged.write_limits
    :param cgroup_of: as systemd.cgroup_of
    """

    def __init__(self, text, tree, write=privileged.write_limits,
                 cgroup_of=systemd.cgroup_of):
        self.path = guest_slice.normalize(text)
        self.folder = os.path.join(tree, self.path.lstrip('/'))
        self.unit = guest_slice.unit_of(self.path)
        self.tree = tree
        self._write = write
        self._cgroup_of = cgroup_of

    def check(self):
        """Look whether it may be limited at all. Does I/O.

        :raises errors.NotYet: when it cannot be now
        :raises errors.Refused: when it must never be
        """
        v2 = os.path.exists(os.path.join(self.tree, 'cgroup.controllers'))
        facts = guest_slice.Facts(v2)
        problem = guest_slice.find_harm(self.path, facts)
        if not problem:
            facts = self._facts()
            problem = guest_slice.find_harm(self.path, facts)
        if problem:
            raise errors.Refused(self._say(problem))
        problem = guest_slice.find_lack(self.path, facts, self.folder)
        if problem:
            raise errors.NotYet(self._say(problem))
        if self.unit:
            self._check_unit()

    def _say(self, problem):
        return f'[kubernetes] guest_slice {self.path}: {problem}'

    def _facts(self):
        def has(name):
            return os.path.exists(os.path.join(self.folder, name))
        return guest_slice.Facts(
            True, has('cgroup.controllers'),
            has('memory.max') and has('cpu.max'),
            os.getpid() in cgroup.pids_below(self.folder), self._pods())

    def _pods(self):
        for folder, children, _ in os.walk(self.folder):
            for name in children:
                if guest_slice.is_of_pods(name):
                    return os.path.join(folder, name)
            depth = len(pathlib.Path(folder).relative_to(self.folder).parts)
            if depth >= _DEPTH:
                children.clear()
        return None

    def _check_unit(self):
        try:
            found = self._cgroup_of(self.unit)
        except errors.NotYet as exc:
            raise errors.NotYet(self._say(exc)) from None
        except PermissionError as exc:
            raise errors.NotYet(self._say(
                f'systemd does not say which cgroup {self.unit} has '
                f'({exc})')) from None
        if found != self.path:
            raise errors.NotYet(self._say(
                f'systemd\'s unit {self.unit} has '
                f'{"the cgroup " + found if found else "no cgroup"}; name '
                f'the cgroup of a unit that is active'))

    def look(self):
        """Return the guest_slice.Seen of now. Does I/O.

        :raises errors.NotYet: when it is not there, or lacks a controller
        """
        try:
            cpu, memory = cgroup.own_limits(self.folder)
            used_kb = cgroup.charged_kb(self.folder)
        except (OSError, ValueError) as exc:
            raise errors.NotYet(self._say(
                f'its limits cannot be read ({exc})')) from None
        least = cgroup.find_enforced(self.folder, True)
        return guest_slice.Seen(
            guest_slice.Limits(memory, cpu),
            guest_slice.Limits(least.memory_bytes, least.cpu_millicores)
            if least else guest_slice.Limits(), used_kb * 1024)

    def write(self, limits):
        """Have the kernel have these limits; wait until it has.

        :raises errors.NotYet: when it has not
        """
        try:
            self._write(self.folder, self.unit, limits)
        except errors.NotYet as exc:
            raise errors.NotYet(self._say(exc)) from None
        until = time.monotonic() + APPLIED
        while self._lacks(limits):
            if time.monotonic() > until:
                raise errors.NotYet(self._say(
                    f'{guest_slice.describe(limits)} was written, and the '
                    f'kernel has something else; see whether somebody else '
                    f'writes it'))
            time.sleep(0.02)

    def _lacks(self, limits):
        # Before systemd was told of a limit of CPU, there may be no file.
        try:
            cpu, memory = cgroup.own_limits(self.folder)
        except (OSError, ValueError):
            return True
        return guest_slice.Limits(memory, cpu) != limits


class Holding:
    """Keeps the cgroup as the budget says.

    :param where: Cgroup
    :param on_escape: [kubernetes] on_escape
    """

    def __init__(self, where, on_escape='warn'):
        self._where = where
        self._on_escape = on_escape
        self._goal = lambda: None
        self._told = None
        self._published = self._changed = lambda: None
        self._say = lambda line: None
        # What Nova may be told at most; nothing before it was looked at.
        self._report = _NOTHING
        self._known = None
        self._problem = None
        self._lost = frozenset()
        # What it was last said to wait for.
        self._waits = (None, None)
        self._escapes = None
        self._worker = worker.Worker('nova-k8s-guest-slice', self._step)
        # Never blocks.
        self.wake = self._worker.wake

    @property
    def path(self):
        return self._where.path

    def connect(self, goal, told, publish, guests, say, changed):
        """Say what to hold to, and whom to tell.

        :param goal: returns the guest_slice.Limits that are wanted, None to
            touch nothing
        :param told: returns the (MiB, millicores) that Nova has been told at
            most, and whether that is certain
        :param publish: has Nova told what is to be reported; never blocks
        :param guests: returns PID by UUID of the guests that are seen
        :param say: called with a messages.Line
        :param changed: called when the reasons did
        """
        self._goal, self._published, self._say = goal, publish, say
        self._told = lambda: _told(*told())
        self._changed = changed
        self._escapes = watching.Watch(
            guests, lambda: None, self._on_escape, say, changed,
            self._where.tree, guest_slice=self._where.path)

    def hold(self):
        """Hold it at once; return why that cannot be now, or None.

        :raises errors.Refused: where it must never be
        """
        try:
            self.reconcile()
        except errors.NotYet as exc:
            self._fail(str(exc))
            return str(exc)
        return None

    def start(self):
        self._worker.wake()
        self._worker.start()
        self._escapes.start()

    def stop(self):
        self._worker.stop()
        self._escapes.stop()

    def cap(self):
        """Return the (MiB, millicores) that Nova may be told at most.

        None for either is no bound. From memory.
        """
        memory = self._report.memory_bytes
        return (None if memory is None else memory // budget.MIB,
                self._report.cpu_millicores)

    @property
    def escaped(self):
        """How many guests are outside of it, None where not known."""
        return self._escapes and self._escapes.escaped

    def reasons(self):
        """Return why no guest may be placed, from memory."""
        return self._lost | self._escapes.reasons

    def _notice(self):
        """Say that the reasons changed, where they did."""
        lost = self._problem and 0 in dataclasses.astuple(self._report)
        before = self._lost
        self._lost = frozenset((findings.NOT_HELD,) if lost else ())
        if self._lost != before:
            self._changed()

    def _step(self):
        try:
            return self.reconcile()
        except errors.LimitsError as exc:
            problem = str(exc)
        except Exception as exc:
            # Nothing may end this thread: nobody would notice.
            problem = repr(exc)
        self._fail(problem)
        return RETRY

    def _fail(self, problem):
        news = problem != self._problem
        self._problem = problem
        self._bound_by_kernel()
        if news:
            self._say(messages.Line(
                messages.WARNING, 'GuestSliceNotWritten',
                f'{" ".join(problem.split())}. Nova is told no more than the '
                f'kernel enforces there: '
                f'{guest_slice.describe(self._report)}.'))
        self._notice()

    def _bound_by_kernel(self):
        """Tell no more than there is, whatever was wanted."""
        try:
            seen = self._where.look()
            goal = self._goal() or seen.own
            report = guest_slice.report(goal, seen)
        except Exception:
            # Why is what is being told already.
            report = _NOTHING
        self._set(report)

    def _set(self, report):
        before, self._report = self._report, report
        if report != before:
            self._published()

    def reconcile(self):
        """Do the next thing; return the seconds until the next look.

        :raises errors.LimitsError: when it cannot be done
        """
        if self._known is None or self._problem:
            self._where.check()
        goal = self._goal()
        seen = self._where.look()
        if goal is None:
            # Nothing is offered; guests stay held to what they had.
            self._well(seen)
            return LATER
        # First the report: from here on nobody is told more than is wanted,
        # nor what is in force only when it is written.
        self._set(guest_slice.bound(goal, seen, self._report))
        told = self._told()
        made = guest_slice.decide(goal, seen, told)
        if made:
            self._where.write(made)
            seen = self._where.look()
        self._set(guest_slice.report(goal, seen))
        self._well(seen)
        self._tell_of_wait(goal, seen, told)
        return LATER if seen.own == goal else SOON

    def _well(self, seen):
        failed, self._problem = self._problem, None
        if seen.own != self._known or failed:
            self._known = seen.own
            LOG.info('The cgroup %s holds all guests to %s', self.path,
                     guest_slice.describe(seen.own))
        self._notice()

    def _tell_of_wait(self, goal, seen, told):
        why = guest_slice.find_wait(goal, seen, told)
        # What is used changes all the time, and is no news.
        before, self._waits = self._waits, (goal, bool(why))
        if why and self._waits != before:
            self._say(messages.Line(
                messages.WARNING, 'GuestSliceAboveLimit',
                f'The cgroup {self.path} stays at '
                f'{guest_slice.describe(seen.own)}, and is to have '
                f'{guest_slice.describe(goal)}: {why}. Move some away.'))


def _told(memory_mb, millicores, certain):
    return guest_slice.Told(guest_slice.Limits(
        memory_mb * budget.MIB, millicores), certain)


def from_conf(conf, environ=os.environ, tree=None):
    """Return the Holding that nova.conf asks for, or None.

    :raises errors.Refused: where it would harm, or two options contradict
    """
    options = conf.kubernetes
    if not options.guest_slice:
        return None
    if kube_client.guests_pod(conf, environ):
        raise errors.Refused(
            '[kubernetes] guest_slice and a guests\' pod are set (guests_pod, '
            'or pod_name), and guests are in one of both; unset one')
    where = Cgroup(options.guest_slice, tree or cgroup.node_tree())
    try:
        where.check()
    except errors.NotYet:
        # That may pass: the first look says it.
        pass
    return Holding(where, options.on_escape)
