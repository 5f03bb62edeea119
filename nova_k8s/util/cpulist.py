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

"""Lists of CPUs and memory nodes, as the kernel writes them: 0-3,8."""

import re

# More than the kernel can have: a list is no way to fill the memory.
_MOST = 65536

_PART = re.compile(r'(\d{1,5})(?:-(\d{1,5}))?', re.ASCII)


def parse(text):
    """Return the numbers of a list, as a frozenset; none for an empty one.

    :raises ValueError: when it is no such list
    """
    found = set()
    text = text.strip()
    for part in text.split(',') if text else ():
        match = _PART.fullmatch(part.strip())
        if not match:
            raise ValueError(f'no list of CPUs: {text[:60]!r}')
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or last >= _MOST:
            raise ValueError(f'no list of CPUs: {text[:60]!r}')
        found.update(range(first, last + 1))
    return frozenset(found)


def render(numbers):
    """Return the list of these numbers; an empty text for none."""
    parts, numbers = [], sorted(numbers)
    while numbers:
        first = last = numbers.pop(0)
        while numbers and numbers[0] == last + 1:
            last = numbers.pop(0)
        parts.append(str(first) if first == last else f'{first}-{last}')
    return ','.join(parts)
