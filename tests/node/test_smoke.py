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

"""The node itself: a pod runs, is resized in place, and goes."""

from tests.node import base
from tests.node import pods


class SmokeTests:

    def test_a_pod(self):
        running = self.pods.create(pods.manifest('small', pods.container(
            'c', ['sleep', '100000'], cpu='100m', memory='64Mi')))
        path = self.pods.cgroup(running.metadata.uid)
        self.assertEqual(
            {'cgroupfs': '/sys/fs/cgroup/kubepods/pod',
             'systemd': '/sys/fs/cgroup/kubepods.slice/kubepods-pod'
             }[self.cgroup_driver], path.partition(
                 running.metadata.uid[:4])[0])
        self.assertEqual(64 << 20, int(self.vm.read(path + '/memory.max')))
        self.assertEqual('10000 100000',
                         self.vm.read(path + '/cpu.max').strip())
        self.pods.resize('small', cpu='300m', memory='96Mi')
        self.pods.wait_until_resized('small', cpu='300m', memory='96Mi')
        self.assertEqual(96 << 20, int(self.vm.read(path + '/memory.max')))
        self.assertEqual('30000 100000',
                         self.vm.read(path + '/cpu.max').strip())
        self.pods.delete('small')
        self.pods.wait_until_gone('small')
        pods.wait_for(lambda: self.vm.attempt('test -e ' + path)[0],
                      'end of the cgroup')


class CgroupfsTest(SmokeTests, base.NodeTestCase):
    cgroup_driver = 'cgroupfs'


class SystemdTest(SmokeTests, base.NodeTestCase):
    cgroup_driver = 'systemd'
