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
"""How much local disk there is for guests, and which pod says so."""

import os

import fixtures
import nova.conf
from oslo_config import fixture as config_fixture
import yaml

from nova_k8s import conf
from nova_k8s import errors
from nova_k8s.inventory import disk
from tests.unit import base

CONF = nova.conf.CONF

conf.register_opts(CONF)

UID = '4f2c1e0a-6b1d-4a37-9a52-000000000001'
GIB = 2 ** 30

IN_POD = {'KUBERNETES_SERVICE_HOST': '10.0.0.1', 'POD_NAME': 'compute-x',
          'POD_NAMESPACE': 'openstack'}


def pod(volume='disks', uid=UID, **source):
    return {'kind': 'Pod', 'metadata': {'name': 'compute-x', 'uid': uid},
            'spec': {'containers': [{'name': 'nova-compute'}], 'volumes': [
                {'name': volume, 'emptyDir': source}]}}


class DiskTestBase(base.TestCase):

    def setUp(self):
        super().setUp()
        CONF([], project='nova', default_config_files=[],
             default_config_dirs=[])
        self.conf_fixture = self.useFixture(config_fixture.Config(CONF))
        # A path that is no symbolic link.
        self.path = os.path.realpath(self.folder())
        self.flags(state_path=self.folder(), host='host-1',
                   instances_path=self.path)
        self.read = self.useFixture(fixtures.MockPatch(
            'nova_k8s.kube.pods.Pod.read', return_value=pod())).mock
        self.useFixture(fixtures.MockPatch(
            'nova_k8s.kube.client.api_client'))
        self.log = self.useFixture(fixtures.FakeLogger('nova_k8s'))
        self.addCleanup(CONF.clear_override,
                        'reserve_disk_resource_for_image_cache',
                        'workarounds')

    def flags(self, **options):
        self.conf_fixture.config(**options)

    def find(self, environ=IN_POD, volume='disks'):
        root = ('/var/lib/nova' if volume is None else '/var/lib/kubelet/pods/'
                f'{UID}/volumes/kubernetes.io~empty-dir/{volume}')
        path = os.path.join(self.folder(), 'mountinfo')
        with open(path, 'w', encoding='utf-8') as f:
            f.write('1 0 0:9 / / rw - overlay overlay rw\n')
            if volume != '':
                f.write(f'2 1 8:1 {root} {self.path} rw - ext4 /dev/sda rw\n')
        return disk.find(CONF, environ, path)


class FindTest(DiskTestBase):

    def test_volume_of_the_node(self):
        found = self.find(volume=None)
        self.assertEqual((None, False, None), (
            found.limit_gb, found.counted, found.problem))
        self.read.assert_not_called()

    def test_in_no_pod(self):
        # Whatever the machine of a test calls its root.
        for volume in ('disks', ''):
            self.assertFalse(self.find({}, volume).counted)

    def test_no_files(self):
        for images_type in ('rbd', 'lvm'):
            self.flags(group='libvirt', images_type=images_type)
            self.flags(group='kubernetes', disk_limit_gb=7)
            found = self.find()
            self.assertEqual((None, False), (found.limit_gb, found.counted))
            self.assertIn(images_type, found.where)

    def test_empty_dir(self):
        for size, limit in (('100Gi', 100), ('1999Mi', 1), (None, None)):
            self.read.return_value = pod(**{'sizeLimit': size})
            found = self.find()
            self.assertEqual((limit, True, None), (
                found.limit_gb, found.counted, found.problem))
            self.assertIn(f'{self.path} on emptyDir disks', found.where)

    def test_writable_layer(self):
        found = pod(sizeLimit='7Gi')
        found['spec']['containers'][0]['resources'] = {
            'limits': {'ephemeral-storage': '50Gi'}}
        self.read.return_value = found
        self.assertEqual(43, self.find(volume='').limit_gb)

    def test_below_one_gib(self):
        self.read.return_value = pod(sizeLimit='100Mi')
        found = self.find()
        self.assertEqual((0, True), (found.limit_gb, found.counted))
        self.assertIn('below one GiB', found.problem)

    def test_what_the_operator_says(self):
        self.flags(group='kubernetes', disk_limit_gb=7)
        for volume, counted in (('disks', True), (None, False)):
            found = self.find(volume=volume)
            self.assertEqual((7, counted), (found.limit_gb, found.counted))
            self.assertIn('disk_limit_gb', found.where)
        self.read.assert_not_called()

    def test_restart_while_the_api_server_is_away(self):
        self.read.return_value = pod(sizeLimit='100Gi')
        self.find()
        self.read.side_effect = errors.Unreadable('no answer')
        self.assertEqual(100, self.find().limit_gb)
        # Another volume, another pod.
        self.assertEqual(0, self.find(volume='more').limit_gb)
        self.assertEqual(0, self.find(dict(IN_POD, POD_NAME='y')).limit_gb)


class UnknownTest(DiskTestBase):
    """An unknown limit is never a bigger disk."""

    def unknown(self, *names, **kwargs):
        found = self.find(**kwargs)
        self.assertEqual((0, True), (found.limit_gb, found.counted))
        for name in (self.path, '[kubernetes] disk_limit_gb', *names):
            self.assertIn(name, found.problem)
        self.assertEqual(1, len(found.problem.splitlines()))

    def test_api_server(self):
        for exc in (errors.Unreadable('no answer'),
                    errors.Refused('may not get pods')):
            self.read.side_effect = exc
            self.unknown(str(exc))

    def test_another_pod(self):
        for found in (None, pod(uid='another')):
            self.read.return_value = found
            self.unknown('Pod openstack/compute-x is not the pod that has')

    def test_pod_that_says_something_else(self):
        self.read.return_value = pod('other')
        self.unknown('Pod openstack/compute-x', 'no emptyDir disks')

    def test_pod_without_a_name(self):
        self.unknown('POD_NAME', environ={'KUBERNETES_SERVICE_HOST': '1'})

    def test_downward_api(self):
        self.flags(group='kubernetes', limits_from='downward_api')
        self.unknown('limits_from = downward_api')


class ManifestTest(DiskTestBase):

    def manifest(self, *pods):
        path = os.path.join(self.folder(), 'pods.yaml')
        with open(path, 'w', encoding='utf-8') as f:
            yaml.safe_dump_all(pods, f)
        self.flags(group='kubernetes', limits_from='manifest', manifest=path)
        return self.find()

    def test_the_pod_that_has_the_volume(self):
        # The kubelet gives the UID, and no manifest has one.
        self.assertEqual(9, self.manifest(
            pod('other', sizeLimit='1Gi'),
            pod('disks', sizeLimit='9Gi')).limit_gb)
        self.assertEqual(5, self.manifest(
            pod('disks', sizeLimit='5Gi'), pod('disks'),
            pod('disks', sizeLimit='9Gi')).limit_gb)
        self.read.assert_not_called()

    def test_none(self):
        found = self.manifest(pod('other', sizeLimit='1Gi'))
        self.assertEqual(0, found.limit_gb)
        self.assertIn('no emptyDir disks', found.problem)


class AdoptTest(DiskTestBase):

    def adopt(self, **fields):
        self.useFixture(fixtures.MockPatch(
            'nova_k8s.inventory.disk.find',
            return_value=disk.Disk('/x on emptyDir disks', **fields)))
        found = disk.adopt(CONF)
        return found, (
            CONF.workarounds.reserve_disk_resource_for_image_cache)

    def test_image_cache(self):
        self.assertFalse(self.adopt()[1])
        self.assertFalse(self.adopt(limit_gb=7)[1])
        self.assertTrue(self.adopt(limit_gb=7, counted=True)[1])
        self.assertIn('7 GiB of local disk: /x on emptyDir disks',
                      self.log.output)

    def test_what_the_operator_says_of_the_image_cache(self):
        path = os.path.join(self.folder(), 'nova.conf')
        with open(path, 'w', encoding='utf-8') as f:
            f.write('[workarounds]\n'
                    'reserve_disk_resource_for_image_cache = false\n')
        CONF([], project='nova', default_config_files=[path],
             default_config_dirs=[])
        self.assertFalse(self.adopt(limit_gb=7, counted=True)[1])

    def test_told(self):
        self.adopt(counted=True)
        self.assertIn('no limit is set there', self.log.output)
        self.adopt(counted=True, limit_gb=0, problem='Nobody knows')
        self.assertIn('Nobody knows.', self.log.output)
