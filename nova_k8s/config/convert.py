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

"""A nova.conf as a ConfigMap and a Secret."""

import os

from nova_k8s.config import documents
from nova_k8s.config import effective
from nova_k8s.config import errors
from nova_k8s.config import layers


def from_files(paths, definitions, name, namespace):
    """Return (ConfigMap, Secret or None, names of options nobody knows).

    Each file becomes a key of each of the two. What is marked secret goes
    into the Secret, and so does what no list of options has, as it might be.

    :param paths: of files in the style of nova.conf; the later wins
    :raises errors.Refused: when one of them cannot be read
    """
    public, secret, unknown = {}, {}, []
    read = [layers.Layer(_read(path)) for path in paths]
    secrets = _secrets(read, definitions)
    for i, (path, layer) in enumerate(zip(paths, read)):
        key = os.path.basename(path)
        if not key.endswith('.conf'):
            key += '.conf'
        if len(paths) > 1:
            # The order of keys is that of their names.
            key = f'{i:02}-{key}'
        texts = {True: [], False: []}
        for section, options in layer.sections.items():
            split = {True: [], False: []}
            for option, values in options.items():
                known = definitions.find(section, option)
                if not known:
                    unknown.append(f'[{section}] {option}')
                hidden = not known or (known[0], known[1].dest) in secrets
                split[hidden] += [_line(option, value) for value in values]
            for hidden, lines in split.items():
                if lines:
                    texts[hidden] += [f'[{section}]', *lines, '']
        public[key] = '\n'.join(texts[False])
        secret[key] = '\n'.join(texts[True])
    return (_object(documents.CONFIG_MAP, name, namespace, 'data', public),
            _object(documents.SECRET, f'{name}-credentials', namespace,
                    'stringData', secret), unknown)


def _secrets(read, definitions):
    """Return {(group, dest)} of the options that go into the Secret.

    With their values of all files and names: a Secret wins over all
    ConfigMaps, so a later value that is there would not win any more.
    """
    found = set()
    for layer in read:
        for section, options in layer.sections.items():
            for option, values in options.items():
                known = definitions.find(section, option)
                if known and (known[1].secret or any(
                        effective.shown(known[1], value) != value
                        for value in values)):
                    found.add((known[0], known[1].dest))
    return found


def _line(option, value):
    first, *more = value.split('\n')
    # oslo.config takes off what is around a value: blanks, then quotes.
    if first != first.strip() or (
            first and first[0] == first[-1] and first[0] in '"\''):
        first = f'"{first}"'
    return '\n  '.join([f'{option} = {first}'.rstrip(), *more])


def _object(kind, name, namespace, field, texts):
    texts = {key: text for key, text in texts.items() if text}
    if not texts:
        return None
    metadata = {'name': name}
    if namespace:
        metadata['namespace'] = namespace
    return {'apiVersion': 'v1', 'kind': kind, 'metadata': metadata,
            field: texts}


def _read(path):
    try:
        with open(path, encoding='utf-8') as f:
            return documents.Document(path, '', f.read())
    except UnicodeDecodeError:
        raise errors.Refused(f'{path}: it is not UTF-8') from None
    except OSError as exc:
        raise errors.Refused(f'{path}: {exc.strerror}') from None
