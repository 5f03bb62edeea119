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

"""What can be wrong with the limits of a pod, and how messages name it."""

import reprlib

# The longest name that Kubernetes takes, that of a pod.
_NAME = 253

# How many names a message lists.
_NAMES = 10

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 60
# The default of six levels of six values each is still long.
_short.maxlevel = 2


class LimitsError(Exception):
    """The limits of the pod cannot be used; the message is for operators.

    The message is one line. It names the object, the field and, where there
    is one, the option to set.
    """


class Unreadable(LimitsError):
    """The limits could not be read now.

    Nothing is known about them, so what was last known still holds.
    """


class Refused(LimitsError):
    """The limits were read, and they are not fit for use.

    What was last known no longer holds: nothing new may be placed.
    """


class NoContainer(Refused):
    """The container that is meant for guests is not told, or is not there.

    No node ever ran like that: it is an option that is wrong.
    """


class NotYet(Refused):
    """The limits were read, and do not hold guests at this moment.

    That passes by itself: a container that starts, a resize under way.
    """


class NotWritten(Exception):
    """Placement did not take an inventory; it will be tried again."""


def shown(value):
    """Return a value for a message: quoted, in one line, and short."""
    try:
        return _short.repr(value)
    except ValueError:
        # Python writes no whole number of more than 4300 digits.
        return f'<{type(value).__name__} with too many digits>'


def named(value):
    """Return a name for a message: as it is, unless that is no name."""
    if isinstance(value, str) and len(value) <= _NAME and value.isprintable():
        return value
    return shown(value)


def listed(names):
    """Return names for a message, the first of many."""
    names = list(names)
    rest = len(names) - _NAMES
    return ', '.join(names[:_NAMES]) + (
        f' and {rest} more' if rest > 0 else '')
