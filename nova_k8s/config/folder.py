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

"""The private --config-dir of a service that follows its objects.

Its files are replaced all at once, by one symbolic link, as a kubelet does it
in a volume.
"""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import tempfile

from nova_k8s.config import command_line
from nova_k8s.config import documents
from nova_k8s.config import errors

STARTED, CURRENT = 'started', 'current'

_INDEX, _COMMAND = 'index.json', 'command.json'


class Folder:
    """A folder with what the service started with, and what holds now.

    :param path: of a folder for this alone. It is made where it is missing.
    """

    def __init__(self, path):
        self.path = path

    @property
    def config_dir(self):
        """The path to name with --config-dir."""
        return os.path.join(self.path, CURRENT)

    def start(self, found, command=()):
        """Write documents as what the service starts with.

        :param command: of the service, with command_line.PLACE
        :raises errors.Refused: when that is not possible
        """
        try:
            os.makedirs(self.path, 0o700, exist_ok=True)
            name = self._write(found)
            self._link(CURRENT, name)
            self._link(STARTED, name)
            self._remove_others(name)
            path = os.path.join(self.path, _COMMAND)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            _write(path, json.dumps(list(command)))
        except OSError as exc:
            raise errors.Refused(
                f'{exc.filename or self.path}: {exc.strerror}') from None

    def replace(self, found):
        """Write documents in place of the current ones.

        :raises OSError: when it cannot be done; the current ones stay then
        """
        old = os.readlink(self.config_dir)
        name = self._write(found)
        self._link(CURRENT, name)
        # The one before stays: the service may just be reading it.
        self._remove_others(name, old,
                            os.readlink(os.path.join(self.path, STARTED)))

    def read(self, which):
        """Return the documents of STARTED or CURRENT.

        :raises errors.Refused: when there are none
        """
        try:
            return read_index(os.path.join(self.path, which))
        except OSError as exc:
            raise _not_written(exc) from None

    def words(self, which):
        """Return the words of the service's command.

        :param which: what it is to find in its folder: STARTED or CURRENT
        :raises errors.Refused: when there are none
        """
        try:
            with open(os.path.join(self.path, _COMMAND),
                      encoding='utf-8') as f:
                command = json.load(f)
        except OSError as exc:
            raise _not_written(exc) from None
        path = os.path.join(self.path, which)
        words = command_line.filled_in(command, path)
        if (path, True) not in command_line.files(words):
            # In a word for another program, such as uWSGI.
            words += command_line.of_files((), [path])
        return words

    def _write(self, found):
        folder = tempfile.mkdtemp(prefix='..', dir=self.path)
        try:
            for i, each in enumerate(found):
                # In the order in which oslo.config reads them: by name.
                where = re.sub('[^A-Za-z0-9_.-]+', '-', each.where())
                _write(os.path.join(folder, f'{i:03}-{where[:200]}.conf'),
                       each.text)
            _write(os.path.join(folder, _INDEX), json.dumps(
                [dataclasses.asdict(each) for each in found]))
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return os.path.basename(folder)

    def _link(self, name, target):
        path = os.path.join(self.path, name)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + '.new')
        os.symlink(target, path + '.new')
        os.rename(path + '.new', path)

    def _remove_others(self, *names):
        for name in os.listdir(self.path):
            if name.startswith('..') and name not in names:
                shutil.rmtree(os.path.join(self.path, name),
                              ignore_errors=True)


def read_index(path):
    """Return the documents that were written into a folder.

    :raises OSError: when none were
    """
    with open(os.path.join(path, _INDEX), encoding='utf-8') as f:
        return [documents.Document(**each) for each in json.load(f)]


def _not_written(exc):
    return errors.Refused(f'{exc.filename}: {exc.strerror}; is this the --dir '
                          f'of nova-k8s config run?')


def _write(path, text):
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600),
              'w', encoding='utf-8', newline='') as f:
        f.write(text)
