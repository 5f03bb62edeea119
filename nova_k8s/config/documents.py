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

"""What an object in the cluster says, as texts in the style of nova.conf.

Of a ConfigMap or a Secret, a key that ends in ``.conf`` holds such a text, and
a key ``group.option`` one option. The later a document is in a list, the more
it counts: objects in the order in which they are named, in each of them the
``.conf`` files in the order of their names, as oslo.config reads a
``--config-dir``, and then its single options.
"""

import base64
import binascii
import dataclasses
import re

from nova_k8s.config import errors

CONFIG_MAP = 'ConfigMap'
SECRET = 'Secret'

_FILE = '.conf'

# What does not end a section's header or begin a value.
_GROUP = re.compile(r'[A-Za-z0-9_.:-]+')
_OPTION = re.compile(r'[A-Za-z0-9_-]+')

# What Python takes for the end of a line of a text file.
_LINE_BREAK = re.compile('\r\n|\r|\n')


@dataclasses.dataclass(frozen=True)
class Document:
    """A text in the style of nova.conf, and where it stands.

    :ivar origin: such as ``ConfigMap openstack/nova``
    :ivar key: in it, with ``{group}`` and ``{option}`` where the text was made
        of keys that are one option each; empty of a file
    :ivar text: of an INI file
    :ivar secret: whether nobody may see its values
    """

    origin: str
    key: str
    text: str = dataclasses.field(repr=False)
    secret: bool = False

    def where(self, group=None, option=None):
        """Return what an operator finds an option by."""
        if not self.key:
            return self.origin
        key = self.key.replace('{group}', group or 'DEFAULT').replace(
            '{option}', option or '*')
        return f'{self.origin}, key {key}'


def origin(kind, namespace, name):
    return f'{kind} {namespace}/{name}'


def from_object(kind, body):
    """Return the documents in a ConfigMap or a Secret.

    :param kind: CONFIG_MAP or SECRET; an item of a list does not tell its own
    :param body: the object as a dict
    :raises errors.Refused: when a key is neither a file nor an option
    """
    metadata = body['metadata']
    place = origin(kind, metadata['namespace'], metadata['name'])
    files, options = [], []
    for key, text in sorted(_texts(kind, place, body).items()):
        if key.endswith(_FILE):
            files.append(Document(place, key, text, kind == SECRET))
        else:
            group, _, option = key.rpartition('.')
            options.append((key, group, option, text))
    return files + from_options(place, '{group}.{option}', options,
                                kind == SECRET)


def from_options(place, key, options, secret=False):
    """Return a list with the document that is made of single options, if any.

    :param place: the origin
    :param key: how keys are made of group and option
    :param options: (key, group, option, value) of each
    :raises errors.Refused: when one of them cannot be in an INI file
    """
    lines = []
    for name, group, option, value in options:
        if not _GROUP.fullmatch(group) or not _OPTION.fullmatch(option):
            raise errors.Refused(
                f'{place}, key {name!r}: it is neither a file, <name>{_FILE}, '
                f'nor an option, '
                f'{key.format(group="<group>", option="<option>")}')
        lines += [f'[{group}]', f'{option} = {_value(place, name, value)}']
    text = '\n'.join(lines)
    return [Document(place, key, text, secret)] if lines else []


def _value(place, key, value):
    """Return a value as an INI file has it, in lines of continuation."""
    lines = _LINE_BREAK.split(value.strip())
    if not all(line.strip() for line in lines[1:]):
        raise errors.Refused(
            f'{place}, key {key}: an empty line ends a value; write it '
            f'without, or into a key that ends in {_FILE}')
    return '\n  '.join(lines)


def _texts(kind, place, body):
    data = body.get('data') or {}
    if kind != SECRET:
        for key in body.get('binaryData') or {}:
            raise errors.Refused(f'{place}, key {key}: it is not UTF-8')
        return data
    try:
        return {key: base64.b64decode(value, validate=True).decode()
                for key, value in data.items()}
    except (binascii.Error, UnicodeDecodeError):
        bad = ', '.join(key for key, value in data.items()
                        if not _decodes(value))
        # Not the error itself: Python's words for it hold the value.
        raise errors.Refused(f'{place}, key {bad}: it is not UTF-8') from None


def _decodes(value):
    try:
        base64.b64decode(value, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return False
    return True
