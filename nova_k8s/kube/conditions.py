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

"""Conditions of the node: what `kubectl describe node` shows of a drain.

Their names are those of KEP-5683, which asks whoever drains a node to write
them. Any release of Kubernetes takes them.
"""

import datetime

from kubernetes import client
from oslo_log import log as logging

from nova_k8s import errors
from nova_k8s.kube import client as kube_client
from nova_k8s.util import worker

LOG = logging.getLogger(__name__)

IN_PROGRESS, DRAINED = 'DrainInProgress', 'Drained'

# Seconds between attempts while the API server does not answer: doubled from
# the first to the last.
_FIRST_RETRY, _LAST_RETRY = 1, 60

_STRATEGIC = 'application/strategic-merge-patch+json'

# As long as the message of an event.
_LONGEST = 1024


class Conditions:
    """Writes the two conditions of one node, in a thread of its own.

    They are told to people and to other programs only: whatever happens to
    them, no drain waits for it.

    :param connect: returns a kubernetes.client.ApiClient
    :param name: of the node
    :param timeout: seconds that one request may take
    """

    def __init__(self, connect, name, timeout):
        self._connect = connect
        self._name = name
        self._timeout = timeout
        self._wanted = self._written = None
        self._retry = _FIRST_RETRY
        self._refused = False
        self._worker = worker.Worker('nova-k8s-conditions', self._step)
        self.start = self._worker.start
        self.stop = self._worker.stop

    def show(self, goes_on, done, text):
        """Have them written; never blocks.

        :param goes_on: whether the node is being drained
        :param done: whether it is empty
        :param text: who is left
        """
        self._wanted = (goes_on, done, text)
        self._worker.wake()

    def _step(self):
        """Write what is new; return seconds until the next attempt."""
        wanted = self._wanted
        if self._refused or wanted in (None, self._written):
            return None
        if not self._write(wanted):
            delay = self._retry
            self._retry = min(_LAST_RETRY, delay * 2)
            return delay
        self._written, self._retry = wanted, _FIRST_RETRY
        return None

    def _write(self, wanted):
        """Return whether there is nothing more to do about it."""
        host, refused = '', None
        try:
            api = self._connect()
            host = api.configuration.host
            kube_client.call(
                api, 'patch',
                kube_client.path('v1', 'nodes', name=self._name) + '/status',
                body(wanted, self._written), self._timeout,
                content_type=_STRATEGIC)
        except errors.LimitsError:
            return False
        except client.ApiException as exc:
            if not 400 <= exc.status < 500 or exc.status in (401, 409, 429):
                return False
            refused = kube_client.explain(exc, host)
        except Exception as exc:
            # Whatever comes over the network: there is no list of it.
            LOG.debug('Conditions not written yet: %s',
                      kube_client.explain(exc, host))
            return False
        # Not in the handler: there, oslo.log says the error a second time.
        if refused:
            self._refused = True
            LOG.warning('The conditions of node %s do not say that it is '
                        'drained: %s', self._name, refused)
        return True


def body(wanted, before):
    """Return the patch that writes them.

    :param wanted: (whether it goes on, whether it is done, who is left)
    :param before: the same as it was written last, or None
    """
    now = datetime.datetime.now(datetime.timezone.utc).strftime(
        '%Y-%m-%dT%H:%M:%SZ')
    goes_on, done, text = wanted
    found = []
    for place, (name, value, reason) in enumerate((
            (IN_PROGRESS, goes_on,
             'GuestsLeave' if goes_on else 'NothingGoesOn'),
            (DRAINED, done, 'NoGuests' if done else 'GuestsLeft'
             if goes_on else 'NotDrained'))):
        condition = {'type': name, 'status': str(bool(value)),
                     'reason': reason, 'message': text[:_LONGEST],
                     'lastHeartbeatTime': now}
        if not before or bool(before[place]) != bool(value):
            condition['lastTransitionTime'] = now
        found.append(condition)
    return {'status': {'conditions': found}}
