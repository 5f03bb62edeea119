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

"""What a compute node receives from the API server, by size of the cluster.

All pods and nodes of the cluster change all the time, each as often as in any
other size. Beside the watches of a compute node stands one on all pods.
"""

import concurrent.futures
import contextlib
import functools
import itertools
import threading
import time

import fixtures
from kubernetes import client

import benchmarks
from nova_k8s.kube import client as kube_client
from nova_k8s.kube import node
from nova_k8s.kube import watch
from nova_k8s.limits.sources import api
from tests.functional import cluster
from tests.functional import fault_proxy

NODES = benchmarks.times((10, 100, 1000), (5, 20))

# How long is measured, in seconds. Also how long one watch lasts, so that
# each of them lists its objects once in that time; in life, once a minute.
SECONDS = benchmarks.times(20, 5)

# Seconds between two changes of a node, and of its pod: what two cores can
# write for the largest cluster.
EVERY = 40

# How often what the compute node watches changes while it is measured.
OWN_CHANGES = 4

WRITERS = 4

MERGE = 'application/merge-patch+json'


class Receiver:
    """Clients behind a proxy of their own, that counts."""

    def __init__(self, proxy):
        self.proxy = proxy
        self.events = 0
        self.stop = threading.Event()

    def __call__(self):
        """What a watch calls when something may be new."""

    def read(self):
        return self.events, self.proxy.bytes_to_client


class Cluster:
    """So many nodes and pods, beside those of the compute node."""

    def __init__(self, compute):
        self.compute = compute
        self.plane = compute.plane
        self.names = []
        self.written = 0
        self._local = threading.local()

    def core(self):
        # The client of another thread is not to be waited for.
        if not hasattr(self._local, 'core'):
            self._local.core = client.CoreV1Api(
                kube_client.api_client(self.compute.conf_of_admin))
        return self._local.core

    def grow(self, count):
        missing = [f'{self.compute.namespace}-{i}' for i
                   in range(len(self.names) + 1, count)]
        with concurrent.futures.ThreadPoolExecutor(WRITERS) as pool:
            list(pool.map(self._add, missing))
        self.names += missing

    def _add(self, name):
        self.core().create_node({
            'metadata': {'name': name},
            'status': {'capacity': {'cpu': '64', 'memory': '256Gi'},
                       'conditions': [{'type': 'Ready', 'status': 'True'}]}})
        self.core().create_namespaced_pod(self.compute.namespace, {
            'metadata': {'name': name, 'labels': {'app': 'other'}},
            'spec': {'nodeName': name, 'containers': [
                {'name': 'compute', 'image': 'compute', 'resources': {
                    'limits': {'cpu': '4', 'memory': '4Gi'}}}]}})

    def _change(self, node, pod, i):
        now = time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())
        body = {'metadata': {'annotations': {'changed': f'{now} {i:06}'}}}
        self.core().patch_node(node, body, _content_type=MERGE)
        self.core().patch_namespaced_pod(
            pod, self.compute.namespace, body, _content_type=MERGE)
        self.written += 2

    def change_own(self, i):
        self._change(self.compute.node, self.compute.pod.metadata.name, i)

    @contextlib.contextmanager
    def changing(self):
        """Have everything change, in turns, while in the with statement."""
        stop = threading.Event()
        pace = EVERY / len(self.names)
        begin = time.monotonic()
        turns = itertools.count()
        lock = threading.Lock()

        def write():
            while True:
                with lock:
                    turn = next(turns)
                if stop.wait(max(0, begin + turn * pace - time.monotonic())):
                    return
                i, which = divmod(turn, len(self.names))
                self._change(self.names[which], self.names[which], i)
        with concurrent.futures.ThreadPoolExecutor(WRITERS) as pool:
            writers = [pool.submit(write) for _ in range(WRITERS)]
            try:
                yield
            finally:
                stop.set()
        for each in writers:
            each.result()


class Measurement(fixtures.Fixture):

    def _setUp(self):
        self.useFixture(fixtures.MonkeyPatch('nova_k8s.kube.watch.PERIOD',
                                             SECONDS))
        works = watch.Watch._works

        def counting(self, received=None):
            # Without an object it is a connection that works.
            if received is not None:
                self._changed.events += 1
            works(self, received)
        self.useFixture(fixtures.MonkeyPatch(
            'nova_k8s.kube.watch.Watch._works', counting))
        self.compute = self.useFixture(cluster.ComputePod())
        self.compute.conf_of_admin = self.compute.conf()
        self.compute.conf_of_admin.set_override(
            'kubeconfig', self.compute.plane.admin_kubeconfig, 'kubernetes')
        self.cluster = Cluster(self.compute)

    def rows(self):
        for nodes in NODES:
            self.cluster.grow(nodes)
            yield from self.measure(nodes)

    def receive(self, watches):
        """Watch behind a proxy of its own."""
        proxy = self.useFixture(fault_proxy.FaultProxy(self.compute.plane))
        receiver = Receiver(proxy)
        for each in watches(proxy, receiver):
            threading.Thread(target=each, args=(receiver.stop,),
                             daemon=True).start()
        self.addCleanup(receiver.stop.set)
        return receiver

    def own(self, proxy, changed):
        """What K8sLibvirtDriver watches."""
        conf = self.compute.conf(proxy)
        for source in (api.from_conf(conf),
                       node.from_conf(conf, self.compute.node)):
            yield functools.partial(source.watch, changed)

    def all_pods(self, proxy, changed):
        def connect():
            api_client = kube_client.api_client(self.compute.conf_of_admin)
            api_client.configuration.host = proxy.url
            return api_client
        yield watch.Watch(connect, kube_client.path('v1', 'pods'), 'all pods',
                          changed, 10).run

    def measure(self, nodes):
        receivers = {'a compute node': self.receive(self.own),
                     'a watch on all pods': self.receive(self.all_pods)}
        with self.cluster.changing():
            # The middle of a watch, so that the end of one is inside.
            time.sleep(SECONDS / 2)
            before = {name: each.read() for name, each in receivers.items()}
            written, begin = self.cluster.written, time.monotonic()
            for i in range(OWN_CHANGES):
                time.sleep(SECONDS / OWN_CHANGES / 2)
                self.cluster.change_own(i)
                time.sleep(SECONDS / OWN_CHANGES / 2)
            after = {name: each.read() for name, each in receivers.items()}
            seconds = time.monotonic() - begin
            written = self.cluster.written - written
        for each in receivers.values():
            each.stop.set()
        title = f'Cluster of {nodes} nodes'
        yield (f'{title}: changes written', '%.1f' % (written / seconds),
               '/s')
        for name in receivers:
            events, size = (now - then for now, then in
                            zip(after[name], before[name]))
            yield (f'{title}: {name} receives', '%.0f' % (size / seconds),
                   'bytes/s')
            yield (f'{title}: {name} receives', '%.1f' % (events / seconds),
                   'events/s')


def rows():
    with Measurement() as measurement:
        yield from measurement.rows()
