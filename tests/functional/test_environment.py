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

"""A pod's environment makes it a compute node; no name is resolved for it.

The names come from the manifest and the values are those that a kubelet would
put there. nova-compute's own start reads them, in a process of its own.
"""

import json
import os
import pathlib
import subprocess
import sys

import testtools
import yaml

TOP = pathlib.Path(__file__).resolve().parents[2]
BASE = TOP / 'etc' / 'kubernetes' / 'base'

FIELDS = {
    'metadata.name': 'nova-compute-5d4f8b7c9-x2x7k',
    'metadata.namespace': 'openstack',
    'spec.nodeName': 'node7.example.org',
    'status.hostIP': '192.0.2.7',
}

# What nova-compute reads at its start, and what its driver makes of it in a
# live migration: the destination answers with an address, and the source
# connects to what the destination has answered.
PROGRAM = '''
import json
import os
import socket
import sys

# First, as in the script nova-compute.
import nova.cmd.compute
import nova.conf
from nova import config
from nova import objects
from oslo_utils import importutils


def refuse(*args, **kwargs):
    raise AssertionError('A name was resolved: %s' % (args,))


# The default of my_ip looks for a way out of the machine.
socket.getaddrinfo = socket.gethostbyname = refuse
config.parse_args(['nova-compute', *sys.argv[1:]])
CONF = nova.conf.CONF
objects.register_all()
driver = object.__new__(
    importutils.import_class('nova.virt.' + CONF.compute_driver))
driver._supported_perf_events = []
driver._pre_live_migration_plug_vifs = lambda *args: None
data = driver.pre_live_migration(
    None, None, None, [], None, objects.LibvirtLiveMigrateData(
        is_shared_block_storage=True, is_shared_instance_path=True,
        block_migration=False))
print(json.dumps({
    'driver': type(driver).__name__,
    'host': CONF.host,
    'my_ip': CONF.my_ip,
    # Where another host copies the disks of a guest from and to.
    'copy': driver.get_host_ip_addr(),
    'connect': data.target_connect_addr,
    'uri': driver._live_migration_uri(data.target_connect_addr),
}))
sys.stdout.flush()
os._exit(0)
'''


class EnvironmentTest(testtools.TestCase):

    def environment(self):
        """The environment of the container nova-compute."""
        deployment = yaml.safe_load(
            (BASE / 'nova-compute.yaml').read_text())
        container, = deployment['spec']['template']['spec']['containers']
        return {each['name']:
                FIELDS[each['valueFrom']['fieldRef']['fieldPath']]
                for each in container['env']}

    def start(self, environment):
        done = subprocess.run(
            [sys.executable, '-c', PROGRAM,
             '--config-file', str(BASE / 'nova.conf')],
            cwd=TOP, text=True, capture_output=True, timeout=120,
            env={**{name: value for name, value in os.environ.items()
                    if not name.startswith('OS_')}, **environment})
        self.assertEqual(0, done.returncode, done.stderr)
        return json.loads(done.stdout.splitlines()[-1])

    def test_manifest_says_all_that_differs_between_nodes(self):
        self.assertEqual(
            {'NODE_NAME', 'POD_NAME', 'POD_NAMESPACE', 'OS_DEFAULT__HOST',
             'OS_DEFAULT__MY_IP', 'OS_LIBVIRT__LIVE_MIGRATION_INBOUND_ADDR',
             'OS_VNC__SERVER_LISTEN', 'OS_VNC__SERVER_PROXYCLIENT_ADDRESS'},
            set(self.environment()))

    def test_nova_takes_it(self):
        self.assertEqual({
            'driver': 'K8sLibvirtDriver',
            'host': 'node7.example.org',
            'my_ip': '192.0.2.7',
            'copy': '192.0.2.7',
            'connect': '192.0.2.7',
            'uri': 'qemu+tls://192.0.2.7/system',
        }, self.start(self.environment()))

    def test_without_it_nova_would_need_names(self):
        environment = self.environment()
        del environment['OS_LIBVIRT__LIVE_MIGRATION_INBOUND_ADDR']
        del environment['OS_DEFAULT__HOST']
        # The source then connects to the name of the destination.
        program = PROGRAM.replace('driver._live_migration_uri(data.target_'
                                  'connect_addr)', 'None')
        self.assertNotEqual(PROGRAM, program)
        self.patch(sys.modules[__name__], 'PROGRAM', program)
        found = self.start(environment)
        self.assertIsNone(found['connect'])
        self.assertNotEqual('node7.example.org', found['host'])
