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

"""nova-compute by itself: what the benchmark idle measures.

    python -m benchmarks.idle_process SOCKET RECORDS --config-file nova.conf

It is the program nova-compute, in a process of its own. RPC goes through a
socket to the process that has the conductor; Placement is asked over HTTP; and
libvirt is Nova's own fake of it. RECORDS gets a line of JSON at the begin of
each audit: when it was, and what the process has used until then. Domains for
libvirt come as a list of XML, in one line of JSON, at the standard input.
"""

import gc
import io
import json
from multiprocessing import connection as connections
import os
import sys
import threading
import time

# First, as in the script nova-compute: this import chooses between threads
# and eventlet.
import nova.cmd.compute

import fixtures
from nova.compute import resource_tracker
import nova.conf
from nova import rpc
from nova.tests import fixtures as nova_fixtures
from nova.tests.fixtures import libvirt as fakelibvirt
from oslo_messaging._drivers import base
from oslo_messaging._drivers import common
from oslo_messaging._drivers import impl_fake
import psutil

CONF = nova.conf.CONF

_local = threading.local()


class Bridge(impl_fake.FakeDriver):
    """Sends what is asked by RPC to another process; nobody asks this one."""

    address = None

    def send(self, target, ctxt, message, wait_for_reply=None, timeout=None,
             **_options):
        if not hasattr(_local, 'connection'):
            _local.connection = connections.Client(self.address)
        self._check_serialize(message)
        _local.connection.send((target, ctxt, message, bool(wait_for_reply)))
        reply, failure = _local.connection.recv()
        if failure:
            raise common.deserialize_remote_exception(
                failure, rpc.get_allowed_exmods())
        return reply

    def send_notification(self, *args, **kwargs):
        pass

    def listen(self, target, batch_size, batch_timeout):
        return Silence(batch_size, batch_timeout)


class Silence(base.Listener):
    """Hears nothing, and does not look for it every 50 ms."""

    def cleanup(self):
        pass


class Host(fixtures.Fixture):
    """What nova.tests.functional.libvirt.base has in place of a host."""

    def _setUp(self):
        for each in (nova_fixtures.LibvirtImageBackendFixture(),
                     nova_fixtures.CGroupsFixture(),
                     nova_fixtures.LibvirtFixture(),
                     nova_fixtures.OSBrickFixture()):
            self.useFixture(each)
        self.connection = None
        for name, function in (
                ('driver.LibvirtDriver._get_local_gb_info',
                 lambda: {'total': 128, 'used': 44, 'free': 84}),
                ('driver.libvirt_utils.is_valid_hostname', lambda name: True),
                ('driver.libvirt_utils.file_open',
                 lambda *args, **kwargs: io.BytesIO(b'')),
                ('host.Host.get_online_cpus', lambda host: set(range(16))),
                ('host.Host.get_connection', lambda host: self.libvirt())):
            if name.endswith('_get_local_gb_info'):
                function = staticmethod(function)
            self.useFixture(fixtures.MonkeyPatch(
                f'nova.virt.libvirt.{name}', function))

    def libvirt(self):
        if not self.connection:
            self.connection = fakelibvirt.Connection(
                'qemu:///system', hostname=CONF.host,
                version=fakelibvirt.FAKE_LIBVIRT_VERSION,
                hv_version=fakelibvirt.FAKE_QEMU_VERSION,
                host_info=fakelibvirt.HostInfo(
                    cpu_nodes=2, cpu_sockets=1, cpu_cores=2, cpu_threads=2))
        return self.connection

    def add_guests(self):
        for line in sys.stdin:
            for xml in json.loads(line):
                self.connection.defineXML(xml).createWithFlags(0)
            # What was left by the start. It takes as long as minutes of
            # idling, and would fall on whom it may.
            gc.collect()
        # Whoever started it has gone.
        os._exit(0)


def use_account(incluster_config, folder):
    """Have this be a container, with its service account in a folder."""
    for name, file in (('TOKEN', 'token'), ('CERT', 'ca.crt')):
        setattr(incluster_config, f'SERVICE_{name}_FILENAME',
                os.path.join(folder, file))


def record_audits(path):
    """Have each audit say what was used until it began."""
    process = psutil.Process()
    audit = resource_tracker.ResourceTracker.update_available_resource

    def recorded(*args, **kwargs):
        with open(path, 'a', encoding='utf-8') as records:
            records.write(json.dumps({
                'at': time.monotonic(), 'cpu': time.process_time(),
                'rss': process.memory_info().rss}) + '\n')
        return audit(*args, **kwargs)
    resource_tracker.ResourceTracker.update_available_resource = recorded


def main():
    Bridge.address, path = sys.argv[1:3]
    sys.argv[:3] = ['nova-compute']
    impl_fake.FakeDriver = Bridge
    record_audits(path)
    if 'NOVA_K8S_BENCH_ACCOUNT' in os.environ:
        from kubernetes.config import incluster_config
        use_account(incluster_config, os.environ['NOVA_K8S_BENCH_ACCOUNT'])
    with Host() as host:
        threading.Thread(target=host.add_guests, daemon=True).start()
        nova.cmd.compute.main()


if __name__ == '__main__':
    main()
