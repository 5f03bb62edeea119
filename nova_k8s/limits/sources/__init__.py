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

"""Where a Budget comes from: [kubernetes] limits_from.

A source has two methods.

``read()`` returns the present budget.Budget. It may block and do I/O, so it
is never called on Nova's paths. It raises errors.Unreadable while nothing is
known, and errors.Refused when what is there is not fit for use.

``watch(changed, stop)`` blocks until the event ``stop`` is set, and calls
``changed()`` whenever read() may have something new to say.
"""

from nova_k8s import errors
from nova_k8s.limits.sources import api
from nova_k8s.limits.sources import downward_api
from nova_k8s.limits.sources import manifest


def from_conf(conf):
    """Return the source that [kubernetes] in conf asks for.

    :raises errors.Refused: when an option that it needs is not set
    """
    options = conf.kubernetes
    if options.limits_from == 'api':
        return api.from_conf(conf)
    if options.limits_from == 'manifest':
        return manifest.Source(
            _required(options, 'manifest'), options.container,
            options.pod_name)
    return downward_api.Source(_required(options, 'downward_api_dir'))


def _required(options, name):
    value = options[name]
    if not value:
        raise errors.Refused(
            f'[kubernetes] {name} is not set; limits_from = '
            f'{options.limits_from} reads it')
    return value
