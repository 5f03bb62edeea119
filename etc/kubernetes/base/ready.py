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

"""The probes of the pod: does this node's nova-compute answer?

It is asked over RPC, on the queue that the rest of Nova uses for it. Takes
the arguments of nova-compute, and ends with 0 where it answers.
"""

import sys

import nova.conf
from nova import context
from nova import rpc
import oslo_messaging

CONF = nova.conf.CONF

# Below timeoutSeconds of the probes, less what it takes to start Python.
TIMEOUT = 8


def ping(host):
    """Return its answer.

    :raises oslo_messaging.MessagingException: where there is none
    """
    client = rpc.get_client(
        oslo_messaging.Target(topic='compute', server=host))
    # The endpoint that [DEFAULT] rpc_ping_enabled adds.
    return client.prepare(timeout=TIMEOUT).call(
        context.get_admin_context(), 'oslo_rpc_server_ping')


def main(arguments):
    CONF(arguments, project='nova')
    rpc.init(CONF)
    try:
        ping(CONF.host)
    except oslo_messaging.MessagingException as exc:
        print(f'nova-compute on {CONF.host} does not answer: {exc}',
              file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
