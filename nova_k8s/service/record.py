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
        self._host = host
        self._node_name = node_name
        self._failed = False

    def _key(self, uuid):
        # A record that was deleted and made anew is another one: nobody has
        # enabled that in spite of anything.
        return {'host': self._host, 'node': self._node_name, 'service': uuid}

    def load(self, uuid):
        """Return the Kept, or None.

        :param uuid: of the service record that it must belong to
        """
        record = statefile.read(self._path, _SCHEMA, self._key(uuid))
        return record and reasons.Kept(frozenset(record['acted']),
                                       frozenset(record['overridden']))

    def forget(self):
        """Others decide from now on; what was kept would be wrong later."""
        try:
            os.unlink(self._path)
        except OSError:
            # There is none, as nearly always.
            pass

    def save(self, known, uuid):
        """Keep it; without a file, all is well but for a restart.

        :param uuid: of the service record that it belongs to
        """
        problem = None
        try:
            statefile.write(self._path, {
                'key': self._key(uuid), 'acted': sorted(known.acted),
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

    @property
    def uuid(self):
        """Of the record that was read last."""
        return self._service.uuid

    def read(self):
        self._service = objects.Service.get_by_compute_host(
            nova_context.get_admin_context(), self.host)
        return self._record()

    def write(self, record):
        """Write the record that was read just before; return what it is.

        That may be another one. Only what changes is written: of an
        administrator's word in between, the rest stays.
        """
        if self._service.disabled != record.disabled:
            self._service.disabled = record.disabled
        if self._service.disabled_reason != record.reason:
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
