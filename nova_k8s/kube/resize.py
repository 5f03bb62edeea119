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

"""Resizing a pod in place, through its subresource ``resize``."""

import dataclasses
import json

from kubernetes import client

from nova_k8s import errors
from nova_k8s.kube import client as kube_client

# The API server merges the containers of this kind of patch by their names.
_MERGE = 'application/strategic-merge-patch+json'


@dataclasses.dataclass(frozen=True)
class Refusal(Exception):
    """Kubernetes does not take a wish, and will not take it again soon."""

    reason: str
    """In Kubernetes' way: one word, for machines."""

    text: str


class Changed(Exception):
    """The pod is another one, or was changed since it was read."""


# Who refuses with 403, by a part of the message. There is no field for it.
_WHO = (('exceeded quota', 'Quota'),
        ('enough allocatable resources', 'NodeCapacity'),
        ('ValidatingAdmissionPolicy', 'Policy'),
        ('per Container', 'LimitRange'),
        ('per Pod', 'LimitRange'),
        ('cannot patch resource', 'Rights'))


def wish(connect, pod, container, resources, timeout):
    """Wish other requests and limits of a container, the same for both.

    :param connect: returns a kubernetes.client.ApiClient
    :param pod: the pod as it was read, a dict
    :param resources: quantities by resource
    :returns: metadata.generation of the pod that wishes it
    :raises Changed: when it was changed meanwhile
    :raises Refusal: when something in the cluster refuses
    :raises errors.LimitsError: when there is no proper answer
    """
    metadata = pod['metadata']
    where = f'Pod {metadata["namespace"]}/{metadata["name"]}'
    body = {
        # Not one of the same name, nor one that somebody else resized.
        'metadata': {'uid': metadata['uid'],
                     'resourceVersion': metadata['resourceVersion']},
        'spec': {'containers': [{
            'name': container,
            'resources': {'requests': resources, 'limits': resources}}]}}
    host = ''
    try:
        api = connect()
        host = api.configuration.host
        return json.loads(kube_client.call(
            api, 'PATCH', kube_client.path(
                'v1', 'pods', metadata['namespace'],
                metadata['name']) + '/resize',
            body, timeout, content_type=_MERGE).data)['metadata'].get(
                'generation')
    except errors.LimitsError:
        raise
    except client.ApiException as exc:
        text = f'{where}: {kube_client.explain(exc, host)}'
        if exc.status in (404, 409):
            raise Changed(text) from None
        if exc.status in (401, 429) or exc.status >= 500:
            raise errors.Unreadable(text) from None
        raise Refusal(_who(text), text) from None
    except Exception as exc:
        raise errors.Unreadable(
            f'{where}: {kube_client.explain(exc, host)}') from None


def _who(text):
    for part, who in _WHO:
        if part in text:
            return who
    return 'Invalid'
