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

"""Keeping a folder as the objects in the cluster are, while a service runs."""

import dataclasses
import threading

from oslo_log import log as logging

from nova_k8s.config import api
from nova_k8s.config import documents
from nova_k8s.config import errors
from nova_k8s.config import folder
from nova_k8s.config import layers

LOG = logging.getLogger(__name__)

# Seconds for which a change waits for more of them: `kubectl apply` writes
# one object after the other. Also how long the service has at least to read
# the files before they are replaced again.
SETTLE = 0.3

# Seconds until the files are written again where that could not be done:
# nobody tells when a disk has space again.
AGAIN = 10


@dataclasses.dataclass(frozen=True)
class Objects:
    """What a service is configured with; the later wins."""

    namespace: str
    config_maps: tuple
    secrets: tuple

    def __iter__(self):
        """Yield (kind, name) of each."""
        for name in self.config_maps:
            yield documents.CONFIG_MAP, name
        for name in self.secrets:
            yield documents.SECRET, name


class Follower:
    """Writes what changes, and has the service read it.

    :param objects: Objects
    :param connect: returns a kubernetes.client.ApiClient
    :param timeout: seconds to wait for an answer
    :param written: the folder.Folder, started
    :param changed: called after the files were replaced
    """

    def __init__(self, objects, connect, timeout, written, changed):
        self._objects = objects
        self._connect = connect
        self._timeout = timeout
        self._folder = written
        self._changed = changed
        self._said = None
        self._current = None
        self._worker = None
        self._watches = ()
        self._not_yet = None

    def start(self):
        # Not above: the service is started first, and these take half a
        # second to load.
        from nova_k8s.kube import watch
        from nova_k8s.util import worker

        self._not_yet = watch.NOT_YET
        # A watch asks its server now and then whether it answers: who sells
        # what a limit allows has to know within seconds. Here, nothing is lost
        # while it hangs, and all compute nodes asking that often is a load:
        # the bookmarks that the server sends each minute suffice.
        patience = max(self._timeout, watch.SILENCE)
        self._worker = worker.Worker('nova-k8s-config', self.step,
                                     self._watch, settle=SETTLE)
        self._watches = [
            watch.Watch(self._connect, api.path(kind, self._objects.namespace),
                        documents.origin(kind, self._objects.namespace, name),
                        self._worker.wake, patience,
                        field_selector=f'metadata.name={name}')
            for kind, name in self._objects]
        self._current = self._folder.read(folder.CURRENT)
        self._worker.start()

    def _watch(self, wake, stop):
        """Watch all objects, each on a connection of its own.

        With the rights to these objects and no others, the API server allows
        no watch on more than one.
        """
        threads = [threading.Thread(target=each.run, args=(stop,),
                                    daemon=True) for each in self._watches]
        for each in threads:
            each.start()
        for each in threads:
            each.join()

    def step(self):
        """Make the folder as the objects are, if all of them are known.

        :returns: seconds until it is to be tried again, or None
        """
        try:
            found = self.found()
            if found == self._current:
                self._say(None)
                return None
            # Also what cannot be parsed: the service would end.
            layers.Layers(found)
            self._folder.replace(found)
        except Exception as exc:
            # Whatever it is, the service has to go on with what it has.
            if str(exc) != self._not_yet:
                self._say(str(exc))
            return AGAIN if isinstance(exc, OSError) else None
        self._current = found
        self._say(None)
        try:
            self._changed()
        except Exception:
            # Nothing may end this thread: the next change would go unnoticed.
            LOG.exception('The service was not told of a change')
        return None

    def found(self):
        """Return the documents of all objects as they were last seen.

        :raises Exception: when one of them is not known, or is gone
        """
        found = []
        for (kind, name), each in zip(self._objects, self._watches):
            bodies = each.objects()
            if not bodies:
                raise errors.Refused(
                    f'{documents.origin(kind, self._objects.namespace, name)}'
                    f': it is gone')
            found += documents.from_object(kind, bodies[0])
        return found

    def _say(self, problem):
        if problem == self._said:
            return
        self._said = problem
        if problem:
            LOG.warning('The configuration stays as it is: %s', problem)
        else:
            LOG.info('The configuration is that of the cluster')
