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

"""Running one service as the first process of a container should be.

It passes signals on, collects the processes that the service leaves behind,
and ends as the service does.
"""

import contextlib
import ctypes
import os
import signal
import sys
import threading

from oslo_log import log as logging

from nova_k8s.config import errors

LOG = logging.getLogger(__name__)

# All that a service may be sent, but for what stops and continues a job and
# what tells of an error in this process itself.
_PASSED_ON = {
    signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM,
    signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGWINCH,
    signal.SIGCONT}

# Of these, what is to end a process that does not handle them.
_ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)

# Python ignores these, and what is ignored stays so in a new program.
_DEFAULTS = {signal.SIGPIPE, signal.SIGXFSZ}

# Seconds between two looks whether the service has begun to handle SIGHUP.
_LOOK = 0.1

# Seconds after which it is said that it does not.
PATIENCE = 60

_PR_SET_CHILD_SUBREAPER = 36


@contextlib.contextmanager
def ended_by_signals():
    """Have signals end this process, also where it is the first one.

    There, one that nobody handles is lost: whoever wants the container to end
    before the service has started would wait for nothing.
    """
    def end(number, _frame):
        sys.exit(128 + number)
    before = {each: signal.signal(each, end) for each in _ENDING}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


class Supervisor:
    """Runs a command, in the main thread.

    :param command: a list, whose first is looked for in PATH
    """

    def __init__(self, command):
        self._command = command
        self._pid = None
        # Held where the process is sent a signal, so that it cannot be
        # another's by then.
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._reload = threading.Event()

    def start(self):
        """Start it.

        From here on signals wait for run(), in all threads that are started
        afterwards: so call it before any other.

        :raises errors.Refused: when there is no such program
        """
        # Where something else is the first process (hostPID, a shell), what
        # the service leaves behind comes here nevertheless.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        mask = signal.pthread_sigmask(
            signal.SIG_BLOCK, _PASSED_ON | {signal.SIGCHLD})
        try:
            self._pid = os.posix_spawnp(
                self._command[0], self._command, os.environ,
                setsigmask=mask, setsigdef=_DEFAULTS)
        except OSError as exc:
            raise errors.Refused(
                f'{self._command[0]}: {exc.strerror}') from None
        threading.Thread(target=self._reload_when_possible, daemon=True,
                         name='nova-k8s-reload').start()

    def run(self):
        """Wait for its end; return the exit status.

        :returns: 128 and the number of the signal where one ended it, as
            shells have it
        """
        while True:
            # Whatever was sent before is waiting; nothing is missed.
            received = signal.sigwaitinfo(
                _PASSED_ON | {signal.SIGCHLD}).si_signo
            if received == signal.SIGCHLD:
                status = self._reap()
                if status is not None:
                    return status
            else:
                self._send(received)

    def reload(self):
        """Have the service read its files again, as soon as it can.

        A service that is only starting has no handler for SIGHUP yet, and
        would end.
        """
        self._reload.set()

    def _reap(self):
        """Collect all that have ended; return a status if it was ours."""
        found = None
        while True:
            with self._lock:
                try:
                    pid, status = os.waitpid(-1, os.WNOHANG)
                except ChildProcessError:
                    return found
                if pid == self._pid:
                    self._pid = None
                    self._ended.set()
                    code = os.waitstatus_to_exitcode(status)
                    found = code if code >= 0 else 128 - code
            if not pid:
                return found

    def _send(self, number):
        with self._lock:
            if self._pid:
                os.kill(self._pid, number)

    def _reload_when_possible(self):
        while not self._ended.is_set():
            self._reload.wait()
            self._reload.clear()
            waited = 0
            while not self._ended.is_set() and not self._handles_reload():
                self._ended.wait(_LOOK)
                waited += _LOOK
                if PATIENCE <= waited < PATIENCE + _LOOK:
                    LOG.warning(
                        '%s does not handle SIGHUP: what has changed counts '
                        'when it is started again', self._command[0])
            self._send(signal.SIGHUP)

    def _handles_reload(self):
        with self._lock, contextlib.suppress(OSError):
            return self._pid and handles(self._pid, signal.SIGHUP)
        return False


def handles(pid, number):
    """Whether a process has a handler of its own for a signal."""
    with open(f'/proc/{pid}/status', encoding='ascii',
              errors='replace') as f:
        for line in f:
            name, _, value = line.partition(':')
            if name == 'SigCgt':
                return bool(int(value, 16) >> (number - 1) & 1)
    return False
