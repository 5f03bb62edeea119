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

"""libvirt's pod, the guests' pod, and guests, on a real node.

The scripts are those of etc/kubernetes/base; the pods are made here, with
images that need no registry. The test does what the driver does: it makes the
guests' pod, and writes on the node which one it is.
"""

import base64
import json
import pathlib
import textwrap

from kubernetes import client
from testtools import content

from nova_k8s.confinement import guests_pod
from tests.node import base
from tests.node import images
from tests.node import pods

BASE = (pathlib.Path(__file__).resolve().parents[2] /
        'etc' / 'kubernetes' / 'base')
RECORD = '/run/nova-k8s/guests-pod.json'
# Where the emulator writes the cgroup in which it was started.
BIRTHS = '/run/nova-k8s/births'
EMULATOR = '/var/lib/libvirt/emulator'

# The boot sector of a guest that writes to each page of its memory from 1 MiB
# up to the number at its end, and then never sleeps:
#     cli; lgdt gdt; mov cr0, cr0 | 1; ljmp 8:flat
#     flat: mov ds, 16; mov ebx, [end]; mov edi, 0x100000
#     touch: cmp edi, ebx; jae touch; mov [edi], edi; add edi, 0x1000
#            jmp touch
HOG = bytes.fromhex(
    'fa31c08ed8660f0116587c0f20c00c010f22c066ea1b7c0000080066b810008ed8'
    '8b1d5e7c0000bf0000100039df73fc893f81c700100000ebf28db600000000'
    '0000000000000000ffff0000009acf00ffff00000092cf001700407c0000')

DOMAIN = '''\
<domain type='qemu'>
  <name>{name}</name>
  <memory unit='MiB'>{memory_mb}</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  {backing}
  <devices>
    <emulator>{emulator}</emulator>
    {disk}
  </devices>
</domain>
'''
DISK = '''\
<disk type='file' device='disk'>
  <driver name='qemu' type='raw'/><source file='{path}'/>
  <target dev='hda' bus='ide'/>
</disk>
'''


def hog_image(touched_mb):
    """Return the disk of a guest that touches this much of its memory.

    It never sleeps; with 0 it does nothing else.
    """
    code = HOG + (touched_mb << 20).to_bytes(4, 'little')
    return code.ljust(510, b'\0') + b'\x55\xaa' + bytes(512)


def host_path(name, path, kind='DirectoryOrCreate'):
    return {'name': name, 'hostPath': {'path': path, 'type': kind}}


class Stage:
    """libvirt and a guests' pod, in a namespace of their own.

    :ivar pods: the Pods of that namespace
    :ivar guests_pod: name of the guests' pod
    :ivar uid: of the guests' pod
    """

    MEMORY = '600Mi'
    CPU = '700m'
    # Name of a volume to the folder, of the node and in libvirt's container.
    FOLDERS = {'usr': '/usr', 'dev': '/dev', 'run': '/run/libvirt',
               'libvirt': '/var/lib/libvirt', 'cache': '/var/cache/libvirt',
               'domains': '/etc/libvirt/qemu', 'record': '/run/nova-k8s'}

    def __init__(self, cluster, cpu=CPU, pages=None):
        """Start libvirt, and a guests' pod.

        :param cpu: limit of the guests' pod
        :param pages: its limit of huge pages of 2 MiB, as a quantity
        """
        self.cluster = cluster
        self.cpu = cpu
        self._pages = {'hugepages-2Mi': pages} if pages else {}
        self.vm = cluster.vm
        self.plane = cluster.plane
        self.pods = pods.Pods(cluster)
        self.namespace = self.pods.namespace
        self.guests_pod = 'guests-' + cluster.node
        self.uid = None
        self.vm.write(EMULATOR, textwrap.dedent('''\
            #!/bin/sh
            cat /proc/self/cgroup >> {} 2> /dev/null
            exec /usr/bin/qemu-system-x86_64 "$@"
            ''').format(BIRTHS), 0o755)
        self.vm.write(BIRTHS, '', 0o666)
        self._create_scripts()
        self.create_guests_pod()
        self.create_libvirt()
        self.wait_for_libvirt()

    def restore(self):
        """Make it as it was when it was new."""
        found = self.pods.read(self.guests_pod)
        if not found or found.metadata.deletion_timestamp:
            self.pods.wait_until_gone(self.guests_pod)
            self.create_guests_pod()
        else:
            self.resize(self.cpu, self.MEMORY)
        if not self.libvirt_pod():
            self.create_libvirt()
        self.wait_for_libvirt()

    def _create_scripts(self):
        data = {name: (BASE / name).read_text()
                for name in ('libvirt.sh', 'libvirtd.sh', 'guests.sh',
                             'libvirtd.conf')}
        # The older way leaves guests in libvirt's container.
        data['qemu.conf'] = ''.join(
            line for line in (BASE / 'qemu.conf').read_text().splitlines(True)
            if not line.startswith('cgroup_controllers'))
        data['in-container.conf'] = (data['qemu.conf'] +
                                     'cgroup_controllers = []\n')
        self.plane.core.create_namespaced_config_map(
            self.namespace, {'metadata': {'name': 'scripts'}, 'data': data})

    # The guests' pod

    def create_guests_pod(self):
        """Create it as the driver does, and publish it once it runs."""
        node = self.plane.core.read_node(self.cluster.node)
        container = pods.container(
            'guests', ['/bin/sh', '/scripts/guests.sh'], cpu=self.cpu,
            memory=self.MEMORY,
            env=[{'name': 'POD_UID', 'valueFrom': {
                'fieldRef': {'fieldPath': 'metadata.uid'}}}],
            securityContext={'allowPrivilegeEscalation': False,
                             'capabilities': {'drop': ['ALL']},
                             'readOnlyRootFilesystem': True},
            volumeMounts=[
                {'name': 'scripts', 'mountPath': '/scripts'},
                {'name': 'cgroup', 'mountPath': '/node/cgroup',
                 'readOnly': True}])
        for each in container['resources'].values():
            each.update(self._pages)
        manifest = pods.manifest(
            self.guests_pod, container,
            metadata={'labels': {'app': 'guests'}, 'ownerReferences': [{
                'apiVersion': 'v1', 'kind': 'Node', 'controller': True,
                'name': node.metadata.name, 'uid': node.metadata.uid}]},
            terminationGracePeriodSeconds=30 * 86400,
            tolerations=[{'operator': 'Exists', 'effect': 'NoExecute'}],
            priorityClassName='system-node-critical',
            securityContext={'runAsNonRoot': True, 'runAsUser': 65534,
                             'seccompProfile': {'type': 'RuntimeDefault'}},
            affinity={'nodeAffinity': {
                'requiredDuringSchedulingIgnoredDuringExecution': {
                    'nodeSelectorTerms': [{'matchFields': [{
                        'key': 'metadata.name', 'operator': 'In',
                        'values': [node.metadata.name]}]}]}}},
            volumes=[{'name': 'scripts', 'configMap': {'name': 'scripts'}},
                     host_path('cgroup', '/sys/fs/cgroup', 'Directory')])
        created = self.pods.create(manifest)
        self.uid = created.metadata.uid
        # As the driver does.
        self.vm.write(RECORD, json.dumps(guests_pod.record(
            self.plane.admin.sanitize_for_serialization(created))))

    def record(self):
        """Return what the node is told of it."""
        return json.loads(self.vm.read(RECORD))

    def replace(self, cpu):
        """Have another one in its place, with another limit of CPU."""
        self.destroy_guests()
        self.cpu = cpu
        self.pods.delete(self.guests_pod, grace=0)
        self.pods.wait_until_gone(self.guests_pod)
        self.create_guests_pod()
        self.wait_until_followed()

    def wait_until_followed(self):
        """Wait until libvirtd is in the guests' pod that is recorded."""
        pods.wait_for(
            lambda: self.cgroup() + '/guests/libvirtd' ==
            self.cgroup_of(self.libvirtd() or 'self'),
            'libvirtd below the new pod')
        self.wait_for_libvirt()

    def cgroup_of(self, pid):
        """Return the path of a process's cgroup, as the node sees it."""
        return '/sys/fs/cgroup' + self.vm.run(
            'cat /proc/%s/cgroup' % pid, check=False).strip().partition(
                '::')[2]

    def cgroup(self):
        """Return the path of the guests' pod's cgroup."""
        return self.pods.cgroup(self.uid)

    def resize(self, cpu, memory):
        """Resize the guests' pod, and wait until its status says so."""
        self.pods.resize(self.guests_pod, cpu=cpu, memory=memory)
        self.pods.wait_until_resized(self.guests_pod, cpu=cpu, memory=memory)

    # libvirt

    def create_libvirt(self, name='libvirt', qemu_conf='qemu.conf',
                       memory='256Mi',
                       script='exec /bin/bash /scripts/libvirt.sh'):
        """Create libvirt's DaemonSet.

        :param qemu_conf: which of the configurations of the scripts
        :param script: what its shell runs
        """
        container = pods.container(
            'libvirt', ['/bin/bash', '-c', script], images.SKELETON,
            cpu='300m', memory=memory, securityContext={'privileged': True},
            volumeMounts=[
                {'name': 'scripts', 'mountPath': '/scripts'},
                *({'name': 'scripts', 'subPath': source, 'readOnly': True,
                   'mountPath': '/etc/libvirt/' + file}
                  for source, file in (('libvirtd.conf', 'libvirtd.conf'),
                                       (qemu_conf, 'qemu.conf'))),
                *({'name': each, 'mountPath': path}
                  for each, path in self.FOLDERS.items())])
        spec = pods.manifest(
            name, container, hostNetwork=True, hostPID=True,
            nodeSelector={'kubernetes.io/hostname': self.cluster.node},
            terminationGracePeriodSeconds=10,
            tolerations=[{'operator': 'Exists'}],
            priorityClassName='system-node-critical',
            volumes=[{'name': 'scripts', 'configMap': {'name': 'scripts'}},
                     *(host_path(each, path)
                       for each, path in self.FOLDERS.items())])['spec']
        labels = {'app': name}
        client.AppsV1Api(self.plane.admin).create_namespaced_daemon_set(
            self.namespace, {
                'metadata': {'name': name},
                'spec': {'selector': {'matchLabels': labels},
                         'template': {'metadata': {'labels': labels},
                                      'spec': spec}}})

    def delete_libvirt(self, name='libvirt'):
        """Delete libvirt's DaemonSet, and wait for the end of its pods."""
        self.plane.kubectl('delete', 'daemonset', name, '-n', self.namespace,
                           '--cascade=foreground', '--timeout=120s',
                           timeout=150)

    def wait_for_libvirt(self):
        """Wait until libvirtd answers."""
        pods.wait_for(
            lambda: not self.vm.attempt('virsh -q list --all')[0],
            'an answer of libvirtd', interval=1)

    def libvirtd(self):
        """Return the PID of libvirtd; None where there is none."""
        return self.vm.run('pgrep -o -x libvirtd', check=False).strip() or None

    def libvirt_pod(self, name='libvirt'):
        """Return libvirt's pod that is not about to end; None without."""
        for each in self.plane.core.list_namespaced_pod(
                self.namespace, label_selector='app=' + name).items:
            if not each.metadata.deletion_timestamp:
                return each
        return None

    # Guests

    def start_guest(self, name, memory_mb=32, touched_mb=None, check=True,
                    backing=''):
        """Start a guest.

        :param touched_mb: None for a guest that idles, else see hog_image
        :param backing: XML of what its memory is made of
        :returns: the PID of its QEMU; None where it failed
        """
        disk = ''
        if touched_mb is not None:
            path = '/var/lib/libvirt/%s.img' % name
            self.vm.run('base64 -d > ' + path, base64.b64encode(
                hog_image(touched_mb)).decode())
            disk = DISK.format(path=path)
        xml = DOMAIN.format(name=name, memory_mb=memory_mb,
                            emulator=EMULATOR, disk=disk,
                            backing=backing)
        status, output = self.vm.attempt(
            'cat > /run/{0}.xml && virsh -q create /run/{0}.xml'.format(name),
            xml, timeout=pods.TIMEOUT)
        if status:
            if check:
                raise AssertionError('%s was not started: %s'
                                     % (name, output))
            return None
        return self.vm.read('/run/libvirt/qemu/%s.pid' % name).strip()

    def destroy_guest(self, name):
        self.vm.run('virsh -q destroy ' + name)

    def destroy_guests(self):
        self.vm.run('for guest in $(virsh list --name); do '
                    'virsh -q destroy $guest; done', check=False)

    def running(self):
        """Return the names of the guests that libvirt calls running."""
        status, output = self.vm.attempt('virsh list --state-running --name')
        return None if status else set(output.split())

    def alive(self, pid):
        """Tell whether a process runs; one that nobody has reaped does not."""
        return self.vm.attempt(
            'grep -q "^State:[[:space:]]*[^ZX[:space:]]" /proc/%s/status'
            % pid)[0] == 0


def shared(cluster, **how):
    """Return the Stage of a cluster, as if it were new.

    :param how: further arguments of a Stage that is made
    """
    stage = getattr(cluster, 'stage', None)
    if stage:
        stage.restore()
    else:
        stage = cluster.stage = Stage(cluster, **how)
    return stage


class StageTestCase(base.NodeTestCase):
    """A test with guests.

    :ivar stage: libvirt and the guests' pod
    """

    def setUp(self):
        super().setUp()
        self.stage = self.make_stage()
        self.addCleanup(self.stage.destroy_guests)
        self.addOnException(self._attach_libvirt_log)

    def make_stage(self):
        return shared(self.cluster)

    def _attach_libvirt_log(self, exc_info):
        found = self.stage.libvirt_pod()
        if found:
            self.addDetail('libvirt', content.text_content(self.cluster.logs(
                self.stage.namespace, found.metadata.name, 'libvirt')))
