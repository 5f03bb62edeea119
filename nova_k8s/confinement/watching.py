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

"""Looking now and then whether guests are where they belong."""

from oslo_log import log as logging

from nova_k8s.confinement import cgroup
from nova_k8s.confinement import findings
from nova_k8s.confinement import guests_pod
from nova_k8s.confinement import snapshot
from nova_k8s import errors
from nova_k8s.limits import messages
from nova_k8s.util import worker

LOG = logging.getLogger(__name__)

# Seconds between two looks, and until the first one that tells something.
EVERY, SOON = 60, 2


class Watch:
    """Says once what is wrong, and what of it keeps guests away.

    :param guests: returns PID by UUID of the guests that are seen
    :param latest: returns the guests' pod as last seen, or None; raises
        errors.LimitsError where that is not known
    :param on_escape: [kubernetes] on_escape
    :param tell: called with a messages.Line on what is new
    :param changed: called when the reasons did
    :param guest_slice: [kubernetes] guest_slice, where guests are in no pod
    :ivar reasons: why no guest may be placed
    :ivar escaped: how many guests are outside of their pod, None before it
        has looked
    """

    def __init__(self, guests, latest, on_escape, tell, changed, tree=None,
                 proc='/proc', told=guests_pod.UID_FILE, guest_slice=None):
        self._guests = guests
        self._latest = latest
        self._on_escape = on_escape
        self._tell = tell
        self._changed = changed
        self._tree = tree or cgroup.node_tree()
        self._proc = proc
        self._told_file = told
        self._slice = guest_slice
        self._known = None
        self.reasons = frozenset()
        self.escaped = None
        self._worker = worker.Worker('nova-k8s-escapes', self._step)
        self.stop = self._worker.stop
        # Never blocks.
        self.wake = self._worker.wake

    def start(self):
        self._worker.wake()
        self._worker.start()

    def _step(self):
        try:
            self.look()
        except Exception:
            # Nothing may end this thread: nobody would notice.
            LOG.exception('Could not look where guests are')
            return EVERY
        return SOON if self._known is None else EVERY

    def look(self):
        """Look. Does I/O."""
        pod = problem = None
        try:
            pod = self._latest()
        except errors.LimitsError as exc:
            problem = str(exc)
            if self._known is None:
                # It may just have started.
                return
        seen = snapshot.read(self._tree, self._guests(), pod, problem,
                             proc=self._proc, told=self._told_file,
                             guest_slice=self._slice)
        found = findings.find(seen)
        now = {(each.check, each.subject): each for each in found}
        before, self._known = self._known or {}, now
        for key in now.keys() - before.keys():
            self._tell(messages.Line(
                messages.WARNING, 'GuestsNotHeld', str(now[key])))
        for key in before.keys() - now.keys():
            LOG.info('No longer so: %s: %s', before[key].subject,
                     before[key].text)
        reasons = findings.reasons(seen, found, self._on_escape)
        if problem:
            # What cannot be seen now may still be so.
            return
        self.escaped = len(findings.escaped(found))
        if reasons != self.reasons:
            self.reasons = reasons
            self._changed()
