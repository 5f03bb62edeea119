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


"""Whether an API server answers, asked once for all who watch something of it.

A watch on which nothing happens and one of a server that hangs look the same.
So the server is asked something now and then, on a connection of its own that
is kept: what is in the answer does not matter, that there is one does. Each
question costs, and what a server says on its own is as good.
"""

import threading
import time

from nova_k8s.kube import client as kube_client

# While it hangs, timeouts between two questions: nothing is lost by then, and
# each question makes a connection.
HANGING = 3

_pulses = {}


class Pulse:
    """Asks one API server, so that a hang is known within two timeouts.

    :param timeout: seconds to wait for an answer, and between two questions
    """

    def __init__(self, timeout):
        self._timeout = timeout
        self._lock = threading.Lock()
        self._due = 0
        self._api = None
        self._problem = None

    @property
    def hangs(self):
        """Whether it did not answer when it was asked last."""
        return self._problem is not None

    def due(self):
        """Return the seconds until it is to be asked."""
        return max(0, self._due - time.monotonic())

    def heard(self):
        """Say that something came from it just now."""
        self._problem = None
        self._due = time.monotonic() + self._timeout

    def ask(self, connect, get):
        """Ask it, unless somebody else has just done so.

        :param connect: returns a kubernetes.client.ApiClient
        :param get: called with one, has to read an answer
        :return: the error where there was no answer in time, or None
        """
        came = time.monotonic()
        with self._lock:
            if came >= self._due:
                self._ask(connect, get)
            return self._problem

    def _ask(self, connect, get):
        began, hangs = time.monotonic(), False
        try:
            self._api = self._api or connect()
            get(self._api)
        except Exception as exc:
            # Any answer will do, a refusal too: of those, and of a connection
            # that is not made, the watch tells.
            if getattr(exc, 'status', None):
                self._problem = None
            elif kube_client.is_timeout(exc):
                self._problem = exc
                hangs = True
            else:
                self._api = None
        else:
            self._problem = None
        self._due = (time.monotonic() + HANGING * self._timeout if hangs
                     else began + self._timeout)


def of(host, timeout):
    """Return the Pulse of the API server with this address."""
    return _pulses.setdefault((host, timeout), Pulse(timeout))
