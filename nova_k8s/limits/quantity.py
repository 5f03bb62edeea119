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

"""Kubernetes quantities, read as the API server reads them."""

import decimal
import re

from kubernetes.utils import duration as k8s_duration
from kubernetes.utils import quantity as k8s_quantity

from nova_k8s import errors

# The grammar in the documentation of k8s.io/apimachinery's resource.Quantity.
# kubernetes.utils.parse_quantity takes whatever Python's Decimal takes, which
# is more: NaN, Infinity, underscores, white space.
_GRAMMAR = re.compile(
    r'[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)'
    r'([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,9})?')

# The API server caps larger values at this one.
_MAX = decimal.Decimal(2 ** 63 - 1)


def parse_seconds(value):
    """Return the seconds of a duration such as 1m30s.

    :raises ValueError: when it is none
    """
    return k8s_duration.parse_duration(value).total_seconds()


def parse(value, path):
    """Return the quantity as an exact, non-negative Decimal.

    :param value: what stands in the object: a string, or a number of the YAML
        or JSON it came from
    :param path: path of the field, for the message
    :raises errors.Unreadable: where the API server would refuse the value, as
        a quantity or as the limit or request of a container
    """
    try:
        # A list of aliases may be small in a file, and a large text.
        text = str(value) if isinstance(value, (str, int, float)) else ''
    except ValueError:
        # Python writes no whole number of more than 4300 digits.
        text = ''
    if isinstance(value, bool) or not _GRAMMAR.fullmatch(text):
        raise errors.Unreadable(
            f'{path}: {errors.shown(value)} is not a Kubernetes quantity '
            f'(examples: 7500m, 4, 512Mi, 16Gi)')
    with decimal.localcontext(decimal.Context(prec=60, traps=[])):
        amount = k8s_quantity.parse_quantity(text)
        if amount < 0:
            raise errors.Unreadable(
                f'{path}: {errors.shown(value)} is negative; Kubernetes takes '
                f'no negative limits and requests')
        # The sign rounds it to the digits of the context.
        return min(+amount, _MAX)
