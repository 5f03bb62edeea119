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
"""On which volume a folder lies, and how much may be there."""

import hypothesis
from hypothesis import strategies as st

from nova_k8s import errors
from nova_k8s.limits import volumes
from tests.unit import base

GI = 2 ** 30
UID = '4f2c1e0a-6b1d-4a37-9a52-000000000001'
KUBELET = '/var/lib/kubelet'

# As containerd has it, with the kubelet's folder on the root file system of
# the node: the order is that of mounting.
MOUNTS = f'''\
700 600 0:200 / / ro,relatime master:1 - overlay overlay rw,lowerdir=/a
701 700 0:201 / /proc rw,nosuid - proc proc rw
710 700 8:1 /var/lib/nova /var/lib/nova rw,relatime - ext4 /dev/sda1 rw
711 700 8:1 {KUBELET}/pods/{UID}/volumes/kubernetes.io~empty-dir/disks \
/var/lib/nova/instances rw - ext4 /dev/sda1 rw
712 700 0:300 / /var/lib/nova/memory rw - tmpfs tmpfs rw,size=65536k
713 700 8:1 {KUBELET}/pods/{UID}/volumes/kubernetes.io~empty-dir/tmp/sub \
/with\\040blank rw - ext4 /dev/sda1 rw
714 700 8:17 / /claim rw - ext4 /dev/sdb1 rw
715 700 8:33 /pods/{UID}/volumes/kubernetes.io~empty-dir/own /own rw - xfs x rw
716 700 8:1 {KUBELET}/pods/{UID}/volumes/kubernetes.io~configmap/c/x \
/etc/nova ro - ext4 /dev/sda1 rw
717 700 8:17 / /over rw - ext4 /dev/sdb1 rw
718 700 8:1 {KUBELET}/pods/{UID}/volumes/kubernetes.io~empty-dir/o \
/over rw - ext4 /dev/sda1 rw
'''


class PlaceTest(base.TestCase):

    def test_place(self):
        for path, place in (
                ('/var/lib/nova/instances', 'disks'),
                ('/var/lib/nova/instances/_base/x', 'disks'),
                ('/var/lib/nova/instances2', None),
                ('/var/lib/nova', None),
                ('/var/lib/nova/memory/x', None),
                ('/with blank', 'tmp'),
                ('/claim/instances', None),
                ('/own/x', 'own'),
                ('/etc/nova', None),
                ('/over/x', 'o')):
            self.assertEqual(place and volumes.Place(place, UID),
                             volumes.find_place(path, MOUNTS), path)

    def test_writable_layer(self):
        for path in ('/', '/var', '/var/lib/novas', '/opt/instances'):
            self.assertEqual(volumes.Place(None),
                             volumes.find_place(path, MOUNTS), path)

    def test_words(self):
        self.assertEqual('emptyDir disks', str(volumes.Place('disks', UID)))
        self.assertIn('writable layer', str(volumes.Place(None)))

    @hypothesis.given(st.text(), st.text())
    def test_whatever_the_kernel_says(self, path, text):
        volumes.find_place('/' + path, text)
        volumes.find_place('/' + path, MOUNTS + text)


def pod(*limits, init=(), **sizes):
    """With limits of containers, and sizes of its emptyDirs."""
    return {'spec': {
        'containers': [
            {'name': str(number), 'resources': {'limits': {
                'ephemeral-storage': limit}} if limit else {}}
            for number, limit in enumerate(limits)],
        'initContainers': [dict(
            {'name': f'i{number}', 'resources': {'limits': {
                'ephemeral-storage': limit}}}, **policy)
            for number, (limit, policy) in enumerate(init)],
        'volumes': [{'name': 'node', 'hostPath': {'path': '/'}}] + [
            {'name': name, 'emptyDir': size if isinstance(size, dict) else
             {'sizeLimit': size} if size else {}}
            for name, size in sizes.items()]}}


DISKS, LAYER = volumes.Place('disks', UID), volumes.Place(None)


class LimitTest(base.TestCase):

    def test_empty_dir(self):
        for found, expected in (
                (pod(None, disks='10Gi'), 10 * GI),
                (pod(None, disks=None), None),
                (pod(None, disks='0'), None),
                (pod('5Gi', disks='10Gi'), 5 * GI),
                (pod('5Gi', '7Gi', None, disks='20Gi'), 12 * GI),
                (pod('50Gi', disks=None), 50 * GI),
                # What other volumes may take is not for guests.
                (pod('50Gi', disks=None, tmp='10Gi', cache=None), 40 * GI),
                (pod('5Gi', disks='1Gi', tmp='10Gi'), 0),
                (pod(None, disks='9Gi', tmp='10Gi'), 9 * GI),
                # Which is none on disk.
                (pod('50Gi', disks=None,
                     shm={'medium': 'Memory', 'sizeLimit': '9Gi'}), 50 * GI),
                # Only those that run as long as the pod.
                (pod('1Gi', init=(('9Gi', {}),), disks=None), GI),
                (pod('1Gi', init=(('9Gi', {'restartPolicy': 'Always'}),),
                     disks=None), 10 * GI)):
            self.assertEqual(expected, volumes.limit_bytes(found, DISKS),
                             found)

    def test_writable_layer(self):
        for found, expected in (
                (pod(None), None),
                (pod('5Gi'), 5 * GI),
                (pod('5Gi', '3Gi', None), 3 * GI),
                (pod('5Gi', tmp='2Gi'), 3 * GI)):
            self.assertEqual(expected, volumes.limit_bytes(found, LAYER),
                             found)

    def test_not_known(self):
        for found in (pod('5Gi'), pod(disks={'medium': 'Memory'}),
                      {'spec': {'volumes': [{'name': 'disks',
                                             'hostPath': {}}]}},
                      {}, None, [], {'spec': []}, pod(disks='much'),
                      {'spec': {'volumes': {'disks': 1}}},
                      pod('much', disks='1Gi'), pod(disks='-1'),
                      {'spec': {'volumes': [7]}}):
            exc = self.assertRaises(errors.Unreadable, volumes.limit_bytes,
                                    found, DISKS)
            self.assertTrue(base.one_line(exc))

    AMOUNTS = st.none() | st.integers(0, 2 ** 40).map(str)

    @hypothesis.given(st.lists(AMOUNTS, max_size=4), AMOUNTS,
                      st.lists(AMOUNTS, max_size=3))
    def test_never_more_than_the_kubelet_lets_be(self, limits, size, others):
        found = pod(*limits, disks=size, **{
            f'v{number}': each for number, each in enumerate(others)})
        amount = volumes.limit_bytes(found, DISKS)
        has = [int(each) for each in limits if each and int(each)]
        if size and int(size):
            self.assertLessEqual(amount, int(size))
        if has:
            rest = sum(int(each) for each in others if each)
            self.assertLessEqual(amount, max(0, sum(has) - rest))
        if amount is None:
            self.assertFalse(has or int(size or 0))
        else:
            self.assertGreaterEqual(amount, 0)
