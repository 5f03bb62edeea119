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

"""What the builds of this folder share: a place in the user's cache."""

import contextlib
import fcntl
import os
import pathlib
import sys


class BuildError(Exception):
    pass


def say(text):
    print(text, file=sys.stderr, flush=True)


def folder():
    base = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
    return pathlib.Path(base).expanduser() / 'nova-k8s'


def size(path):
    """What a folder takes on disk, in GB."""
    blocks = 0
    for path, _folders, files in os.walk(path):
        for name in files:
            with contextlib.suppress(OSError):
                blocks += os.lstat(os.path.join(path, name)).st_blocks
    return blocks * 512 / 1e9


@contextlib.contextmanager
def locked(path):
    """Hold a lock; the kernel drops it however its holders end.

    :returns: its file, which those inherit who must hold it as well
    """
    with open(path, 'w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say('another build is under way, waiting for it')
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
