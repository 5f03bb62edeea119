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

"""Pods on a real node: what they are made of, and waiting for them."""

import json

from kubernetes import client

from tests.functional import control_plane
from tests.node import images
from tests import waiting

# Seconds that anything a test waits for may take. Most of it takes two; the
# rest is for a busy machine without KVM.
TIMEOUT = 300


def wait_for(probe, what, timeout=TIMEOUT, interval=0.2):
    """Wait until a probe returns something true, and return that.

    :raises AssertionError: where it does not in time
    """
    return waiting.until(probe, what, timeout, interval)


def container(name, command, image=images.BUSYBOX, cpu=None, memory=None,
              **fields):
    """Return a container as in a manifest.

    :param cpu: limit and request, as a quantity; and memory
    """
    amounts = {name: amount for name, amount in (('cpu', cpu),
                                                 ('memory', memory))
               if amount}
    return {'name': name, 'image': image, 'imagePullPolicy': 'Never',
            'command': command,
            'resources': {'limits': amounts, 'requests': amounts},
            'resizePolicy': [{'resourceName': each,
                              'restartPolicy': 'NotRequired'}
                             for each in ('cpu', 'memory')], **fields}


def manifest(name, *containers, metadata=None, **spec):
    """Return a pod as in a manifest, that ends at once when told so."""
    return {'apiVersion': 'v1', 'kind': 'Pod',
            'metadata': {'name': name, **(metadata or {})},
            'spec': {'containers': list(containers),
                     'automountServiceAccountToken': False,
                     'enableServiceLinks': False,
                     'terminationGracePeriodSeconds': 0, **spec}}


class Pods:
    """The pods of one namespace of a cluster.

    :ivar namespace: a new one
    """

    def __init__(self, cluster):
        self._cluster = cluster
        self._vm = cluster.vm
        self._core = cluster.plane.core
        self.namespace = cluster.plane.create_namespace()

    def create(self, manifest):
        """Create a pod; return it as it is once its containers run."""
        name = manifest['metadata']['name']
        self._core.create_namespaced_pod(self.namespace, manifest)
        return self.wait_until_running(name)

    def read(self, name):
        """Return a pod; None where there is none."""
        try:
            return self._core.read_namespaced_pod(name, self.namespace)
        except client.ApiException as failure:
            if failure.status != 404:
                raise
            return None

    def wait_until_running(self, name):
        def running():
            found = self.read(name)
            statuses = found and found.status.container_statuses
            if statuses and all(each.state.running for each in statuses):
                return found
            if statuses and any(each.state.terminated for each in statuses):
                raise AssertionError('%s ended: %s' % (name, statuses))
            return None
        return wait_for(running, 'pod %s running' % name)

    def delete(self, name, grace=None):
        """Ask for a pod's end, and do not wait for it."""
        try:
            self._core.delete_namespaced_pod(
                name, self.namespace, grace_period_seconds=grace)
        except client.ApiException as failure:
            if failure.status != 404:
                raise

    def wait_until_gone(self, name, uid=None):
        """Wait until a pod is gone, or another one has its name."""
        def gone():
            found = self.read(name)
            return not found or uid not in (None, found.metadata.uid)
        wait_for(gone, 'end of pod %s' % name)

    def resize(self, name, cpu=None, memory=None, index=0):
        """Ask for other limits, and equal requests, of a container.

        :returns: the pod with the wish in its spec
        """
        found = self.read(name)
        amounts = {each: amount for each, amount in (('cpu', cpu),
                                                     ('memory', memory))
                   if amount}
        return self._core.patch_namespaced_pod_resize(
            name, self.namespace, {'spec': {'containers': [{
                'name': found.spec.containers[index].name,
                'resources': {'limits': amounts, 'requests': amounts}}]}},
            _content_type=control_plane.STRATEGIC)

    def wait_until_resized(self, name, index=0, **limits):
        """Wait until a container's status tells these limits."""
        def resized():
            found = self.read(name)
            resources = found.status.container_statuses[index].resources
            told = resources and resources.limits or {}
            if all(told.get(key) == value for key, value in limits.items()):
                return found
            return None
        return wait_for(resized, 'limits %s of %s' % (limits, name))

    def delete_all(self):
        """Delete all pods, at once, and wait until they are gone."""
        def gone():
            left = self._core.list_namespaced_pod(self.namespace).items
            for each in left:
                self.delete(each.metadata.name, grace=0)
            return not left
        wait_for(gone, 'the end of all pods of ' + self.namespace)

    # On the node

    def cgroup(self, uid):
        """Return the path of a pod's cgroup on the node."""
        found = self._vm.run(
            'find /sys/fs/cgroup -maxdepth 4 -type d \\( -name "*pod{0}" '
            '-o -name "*pod{1}.slice" \\)'.format(uid, uid.replace('-', '_')))
        paths = found.split()
        if len(paths) != 1:
            raise AssertionError('cgroups of pod %s: %s' % (uid, paths))
        return paths[0]

    def summary(self, uid):
        """Return what the kubelet's summary API tells of a pod."""
        # It does not know the file systems of the VM.
        pods = json.loads(self._cluster.ask_kubelet(
            'stats/summary?only_cpu_and_memory=true'))['pods']
        return [each for each in pods if each['podRef']['uid'] == uid][0]
