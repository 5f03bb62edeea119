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
"""What a service is told of its options on its command line."""

# In an argument of the command, where the folder is not to be named last.
PLACE = '{config_dir}'

_FILE, _FOLDER = '--config-file', '--config-dir'


def with_place(command):
    """Return a command in which PLACE stands for the folder."""
    if any(PLACE in each for each in command):
        return list(command)
    return [*command, _FOLDER, PLACE]


def filled_in(command, config_dir):
    """Return a command with the folder in its place."""
    return [each.replace(PLACE, config_dir) for each in command]


def of_files(files, folders):
    """Return the words that name files, and after them folders."""
    return [*(f'{_FILE}={each}' for each in files or ()),
            *(f'{_FOLDER}={each}' for each in folders or ())]


def files(words):
    """Return (path, whether it is a folder) of what words name, in order."""
    found, words = [], iter(words)
    for word in words:
        name, equals, path = word.partition('=')
        if name in (_FILE, _FOLDER):
            path = path if equals else next(words, '')
            found.append((path, name == _FOLDER))
    return found


def only_files(words):
    """Return the words that name files and folders, in their order."""
    return known(words, {})[1]


def known(words, by_flag):
    """Return (keys, words): what of the words sets options or names files.

    In their order: a file wins over what is named before it.

    :param words: whatever a service is started with
    :param by_flag: {flag: (key, whether it takes a value)} of its options
    """
    by_flag = {**by_flag, _FILE: (None, True), _FOLDER: (None, True)}
    keys, found, words = set(), [], iter(words)
    for word in words:
        flag, equals, _value = word.partition('=')
        if flag not in by_flag:
            continue
        key, takes_value = by_flag[flag]
        keys.add(key)
        found.append(word)
        if takes_value and not equals:
            found += [each for each in (next(words, None),) if each]
    return keys, found
