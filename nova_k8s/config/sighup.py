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

"""SIGHUP for services that run on native threads in one process.

oslo.service has a service read its files again on SIGHUP, and call its
reset(). Of a service that does not fork, as nova-compute since Nova 34, it
ends the main thread instead, and leaves a process that does nothing and does
not end: its ``_reload_service`` says that this is still to be written. Until
it is, it is here.
"""

import functools
import queue
import signal
import sys
import threading

from oslo_log import log as logging

LOG = logging.getLogger(__name__)

_BACKEND = 'oslo_service.backend._threading.service'


def repair():
    """Have launchers of oslo.service handle SIGHUP, where they do not.

    Harmless when repeated, and where another backend is in use.
    """
    backend = sys.modules.get(_BACKEND)
    if backend is None:
        return
    launcher = backend.ProcessLauncher
    add = launcher.add_signal_handlers
    if getattr(add, '__module__', None) == __name__:
        return

    # A launcher calls this for a service that does not fork, before it starts
    # it.
    def add_signal_handlers(self):
        add(self)
        _handle(self)
    launcher.add_signal_handlers = add_signal_handlers


def _handle(launcher):
    # The one queue that may be used in a handler: what it interrupts may hold
    # any lock, so nothing else is done there.
    received = queue.SimpleQueue()
    signal.signal(signal.SIGHUP, lambda *args: received.put(None))
    threading.Thread(target=functools.partial(_work, launcher, received),
                     daemon=True, name='nova-k8s-sighup').start()


def _work(launcher, received):
    while True:
        received.get()
        LOG.info('Caught SIGHUP, reading the configuration again')
        try:
            if launcher.restart_method == 'mutate':
                launcher.conf.mutate_config_files()
            else:
                launcher.conf.reload_config_files()
            if launcher.service:
                launcher.service.reset()
        except Exception:
            LOG.exception('The configuration could not be read again')
