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

"""Seeing to it that the guests' pod of this node is there, and is known.

It looks at what is and makes the next thing so, whatever happened before: a
pod that is missing is made, one that runs is told to libvirt's container by a
file on the node, and how much memory guests hold is written to it. A pod is
never deleted that has not ended.
"""

import functools
import os
import threading
import time

from oslo_log import log as logging

from nova_k8s.confinement import guests_pod
from nova_k8s.confinement import watching
from nova_k8s import errors
from nova_k8s.kube import client as kube_client
from nova_k8s.kube import node as nodes
from nova_k8s.kube import pods
from nova_k8s.util import statefile
from nova_k8s.util import worker

LOG = logging.getLogger(__name__)

# At most one write a second, however often guests come and go.
SETTLE = 1

# Seconds until the next look, while something is missing, and while all is
# well: somebody may have removed the file.
SOON, LATER = 5, 60

# Seconds between two looks while nova-compute starts.
STARTING = 1

# Seconds for a new pod to run, while libvirt answers and guests may be there:
# until nova-compute has started, nobody can manage them.
PATIENCE = 30

_RUNNING = (guests_pod.RUNS, guests_pod.ENDS)


class Controller:
    """Keeps the guests' pod.

    :param pod: kube.pods.Pod
    :param node: kube.node.Source
    :param template: path of the template, which is read whenever a pod is
        made; None where somebody else makes it
    :param grace: seconds that the pod waits for its guests to leave
    :param file: path of guests_pod.UID_FILE
    :param on_escape: [kubernetes] on_escape
    :param first: returns what a pod that is made starts with, by resource,
        given its kube.node.Node; None for what the template says
    """

    def __init__(self, pod, node, template, grace,
                 file=guests_pod.UID_FILE, on_escape='warn',
                 first=lambda node: None):
        self._pod = pod
        self._node = node
        self._template = template
        self._grace = grace
        self._file = file
        self._on_escape = on_escape
        self._first = first
        self._told = None
        self._held = lambda: None
        self._latest = None
        self._ending = frozenset()
        self._escapes = None
        # Two threads write what guests hold: this one's, and whoever is about
        # to shrink the pod.
        self._writing = threading.Lock()
        self._written_at = float('-inf')
        self._worker = worker.Worker(
            'nova-k8s-guests-pod', self._step, settle=SETTLE)
        # Never blocks.
        self.wake = self._worker.wake

    def await_pod(self, known, kept, answers):
        """Block until the pod runs, and make it where it is missing.

        Before that libvirt does not start, and so nothing can. Where libvirt
        does answer, guests may be there that only nova-compute can manage:
        then it is waited for no longer than PATIENCE, and the worker goes on.

        :param known: whether Nova knows this compute node
        :param kept: whether its limits are known from before: then an API
            server that is away changes nothing
        :param answers: returns whether libvirt answers
        :return: why the pod does not run, None where it does
        :raises errors.Refused: when it cannot be made
        :raises errors.Unreadable: when the API server does not answer
        """
        until, waiting = time.monotonic() + PATIENCE, False
        while True:
            body = None
            try:
                body = self._pod.read()
                phase, why = self._next(body)
                if phase in _RUNNING:
                    return None
                begin = known and time.monotonic() >= until
                why = f'{self._pod} holds no guests yet: {why}'
            except errors.LimitsError as exc:
                begin = known or kept and isinstance(exc, errors.Unreadable)
                # With a pod that runs it is the folder on the node that is
                # wrong: no compute node ever was like that.
                if not begin or guests_pod.phase(body)[0] in _RUNNING:
                    raise
                # By whoever starts without it.
                self._told = why = str(exc)
            if begin and answers():
                return why
            if begin and not waiting:
                waiting = True
                LOG.warning('Waiting for libvirt, which does not answer yet, '
                            'or for the guests\' pod: %s', why)
            time.sleep(STARTING)

    def read(self):
        """Return the pod as a dict, None where there is none.

        :raises errors.Unreadable: when the API server does not say
        """
        return self._pod.read()

    def connect(self, latest, held, guests, tell, changed):
        """Say where to look, and whom to tell.

        :param latest: returns the pod as last seen, or None, from memory;
            raises errors.LimitsError where that is not known
        :param held: returns the bytes of memory that guests hold, None where
            that is not known yet
        :param guests, tell, changed: see watching.Watch
        """
        self._latest, self._held = latest, held
        self._escapes = watching.Watch(guests, latest, self._on_escape, tell,
                                       changed, told=self._file)

    def start(self):
        """Keep it from now on."""
        self._worker.wake()
        self._worker.start()
        self._escapes.start()

    def look(self):
        """Look at once: the pod may be another one. Never blocks.

        Guests of a pod that was deleted by force keep new ones away before
        the next pod runs.
        """
        self._worker.wake()
        self._escapes.wake()

    def stop(self):
        self._worker.stop()
        self._escapes.stop()

    @property
    def escaped(self):
        """How many guests are outside of the pod, None where not known."""
        return self._escapes and self._escapes.escaped

    def reasons(self):
        """Return why no guest may be placed, from memory."""
        try:
            ends = guests_pod.phase(self._latest())[0] == guests_pod.ENDS
            self._ending = frozenset((guests_pod.ENDING,) if ends else ())
        except errors.LimitsError:
            # What was last known stays.
            pass
        return self._ending | self._escapes.reasons

    def reconcile(self, body):
        """Do the next thing; return the phase as from guests_pod.phase().

        :param body: the pod, None where there is none
        :raises errors.LimitsError: when it cannot be done
        """
        return self._next(body)[0]

    def _next(self, body):
        """As reconcile(); return why the pod does not run, too."""
        phase, why = guests_pod.phase(body)
        if phase in _RUNNING:
            self._publish(body)
            self._annotate(body)
        elif phase == guests_pod.ENDED:
            # Its name is taken until it is removed; the machine was shut
            # down, for instance.
            LOG.info('%s has ended (%s), another one is made', self._pod, why)
            self._pod.remove(body)
        elif phase == guests_pod.MISSING:
            node = self._node.ask()
            if not self._template:
                why = (f'make it with: nova-k8s guests-pod --node '
                       f'{node.name} | kubectl create -f -')
            elif node.cordoned:
                why = (f'Node {node.name} is cordoned; kubectl uncordon '
                       f'{node.name}')
            else:
                self._make(node)
                why = None
        self._tell(phase, why)
        return phase, why or 'it was just made'

    def _make(self, node):
        host = guests_pod.Host(node.name, node.uid, node.annotations,
                               node.allocatable)
        self._pod.create(guests_pod.render(
            read_template(self._template), host, self._pod.name,
            self._pod.namespace, self._grace, self._template,
            self._first(node)))
        LOG.info('%s was made for the guests of Node %s', self._pod,
                 node.name)

    def _publish(self, body):
        record = guests_pod.record(body)
        if statefile.read_plain(self._file) == record:
            return
        try:
            statefile.write(self._file, record, mode=0o644)
        except OSError as exc:
            raise errors.Refused(
                f'{self._file}: {exc.strerror}; libvirt cannot be told where '
                f'guests belong: have the folder of the node mounted there, '
                f'for nova-compute to write') from None

    def refresh(self, body):
        """Have the pod say what guests hold now, to the byte. Does I/O.

        What is no news otherwise may be a little too much, and have a shrink
        refused that takes nothing from guests.

        :param body: the pod
        :returns: the pod as it is then, None where it is there no more
        :raises errors.LimitsError: when it cannot be written
        """
        return self._annotate(body, lambda known, held: (
            held is not None and known != str(held)))

    def _annotate(self, body, is_news=guests_pod.is_news):
        with self._writing:
            known = (body['metadata'].get('annotations') or {}).get(
                guests_pod.HELD)
            if not is_news(known, self._held()):
                return body
            # No matter who wants it.
            time.sleep(max(0, self._written_at + SETTLE - time.monotonic()))
            try:
                return self._pod.annotate(body['metadata']['uid'], {
                    guests_pod.HELD: str(self._held())})
            finally:
                self._written_at = time.monotonic()

    def _tell(self, phase, why):
        # Which nodes do not fit, for instance, changes all the time.
        if why and phase != self._told and phase in (guests_pod.PENDING,
                                                     guests_pod.MISSING):
            LOG.warning('%s holds no guests yet: %s', self._pod, why)
        self._told = phase

    def _step(self):
        try:
            body = self._latest()
        except errors.LimitsError:
            # That is told by whoever needs its limits.
            return SOON
        try:
            phase = self.reconcile(body)
        except errors.LimitsError as exc:
            problem = str(exc)
        except Exception as exc:
            # Nothing may end this thread: nobody would notice.
            problem = repr(exc)
        else:
            return LATER if phase == guests_pod.RUNS else SOON
        if problem != self._told:
            LOG.warning('%s', problem)
            self._told = problem
        return SOON


def read_template(path):
    """Return the template in this file.

    :raises errors.Refused: when no guests' pod can be made of it
    """
    try:
        with open(path, encoding='utf-8') as f:
            text = f.read()
    except (OSError, ValueError) as exc:
        raise errors.Refused(
            f'[kubernetes] guests_pod {path}: '
            f'{getattr(exc, "strerror", None) or exc}') from None
    return guests_pod.parse_template(text, path)


def _check(options, node):
    for name, default in (('pod_name', None), ('pod_selector', None),
                          ('limits_from', 'api')):
        if (options[name] or default) != default:
            raise errors.Refused(
                f'[kubernetes] guests_pod and {name} = {options[name]} are '
                f'set, and they name different limits; set one of them')
    if not node:
        raise errors.Refused(
            '[kubernetes] guests_pod needs the node of this pod: set '
            'NODE_NAME in the environment from spec.nodeName, or [kubernetes] '
            'node_name')


def from_conf(conf, environ=os.environ, file=guests_pod.UID_FILE,
              first=lambda node: None):
    """Return the Controller, or None where there is no guests' pod to make.

    :param first: see Controller
    :raises errors.Refused: when an option that it needs is not set
    """
    options = conf.kubernetes
    node = kube_client.node_name(conf, environ)
    if options.guests_pod:
        _check(options, node)
        # At once, because an error of the operator is worth no waiting.
        read_template(options.guests_pod)
    name = kube_client.guests_pod(conf, environ)
    if not name:
        return None
    connect = functools.partial(kube_client.api_client, conf)
    return Controller(
        pods.Pod(connect, kube_client.namespace(conf, environ),
                 name, options.api_timeout),
        nodes.Source(connect, node, options.api_timeout),
        options.guests_pod, options.guests_pod_grace, file,
        options.on_escape, first)
