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

"""One pod: making it, annotating it, removing what is left of it."""

import json

from kubernetes import client

from nova_k8s import errors
from nova_k8s.kube import client as kube_client

_MERGE = 'application/merge-patch+json'


class Pod:
    """The pod of this name, whether it is there or not.

    :param connect: returns a kubernetes.client.ApiClient
    :param timeout: seconds that one request may take
    """

    def __init__(self, connect, namespace, name, timeout):
        self._connect = connect
        self._timeout = timeout
        self.namespace = namespace
        self.name = name

    def __str__(self):
        return f'Pod {self.namespace}/{self.name}'

    def read(self):
        """Return the pod as a dict, None where there is none.

        :raises errors.Unreadable: when the API server does not say
        """
        return self._call('GET', self.name, missing=True)

    def create(self, body):
        """Make it; where it is there by now, that is as good.

        :raises errors.Refused: when the API server does not take it
        :raises errors.Unreadable: when there is no answer
        """
        self._call('POST', None, body, accepted=(409,))

    def annotate(self, uid, annotations):
        """Write annotations of the pod with this uid.

        :returns: the pod as it is then; None where it is there no more
        :raises errors.LimitsError: as create()
        """
        # Another uid is a conflict: it is another pod of the same name.
        return self._call(
            'PATCH', self.name,
            {'metadata': {'uid': uid, 'annotations': annotations}},
            accepted=(404, 409), content_type=_MERGE)

    def remove(self, body):
        """Remove what is left of a pod that has ended, and no other.

        :param body: the pod as it was seen; one that changed since stays
        :raises errors.LimitsError: as create()
        """
        self._call('DELETE', self.name, {'preconditions': {
            'uid': body['metadata']['uid'],
            'resourceVersion': body['metadata']['resourceVersion']}},
            accepted=(404, 409))

    def _call(self, verb, name, body=None, missing=False, accepted=(),
              **query):
        host = ''
        try:
            api = self._connect()
            host = api.configuration.host
            return json.loads(kube_client.call(
                api, verb, kube_client.path('v1', 'pods', self.namespace,
                                            name),
                body, self._timeout, **query).data)
        except client.ApiException as exc:
            if exc.status in accepted or missing and exc.status == 404:
                return None
            text = f'{self}: {kube_client.explain(exc, host)}'
            # The others may be answered otherwise the next time.
            final = 400 <= exc.status < 500 and exc.status not in (
                401, 404, 408, 429)
            raise (errors.Refused if final else errors.Unreadable)(
                text) from None
        except errors.LimitsError:
            raise
        except Exception as exc:
            # Whatever comes over the network: there is no list of it.
            raise errors.Unreadable(
                f'{self}: {kube_client.explain(exc, host)}') from None
