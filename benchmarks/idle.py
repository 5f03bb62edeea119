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

"""What nova-compute costs while nothing happens: our driver against Nova's.

Each is the program nova-compute in a process of its own, all at the same time.
The conductor, the database and Placement are in this one.
"""

import configparser
import json
from multiprocessing import connection as connections
import os
import socketserver
import subprocess
import sys
import threading
import time
from wsgiref import simple_server

import fixtures
from nova import context as nova_context
from nova import objects
from nova import rpc
from oslo_messaging._drivers import common
from placement import deploy

import benchmarks
from benchmarks import compute
from tests.functional import cluster

GUESTS = benchmarks.times((0, 20, 200), (0, 5))

# From audit to audit, so many times, and the seconds between two.
AUDITS = benchmarks.times(10, 2)
PERIOD = benchmarks.times(60, 5)

UP, HANGING, STOCK, AGAIN = 'up', 'hanging', 'stock', 'stock again'


class Conductor(fixtures.Fixture):
    """Passes RPC on, from other processes to the services of this one.

    :ivar address: path of the socket
    """

    def _setUp(self):
        self.address = self.useFixture(fixtures.TempDir()).join('rpc')
        self._listener = connections.Listener(self.address, backlog=128)
        self.addCleanup(self._listener.close)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                peer = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(peer,),
                             daemon=True).start()

    def _serve(self, peer):
        while True:
            try:
                peer.send(self._ask(*peer.recv()))
            except (EOFError, OSError):
                # The process has ended.
                return

    def _ask(self, target, context, message, wait):
        try:
            return rpc.TRANSPORT._driver.send(
                target, context, message, wait_for_reply=wait,
                timeout=60), None
        except Exception:
            return None, common.serialize_remote_exception(sys.exc_info())


class _Server(socketserver.ThreadingMixIn, simple_server.WSGIServer):
    daemon_threads = True


class _Handler(simple_server.WSGIRequestHandler):

    def log_message(self, *args):
        pass


class Placement(fixtures.Fixture):
    """Serves the Placement of Nova's fixture over HTTP.

    :ivar url:
    """

    def __init__(self, fixture):
        super().__init__()
        self._conf = fixture.conf_fixture.conf

    def _setUp(self):
        server = simple_server.make_server(
            '127.0.0.1', 0, deploy.loadapp(self._conf), _Server, _Handler)
        self.url = 'http://127.0.0.1:%d' % server.server_port
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        threading.Thread(target=server.serve_forever, daemon=True).start()


class Process(fixtures.Fixture):
    """nova-compute in a process of its own.

    :param host: its name
    :param options: {group: {option: value}} of nova.conf
    :param address: of the Conductor
    :param environment: in which it differs from this one
    """

    def __init__(self, host, options, address, environment):
        super().__init__()
        self.host = host
        self._options = options
        self._address = address
        self._environment = environment

    def _setUp(self):
        folder = self.useFixture(fixtures.TempDir())
        self._records, self._log = folder.join('audits'), folder.join('log')
        options = dict(self._options, DEFAULT=dict(
            self._options['DEFAULT'], host=self.host, state_path=folder.path))
        cgroup = self.useFixture(fixtures.TempDir())
        if 'kubernetes' in options:
            options['kubernetes'] = dict(options['kubernetes'],
                                         pod_cgroup=cgroup.path)
        conf = configparser.ConfigParser(interpolation=None)
        conf.read_dict(options)
        with open(folder.join('nova.conf'), 'w', encoding='utf-8') as f:
            conf.write(f)
        with open(self._log, 'wb') as log:
            self._process = subprocess.Popen(
                [sys.executable, '-W', 'ignore', '-m',
                 'benchmarks.idle_process', self._address, self._records,
                 '--config-file', f.name],
                env={**os.environ, **self._environment},
                stdin=subprocess.PIPE, stdout=log, stderr=log)
        self.addCleanup(self._end)
        # In a container's cgroup there are few processes; in this one there
        # may be all of the machine.
        for name, text in (('memory.stat', 'anon 200000000\nshmem 0\n'),
                           ('cgroup.procs', f'{self._process.pid}\n')):
            with open(cgroup.join(name), 'w', encoding='utf-8') as f:
                f.write(text)

    def _end(self):
        self._process.kill()
        self._process.communicate()

    def have(self, domains):
        """Have the domains of a list of XML."""
        self._process.stdin.write(json.dumps(domains).encode() + b'\n')
        self._process.stdin.flush()

    def audits(self, since=0):
        """Return what was used at the begin of each audit since then.

        :raises RuntimeError: when it has ended
        """
        if self._process.poll() is not None:
            with open(self._log, encoding='utf-8', errors='replace') as log:
                raise RuntimeError('nova-compute of %s ended:\n%s' % (
                    self.host, log.read()[-5000:]))
        try:
            with open(self._records, encoding='utf-8') as records:
                found = [json.loads(line) for line in records
                         if line.endswith('\n')]
        except FileNotFoundError:
            return []
        return [each for each in found if each['at'] >= since]


class Idle(compute.Compute):

    def setUp(self):
        super().setUp()
        self.address = self.useFixture(Conductor()).address
        self.placement_url = self.useFixture(
            Placement(self.placement.fixture)).url

    def measure(self):
        # One guest, for the others to be like it.
        self.have_guests(1)
        started = {
            (guests, which): self.start_process(
                f'{which.replace(" ", "-")}-{guests}', which)
            for guests in GUESTS for which in (UP, HANGING, STOCK, AGAIN)}
        self.wait_for_audits(started.values(), 1, 120)
        for (guests, _which), process in started.items():
            self.add_guests(process, guests)
        self.proxy.stall()
        try:
            begin = time.monotonic()
            # The first takes the guests in.
            self.wait_for_audits(started.values(), AUDITS + 2,
                                 (AUDITS + 4) * PERIOD, begin)
        finally:
            self.proxy.restore()
        for guests in GUESTS:
            self.compare(f'Idle, {guests} guests', {
                which: started[guests, which].audits(begin)[1:AUDITS + 2]
                for which in (UP, HANGING, STOCK, AGAIN)})

    def start_process(self, host, which):
        options = {
            'DEFAULT': {
                'compute_driver': 'libvirt.LibvirtDriver',
                'my_ip': '127.0.0.1', 'transport_url': 'fake:/',
                'instances_path': compute.CONF.instances_path,
                'update_resources_interval': PERIOD,
                'periodic_fuzzy_delay': 0,
                # There is no Neutron.
                'heal_instance_info_cache_interval': -1,
                'cpu_allocation_ratio': 100, 'disk_allocation_ratio': 100},
            'placement': {'auth_type': 'admin_token', 'token': 'admin',
                          'endpoint': self.placement_url},
            'oslo_concurrency': {
                'lock_path': self.useFixture(fixtures.TempDir()).path}}
        environment = {}
        if which in (UP, HANGING):
            pod = self.useFixture(cluster.ComputePod(**self.limits))
            options['DEFAULT']['compute_driver'] = 'k8s.K8sLibvirtDriver'
            options['kubernetes'] = {
                'pod_name': pod.pod.metadata.name, 'node_name': pod.node,
                'namespace': pod.namespace, 'hypervisor_hostname': host,
                # That pod has no container in which this process runs.
                'disk_limit_gb': 128}
            # As in a pod.
            volume = self.useFixture(fixtures.TempDir()).join('account')
            self.plane.service_account_volume(
                volume, pod.namespace, cluster.SERVICE_ACCOUNT, pod.pod)
            server = self.proxy if which == HANGING else self.plane
            environment = {'KUBERNETES_SERVICE_HOST': '127.0.0.1',
                           'KUBERNETES_SERVICE_PORT': str(server.port),
                           'NOVA_K8S_BENCH_ACCOUNT': volume}
        return self.useFixture(Process(host, options, self.address,
                                       environment))

    def wait_for_audits(self, processes, count, seconds, since=0):
        deadline = time.monotonic() + seconds
        for process in processes:
            while len(process.audits(since)) < count:
                self.assertLess(time.monotonic(), deadline,
                                f'{process.host}: no {count} audits in '
                                f'{seconds} s')
                time.sleep(1)

    def add_guests(self, process, count):
        context = nova_context.get_admin_context()
        with nova_context.target_cell(
                context, self.cell_mappings['cell1']) as context:
            model = objects.Instance.get_by_uuid(
                context, self.first['id'], expected_attrs=[
                    'system_metadata', 'flavor', 'numa_topology', 'metadata'])
            disk, = objects.BlockDeviceMappingList.get_by_instance_uuid(
                context, model.uuid)
            node = objects.ComputeNode.get_by_host_and_nodename(
                context, process.host, process.host)
            connection = self.driver._host.get_connection()
            xml = connection.lookupByUUIDString(model.uuid).XMLDesc(0)
            allocated, = self.placement.get(
                '/allocations/%s' % model.uuid,
                version='1.28').body['allocations'].values()
            allocations = dict(
                self.placement.get('/allocations/%s' % model.uuid,
                                   version='1.28').body,
                allocations={node.uuid: {
                    'resources': allocated['resources']}})
            domains = []
            for _ in range(count):
                instance = self._add_record(
                    context, model, disk, host=process.host,
                    node=node.hypervisor_hostname, compute_id=node.id)
                self._allocate(instance.uuid, allocations)
                domains.append(xml.replace(model.uuid, instance.uuid)
                               .replace(model.name, instance.name))
        process.have(domains)

    def compare(self, name, audits):
        milliseconds, mib = {}, {}
        for which, found in audits.items():
            first, last = found[0], found[-1]
            milliseconds[which] = ((last['cpu'] - first['cpu']) * 1000 /
                                   (last['at'] - first['at']) * 60)
            mib[which] = last['rss'] / (1 << 20)
        for what, used, unit in (('CPU', milliseconds, 'ms/min'),
                                 ('RSS', mib, 'MiB')):
            # The mean of two, so that neither is better by chance.
            theirs = (used[STOCK] + used[AGAIN]) / 2
            self.row(f'{name}: {what}, Nova\'s', f'{theirs:.0f}', unit)
            for which in (UP, HANGING):
                title = f'{name}, API server {which}: {what}, ours'
                self.row(title, f'{used[which]:.0f}', unit)
                self.row(f'{title} / Nova\'s', f'{used[which] / theirs:.3f}')
            self.row(f'{name}: {what}, Nova\'s / Nova\'s (noise)',
                     f'{used[AGAIN] / used[STOCK]:.3f}')


def rows():
    return compute.run(Idle)
