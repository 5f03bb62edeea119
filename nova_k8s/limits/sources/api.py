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

import functools
import os

from nova_k8s import errors
from nova_k8s.kube import client as kube_client
from nova_k8s.kube import watch
from nova_k8s.limits import pod_spec


class Source:
    """Reads one pod, by its name or by its labels and node.

    The cost at the API server does not depend on the size of the cluster:
    a list now and then (kube.watch.PERIOD, and kube.pulse), and a watch in
    between, of what the query selects.

    :param connect: returns a kubernetes.client.ApiClient
    :param container: [kubernetes] container
    :param timeout: seconds that one request may take
    """

    def __init__(self, connect, namespace, name=None, selector=None,
                 node=None, container=None, timeout=10):
        self._container = container
        self._selector = selector
        if selector:
            self._what = (f'pods {selector} of namespace {namespace} on node '
                          f'{node}')
            query = {'label_selector': selector,
                     'field_selector': f'spec.nodeName={node}'}
        else:
            self._what = f'Pod {namespace}/{name}'
            query = {'field_selector': f'metadata.name={name}'}
        self._open = functools.partial(
            watch.Watch, connect, kube_client.path('v1', 'pods', namespace),
            self._what, timeout=timeout, **query)
        self._watch = None

    def read(self):
        if self._watch:
            return self.budget(self._watch.objects())
        return self.budget(self._open(changed=None).list()[0])

    def pod(self):
        """Return the one pod that is meant, as last seen, from memory.

        :raises errors.LimitsError: when it may have changed since
        """
        if not self._watch:
            raise errors.Unreadable(watch.NOT_YET)
        return self._choose(self._watch.objects())

    def watch(self, changed, stop):
        self._watch = self._open(changed=changed)
        self._watch.run(stop)

    def latest(self):
        """Return the pod as last seen, from memory, or None.

        Only for a pod that is read by its name.

        :raises errors.LimitsError: when it may have changed since
        """
        if not self._watch:
            raise errors.Unreadable(watch.NOT_YET)
        return next(map(self._complete, self._watch.objects()), None)

    def budget(self, pods):
        """Return the budget of the one pod that is meant.

        :raises errors.Refused: when there is not exactly one
        :raises errors.NotYet: when its container does not run
        """
        return pod_spec.parse(self._choose(pods), self._container,
                              'API server', running=True)

    def _complete(self, pod):
        try:
            # The items of a list have no kind.
            return dict(pod, kind='Pod', metadata=dict(pod['metadata']),
                        status=dict(pod.get('status') or {}))
        except (AttributeError, KeyError, TypeError, ValueError):
            raise errors.Unreadable(
                f'{self._what}: what the API server answers is no pod'
            ) from None

    def _choose(self, pods):
        running = [pod for pod in map(self._complete, pods)
                   if pod['status'].get('phase')
                   not in ('Succeeded', 'Failed')]
        if len(running) > 1:
            # In a rolling update the old pod is still there while it ends.
            running = [pod for pod in running
                       if not pod['metadata'].get('deletionTimestamp')
                       ] or running
        if len(running) == 1:
            return running[0]
        if running:
            raise errors.Refused(
                f'{self._what}: several match '
                f'({", ".join(sorted(map(pod_spec.describe, running)))}); '
                f'narrow [kubernetes] pod_selector down to one')
        options = ('pod_selector, namespace and node_name' if self._selector
                   else 'pod_name and namespace (POD_NAME and POD_NAMESPACE '
                        'in the environment)')
        raise errors.Refused(
            f'{self._what}: not found at the API server; set [kubernetes] '
            f'{options}')


def from_conf(conf, environ=os.environ):
    """Return the source for this pod, or for the one that is named.

    :raises errors.Refused: when it cannot be told which pod is meant
    """
    options = conf.kubernetes
    node = kube_client.node_name(conf, environ)
    if options.pod_selector and not node:
        raise errors.Refused(
            '[kubernetes] pod_selector needs the node of this pod: set '
            'NODE_NAME in the environment from spec.nodeName, or [kubernetes] '
            'node_name')
    connect = functools.partial(kube_client.api_client, conf)
    # At once, because an error of the operator is worth no waiting.
    connect()
    guests = kube_client.guests_pod(conf, environ)
    # Guests are in the pod's cgroup, not in a container's.
    container = options.container or (pod_spec.WHOLE_POD if guests else None)
    return Source(
        connect, kube_client.namespace(conf, environ),
        kube_client.pod_name(conf, environ), options.pod_selector, node,
        container, options.api_timeout)
