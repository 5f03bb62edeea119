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

"""The pods of one node, whosever they are."""

import functools

from nova_k8s import errors
from nova_k8s.kube import client as kube_client
from nova_k8s.kube import watch
from nova_k8s.util import worker


class Neighbours:
    """Watches the pods of a node; the cost is that of one node's pods.

    :param connect: returns a kubernetes.client.ApiClient
    :param node: its name
    :param timeout: seconds that one request may take
    :param changed: called, from another thread, when they may be others
    """

    def __init__(self, connect, node, timeout, changed):
        self._open = functools.partial(
            watch.Watch, connect, kube_client.path('v1', 'pods'),
            f'pods on node {node}', timeout=timeout,
            field_selector=f'spec.nodeName={node}')
        self._changed = changed
        self._watch = None
        self._worker = worker.Worker(
            'nova-k8s-neighbours', self._step, self._run, settle=1)
        self.start, self.stop = self._worker.start, self._worker.stop

    def latest(self):
        """Return the pods as dicts, from memory.

        :raises errors.Unreadable: when they may have changed since
        """
        if not self._watch:
            raise errors.Unreadable(watch.NOT_YET)
        return self._watch.objects()

    def _run(self, wake, stop):
        self._watch = self._open(changed=wake)
        self._watch.run(stop)

    def _step(self):
        self._changed()
