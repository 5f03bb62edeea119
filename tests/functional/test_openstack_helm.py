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

"""nova-compute comes past our checks with the values for OpenStack-Helm."""

import configparser
import json

import fixtures
import testtools
import yaml

from tests.functional import init_host
from tests.unit import test_openstack_helm

# What the chart itself writes there, as far as nova-compute needs it to start.
CHART = {
    'DEFAULT': {'my_ip': '127.0.0.1', 'transport_url': 'fake://'},
    'libvirt': {'connection_uri': 'test:///default'},
}


class StartTest(testtools.TestCase):

    def setUp(self):
        super().setUp()
        self.folder = self.useFixture(fixtures.TempDir())
        self.values = yaml.safe_load(test_openstack_helm.VALUES.read_text())
        self.options = self.values['conf']['nova']

    def start(self, name):
        """Run nova-compute in a pod whose host name is name."""
        manifest = self.folder.join('libvirt.yaml')
        with open(manifest, 'w') as out:
            out.write(test_openstack_helm.daemonset(self.values))
        parser = configparser.ConfigParser(interpolation=None)
        parser.read_dict(CHART)
        parser.read_dict(self.options)
        parser['DEFAULT'].update(state_path=self.folder.path, host=name)
        # Where the ConfigMap would be mounted.
        parser['kubernetes']['manifest'] = manifest
        nova_conf = self.folder.join('nova.conf')
        with open(nova_conf, 'w') as out:
            parser.write(out)
        # As in every pod.
        return init_host.run(nova_conf, KUBERNETES_SERVICE_HOST='10.96.0.1')

    def test_start(self):
        done = self.start('node7')
        self.assertEqual(0, done.returncode, done.stdout + done.stderr)
        loaded = json.loads(done.stdout.splitlines()[-1])
        self.assertEqual(
            ('nova_k8s.driver.K8sLibvirtDriver', 'node7'),
            (loaded['driver'], loaded['node']))

    def test_without_a_name_it_does_not(self):
        del self.options['kubernetes']['hypervisor_hostname']
        done = self.start('node7')
        self.assertEqual(1, done.returncode, done.stderr)
        self.assertIn('[kubernetes] hypervisor_hostname, = $host', done.stdout)
