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

"""What Nova answers beside guests and migrations, and how it may fail."""

import dataclasses


class Unreachable(Exception):
    """Nova did not answer, or not sensibly; it may do so later."""


class Forbidden(Exception):
    """The account lacks a role; says which. Repeating it does not help."""


class Refused(Exception):
    """Nova does not do this to this guest now; the reason is Nova's."""


@dataclasses.dataclass(frozen=True)
class Service:
    """What matters here of a compute service."""

    id: str
    host: str
    up: bool = True
    enabled: bool = True
    forced_down: bool = False
    reason: str = ''


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a live migration is; bytes, None where it is not known."""

    remaining: int
    total: int
    dest: str = ''
