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

"""The configuration of nova-compute, for a command that looks at it."""

import nova.conf

from nova_k8s.cmd import files
from nova_k8s import conf
from nova_k8s.config import command_line
from nova_k8s import errors

CONF = nova.conf.CONF


def load(args):
    """Load the configuration of nova-compute, as the arguments say.

    :raises errors.Refused: when it cannot be loaded
    """
    conf.register_opts(CONF)
    manifest = getattr(args, 'manifest', None)
    container = getattr(args, 'container', None)
    if manifest is None:
        words, defaults = files.words(args), {}
    else:
        # Somebody who looks at a manifest wants Nova's defaults, not what
        # happens to lie in /etc on the machine in front of him.
        words = files.words(args, {})
        defaults = {'default_config_files': [], 'default_config_dirs': []}

    def call():
        CONF(command_line.only_files(words), project='nova',
             prog='nova-compute', **defaults)
        if manifest is not None:
            CONF.set_override('limits_from', 'manifest', 'kubernetes')
            CONF.set_override('manifest', manifest, 'kubernetes')
        if container is not None:
            CONF.set_override('container', container, 'kubernetes')
    files.load(call, words)
    if container is not None and CONF.kubernetes.limits_from == 'downward_api':
        raise errors.Refused(
            '--container: with [kubernetes] limits_from = downward_api, the '
            'volume itself names the container (containerName)')
