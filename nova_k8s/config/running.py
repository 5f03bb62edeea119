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

"""``nova-k8s config run``: a service with files that follow the cluster."""

import functools
import json
import os
import socket
import subprocess
import sys
import tempfile
import types

from oslo_log import log as logging

from nova_k8s.config import api
from nova_k8s.config import cache
from nova_k8s.config import command_line
from nova_k8s.config import folder
from nova_k8s.config import follower
from nova_k8s.config import kubernetes_driver
from nova_k8s.config import supervisor
from nova_k8s.util import worker

LOG = logging.getLogger(__name__)

# Seconds for loading all options of a service, on a busy machine.
_LOADING = 120


def run(command, objects, kubeconfig=None, timeout=10, directory=None,
        program=None, cache_dir=None, cache_secrets=False):
    """Run a service with the objects as its files; return its exit status.

    :param command: a list, the service and its arguments
    :param objects: follower.Objects
    :param directory: where to write; None for a temporary folder
    :param program: whose options decide what needs a restart; None for that
        of the command
    :raises errors.ConfigError: when the service was not started
    """
    program = program or os.path.basename(command[0])

    def ask():
        with api.Reader(kubeconfig, timeout) as reader:
            return reader.documents(
                objects.namespace, objects.config_maps, objects.secrets)
    kept = kubernetes_driver.cache_of(
        cache_dir, f'{program}-run', objects.namespace, objects.config_maps,
        objects.secrets, cache_secrets)
    with tempfile.TemporaryDirectory(prefix='nova-k8s-') as temporary:
        with supervisor.ended_by_signals():
            found = cache.read(kept, ask, objects.secrets)
            written = folder.Folder(directory or temporary)
            command = command_line.with_place(command)
            written.start(found, command)
            service = supervisor.Supervisor(
                command_line.filled_in(command, written.config_dir))
            service.start()
        connect = functools.partial(_connect, kubeconfig)
        restarts = Restarts(written, program, connect, timeout, objects)
        # In a thread of its own: it takes seconds, and the next change must
        # not wait for it.
        telling = worker.Worker('nova-k8s-restarts', restarts.tell)
        telling.start()

        def changed():
            service.reload()
            kept.save(written.read(folder.CURRENT))
            telling.wake()
        follower.Follower(objects, connect, timeout, written, changed).start()
        return service.run()


def _connect(kubeconfig):
    from nova_k8s.kube import client
    return client.connect(kubeconfig)


class Restarts:
    """Tells of options that count only after a restart, each time once."""

    def __init__(self, written, program, connect, timeout, objects):
        self._written = written
        self._program = program
        self._connect = connect
        self._timeout = timeout
        self._objects = objects
        self._recorder = None
        self._told = []

    def tell(self):
        """Warn of the options, and write an event, if they are others."""
        try:
            names = self._names()
        except (OSError, ValueError, TypeError, KeyError,
                subprocess.SubprocessError) as exc:
            LOG.warning('It is not known which of the changed options need a '
                        'restart: %s', ' '.join(str(exc).split()))
            return
        if names == self._told:
            return
        self._told = names
        if not names:
            LOG.info('No restart is needed any more')
            return
        text = (f'A restart of {self._program} is needed for '
                f'{", ".join(names)}')
        LOG.warning('%s', text)
        self._record(text)

    def _names(self):
        """Ask in another process, which takes all of the service's memory."""
        done = subprocess.run(
            [sys.executable, '-m', 'nova_k8s.cmd.main', 'config', 'diff',
             '--dir', self._written.path, '--program', self._program,
             '--format', 'json'],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, timeout=_LOADING)
        # Not its exit status: the supervisor may have collected it.
        if not done.stdout:
            raise ValueError(done.stderr)
        return [f'[{each["group"]}] {each["name"]}'
                for each in json.loads(done.stdout)]

    def _record(self, text):
        from nova_k8s.kube import events
        if not self._recorder:
            host = os.environ.get('NODE_NAME') or socket.gethostname()
            self._recorder = events.Recorder(self._connect, host,
                                             self._timeout)
            self._recorder.start()
        try:
            reference = self._reference()
        except Exception as exc:
            LOG.warning('No event for kubectl describe: %s', exc)
            return
        self._recorder.record(reference, 'Warning', 'RestartNeeded', text)

    def _reference(self):
        """The pod where its names are known, otherwise the first object."""
        found = [os.environ.get(name) for name in
                 ('POD_NAMESPACE', 'POD_NAME', 'POD_UID')]
        if all(found):
            namespace, name, uid = found
            return types.SimpleNamespace(
                kind='Pod', namespace=namespace, name=name, uid=uid)
        kind, name = next(iter(self._objects))
        return types.SimpleNamespace(
            kind=kind, namespace=self._objects.namespace, name=name, uid='')
