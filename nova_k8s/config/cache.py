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

"""The last good read of objects, for a start while the API server is away."""

import contextlib
import dataclasses
import os
import stat
import time

from oslo_log import log as logging

from nova_k8s.config import documents
from nova_k8s.config import errors
from nova_k8s.config import layers

LOG = logging.getLogger(__name__)

# Whether what is read may be kept: not while somebody only looks, as the file
# tells what the service was started with.
_keeping = True

# Whether it is asked what is so now, and not what the last start was told.
_asking = True

_SCHEMA = {
    'type': 'object',
    'required': ['key', 'time', 'documents'],
    'properties': {
        'key': {'type': 'string'},
        'time': {'type': 'number'},
        'documents': {'type': 'array', 'items': {
            'type': 'object',
            'required': ['origin', 'key', 'text', 'secret'],
            'additionalProperties': False,
            'properties': {
                'origin': {'type': 'string'},
                'key': {'type': 'string'},
                'text': {'type': 'string'},
                'secret': {'type': 'boolean'},
            }}},
    },
}


class Cache:
    """The file of one source of one service.

    :param folder: where it lies; None to keep nothing
    :param name: of the file, without its end
    :param key: what the documents are of: another source must not take them
    :param secrets: whether Secrets are kept as well
    """

    def __init__(self, folder, name, key, secrets):
        self._folder = folder
        self._path = os.path.join(folder, f'{name}.json') if folder else None
        self._key = key
        self.keeps_secrets = secrets

    def save(self, found):
        """Keep documents; a disk that is full does not stop a service."""
        if not self._path or not _keeping:
            return
        # Not above: it loads jsonschema, and most keep nothing.
        from nova_k8s.util import statefile
        record = {'key': self._key, 'time': time.time(), 'documents': [
            dataclasses.asdict(each) for each in found
            if self.keeps_secrets or not each.secret]}
        try:
            os.makedirs(self._folder, 0o700, exist_ok=True)
            statefile.write(self._path, record)
        except OSError as exc:
            LOG.warning('A start while the API server is away would fail: '
                        '%s: %s', self._path, exc.strerror or exc)

    def load(self):
        """Return (documents, time), None where nothing was kept.

        :raises errors.Refused: when others could have written it
        """
        if not self._path:
            return None
        from nova_k8s.util import statefile
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        if found.st_uid not in (0, os.geteuid()) or (
                stat.S_IMODE(found.st_mode) & 0o077):
            raise errors.Refused(
                f'{self._path}: it must belong to the user of the service '
                f'and nobody else may read or write it (chmod 600)')
        record = statefile.read(self._path, _SCHEMA, self._key)
        if record is None:
            return None
        return ([documents.Document(**each) for each in record['documents']],
                record['time'])


@contextlib.contextmanager
def untouched():
    """Have no file changed within a with statement."""
    global _keeping
    _keeping = False
    try:
        yield
    finally:
        _keeping = True


@contextlib.contextmanager
def of_last_start():
    """Have read() say what it was told at the last start of the service.

    Of Secrets that are not kept it says what is so now, so that they count in
    both: what wins over what is as it is for the service.
    """
    global _asking
    _asking = False
    try:
        with untouched():
            yield
    finally:
        _asking = True


def read(cache, ask, secrets):
    """Return the documents that ask() returns, or those of its last time.

    :param secrets: the names of the Secrets among what is read
    :raises errors.ConfigError: when there is neither
    """
    if not _asking:
        return _last(cache, ask, secrets)
    try:
        found = ask()
    except errors.Unreachable as exc:
        problem = str(exc)
    else:
        # What no service starts with is no good read; nor is the service to
        # meet it, which would say what is in the line.
        layers.Layers(found)
        cache.save(found)
        return found
    kept = cache.load()
    if kept is None:
        raise errors.Unreachable(problem)
    found, when = kept
    if secrets and not cache.keeps_secrets:
        raise errors.Unreachable(
            f'{problem}; the last good read is kept without Secrets (see '
            f'cache_secrets)')
    LOG.warning('The configuration is that of %s: %s',
                time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(when)),
                problem)
    return found


def _last(cache, ask, secrets):
    kept = cache.load()
    if kept is None:
        raise errors.Refused('what it was at the last start is not known')
    found, _when = kept
    if secrets and not cache.keeps_secrets:
        found += [each for each in ask() if each.secret]
    return found
