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

"""A real nova-compute whose configuration is followed in a real cluster."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time

import fixtures
import testtools
from testtools import content

from nova_k8s.cmd import files
from tests.functional import cluster
from tests.functional import fault_proxy
from tests import waiting


TOP = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
NOVA_COMPUTE = os.path.join(TOP, 'tests', 'functional',
                            'live_nova_compute.py')

CONFIG_MAP, SECRET = 'nova-compute', 'nova-compute-credentials'

NOVA_CONF = """\
[DEFAULT]
compute_driver = k8s.K8sLibvirtDriver
host = {node}
my_ip = 127.0.0.1
state_path = {directory}
shutdown_timeout = 1
# What else runs on this machine is not to be measured.
reserved_host_memory_mb = 512

[oslo_concurrency]
lock_path = {directory}

[kubernetes]
limits_from = manifest
manifest = {directory}/pod.yaml
follow_cordon = false

[upgrade_levels]
compute = 6.0
"""

CREDENTIALS = """\
[DEFAULT]
transport_url = fake://nova:very-secret@nowhere/

[database]
connection = sqlite:///{directory}/nova.sqlite
[api_database]
connection = sqlite:///{directory}/nova_api.sqlite
"""

POD = """\
apiVersion: v1
kind: Pod
metadata: {name: compute, namespace: openstack}
spec:
  containers:
  - name: libvirt
    resources: {limits: {cpu: "2", memory: 4Gi}}
"""

ENVIRONMENT = {
    **{name: value for name, value in os.environ.items()
       if not name.startswith(('PYTHON', 'OS_', 'POD_', 'NODE_',
                               'KUBERNETES_'))},
    'OS_NOVA_DISABLE_EVENTLET_PATCHING': os.environ.get(
        'OS_NOVA_DISABLE_EVENTLET_PATCHING', '1'),
    'PYTHONPATH': TOP, 'PYTHONUNBUFFERED': '1'}


class TestCase(testtools.TestCase):
    """Objects with the names of the overlay, and its rights to them."""

    def setUp(self):
        super().setUp()
        self.compute = self.useFixture(cluster.ComputePod())
        self.plane = self.compute.plane
        self.namespace = self.compute.namespace
        self.compute.apply('overlays/config-from-cluster/rbac.yaml')
        self.directory = self.useFixture(fixtures.TempDir()).path

    def create(self, config_map, secret):
        metadata = {'namespace': self.namespace}
        self.plane.core.create_namespaced_config_map(
            self.namespace, {'metadata': {**metadata, 'name': CONFIG_MAP},
                             'data': config_map})
        self.plane.core.create_namespaced_secret(
            self.namespace, {'metadata': {**metadata, 'name': SECRET},
                             'stringData': secret})

    def patch_config_map(self, **data):
        self.plane.core.patch_namespaced_config_map(
            CONFIG_MAP, self.namespace, {'data': data})

    def run_service(self, *command, proxy=None, options=(), within=()):
        """Start a command under nova-k8s config run.

        :param within: another command, which starts that
        """
        self.log = os.path.join(self.directory, 'log')
        self.written = os.path.join(self.directory, 'written')
        with open(self.log, 'wb') as log:
            process = subprocess.Popen(
                [*within,
                 sys.executable, '-m', 'nova_k8s.cmd.main', 'config', 'run',
                 '--config-map', CONFIG_MAP, '--secret', SECRET,
                 '--namespace', self.namespace, '--timeout', '2',
                 '--kubeconfig', self.compute.kubeconfig(proxy),
                 '--dir', self.written, '--program', 'nova-compute',
                 *options, '--', *command],
                stdout=log, stderr=subprocess.STDOUT,
                env={**ENVIRONMENT, 'NODE_NAME': self.compute.node,
                     'POD_NAME': self.compute.pod.metadata.name,
                     'POD_NAMESPACE': self.namespace,
                     'POD_UID': self.compute.pod.metadata.uid})
        self.addOnException(lambda _: self.addDetail(
            'log', content.content_from_file(self.log, buffer_now=True)))
        self.addCleanup(self.end, process)
        return process

    def end(self, process):
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def said(self):
        with open(self.log, encoding='utf-8', errors='replace') as log:
            return log.read()

    def wait_for_line(self, *words, times=1):
        """Wait until so many lines have all of these words; return them."""
        def found():
            lines = [line for line in self.said().splitlines()
                     if all(word in line for word in words)]
            return len(lines) >= times and lines
        return waiting.until(found)


class NovaComputeTestCase(TestCase):
    """A real nova-compute under config run, behind a proxy."""

    # Of the ConfigMap.
    more = {}

    def setUp(self):
        super().setUp()
        with open(os.path.join(self.directory, 'pod.yaml'), 'w') as out:
            out.write(POD)
        values = {'directory': self.directory, 'node': self.compute.node}
        self.create({'nova.conf': NOVA_CONF.format(**values), **self.more},
                    {'credentials.conf': CREDENTIALS.format(**values)})
        self.proxy = self.useFixture(fault_proxy.FaultProxy(self.plane))
        self.process = self.run_service(
            sys.executable, NOVA_COMPUTE, proxy=self.proxy)
        self.wait_for_line('Starting compute node')
        self.wait_for_line('thread_pool_factory', 'initialized')

    def set_debug(self, value):
        self.patch_config_map(**{'DEFAULT.debug': value})


class NovaComputeTest(NovaComputeTestCase):

    def test_it_follows(self):
        # As `kubectl edit` does.
        self.set_debug('true')
        self.wait_for_line('DEFAULT.debug changed from [None] to [true]')
        for value in ('false', 'true', 'false', 'true'):
            self.follow_to_the_log(value)

        # What Nova cannot change while it runs.
        self.patch_config_map(**{'compute.max_concurrent_disk_ops': '3',
                                 'DEFAULT.reserved_host_disk_mb': '7'})
        line, = self.wait_for_line('A restart of nova-compute is needed for')
        self.assertTrue(line.endswith(
            '[DEFAULT] reserved_host_disk_mb, '
            '[compute] max_concurrent_disk_ops'), line)
        self.assertIn(' WARNING ', line)
        type_, reason, message = waiting.until(self.compute.events)[0]
        self.assertEqual(('Warning', 'RestartNeeded'), (type_, reason))
        self.assertEqual(line.partition('running ')[2], message)

        # What it must not start with does not reach it.
        self.patch_config_map(**{'nova.conf': 'nonsense\n'})
        line, = self.wait_for_line('The configuration stays as it is')
        self.assertIn(f'ConfigMap {self.namespace}/{CONFIG_MAP}, key '
                      f'nova.conf: line 1', line)
        self.assertNotIn('nonsense', line)
        self.plane.core.delete_namespaced_config_map(
            CONFIG_MAP, self.namespace)
        self.wait_for_line('The configuration stays as it is', 'it is gone')
        self.assertIsNone(self.process.poll())

        self.process.send_signal(signal.SIGTERM)
        self.assertEqual(0, self.process.wait(60))
        self.wait_for_line('nova-compute service graceful shutdown finished')
        self.assertEqual(1, self.said().count('A restart of'))
        self.assertNotIn('very-secret', self.said())

    def follow_to_the_log(self, value):
        # Counted before: it may be there as soon as it is asked for.
        words = 'DEFAULT.debug changed from', f'to [{value}]'
        before = sum(all(word in line for word in words)
                     for line in self.said().splitlines())
        self.set_debug(value)
        self.wait_for_line(*words, times=before + 1)

    def test_it_survives_an_outage(self):
        self.proxy.cut()
        self.set_debug('true')
        # Once is no outage.
        self.wait_for_line('The configuration stays as it is')
        self.assertIsNone(self.process.poll())
        self.assertNotIn('DEFAULT.debug changed', self.said())
        self.proxy.restore()
        self.wait_for_line('DEFAULT.debug changed from [None] to [true]')


class CommandsTest(NovaComputeTestCase):
    """What is run beside nova-compute, as with kubectl exec."""

    # It logs all of its options then.
    more = {'DEFAULT.debug': 'true', 'DEFAULT.reserved_host_cpus': '1',
            'compute.max_concurrent_disk_ops': '3'}

    # Beside Nova's own, what its script registers, and what the files are for.
    ELSEWHERE = {'config_dir', 'config_file', 'config_source'}

    def nova_k8s(self, *command):
        return self.python('-m', 'nova_k8s.cmd.main', *command)

    def python(self, *arguments):
        done = subprocess.run(
            [sys.executable, *arguments], stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=120,
            env={**ENVIRONMENT, files.RUN_DIR: self.written})
        self.assertEqual(0, done.returncode, done.stderr)
        return done.stdout

    def options(self, text):
        """Return {option: value} of what log_opt_values has logged."""
        return dict(re.findall(
            r'([a-z_][\w.-]*) += (.*) log_opt_values ', text))

    def test_they_see_its_options(self):
        told = self.options(self.said())
        seen = self.options(self.python('-c', (
            'import argparse, logging, sys\n'
            'from nova_k8s.cmd import configuration, report\n'
            'parser = argparse.ArgumentParser()\n'
            'report.add_parser(parser.add_subparsers())\n'
            'configuration.load(parser.parse_args(["report"]))\n'
            'logging.basicConfig(stream=sys.stdout, level=logging.DEBUG,\n'
            '                    format="%(message)s %(funcName)s ")\n'
            'report.CONF.log_opt_values(logging.getLogger(), '
            'logging.DEBUG)')))
        both = told.keys() & seen.keys() - self.ELSEWHERE
        self.assertGreater(len(both), 500)
        self.assertEqual({name: told[name] for name in both},
                         {name: seen[name] for name in both})
        self.assertEqual(('1', '3', self.compute.node), (
            seen['reserved_host_cpus'],
            seen['compute.max_concurrent_disk_ops'], seen['host']))

        result = json.loads(self.nova_k8s(
            'report', '--machine', 'cpus=8,memory=16Gi', '--format', 'json'))
        # Of [kubernetes] and of Nova: where limits are, and what is reserved.
        self.assertEqual({'VCPU': (2, 1), 'MEMORY_MB': (4096, 512)}, {
            name: (each['total'], each['reserved'])
            for name, each in result['inventory'].items()
            if name != 'DISK_GB'})
        shown = self.nova_k8s('config', 'show')
        self.assertIn(
            f'reserved_host_cpus = 1  # ConfigMap {self.namespace}/'
            f'{CONFIG_MAP}, key DEFAULT.reserved_host_cpus\n', shown)
        self.assertNotIn('very-secret', shown)
        self.assertIn('transport_url', told)
        self.assertNotIn('very-secret', self.said())
        self.assertEqual('', self.nova_k8s('config', 'diff'))


class SupervisorTest(TestCase):
    """As the first process of a container should be."""

    def setUp(self):
        super().setUp()
        self.create({'nova.conf': '[DEFAULT]\nhost = a\n'},
                    {'x.conf': '[DEFAULT]\ntransport_url = b\n'})

    def python(self, program, *arguments):
        return self.run_service(sys.executable, '-c', program, *arguments)

    def test_exit_status(self):
        self.assertEqual(7, self.run_service(
            'sh', '-c', 'exit 7').wait(60))
        self.assertEqual(128 + signal.SIGKILL, self.run_service(
            'sh', '-c', 'kill -KILL $$').wait(60))

    def test_a_command_that_is_not_there(self):
        self.assertEqual(1, self.run_service('no-such-command').wait(60))
        self.assertEqual(
            'nova-k8s: no-such-command: No such file or directory\n',
            self.said())

    def test_it_does_not_start_without_its_objects(self):
        self.plane.core.delete_namespaced_secret(SECRET, self.namespace)
        self.assertEqual(1, self.run_service('echo', 'started').wait(60))
        self.assertIn(f'nova-k8s: Secret {self.namespace}/{SECRET}: API '
                      f'server ', self.said())
        self.assertIn(f'404: secrets "{SECRET}" not found', self.said())
        self.assertNotIn('started', self.said())

    def test_it_does_not_start_with_what_is_no_configuration(self):
        self.plane.core.patch_namespaced_secret(SECRET, self.namespace, {
            'stringData': {'x.conf': '[DEFAULT]\nvery-secret\n'}})
        self.assertEqual(1, self.run_service('cat').wait(60))
        line, = self.said().splitlines()
        self.assertIn(f'nova-k8s: Secret {self.namespace}/{SECRET}, key '
                      f'x.conf: line 2: ', line)
        self.assertNotIn('very-secret', line)

    def test_a_start_while_the_api_server_is_away(self):
        proxy = self.useFixture(fault_proxy.FaultProxy(self.plane))
        cache = os.path.join(self.directory, 'cache')
        path = os.path.join(cache, 'nova-compute-run.json')

        def run(*options):
            return self.run_service('sh', '-c', 'cat "$2"/*.conf', 'x',
                                    proxy=proxy, options=options).wait(60)
        self.assertEqual(0, run('--cache-dir', cache))
        self.assertEqual(0o600, stat.S_IMODE(os.stat(path).st_mode))
        self.assertEqual(['nova.conf'], self.kept(path))
        proxy.cut()
        # Half of a configuration is none.
        self.assertEqual(1, run('--cache-dir', cache))
        self.assertIn('cache_secrets', self.said())
        self.assertEqual(1, run())
        self.assertIn(f'nova-k8s: ConfigMap {self.namespace}/{CONFIG_MAP}: '
                      f'API server {proxy.url}: ', self.said())
        self.assertEqual(1, len(self.said().splitlines()))

        proxy.restore()
        both = '--cache-dir', cache, '--cache-secrets'
        self.assertEqual(0, run(*both))
        self.assertEqual(['nova.conf', 'x.conf'], self.kept(path))
        self.assertEqual(0o600, stat.S_IMODE(os.stat(path).st_mode))
        proxy.cut()
        self.assertEqual(0, run(*both))
        said = self.said().splitlines()
        self.assertIn(' WARNING ', said[0])
        self.assertRegex(said[0], 'The configuration is that of 20.*Z: ')
        self.assertEqual(['[DEFAULT]', 'host = a', '[DEFAULT]',
                          'transport_url = b'], said[1:])

    def test_what_has_changed_is_kept(self):
        cache = os.path.join(self.directory, 'cache')
        path = os.path.join(cache, 'nova-compute-run.json')
        self.run_service(
            'sh', '-c', 'trap "echo changed" HUP; echo ready; '
            'while :; do sleep 0.1; done', options=['--cache-dir', cache])
        self.wait_for_line('ready')
        self.patch_config_map(**{'DEFAULT.host': 'b'})
        self.wait_for_line('changed')
        waiting.until(lambda: '{group}.{option}' in self.kept(path))

    def kept(self, path):
        with open(path) as kept:
            return [each['key'] for each in json.load(kept)['documents']]

    def test_the_arguments(self):
        self.assertEqual(0, self.run_service(
            'sh', '-c', 'ls "$2"; cat "$2"/*.conf', 'x').wait(60))
        self.assertEqual([
            f'000-ConfigMap-{self.namespace}-nova-compute-key-nova.conf.conf',
            f'001-Secret-{self.namespace}-nova-compute-credentials-key-x.conf'
            f'.conf', 'index.json',
            '[DEFAULT]', 'host = a', '[DEFAULT]', 'transport_url = b'],
            self.said().splitlines())

    def test_the_folder_is_named_where_it_is_wanted(self):
        self.assertEqual(0, self.run_service(
            'echo', '--x={config_dir}', 'y').wait(60))
        self.assertEqual(f'--x={self.written}/current y\n', self.said())

    def test_nobody_else_can_read_it(self):
        self.assertEqual(0, self.run_service(
            'sh', '-c', 'stat -Lc %a "$2" "$2"/*', 'x').wait(60))
        self.assertEqual('700 600 600 600'.split(), self.said().split())

    def test_signals(self):
        process = self.python(
            'import signal, sys, time\n'
            'for each in (1, 2, 3, 10, 12, 15, 28):\n'
            '    signal.signal(each, lambda n, _: print("got", n))\n'
            'print("ready")\n'
            'while True: time.sleep(1)')
        self.wait_for_line('ready')
        for number in (1, 2, 3, 10, 12, 15, 28):
            process.send_signal(number)
            self.wait_for_line(f'got {number}')
        # The program starts with none of them blocked, nor ignored.
        child, = self.children(process.pid)
        with open(f'/proc/{child}/status') as f:
            masks = dict(line.split() for line in f
                         if line.startswith(('SigBlk', 'SigIgn')))
        self.assertEqual(0, int(masks['SigBlk:'], 16))
        # Python itself ignores these two; glibc keeps some above 31.
        self.assertEqual(1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1,
                         int(masks['SigIgn:'], 16) & 0x7fffffff)
        os.kill(child, signal.SIGKILL)
        self.assertEqual(128 + 9, process.wait(60))

    def children(self, pid):
        with open(f'/proc/{pid}/task/{pid}/children') as f:
            return [int(each) for each in f.read().split()]

    def test_the_first_process(self):
        """In a PID namespace, where the kernel keeps from it what it can."""
        process = self.run_service(
            'sh', '-c', '(sleep 0.1 & echo orphan $!); '
            'trap "echo got; exit 3" TERM; echo ready $PPID; '
            'while :; do sleep 0.1; done',
            within=['unshare', '--user', '--map-root-user', '--pid', '--fork',
                    '--mount-proc'])
        line, = self.wait_for_line('ready')
        self.assertEqual('ready 1', line)
        first, = self.children(process.pid)
        waiting.until(lambda: len(self.children(first)) == 1)
        os.kill(first, signal.SIGTERM)
        self.wait_for_line('got')
        self.assertEqual(3, process.wait(60))

    def test_a_signal_before_the_service_has_started(self):
        proxy = self.useFixture(fault_proxy.FaultProxy(self.plane))
        proxy.stall()
        process = self.run_service(
            'echo', 'started', proxy=proxy, options=['--timeout', '300'],
            within=['unshare', '--user', '--map-root-user', '--pid', '--fork',
                    '--mount-proc'])
        # It has asked, and waits.
        waiting.until(lambda: proxy.open_connections)
        first, = self.children(process.pid)
        os.kill(first, signal.SIGTERM)
        self.assertEqual(128 + signal.SIGTERM, process.wait(60))
        self.assertEqual('', self.said())

    def test_it_collects_what_is_left_behind(self):
        # A grandchild whose parent has ended, which ends as well.
        process = self.run_service(
            'sh', '-c', '(sleep 0.1 & echo orphan $!); exec sleep 30')
        line, = self.wait_for_line('orphan')
        orphan = int(line.split()[1])
        waiting.until(lambda: not os.path.exists(f'/proc/{orphan}'))
        self.assertIsNone(process.poll())

    def test_no_sighup_before_it_is_handled(self):
        process = self.python(
            'import signal, sys, time\n'
            'print("started")\n'
            'time.sleep(3)\n'
            'signal.signal(1, lambda *_: print("got SIGHUP"))\n'
            'print("ready")\n'
            'while True: time.sleep(1)')
        self.wait_for_line('started')
        self.patch_config_map(**{'DEFAULT.debug': 'true'})
        self.wait_for_line('got SIGHUP')
        said = self.said()
        self.assertLess(said.index('ready'), said.index('got SIGHUP'))
        self.assertIsNone(process.poll())
        time.sleep(1)
        self.assertEqual(1, self.said().count('got SIGHUP'))

    def test_never_half_of_a_change(self):
        """A reader sees all of one state, however often it changes."""
        for i in range(3):
            self.plane.core.patch_namespaced_config_map(
                CONFIG_MAP, self.namespace, {'data': {
                    f'{i}.conf': '[DEFAULT]\nhost = 0\n'}})
        self.python(
            'import glob, os, signal, sys, time\n'
            'seen = []\n'
            'def read(*_):\n'
            '    texts = {open(each).read() for each in\n'
            '             glob.glob(sys.argv[2] + "/*-?.conf.conf")\n'
            '             if "key-x" not in each}\n'
            '    print("states", len(texts), *texts)\n'
            'signal.signal(1, read)\n'
            'print("ready")\n'
            'while True: time.sleep(1)')
        self.wait_for_line('ready')
        for i in range(1, 6):
            self.plane.core.patch_namespaced_config_map(
                CONFIG_MAP, self.namespace, {'data': {
                    f'{j}.conf': f'[DEFAULT]\nhost = {i}\n'
                    for j in range(3)}})
            time.sleep(0.1)
        self.wait_for_line('host = 5')
        self.assertEqual(
            ['states 1 [DEFAULT]'],
            sorted({line for line in self.said().splitlines()
                    if line.startswith('states')}))
