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
import typing as ty

import testtools

from tests.node import cluster
from tests.node import pods

_shared = {}


def _forget():
    for each in _shared.values():
        each.cleanUp()
    _shared.clear()


atexit.register(_forget)


def shared(cgroup_driver, **how):
    """Return the Cluster with this cgroup driver; start it where none is.

    There is one at a time: tests of another kind of node end it.

    :param how: further arguments of the Cluster
    """
    kind = cgroup_driver, repr(sorted(how.items()))
    if kind not in _shared:
        _forget()
        started = cluster.Cluster(cgroup_driver, **how)
        started.setUp()
        _shared[kind] = started
    return _shared[kind]


class NodeTestCase(testtools.TestCase):
    """A test on the shared node of a cgroup driver.

    :ivar cluster: the Cluster; and its vm, plane and core
    :ivar pods: those of a namespace of this test
    """

    # cgroupfs or systemd; a class without one is no test.
    cgroup_driver = None
    # Further arguments of its Cluster.
    node: ty.Dict[str, ty.Any] = {}

    def setUp(self):
        super().setUp()
        self.cluster = shared(self.cgroup_driver, **self.node)
        self.vm = self.cluster.vm
        self.plane = self.cluster.plane
        self.core = self.plane.core
        self.addOnException(self._attach_logs)
        self.pods = pods.Pods(self.cluster)
        self.addCleanup(self.pods.delete_all)

    def _attach_logs(self, exc_info):
        if issubclass(exc_info[0], testtools.TestCase.skipException):
            return
        texts = {'console': self.vm.console_tail(100)}
        for name in ('kubelet', 'containerd'):
            texts[name] = self.vm.run('tail -n 60 /run/%s.log' % name,
                                      check=False)
        for name, text in texts.items():
            self.addDetail(name, testtools.content.text_content(text))
