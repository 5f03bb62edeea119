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


"""The last known budget, kept on disk.

A restart while the API server is away must change nothing.
"""

import dataclasses
import datetime
import os

from oslo_log import log as logging

from nova_k8s import errors
from nova_k8s.kube import client as kube_client
from nova_k8s.limits import budget
from nova_k8s.limits import watcher
from nova_k8s.util import statefile

LOG = logging.getLogger(__name__)

_FILE = 'nova-k8s-budget.json'

_AMOUNT = {'type': ['integer', 'null'], 'minimum': 0}
_TEXT = {'type': ['string', 'null']}
_SCHEMA = {
    'type': 'object',
    'additionalProperties': False,
    'required': ['key', 'read_at', 'budget'],
    'properties': {
        'key': {'type': 'object'},
        'read_at': {'type': 'string'},
        'budget': {
            'type': 'object',
            'additionalProperties': False,
            'required': ['source', 'cpu_millicores', 'memory_bytes'],
            'properties': {
                'source': {'type': 'string'},
                'cpu_millicores': _AMOUNT,
                'memory_bytes': _AMOUNT,
                'hugepages': {
                    'type': 'array',
                    'items': {
                        'type': 'array',
                        'prefixItems': [{'type': 'string'},
                                        {'type': 'integer', 'minimum': 0}],
                        'minItems': 2, 'maxItems': 2}},
                'ephemeral_storage_bytes': _AMOUNT,
                'cpu_request_millicores': _AMOUNT,
                'memory_request_bytes': _AMOUNT,
                'missing': {'type': 'array', 'items': {'type': 'string'}},
                'caveats': {'type': 'array', 'items': {'type': 'string'}},
                'node_name': _TEXT,
                'deletion_time': _TEXT,
                'workload': _TEXT,
                'generation': _AMOUNT,
                **dict.fromkeys(
                    ('resizing', 'unconfirmed', 'withheld', 'resize_error',
                     'resize_pending'), _TEXT),
                'pod': {
                    'type': ['object', 'null'],
                    'additionalProperties': False,
                    'required': ['kind', 'name', 'uid', 'namespace'],
                    'properties': dict.fromkeys(
                        ('kind', 'name', 'uid', 'namespace'),
                        {'type': 'string'})},
            },
        },
    },
}


def start(conf, source, enforced=watcher.nothing, closed=False):
    """Return the watcher.State to start with, and keep it.

    :param enforced: as for watcher.read_first()
    :param closed: whether to start without a budget where there is none, as
        a node that runs goes on without one
    :raises errors.LimitsError: as resume(); with closed only what no node
        that runs could have
    """
    try:
        state = resume(conf, source, enforced)
    except errors.LimitsError as exc:
        if isinstance(exc, errors.Refused) and not isinstance(
                exc, errors.NotYet):
            # Or what was before would be there again at the next start, once
            # the API server is away.
            forget(conf)
        if not closed or isinstance(exc, errors.NoContainer):
            raise
        return watcher.State(None, str(exc))
    if not state.stale:
        # Also limits that are too small to start with: see above.
        save(conf, state.budget)
    return state


def resume(conf, source, enforced=watcher.nothing):
    """Return the watcher.State to go on with, and write nothing.

    :param enforced: as for watcher.read_first()
    :raises errors.LimitsError: when the limits cannot be read and are not
        known from before, or are not fit for use
    """
    if conf.kubernetes.limits_from != 'api':
        return watcher.State(watcher.read_first(source, 0, enforced=enforced))
    kept = load(conf)
    known, read_at = kept or (None, None)
    patience = conf.kubernetes.api_timeout
    try:
        return watcher.State(watcher.read_first(
            source, 0 if known else patience, patience, known, enforced))
    except errors.Unreadable as exc:
        if not known:
            raise errors.Unreadable(
                f'{exc}; [kubernetes] kubeconfig, or else the service '
                f'account of the pod, says which API server is asked'
            ) from None
        return watcher.State(
            known, f'{exc}; the limits are those of {read_at}')


def path(conf):
    return os.path.join(conf.state_path, _FILE)


def key(conf, environ=os.environ):
    """What the budget belongs to; another key, another budget.

    Not the name of the pod: a new pod on the same node has another one.
    """
    options = conf.kubernetes
    return {'host': conf.host,
            'node': kube_client.node_name(conf, environ),
            'namespace': kube_client.namespace(conf, environ),
            'pod_name': options.pod_name,
            'pod_selector': options.pod_selector,
            'container': options.container,
            **({'guests_pod': True} if options.guests_pod else {})}


def save(conf, present):
    """Keep the budget; a failure is logged, because nothing depends on it."""
    if conf.kubernetes.limits_from != 'api':
        return
    now = datetime.datetime.now(datetime.timezone.utc)
    problem = None
    try:
        statefile.write(path(conf), {
            'key': key(conf), 'read_at': now.isoformat(timespec='seconds'),
            'budget': dataclasses.asdict(present)})
    except (OSError, errors.LimitsError) as exc:
        problem = str(exc)
    # Not in the handler: there, oslo.log says the problem a second time.
    if problem:
        LOG.warning('The limits could not be kept for a restart without an '
                    'API server: %s', problem)


def forget(conf):
    """Keep nothing: limits that were lost do not come back at a restart."""
    try:
        os.unlink(path(conf))
    except FileNotFoundError:
        return
    except OSError as exc:
        problem = str(exc)
    else:
        return
    LOG.warning('The limits that were lost are still kept for a restart '
                'without an API server; delete the file: %s', problem)


def load(conf):
    """Return (budget, when it was read), or None.

    None also for what is damaged, or belongs to another node, pod or
    container.
    """
    record = statefile.read(path(conf), _SCHEMA, key(conf))
    if not record:
        return None
    return _budget(record['budget']), record['read_at']


def _budget(fields):
    pod = fields.pop('pod', None)
    return budget.Budget(**dict(
        fields,
        hugepages=tuple(map(tuple, fields.get('hugepages', ()))),
        missing=tuple(fields.get('missing', ())),
        caveats=tuple(fields.get('caveats', ())),
        pod=budget.Reference(**pod) if pod else None))
