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

"""What can be wrong with the limits of a pod."""


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


class NotWritten(Exception):
    """Placement did not take an inventory; it will be tried again."""
