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


"""Watching a few Kubernetes objects, and knowing when that does not work.

A thin layer over kubernetes.informer.SharedInformer, which lists, watches
and resumes. It reconnects at once and for ever, waits for ever on a
connection that hangs, and tells failures to its log only. That a server hangs
is noticed by asking it something now and then (see pulse).
"""

import json
import logging
import random
import threading
import time
import types

from kubernetes import informer

from nova_k8s import errors
from nova_k8s.kube import client as kube_client
from nova_k8s.kube import pulse

# How long one watch lasts, in seconds. After it the objects are listed again,
# so it bounds for how long a server whose state was rolled back goes
# unnoticed.
PERIOD = 600

# Seconds without a word, and those that a request may take, after which a
# connection hangs: every minute the API server sends a bookmark.
SILENCE = 65

# Seconds between two questions whether the server answers, at least.
SOON = 0.1

# Seconds between two connections while they fail: doubled from the first to
# the last, less up to half by chance, so that the compute nodes of a cloud do
# not return all at once.
FIRST_DELAY, LAST_DELAY = 0.5, 30

# One failure is not worth a word: an API server that is restarted ends all
# its watches.
SILENT_FAILURES = 1

# After a failure, seconds that a quiet connection must last to count as
# working: one that breaks at once again is no news.
PROBATION = 2

# Seconds that a watch lasts at least. A server that ends it sooner, without
# a word, would be asked without a pause.
SHORTEST = 1

# Seconds between two connections that are not made any more.
STOPPING = 0.01

# What objects() says until the first answer.
NOT_YET = 'not yet connected'

# The informer writes a traceback for each failure. What failed is said once,
# by whoever needs the objects.
logging.getLogger('kubernetes.informer').setLevel(logging.CRITICAL)


class Watch:
    """Keeps the objects that a list call returns.

    :param connect: returns a new kubernetes.client.ApiClient. It is called
        for each connection: tokens, CAs and kubeconfigs rotate.
    :param path: of the list at the API server
    :param what: what is watched, for messages
    :param changed: called, from another thread, when objects() may have
        something new to say
    :param timeout: seconds to wait for an answer
    :param query: field_selector and label_selector
    """

    def __init__(self, connect, path, what, changed, timeout, **query):
        self._connect = connect
        self._path = path
        self._what = what
        self._changed = changed
        self._timeout = timeout
        self._query = query
        self._stop = None
        self._failures = 0
        self._problem = NOT_YET
        self._informer = None
        # What was listed with, for the watch that follows at once.
        self._api = None
        self._host = ''
        self._opened = None
        self._probation = threading.Timer(0, self._works)
        # The server hangs, and that is the problem.
        self._silent = False
        # Cleared while the informer waits until the server answers again.
        self._go = threading.Event()
        self._go.set()

    def list(self):
        """Ask the API server; return (objects as dicts, resource version).

        :raises errors.LimitsError: when there is no proper answer
        """
        try:
            self._api = self._new_api()
            # As they come, not as the client's models: those drop what the
            # client's release does not know.
            body = json.loads(self._get(self._api, self._timeout,
                                        **self._query).data)
        except errors.LimitsError:
            raise
        except Exception as exc:
            # Whatever comes over the network, and whatever the client makes
            # of it: there is no list of what it raises.
            raise errors.Unreadable(
                f'{self._what}: {kube_client.explain(exc, self._host)}'
            ) from None
        try:
            return list(body['items']), body['metadata']['resourceVersion']
        except (KeyError, TypeError):
            raise errors.Unreadable(
                f'{self._what}: API server {self._host}: its answer is no '
                f'list') from None

    def objects(self):
        """Return the objects as last seen, from memory.

        :raises errors.Unreadable: when they may have changed since
        """
        if self._problem:
            raise errors.Unreadable(self._problem)
        return self._informer.cache.list()

    def run(self, stop):
        """Watch until the event stop is set."""
        self._stop = stop
        self._informer = informer.SharedInformer(
            self._list_or_watch(), resync_period=PERIOD, **self._query)
        for event in (informer.ADDED, informer.MODIFIED, informer.DELETED):
            self._informer.add_event_handler(event, self._arrived)
        self._informer.add_event_handler(informer.BOOKMARK, self._heard)
        self._informer.add_event_handler(informer.ERROR, self._failed)
        self._informer.start()
        wait = self._timeout
        try:
            while not stop.wait(min(PERIOD, SILENCE, wait)):
                # A new thread if it ended: by an exception outside of what
                # the informer guards.
                self._informer.start()
                wait = self._timeout
                if self._silent or not self._problem or self._pulse.hangs:
                    self._ask_whether_it_answers()
                    # Never at once: a green thread that does not wait is all
                    # that its process does.
                    wait = max(SOON, self._pulse.due())
                else:
                    self._go.set()
        finally:
            self._go.set()
        self._informer.stop()
        self._probation.cancel()

    @property
    def _pulse(self):
        return pulse.of(self._host, self._timeout)

    def _new_api(self):
        api = self._connect()
        self._host = kube_client.shown(api.configuration.host)
        return api

    def _get(self, api, timeout, **query):
        return kube_client.call(api, 'GET', self._path, timeout=timeout,
                                **query)

    def _ask_whether_it_answers(self):
        exc = self._pulse.ask(self._new_api, lambda api: self._get(
            api, self._timeout, **self._query).data)
        if exc:
            if self._silent or not self._problem:
                self._silent = True
                self._fail(f'{self._what}: '
                           f'{kube_client.explain(exc, self._host)}')
        elif not self._go.is_set():
            # It says itself whether it works again.
            self._silent = False
            self._go.set()
        elif self._silent:
            self._works()

    def _list_or_watch(self):
        def list_or_watch(watch=False, **query):
            # The informer looks for this line, to pass on what it gets as
            # it is.
            """List or watch.

            :rtype: object
            """
            if not watch:
                items, version = self.list()
                return types.SimpleNamespace(
                    items=items, metadata=types.SimpleNamespace(
                        resource_version=version))
            if self._stop.is_set():
                # The informer looks for its end only between events, and
                # there may be none for long.
                raise errors.Unreadable(f'{self._what}: watched no longer')
            self._check_last_watch()
            api, self._api = self._api or self._new_api(), None
            answer = self._get(
                api, (self._timeout, min(PERIOD, SILENCE) + self._timeout),
                watch=True, allow_watch_bookmarks=True, **query)
            self._connected()
            return answer
        return list_or_watch

    def _check_last_watch(self):
        opened, self._opened = self._opened, None
        if opened and time.monotonic() - opened < SHORTEST:
            raise errors.Unreadable(
                f'{self._what}: API server {self._host}: it ends the watch '
                f'at once')

    def _connected(self):
        self._opened = time.monotonic()
        self._pulse.heard()
        if not self._failures:
            # What was listed before is in the cache by now: an empty list
            # has no event.
            self._works()
            return
        self._probation = threading.Timer(PROBATION, self._works)
        self._probation.daemon = True
        self._probation.start()

    def _heard(self, _object):
        self._pulse.heard()

    def _arrived(self, _object):
        self._pulse.heard()
        self._works()

    def _works(self):
        self._probation.cancel()
        self._failures = 0
        self._problem = None
        self._silent = False
        self._changed()

    def _failed(self, exc):
        """Wait, in the informer's thread, before it connects again."""
        problem = (str(exc) if isinstance(exc, errors.LimitsError) else
                   f'{self._what}: {kube_client.explain(exc, self._host)}')
        self._probation.cancel()
        self._opened = None
        self._failures += 1
        # 410 Gone is no outage: what is watched is listed anew.
        if (self._failures > SILENT_FAILURES and
                getattr(exc, 'status', None) != 410):
            self._silent = False
            self._fail(problem)
        if self._pulse.hangs:
            # One question for all is enough.
            self._go.clear()
            if not self._stop.is_set():
                self._go.wait()
            longest = 0
        else:
            # Sixteen: a thousand doublings, half a day, are too much for a
            # float.
            longest = min(LAST_DELAY,
                          FIRST_DELAY * 2 ** min(16, self._failures - 1))
        if self._stop.wait(longest * random.uniform(0.5, 1)):
            # The informer comes back at once until run() has stopped it, and
            # a green thread that never waits keeps run() from doing so.
            time.sleep(STOPPING)

    def _fail(self, problem):
        news, self._problem = problem != self._problem, problem
        if news:
            self._changed()
