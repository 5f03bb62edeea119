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

"""Limits from the pod itself, as the Kubernetes API server tells it."""

import json
import os

from kubernetes import client
import urllib3

from nova_k8s import budget
from nova_k8s import errors
from nova_k8s import kube


class Source:
    """Reads one pod, by its name or by its labels and node.

    :param api: kubernetes.client.ApiClient
    :param container: [kubernetes] container
    :param timeout: seconds that one request may take
    """

    def __init__(self, api, namespace, name=None, selector=None, node=None,
                 container=None, timeout=10):
        self._api = client.CoreV1Api(api)
        self._host = api.configuration.host
        self._namespace = namespace
        self._name = name
        self._selector = selector
        self._node = node
        self._container = container
        self._timeout = timeout

    def read(self):
        return self.budget(self._pods())

    def watch(self, changed, stop):
        stop.wait()

    def budget(self, pods):
        """Return the budget of the one pod that is meant.

        :raises errors.Refused: when there is not exactly one
        """
        return budget.from_pod(self._choose(pods), self._container,
                               f'API server {self._host}')

    def _pods(self):
        query = {'label_selector': self._selector} if self._selector else {}
        try:
            # As they come, not as the client's models: those drop what the
            # client's release does not know.
            answer = self._api.list_namespaced_pod(
                self._namespace, field_selector=self._field_selector(),
                _preload_content=False, _request_timeout=self._timeout,
                **query)
            data = answer.data
        except (client.ApiException, urllib3.exceptions.HTTPError, OSError,
                ValueError) as exc:
            raise errors.Unreadable(
                f'{self._what()}: {kube.explain(exc, self._host)}') from None
        try:
            return [_complete(pod) for pod in json.loads(data)['items']]
        except (KeyError, TypeError, ValueError, RecursionError):
            raise errors.Unreadable(
                f'{self._what()}: API server {self._host}: its answer is no '
                f'list of pods') from None

    def _field_selector(self):
        if self._selector:
            return f'spec.nodeName={self._node}'
        return f'metadata.name={self._name}'

    def _what(self):
        if self._selector:
            return (f'pods {self._selector} of namespace {self._namespace} '
                    f'on node {self._node}')
        return f'Pod {self._namespace}/{self._name}'

    def _choose(self, pods):
        running = [pod for pod in pods if not _finished(pod)]
        if len(running) > 1:
            # In a rolling update the old pod is still there while it ends.
            running = [pod for pod in running
                       if not pod['metadata'].get('deletionTimestamp')
                       ] or running
        if len(running) == 1:
            return running[0]
        if running:
            raise errors.Refused(
                f'{self._what()}: several match '
                f'({", ".join(sorted(map(budget.describe, running)))}); '
                f'narrow [kubernetes] pod_selector down to one')
        options = ('pod_selector, namespace and node_name' if self._selector
                   else 'pod_name and namespace (POD_NAME and POD_NAMESPACE '
                        'in the environment)')
        raise errors.Refused(
            f'{self._what()}: not found at API server {self._host}; set '
            f'[kubernetes] {options}')


def from_conf(conf, environ=os.environ):
    """Return the source for this pod, or for the one that is named.

    :raises errors.Refused: when it cannot be told which pod is meant
    """
    options = conf.kubernetes
    node = kube.node_name(conf, environ)
    if options.pod_selector and not node:
        raise errors.Refused(
            '[kubernetes] pod_selector needs the node of this pod: set '
            'NODE_NAME in the environment from spec.nodeName, or [kubernetes] '
            'node_name')
    return Source(
        kube.api_client(conf), kube.namespace(conf, environ),
        kube.pod_name(conf, environ), options.pod_selector, node,
        options.container, options.api_timeout)


def _complete(pod):
    # The items of a list have no kind.
    return dict(pod, kind='Pod', metadata=dict(pod['metadata']),
                status=dict(pod.get('status') or {}))


def _finished(pod):
    return pod['status'].get('phase') in ('Succeeded', 'Failed')
