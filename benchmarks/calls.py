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

"""Counting what a function does beyond computing.

RPC, HTTP, file and libvirt calls of one thread, told apart by the functions
in which they end. A profile function sees all of them, whoever makes them.
"""

import collections
import contextlib
import os
import sys
import threading

from nova.objects import base as objects_base
from nova.tests.fixtures import libvirt as fakelibvirt
import oslo_messaging.transport
import urllib3.connectionpool

RPC, HTTP, FILE, LIBVIRT = KINDS = ('RPC', 'HTTP', 'file', 'libvirt')

_CODE = {
    oslo_messaging.transport.Transport._send.__code__: RPC,
    oslo_messaging.transport.Transport._send_notification.__code__: RPC,
    urllib3.connectionpool.HTTPConnectionPool.urlopen.__code__: HTTP,
}

# Functions of the modules posix and io that have to do with files, or start
# a program.
_FILE = frozenset((
    'access', 'chmod', 'chown', 'fork', 'link', 'listdir', 'lstat', 'mkdir',
    'mkfifo', 'open', 'posix_spawn', 'readlink', 'remove', 'rename',
    'replace', 'rmdir', 'scandir', 'stat', 'statvfs', 'symlink', 'truncate',
    'unlink', 'utime'))
_FILE_MODULES = ('posix', 'io', '_io', 'nt')

_FAKE_LIBVIRT = fakelibvirt.__file__


class Conductor:
    """Counts what nova-compute would ask the conductor.

    Nova's tests have all services in one process, and objects go to the
    database directly. This stands where they would go to the conductor, and
    lets them pass.
    """

    def __init__(self, counter):
        self._counter = counter
        self._inside = False

    def __bool__(self):
        # What the conductor itself asks is no RPC.
        return self._counter.counting() and not self._inside

    def _pass(self, function, *args, **kwargs):
        self._counter.count(RPC)
        self._inside = True
        try:
            return function(*args, **kwargs)
        finally:
            self._inside = False

    def object_class_action_versions(self, context, objname, objmethod,
                                     versions, args, kwargs):
        cls = objects_base.NovaObject.obj_class_from_name(
            objname, versions[objname])
        return self._pass(getattr(cls, objmethod), context, *args, **kwargs)

    def object_action(self, _context, instance, objmethod, args, kwargs):
        result = self._pass(getattr(instance, objmethod), *args, **kwargs)
        return {}, result


class Counter:
    """Counts in the threads that are in a with statement of it.

    :ivar calls: collections.Counter by kind
    """

    def __init__(self):
        self.calls = collections.Counter()
        self._threads = set()

    def counting(self):
        return threading.get_ident() in self._threads

    def count(self, kind):
        self.calls[kind] += 1

    @contextlib.contextmanager
    def here(self):
        self._threads.add(threading.get_ident())
        sys.setprofile(self._profile)
        try:
            yield
        finally:
            sys.setprofile(None)
            self._threads.discard(threading.get_ident())

    def _profile(self, frame, event, function):
        if event == 'call':
            code = frame.f_code
            kind = _CODE.get(code)
            if kind:
                self.count(kind)
            elif (code.co_filename == _FAKE_LIBVIRT and
                  frame.f_back.f_code.co_filename != _FAKE_LIBVIRT):
                self.count(LIBVIRT)
        elif (event == 'c_call' and
                function.__name__ in _FILE and
                function.__module__ in _FILE_MODULES and
                not _of_the_interpreter(frame)):
            self.count(FILE)


def _of_the_interpreter(frame):
    """Imports, and source lines for a log, are read at the first time only."""
    name = frame.f_code.co_filename
    return name.startswith('<frozen importlib') or os.path.basename(
        name) in ('linecache.py', 'tokenize.py')
