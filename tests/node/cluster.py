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

"""A real node: kubelet and containerd in a VM, the control plane beside it.

The control plane runs natively, which is faster than under emulation. The
kubelet reaches it through QEMU's user network.
"""

import ssl
import textwrap
import time
import urllib.request

import fixtures
import yaml

from tests.functional import control_plane
from tests.node import images
from tests.node import machine

NODE = 'node1'
# Seconds until a node that is not heard of is unreachable, and from then on
# until its pods are evicted, unless they tolerate it.
GRACE = 40
TOLERATION = 20
# How long the node may take to be Ready after the boot, in seconds.
READY_TIMEOUT = 300

CONTAINERD = '''\
version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.nri.v1.nri"]
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = "%(pause)s"
[plugins.'io.containerd.cri.v1.runtime']
  disable_apparmor = true
  [plugins.'io.containerd.cri.v1.runtime'.containerd]
    default_runtime_name = "runc"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
        BinaryName = "/usr/sbin/runc"
        SystemdCgroup = %(systemd)s
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = "/etc/cni/net.d"
'''

CNI = '''\
{"cniVersion": "0.4.0", "name": "test", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true,
   "ipam": {"type": "host-local", "subnet": "10.244.0.0/24",
            "dataDir": "/run/cni",
            "routes": [{"dst": "0.0.0.0/0"}]}}]}
'''

# KillMode: containers live on when containerd is restarted.
UNIT = '''\
[Unit]
DefaultDependencies=no
StartLimitIntervalSec=0
[Service]
Environment=HOME=/root PATH=%(bin)s:/usr/sbin:/usr/bin
ExecStart=%(command)s
Delegate=yes
KillMode=process
Restart=always
RestartSec=1
StandardOutput=append:/run/%(name)s.log
StandardError=append:/run/%(name)s.log
'''


class Cluster(fixtures.Fixture):
    """One node, Ready when it is set up.

    :ivar plane: the ControlPlane
    :ivar vm: the Machine that is the node
    :ivar node: name of the node
    :ivar cgroup_driver: of the kubelet: cgroupfs or systemd
    """

    def __init__(self, cgroup_driver, kubelet=None, **vm):
        """Describe a cluster.

        :param kubelet: further fields of its configuration
        :param vm: further arguments of its Machine
        """
        super().__init__()
        self.cgroup_driver = cgroup_driver
        self.node = NODE
        self._kubelet = kubelet or {}
        self._vm = vm

    def _setUp(self):
        # First, as they are what may be missing.
        machine.built()
        self._bin = control_plane.binaries(
            'kubelet', 'containerd', 'containerd-shim-runc-v2', 'ctr',
            node=True)
        self.plane = self.useFixture(control_plane.ControlPlane(
            controllers='*', scheduler=True,
            addresses=(machine.MACHINE, '10.96.0.1'),
            # In place of 50 and 300 s: as Kubernetes has it, and sooner.
            controller_flags=['--node-monitor-grace-period=%ds' % GRACE],
            api_server_flags=['--default-%s-toleration-seconds=%d'
                              % (reason, TOLERATION)
                              for reason in ('unreachable', 'not-ready')]))
        holder = control_plane.reserve_port()
        self._kubelet_port = holder.getsockname()[1]
        holder.close()
        # The VM sees the files of this machine: what lies there before it
        # boots need not be copied.
        self._images = self.plane.directory + '/images.tar'
        images.write(self._images)
        self._kubeconfig = self.plane.kubelet_kubeconfig(
            self.node, 'https://%s:%d' % (machine.MACHINE, self.plane.port))
        self._certificate, self._key = self.plane.authority.issue(
            'kubelet-server', self.node, addresses=(machine.ADDRESS,))
        self.vm = self.useFixture(machine.Machine(
            self.node, self.plane.port, [self._kubelet_port], **self._vm))
        self._start_containerd()
        self._start_kubelet()
        self.plane.create_service_account('default', 'default')
        self.wait_until_ready(READY_TIMEOUT)

    def _unit(self, name, command):
        self.vm.write('/run/systemd/system/%s.service' % name, UNIT % {
            'bin': self._bin, 'name': name, 'command': command})
        self.vm.run('systemctl daemon-reload; systemctl start ' + name)

    def _start_containerd(self):
        self.vm.write('/etc/containerd/config.toml', CONTAINERD % {
            'pause': images.PAUSE,
            'systemd': str(self.cgroup_driver == 'systemd').lower()})
        self.vm.write('/etc/cni/net.d/10-test.conflist', CNI)
        self._unit('containerd', '%s/containerd' % self._bin)
        self.vm.run(textwrap.dedent('''\
            for try in $(seq 200); do
                {0}/ctr version > /dev/null 2>&1 && break
                sleep 0.3
            done
            {0}/ctr -n k8s.io images import {1}
            ''').format(self._bin, self._images))

    def _start_kubelet(self):
        none = '0%'
        configuration = {
            'apiVersion': 'kubelet.config.k8s.io/v1beta1',
            'kind': 'KubeletConfiguration',
            'containerRuntimeEndpoint':
                'unix:///run/containerd/containerd.sock',
            'cgroupDriver': self.cgroup_driver,
            'port': self._kubelet_port,
            'failSwapOn': False,
            'makeIPTablesUtilChains': False,
            # The file system of the VM is a tmpfs below an overlay, which
            # cAdvisor does not know.
            'localStorageCapacityIsolation': False,
            'evictionHard': {name: none for name in (
                'memory.available', 'nodefs.available', 'nodefs.inodesFree',
                'imagefs.available', 'imagefs.inodesFree')},
            'imageGCHighThresholdPercent': 100,
            'imageGCLowThresholdPercent': 99,
            'authentication': {
                'anonymous': {'enabled': False},
                'webhook': {'enabled': False},
                'x509': {'clientCAFile': self.plane.ca_file}},
            'authorization': {'mode': 'AlwaysAllow'},
            'tlsCertFile': self._certificate,
            'tlsPrivateKeyFile': self._key,
            'resolvConf': '',
            'nodeStatusUpdateFrequency': '10s',
            'enforceNodeAllocatable': ['pods'],
            **self._kubelet}
        self.vm.write('/run/kubelet.yaml', yaml.safe_dump(configuration))
        self._unit('kubelet', (
            '%s/kubelet --config=/run/kubelet.yaml --kubeconfig=%s '
            '--hostname-override=%s --node-ip=%s --v=2') % (
                self._bin, self._kubeconfig, self.node, machine.ADDRESS))

    def conditions(self):
        """Return the node's conditions, by type."""
        node = self.plane.core.read_node(self.node)
        return {each.type: each for each in node.status.conditions or ()}

    def wait_until_ready(self, timeout):
        """Wait until the node is Ready, and may be scheduled to.

        :raises AssertionError: where it is not after timeout seconds
        """
        deadline = time.monotonic() + timeout
        last = 'the kubelet has not registered it'
        while time.monotonic() < deadline:
            nodes = [each for each in self.plane.core.list_node().items
                     if each.metadata.name == self.node]
            if nodes:
                ready = self.conditions().get('Ready')
                last = ready.message if ready else 'no condition'
                if ready and ready.status == 'True' and not any(
                        taint.key.startswith('node.kubernetes.io/')
                        for taint in nodes[0].spec.taints or ()):
                    return
            time.sleep(0.3)
        raise AssertionError('%s is not Ready after %d s (%s):\n%s' % (
            self.node, timeout, last,
            self.vm.run('tail -n 40 /run/kubelet.log')))

    def ask_kubelet(self, path):
        """Return what the kubelet answers, for instance stats/summary."""
        context = ssl.create_default_context(cafile=self.plane.ca_file)
        context.load_cert_chain(self.plane.directory + '/admin.crt',
                                self.plane.directory + '/admin.key')
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPSHandler(context=context))
        with opener.open('https://127.0.0.1:%d/%s' % (
                self._kubelet_port, path), timeout=60) as answer:
            return answer.read().decode()

    def logs(self, namespace, pod, container):
        """Return what a container has written, as its kubelet tells it."""
        return self.ask_kubelet('containerLogs/%s/%s/%s' % (
            namespace, pod, container))
