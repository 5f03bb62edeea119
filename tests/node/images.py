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

"""Images that a test makes: no registry, nothing is pulled.

busybox stands for what needs no more than a shell. What needs libvirt has an
image without files of its own, whose pods mount the VM's /usr.
"""

import hashlib
import io
import json
import shutil
import tarfile

from tests.functional import control_plane
from tests.node import machine

PAUSE = 'registry.test/pause:1'
BUSYBOX = 'registry.test/busybox:1'
# With /usr of the node mounted into it, it is a Debian as the node's.
SKELETON = 'registry.test/skeleton:1'

APPLETS = ('sh', 'sleep', 'cat', 'ls', 'echo', 'grep', 'find', 'true', 'dd',
           'kill', 'head', 'tail', 'wc', 'tr', 'sed', 'yes')
# 42424 is nova in the images of this project, and 42425 guests.
PASSWD = '''\
root:x:0:0:root:/root:/bin/sh
nova:x:42424:42424::/var/lib/nova:/usr/sbin/nologin
qemu:x:42425:42425::/nonexistent:/usr/sbin/nologin
libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin
nobody:x:65534:65534::/:/usr/sbin/nologin
'''
GROUP = '''\
root:x:0:
tty:x:5:
kvm:x:110:qemu
nova:x:42424:
qemu:x:42425:
libvirt-qemu:x:64055:
nogroup:x:65534:
'''
FOLDERS = ('etc', 'tmp', 'dev', 'proc', 'sys', 'run', 'var', 'var/lib',
           'var/log', 'var/cache', 'usr', 'root', 'home')


def _layer(folders, files, links):
    """Return a file system as the bytes of a tar archive.

    :param files: name to (bytes, mode)
    :param links: name to what it points to
    """
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode='w') as archive:
        for name in folders:
            entry = tarfile.TarInfo(name)
            entry.type = tarfile.DIRTYPE
            entry.mode = 0o1777 if name == 'tmp' else 0o755
            archive.addfile(entry)
        for name, (data, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.mode = mode
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        for name, target in links.items():
            entry = tarfile.TarInfo(name)
            entry.type = tarfile.SYMTYPE
            entry.linkname = target
            archive.addfile(entry)
    return output.getvalue()


def _busybox_layer():
    program = shutil.which('busybox', path='%s:/usr/bin' % (
        machine.built() / 'layer' / 'usr' / 'bin'))
    if not program:
        control_plane.unavailable('No static busybox in the layer of the VM.')
    with open(program, 'rb') as file:
        data = file.read()
    return _layer(('bin', *FOLDERS), {
        'bin/busybox': (data, 0o755),
        'etc/passwd': (PASSWD.encode(), 0o644),
        'etc/group': (GROUP.encode(), 0o644),
    }, {'bin/' + applet: 'busybox' for applet in APPLETS})


def _skeleton_layer():
    return _layer((*FOLDERS, 'etc/libvirt'), {
        'etc/passwd': (PASSWD.encode(), 0o644),
        'etc/group': (GROUP.encode(), 0o644),
        'etc/nsswitch.conf': (b'passwd: files\ngroup: files\n'
                              b'hosts: files dns\n', 0o644),
    }, {'bin': 'usr/bin', 'sbin': 'usr/sbin', 'lib': 'usr/lib',
        'lib64': 'usr/lib64', 'var/run': '/run'})


def _config(layer, command):
    digest = 'sha256:' + hashlib.sha256(layer).hexdigest()
    return json.dumps({
        'architecture': 'amd64', 'os': 'linux',
        'created': '2020-01-01T00:00:00Z',
        'config': {'Env': ['PATH=/usr/sbin:/usr/bin:/sbin:/bin'],
                   'Cmd': command},
        'rootfs': {'type': 'layers', 'diff_ids': [digest]}}).encode()


def write(path):
    """Write an archive of all images, for ``ctr images import``."""
    busybox, skeleton = _busybox_layer(), _skeleton_layer()
    files = {'busybox.tar': busybox, 'skeleton.tar': skeleton}
    manifest = []
    for tag, name, command in (
            (PAUSE, 'busybox.tar', ['/bin/sleep', '1000000000']),
            (BUSYBOX, 'busybox.tar', ['/bin/sh']),
            (SKELETON, 'skeleton.tar', ['/bin/bash'])):
        config = _config(files[name], command)
        config_name = hashlib.sha256(config).hexdigest() + '.json'
        files[config_name] = config
        manifest.append({'Config': config_name, 'RepoTags': [tag],
                         'Layers': [name]})
    files['manifest.json'] = json.dumps(manifest).encode()
    with open(path, 'wb') as output:
        output.write(_layer((), {name: (data, 0o644) for name, data
                                 in files.items()}, {}))
