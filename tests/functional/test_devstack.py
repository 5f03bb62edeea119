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

"""nova-compute comes past our checks with DevStack's nova.conf."""

import configparser
import json

import testtools

from tests.functional import init_host
from tests.unit import test_devstack

# What DevStack itself has written there before, as far as nova-compute needs
# it to start.
DEVSTACK = {
    'DEFAULT': {'compute_driver': 'libvirt.LibvirtDriver',
                'my_ip': '127.0.0.1', 'transport_url': 'fake://',
                # What else runs on this machine is not to be measured.
                'reserved_host_memory_mb': '512'},
    'libvirt': {'connection_uri': 'test:///default'},
}


class StartTest(testtools.TestCase):

    def setUp(self):
        super().setUp()
        self.devstack = self.useFixture(test_devstack.DevStack())

    def start(self, **settings):
        """Run nova-compute up to where Nova's own init_host() begins."""
        written = self.devstack.options(self.devstack.run(
            'stack install', 'stack post-config', **settings))
        parser = configparser.ConfigParser(interpolation=None)
        parser.read_dict(DEVSTACK)
        parser['DEFAULT']['state_path'] = str(self.devstack.directory)
        for (section, option), value in written.items():
            if section != 'DEFAULT' and not parser.has_section(section):
                parser.add_section(section)
            parser.set(section, option, value)
        with open(self.devstack.nova_conf, 'w') as out:
            parser.write(out)
        return init_host.run(self.devstack.nova_conf)

    def test_with_a_manifest(self):
        done = self.start()
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertEqual('nova_k8s.driver.K8sLibvirtDriver',
                         json.loads(done.stdout.splitlines()[-1])['driver'])

    def test_with_a_kubeconfig(self):
        kubeconfig = self.devstack.directory / 'kubeconfig'
        kubeconfig.write_text('')
        done = self.start(
            NOVA_K8S_KUBECONFIG=str(kubeconfig),
            NOVA_K8S_POD_SELECTOR='app.kubernetes.io/name=libvirt',
            NOVA_K8S_CONTAINER='libvirt')
        # It is empty: there is no API server behind it.
        self.assertEqual(1, done.returncode, done.stderr)
        self.assertIn('nova-compute does not start: ', done.stdout)
        self.assertIn(f'[kubernetes] kubeconfig {kubeconfig}', done.stdout)
