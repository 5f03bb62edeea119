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

"""The record of the compute service in Nova, and what is kept beside it."""

import os

from nova import context as nova_context
from nova import objects
from oslo_log import log as logging

from nova_k8s.service import reasons
from nova_k8s.util import statefile

LOG = logging.getLogger(__name__)

_FILE = 'nova-k8s-service.json'

_SCHEMA = {
    'type': 'object',
    'additionalProperties': False,
    'required': ['key', 'acted', 'overridden'],
    'properties': {
        'key': {'type': 'object'},
        **dict.fromkeys(('acted', 'overridden'), {
            'type': 'array', 'items': {'enum': sorted(reasons.REASONS)}}),
    },
}


class File:
    """Where the Kept is kept.

    :param folder: Nova's state_path
    """

    def __init__(self, folder, host, node_name):
        self._path = os.path.join(folder, _FILE)
        self._key = {'host': host, 'node': node_name}
        self._failed = False

    def load(self):
        """Return the Kept, or None."""
        record = statefile.read(self._path, _SCHEMA, self._key)
        return record and reasons.Kept(frozenset(record['acted']),
                                       frozenset(record['overridden']))

    def forget(self):
        """Others decide from now on; what was kept would be wrong later."""
        try:
            os.unlink(self._path)
        except OSError:
            # There is none, as nearly always.
            pass

    def save(self, known):
        """Keep it; without a file, all is well but for a restart."""
        problem = None
        try:
            statefile.write(self._path, {
                'key': self._key, 'acted': sorted(known.acted),
                'overridden': sorted(known.overridden)})
        except OSError as exc:
            problem = str(exc)
        # Not in the handler: there, oslo.log says the problem a second time.
        if problem and not self._failed:
            LOG.warning('After a restart it will not be known in spite of '
                        'what the compute service was enabled: %s', problem)
        self._failed = bool(problem)


class ComputeService:
    """The compute service of this host, in Nova.

    :param virtapi: nova.virt.virtapi.VirtAPI
    """

    def __init__(self, host, virtapi):
        self.host = host
        self._virtapi = virtapi
        self._service = None

    def read(self):
        self._service = objects.Service.get_by_compute_host(
            nova_context.get_admin_context(), self.host)
        return self._record()

    def write(self, record):
        """Write the record that was read just before; return what it is."""
        self._service.disabled = record.disabled
        self._service.disabled_reason = record.reason
        self._service.save()
        return self._record()

    def _record(self):
        return reasons.Record(self._service.disabled,
                              self._service.disabled_reason)

    def report(self):
        """Have Placement know at once what was written.

        Nova's driver calls the same, and leaves it to the next periodic task
        when it fails.
        """
        self._virtapi.update_compute_provider_status(
            nova_context.get_admin_context(), self._service.compute_node.uuid,
            enabled=not self._service.disabled)
