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

"""Fields of objects, of which nothing is known beforehand."""

import typing as ty

from nova_k8s import errors


def mapping(value, path):
    """Return an object, empty where there is none.

    :raises errors.Unreadable: when it is something else
    """
    if value is None:
        return {}
    if not isinstance(value, ty.Mapping):
        raise errors.Unreadable(
            f'{path}: {errors.shown(value)} is not an object')
    return value


def sequence(value, path):
    """Return a list, empty where there is none.

    :raises errors.Unreadable: when it is something else
    """
    if value is None:
        return []
    if not isinstance(value, list):
        raise errors.Unreadable(f'{path}: {errors.shown(value)} is not a list')
    return value
