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

"""Following files that Kubernetes or an operator replaces."""

import os

# How often files are looked at, in seconds. A ConfigMap or downward API
# volume changes by renaming a symlink to another folder, an editor renames a
# new file over the old one: looking at where the path leads sees them all.
INTERVAL = 0.2


def signature(paths):
    """Return something that differs when one of the files was changed."""
    found = []
    for path in paths:
        try:
            stat = os.stat(path)
        except OSError as exc:
            found.append(exc.errno)
        else:
            found.append((os.path.realpath(path), stat.st_dev, stat.st_ino,
                          stat.st_size, stat.st_mtime_ns))
    return found


def watch(paths, changed, stop):
    """Call changed() after each change of the files, until stop is set."""
    told = seen = None
    while not stop.wait(INTERVAL):
        now = signature(paths)
        # Also the first time: the files may have changed since read(). Only
        # what stays for two looks: a file may be in the middle of being
        # written, and half of `500m` is a thousand times more.
        if now == seen and now != told:
            told = now
            changed()
        seen = now
