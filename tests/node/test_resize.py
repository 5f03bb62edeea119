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

"""In-place resize: what is offered is never more than the kernel enforces."""

import os
import time

from tests.node import base
from tests.node import pods
from tests.node import recording

MIB = 1 << 20
# A folder that recordings are written to, for tests/unit/limits/data.
SAVE = os.environ.get('NOVA_K8S_RECORDINGS')


class ResizeTests:

    def record(self, name, what, cpu, memory):
        """Record a pod through sizes that are asked for one after the other.

        :param cpu: its quantities, the first and last of which it has at the
            beginning and in the end; and memory
        :returns: the steps
        """
        self.pods.create(pods.manifest('resized', pods.container(
            'libvirt', ['sleep', '100000'], cpu=cpu[0], memory=memory[0])))
        recorded = recording.Recording(self.cluster, self.pods, 'resized')
        # The watch has shown it before anything is asked for.
        time.sleep(2)
        for amounts in zip(cpu[1:], memory[1:]):
            self.pods.resize('resized', *amounts)
            self.wait_for_kernel(memory[0], amounts[1])
        self.pods.wait_until_resized('resized', cpu=cpu[-1],
                                     memory=memory[-1])
        self.wait_until_settled()
        steps = recorded.stop()
        if SAVE:
            version = self.core.read_node(
                self.cluster.node).status.node_info
            recording.save(
                SAVE, '%s-%s' % (name, self.cgroup_driver), what,
                'recorded, kubelet %s, %s, cgroup driver %s' % (
                    version.kubelet_version,
                    version.container_runtime_version, self.cgroup_driver),
                'libvirt', steps)
        return steps

    def wait_for_kernel(self, _first, memory):
        """Wait until the pod's cgroup has a limit, and not for its status."""
        path = self.pods.cgroup(
            self.pods.read('resized').metadata.uid) + '/memory.max'
        wanted = int(memory[:-2]) * MIB
        pods.wait_for(lambda: int(self.vm.read(path)) == wanted,
                      'a limit of %s' % memory, interval=0)

    def wait_until_settled(self):
        def settled():
            found = self.core.read_namespaced_pod('resized',
                                                  self.pods.namespace)
            return not any(
                each.type in ('PodResizeInProgress', 'PodResizePending')
                for each in found.status.conditions or ())
        pods.wait_for(settled, 'the end of the resize')
        time.sleep(1)

    def test_shrink_then_growth(self):
        steps = self.record(
            'shrink-then-growth',
            'A shrink, and as soon as the kernel has it a growth, before the '
            'kubelet has told of the shrink.',
            ('300m', '200m', '400m'), ('256Mi', '96Mi', '320Mi'))
        enforced = [step['enforced']['memory_bytes'] // MIB
                    for step in steps if 'enforced' in step]
        self.assertIn(96, enforced)
        self.assertEqual(320, enforced[-1])

    def test_growth(self):
        steps = self.record('growth', 'A growth.', ('200m', '400m'),
                            ('96Mi', '256Mi'))
        self.assertEqual(
            256, [step['enforced']['memory_bytes'] // MIB
                  for step in steps if 'enforced' in step][-1])


class CgroupfsResizeTest(ResizeTests, base.NodeTestCase):
    cgroup_driver = 'cgroupfs'


class SystemdResizeTest(ResizeTests, base.NodeTestCase):
    cgroup_driver = 'systemd'
