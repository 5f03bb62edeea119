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

"""Options from the cluster: what a start costs, and how fast a change is.

The start of nova-compute up to where its options are loaded, in a process of
its own each time; then a real nova-compute under `nova-k8s config run`.
"""

import concurrent.futures
import itertools
import json
import os
import statistics
import subprocess
import sys
import threading
import time

import etcd3gw

import benchmarks
from tests.functional import control_plane
from tests.functional import fault_proxy
from tests.functional import test_config_drivers
from tests.functional import test_config_run

STARTS = benchmarks.times(7, 2)
CHANGES = benchmarks.times(30, 3)

# Seconds for which `config run` is watched while nothing changes. Each minute
# the server sends a bookmark.
IDLE = benchmarks.times(120, 5)

# Compute nodes, each with a ConfigMap of its own beside those of all.
NODES = benchmarks.times((1, 5000), (1, 20))

WRITERS = 4

# As many options as a nova.conf of a deployment has.
OPTIONS = 100

LOAD = '''
import json, sys, time
import nova.cmd.compute
from nova import config
from nova_k8s.config import api
api._SERVICE_ACCOUNT = sys.argv[1]


def memory():
    with open('/proc/self/statm') as f:
        return int(f.read().split()[1]) * 4096


size, begin = memory(), time.monotonic()
config.parse_args(['nova-compute', *sys.argv[2:]], configure_db=False,
                  init_rpc=False)
print(json.dumps([time.monotonic() - begin, memory() - size,
                  config.CONF.my_ip]))
'''


class Start(test_config_drivers.TestCase):
    """A test case, for its fixtures."""

    _found = None

    def runTest(self):
        known = test_config_drivers.definitions.for_service('nova-compute')
        text, _ = test_config_drivers.sample(known)
        text = '\n'.join(text.splitlines()[:OPTIONS])
        text += '\n[DEFAULT]\nmy_ip = 10.0.0.7\n'
        path = os.path.join(self.directory, 'nova.conf')
        with open(path, 'w') as out:
            out.write(text)
        self.create('nova', **{'nova.conf': text})
        self.create('nova', secret=True, **{'DEFAULT.host': 'a'})
        self.plane.kubectl(
            '-n', self.namespace, 'create', 'rolebinding', 'default',
            '--clusterrole=admin',
            f'--serviceaccount={self.namespace}:default')
        host, port = self.plane.etcd_url.removeprefix('http://').split(':')
        etcd = etcd3gw.client(host=host, port=int(port))
        prefix = f'/{control_plane.unique("bench")}'
        for group, name, value in test_config_drivers.parsed(text):
            etcd.put(f'{prefix}/{group}/{name}', value)
        proxy = self.useFixture(fault_proxy.FaultProxy(self.plane))
        account = self.plane.service_account_volume(
            os.path.join(self.directory, 'account'), self.namespace,
            'default')
        self._account = account
        ways = {
            'files': (['--config-file', path], {}),
            'ConfigMap and Secret': ([], {
                'OS_DEFAULT__CONFIG_SOURCE': 'cluster',
                'OS_CLUSTER__DRIVER': 'kubernetes',
                'OS_CLUSTER__NAMESPACE': self.namespace,
                'OS_CLUSTER__CONFIG_MAPS': 'nova',
                'OS_CLUSTER__SECRETS': 'nova',
                'KUBERNETES_SERVICE_HOST': '127.0.0.1',
                'KUBERNETES_SERVICE_PORT': str(proxy.port)}),
            'etcd': ([], {
                'OS_DEFAULT__CONFIG_SOURCE': 'etcd',
                'OS_ETCD__DRIVER': 'etcd',
                'OS_ETCD__ENDPOINT': self.plane.etcd_url,
                'OS_ETCD__PREFIX': prefix})}
        found = {name: [] for name in ways}
        for _ in range(STARTS):
            # In turns: whatever else the machine does, it does to all.
            for name, way in ways.items():
                found[name].append(self.load_once(*way))
        self._found = [*self.rows(found), (
            'Options from ConfigMap and Secret: a start receives, with TLS',
            '%.0f' % (proxy.bytes_to_client / STARTS), 'bytes')]

    def load_once(self, args, environ):
        done = subprocess.run(
            [sys.executable, '-c', LOAD, self._account, *args], text=True,
            capture_output=True, check=True,
            env={**test_config_run.ENVIRONMENT, **environ})
        seconds, size, my_ip = json.loads(done.stdout.splitlines()[-1])
        self.assertEqual('10.0.0.7', my_ip)
        return seconds, size

    def rows(self, found):
        medians = {name: [statistics.median(each) for each in zip(*values)]
                   for name, values in found.items()}
        yield ('Options from files: loading them', '%.2f'
               % medians['files'][0], 's')
        for name in found:
            if name == 'files':
                continue
            seconds, size = (here - there for here, there in
                             zip(medians[name], medians['files']))
            yield (f'Options from {name}: loading them, beyond files',
                   '%.2f' % seconds, 's')
            yield (f'Options from {name}: memory, beyond files',
                   '%.1f' % (size / 2 ** 20), 'MiB')


class Change(test_config_run.NovaComputeTestCase):

    _found = None

    def runTest(self):
        seconds = []
        for i in range(CHANGES):
            before = self.said().count('DEFAULT.debug changed')
            begin = time.monotonic()
            self.set_debug('true' if i % 2 else 'false')
            while self.said().count('DEFAULT.debug changed') == before:
                time.sleep(0.005)
            seconds.append(time.monotonic() - begin)
            # The files stay for a moment before they are replaced again.
            time.sleep(0.5)
        received = self.proxy.bytes_to_client
        time.sleep(IDLE)
        received = self.proxy.bytes_to_client - received
        with open(f'/proc/{self.process.pid}/statm') as f:
            memory = int(f.read().split()[1]) * 4096
        self._found = [
            ('kubectl edit configmap to the log of nova-compute: p50', '%.2f'
             % benchmarks.percentile(seconds, 50), 's'),
            ('kubectl edit configmap to the log of nova-compute: p99', '%.2f'
             % benchmarks.percentile(seconds, 99), 's'),
            ('nova-k8s config run, nothing changes: it receives, with TLS',
             '%.0f' % (received / IDLE), 'bytes/s'),
            ('nova-k8s config run: its own memory', '%.0f'
             % (memory / 2 ** 20), 'MiB')]


class Cluster(test_config_run.TestCase):
    """One of many nodes, while the ConfigMaps of all others change."""

    _found = None

    def runTest(self):
        self.create({'nova.conf': '[DEFAULT]\nhost = a\n'},
                    {'x.conf': '[DEFAULT]\ntransport_url = b\n'})
        proxy = self.useFixture(fault_proxy.FaultProxy(self.plane))
        self.run_service('sh', '-c', 'echo started; exec sleep 1d',
                         proxy=proxy)
        self.wait_for_line('started')
        self._found, names = [], []
        with concurrent.futures.ThreadPoolExecutor(WRITERS) as pool:
            for nodes in NODES:
                new = [f'{test_config_run.CONFIG_MAP}-{i}' for i
                       in range(len(names) + 1, nodes)]
                list(pool.map(self.add, new))
                names += new
                # What comes at first is the price of a start.
                time.sleep(5)
                received, written = self.measure(proxy, names, pool)
                self._found += [
                    (f'nova-k8s config run, one of {nodes} nodes: it '
                     f'receives, with TLS', '%.0f' % received, 'bytes/s'),
                    (f'nova-k8s config run, one of {nodes} nodes: changes of '
                     f'the others', '%.1f' % written, '/s')]

    def add(self, name):
        self.plane.core.create_namespaced_config_map(self.namespace, {
            'metadata': {'name': name}, 'data': {'DEFAULT.host': name}})

    def measure(self, proxy, names, pool):
        """Return (bytes received, changes of others), each in a second."""
        stop, turns = threading.Event(), itertools.count()
        written = []

        def write():
            while names and not stop.is_set():
                turn = next(turns)
                self.plane.core.patch_namespaced_config_map(
                    names[turn % len(names)], self.namespace,
                    {'data': {'DEFAULT.debug': str(turn)}})
                written.append(turn)
        writers = [pool.submit(write) for _ in range(WRITERS)]
        begin, before = time.monotonic(), proxy.bytes_to_client
        time.sleep(IDLE)
        received = proxy.bytes_to_client - before
        seconds = time.monotonic() - begin
        stop.set()
        for each in writers:
            each.result()
        return received / seconds, len(written) / seconds


def rows():
    for case in (Start(), Change(), Cluster()):
        case.debug()
        yield from case._found
