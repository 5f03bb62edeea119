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

"""The base of tests on a real node.

A node takes half a minute to start, so one serves all tests that want it as
it is: see :func:`shared`. Each test has a namespace of its own, and leaves no
pod behind.
"""

import atexit
import json
import time

from kubernetes import client
import testtools

from tests.functional import control_plane
from tests.node import cluster
from tests.node import images

# Seconds that anything a test waits for may take. Most of it takes two; the
# rest is for a busy machine without KVM.
TIMEOUT = 180

_shared = {}


def _forget():
    for each in _shared.values():
        each.cleanUp()
    _shared.clear()


atexit.register(_forget)


def shared(cgroup_driver):
    """Return the Cluster with this cgroup driver; start it where none is.

    There is one at a time: tests of another driver end it.
    """
    if cgroup_driver not in _shared:
        _forget()
        started = cluster.Cluster(cgroup_driver)
        started.setUp()
        _shared[cgroup_driver] = started
    return _shared[cgroup_driver]


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


def pod(name, *containers, metadata=None, **spec):
    """Return a pod as in a manifest, that ends at once when told so."""
    return {'apiVersion': 'v1', 'kind': 'Pod',
            'metadata': {'name': name, **(metadata or {})},
            'spec': {'containers': list(containers),
                     'automountServiceAccountToken': False,
                     'enableServiceLinks': False,
                     'terminationGracePeriodSeconds': 0, **spec}}


class NodeTestCase(testtools.TestCase):
    """A test on the shared node of a cgroup driver.

    :ivar cluster: the Cluster; and its vm, plane and core
    :ivar namespace: of this test
    """

    # cgroupfs or systemd; a class without one is no test.
    cgroup_driver = None

    def setUp(self):
        super().setUp()
        self.cluster = shared(self.cgroup_driver)
        self.vm = self.cluster.vm
        self.plane = self.cluster.plane
        self.core = self.plane.core
        self.addOnException(self._attach_logs)
        self.namespace = self.plane.create_namespace()
        self.addCleanup(self._delete_pods)

    def _attach_logs(self, exc_info):
        if issubclass(exc_info[0], testtools.TestCase.skipException):
            return
        texts = {'console': self.vm.console_tail(100)}
        for name in ('kubelet', 'containerd'):
            texts[name] = self.vm.run('tail -n 150 /run/%s.log' % name,
                                      check=False)
        for name, text in texts.items():
            self.addDetail(name, testtools.content.text_content(text))

    def _delete_pods(self):
        for each in self.core.list_namespaced_pod(self.namespace).items:
            self.delete(each.metadata.name, grace=0)
        self.wait_for(lambda: not self.core.list_namespaced_pod(
            self.namespace).items, 'the end of all pods of the test')

    def wait_for(self, probe, what, timeout=TIMEOUT, interval=0.2):
        """Wait until a probe returns something true, and return that."""
        deadline = time.monotonic() + timeout
        while True:
            answer = probe()
            if answer:
                return answer
            if time.monotonic() > deadline:
                self.fail('%s: not after %d s' % (what, timeout))
            time.sleep(interval)

    # Pods

    def create(self, manifest):
        """Create a pod; return it as it is once its containers run."""
        name = manifest['metadata']['name']
        self.core.create_namespaced_pod(self.namespace, manifest)
        return self.wait_until_running(name)

    def read(self, name):
        """Return a pod; None where there is none."""
        try:
            return self.core.read_namespaced_pod(name, self.namespace)
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
                self.fail('%s ended: %s' % (name, statuses))
            return None
        return self.wait_for(running, 'pod %s running' % name)

    def delete(self, name, grace=None):
        """Ask for a pod's end, and do not wait for it."""
        try:
            self.core.delete_namespaced_pod(
                name, self.namespace, grace_period_seconds=grace)
        except client.ApiException as failure:
            if failure.status != 404:
                raise

    def wait_until_gone(self, name, uid=None):
        """Wait until a pod is gone, or another one has its name."""
        def gone():
            found = self.read(name)
            return not found or uid not in (None, found.metadata.uid)
        self.wait_for(gone, 'end of pod %s' % name)

    def resize(self, name, cpu=None, memory=None, index=0):
        """Ask for other limits, and equal requests, of a container.

        :returns: the pod with the wish in its spec
        """
        found = self.read(name)
        amounts = {each: amount for each, amount in (('cpu', cpu),
                                                     ('memory', memory))
                   if amount}
        return self.core.patch_namespaced_pod_resize(
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
        return self.wait_for(resized, 'limits %s of %s' % (limits, name))

    # cgroups

    def pod_cgroup(self, uid):
        """Return the path of a pod's cgroup on the node."""
        found = self.vm.run(
            'find /sys/fs/cgroup -maxdepth 4 -type d \\( -name "*pod{0}" '
            '-o -name "*pod{1}.slice" \\)'.format(uid, uid.replace('-', '_')))
        paths = found.split()
        self.assertEqual(1, len(paths), 'cgroups of pod %s: %s' % (uid, paths))
        return paths[0]

    def summary(self, uid):
        """Return what the kubelet's summary API tells of a pod."""
        pods = json.loads(self.cluster.ask_kubelet('stats/summary'))['pods']
        return [each for each in pods if each['podRef']['uid'] == uid][0]
