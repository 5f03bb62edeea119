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


"""Events: what `kubectl describe` tells about an object."""

import datetime
import queue
import threading
import time

from kubernetes import client
from oslo_log import log as logging

from nova_k8s import errors
from nova_k8s.kube import client as kube_client

LOG = logging.getLogger(__name__)

COMPONENT = 'nova-k8s'

# Lines that wait for an API server that is away. The oldest go first.
_WAITING = 20

# Seconds between attempts to write an event: doubled from the first to the
# last.
_FIRST_RETRY, _LAST_RETRY = 1, 60

# Longest message that the API server takes.
_LONGEST = 1024


class Recorder:
    """Writes events in a thread of its own, each once, in order.

    They are told to people only: whatever happens to them, nothing else
    waits or fails.

    :param connect: returns a kubernetes.client.ApiClient
    :param host: name of the node, which events show
    :param timeout: seconds that one request may take
    """

    def __init__(self, connect, host, timeout):
        self._connect = connect
        self._host = host
        self._timeout = timeout
        self._queue = queue.Queue(_WAITING)
        self._stop = threading.Event()
        self._refused = False
        self._thread = threading.Thread(target=self._work, daemon=True,
                                        name='nova-k8s-events')

    def start(self):
        self._thread.start()

    def stop(self):
        self._stop.set()
        self._queue_up(None)
        if self._thread.ident:
            self._thread.join()

    def record(self, reference, type, reason, text):
        """Have an event written.

        :param reference: budget.Reference of the object it is about
        :param type: 'Normal' or 'Warning'
        :param reason: one word in camel case
        """
        self._queue_up(event(reference, type, reason, text, self._host))

    def _queue_up(self, item):
        while True:
            try:
                self._queue.put_nowait(item)
                return
            except queue.Full:
                try:
                    self._queue.get_nowait()
                except queue.Empty:
                    pass

    def _work(self):
        while True:
            body = self._queue.get()
            delay = _FIRST_RETRY
            while not self._stop.is_set() and not self._written(body):
                self._stop.wait(delay)
                delay = min(_LAST_RETRY, delay * 2)
            if self._stop.is_set():
                return

    def _written(self, body):
        """Return whether there is nothing more to do about this event."""
        host, forbidden = '', None
        try:
            api = self._connect()
            host = api.configuration.host
            # What the answer holds is of no interest.
            kube_client.call(
                api, 'POST', kube_client.path(
                    'v1', 'events', body['metadata']['namespace']),
                body, self._timeout)
        except errors.LimitsError:
            return False
        except client.ApiException as exc:
            # 409: an attempt that timed out had succeeded. The others will
            # not be better for being repeated.
            if not 400 <= exc.status < 500 or exc.status in (401, 429):
                return False
            if exc.status == 403:
                forbidden = kube_client.explain(exc, host)
        except Exception as exc:
            LOG.debug('Event not written yet: %s',
                      kube_client.explain(exc, host))
            return False
        # Not in the handler: there, oslo.log says the error a second time.
        if forbidden and not self._refused:
            self._refused = True
            LOG.warning('No events for kubectl describe: %s', forbidden)
        return True


def event(reference, type, reason, text, host):
    """Return the event as the dict that the API server takes.

    Its name is of its own, as client-go makes it, so that an attempt can be
    repeated.
    """
    now = datetime.datetime.now(datetime.timezone.utc).strftime(
        '%Y-%m-%dT%H:%M:%SZ')
    # Events on what has no namespace lie in this one, as client-go has it.
    namespace = reference.namespace or 'default'
    involved = {'apiVersion': 'v1', 'kind': reference.kind,
                'name': reference.name, 'uid': reference.uid}
    if reference.namespace:
        involved['namespace'] = reference.namespace
    return {
        'apiVersion': 'v1',
        'kind': 'Event',
        'metadata': {'name': f'{reference.name}.{time.time_ns():x}',
                     'namespace': namespace},
        'involvedObject': involved,
        'type': type,
        'reason': reason,
        'message': text[:_LONGEST],
        'source': {'component': COMPONENT, 'host': host},
        'reportingComponent': COMPONENT,
        'reportingInstance': host,
        'firstTimestamp': now,
        'lastTimestamp': now,
        'count': 1,
    }
