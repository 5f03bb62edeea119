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

"""Leases: so many at a time in the whole cluster, and no more.

There is one Lease for each slot. Who holds it renews it; one that was not
renewed for its duration is free, because its holder may have died.
"""

import datetime
import json
import time

from kubernetes import client
from oslo_log import log as logging

from nova_k8s import errors
from nova_k8s.kube import client as kube_client

LOG = logging.getLogger(__name__)

_VERSION = 'coordination.k8s.io/v1'

# Seconds after which a lease that was not renewed is free for others, and
# after which it is renewed.
DURATION, RENEW = 120, 20

# Seconds after which its holder gives up one that cannot be renewed, as
# client-go's leader election does: the clocks of two nodes may differ by what
# is left of DURATION.
DEADLINE = DURATION - RENEW


class Slots:
    """One of some slots, for this holder.

    :param connect: returns a kubernetes.client.ApiClient
    :param prefix: of the names of the leases
    :param count: of slots
    :param holder: who holds one, unique in the cluster
    :param timeout: seconds that one request may take
    """

    def __init__(self, connect, namespace, prefix, count, holder, timeout,
                 clock=time.monotonic):
        self._connect = connect
        self._namespace = namespace
        self._names = [f'{prefix}-{each}' for each in range(count)]
        self._holder = holder
        self._timeout = timeout
        self._clock = clock
        self._held = None
        self._renewed = None
        self._problem = None

    def hold(self):
        """Take a slot, or keep it; return whether one is held.

        While the API server is away, it is held until DEADLINE.
        """
        now = self._clock()
        if self._held and now - self._renewed < RENEW:
            return True
        host, problem = '', None
        try:
            connection = self._connect()
            host = connection.configuration.host
            self._held = self._take(connection)
            if self._held:
                self._renewed = now
        except errors.LimitsError as exc:
            problem = str(exc)
        except Exception as exc:
            # Whatever comes over the network: there is no list of it.
            problem = kube_client.explain(exc, host)
        if problem:
            # The question took a while.
            if self._held and self._clock() - self._renewed >= DEADLINE:
                self._held = None
        # Not in the handler: there, oslo.log says the problem a second time.
        if problem and not self._problem:
            LOG.warning('Whether this node may be drained now is not known: '
                        '%s', problem)
        self._problem = problem
        return self._held is not None

    def release(self):
        """Give it back; without an answer it is free after its duration."""
        if not self._held:
            return
        name, self._held = self._held, None
        try:
            api = self._connect()
            lease = self._read(api, name)
            if lease and lease['spec'].get('holderIdentity') == self._holder:
                self._replace(api, lease, None)
        except Exception as exc:
            LOG.debug('Lease %s not given back: %r', name, exc)

    def _take(self, api):
        """Return the name of the lease that is held from now on, or None."""
        found = {name: self._read(api, name) for name in self._names}
        # Ours from before a restart comes first.
        ours = [name for name, lease in found.items() if lease and
                lease['spec'].get('holderIdentity') == self._holder]
        free = [name for name, lease in found.items() if is_free(lease)]
        for name in ours + free:
            try:
                if found[name]:
                    self._replace(api, found[name], self._holder)
                else:
                    self._create(api, name)
                return name
            except client.ApiException as exc:
                # Somebody else was faster.
                if exc.status != 409:
                    raise
        return None

    def _read(self, api, name):
        try:
            return json.loads(self._call(api, 'get', name).data)
        except client.ApiException as exc:
            if exc.status == 404:
                return None
            raise

    def _create(self, api, name):
        self._call(api, 'post', None, {
            'apiVersion': _VERSION, 'kind': 'Lease',
            'metadata': {'name': name}, 'spec': _spec(self._holder)})

    def _replace(self, api, lease, holder):
        # With its resourceVersion: refused where it changed since.
        self._call(api, 'put', lease['metadata']['name'],
                   {**lease, 'spec': _spec(holder)})

    def _call(self, api, verb, name, body=None):
        return kube_client.call(
            api, verb, kube_client.path(_VERSION, 'leases', self._namespace,
                                        name), body, self._timeout)


def is_free(lease, now=None):
    """Tell whether a lease, as a dict, is held by nobody.

    :param lease: None where there is none
    """
    spec = lease and lease.get('spec') or {}
    if not spec.get('holderIdentity') or not spec.get('renewTime'):
        return True
    try:
        renewed = datetime.datetime.fromisoformat(
            spec['renewTime'].replace('Z', '+00:00'))
    except ValueError:
        raise errors.Unreadable(
            f'{errors.shown(spec["renewTime"])} is no time') from None
    now = now or datetime.datetime.now(datetime.timezone.utc)
    return (now - renewed).total_seconds() > spec.get(
        'leaseDurationSeconds', DURATION)


def _spec(holder):
    now = datetime.datetime.now(datetime.timezone.utc).strftime(
        '%Y-%m-%dT%H:%M:%S.%fZ')
    return {'holderIdentity': holder, 'renewTime': now,
            'leaseDurationSeconds': DURATION}
