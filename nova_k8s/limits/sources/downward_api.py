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

"""Limits from the files of a downward API volume.

The names of the files carry the unit, because a file holds a bare number in
units of the item's divisor, and the default divisor rounds 7500m up to 8::

    volumes:
    - name: limits
      downwardAPI:
        items:
        - path: cpu_millicores
          resourceFieldRef:
            {containerName: libvirt, resource: limits.cpu, divisor: 1m}
        - path: memory_bytes
          resourceFieldRef:
            {containerName: libvirt, resource: limits.memory}

Further files that are read where they are there: ephemeral_storage_bytes
(limits.ephemeral-storage), cpu_request_millicores (requests.cpu, divisor 1m),
memory_request_bytes (requests.memory), and hugepages_<size>_bytes
(limits.hugepages-<size>).

Where no limit is set, Kubernetes shows the node's allocatable in its place.
A request of 0 unmasks that: a request that is not set is the limit where
there is one. A request without a limit cannot be told from one below a limit.

What is shown is what is wished, also while the kubelet has deferred a resize.
So a growth counts only when the cgroup that this runs in shows it too, or the
one that [kubernetes] pod_cgroup names.
"""

import os
import re

from nova_k8s import errors
from nova_k8s.limits import budget
from nova_k8s.limits.sources import files

CPU = 'cpu_millicores'
MEMORY = 'memory_bytes'
CPU_REQUEST = 'cpu_request_millicores'
MEMORY_REQUEST = 'memory_request_bytes'
EPHEMERAL_STORAGE = 'ephemeral_storage_bytes'

_HUGEPAGES = re.compile(r'hugepages_([0-9]+[KMGT]i)_bytes')


class Source:
    """Reads the folder in which a downward API volume is mounted."""

    def __init__(self, folder):
        self._folder = folder

    def read(self):
        missing = []
        requests = {CPU_REQUEST: self._number(CPU_REQUEST),
                    MEMORY_REQUEST: self._number(MEMORY_REQUEST)}
        limits = {}
        for name, request in ((CPU, CPU_REQUEST), (MEMORY, MEMORY_REQUEST)):
            limits[name] = self._number(name, required=True)
            if not limits[name] or requests[request] == 0:
                missing.append(f'{self._folder}/{name}' + (
                    f' ({request} is 0: what is shown is the node\'s '
                    f'allocatable)' if limits[name]
                    else ' (0, which Kubernetes takes for none)'))
                limits[name] = None
        return budget.Budget(
            source=f'downward API volume {self._folder}',
            cpu_millicores=limits[CPU],
            memory_bytes=limits[MEMORY],
            hugepages=tuple(self._hugepages()),
            ephemeral_storage_bytes=self._number(EPHEMERAL_STORAGE),
            cpu_request_millicores=requests[CPU_REQUEST],
            memory_request_bytes=requests[MEMORY_REQUEST],
            missing=tuple(missing),
            unconfirmed=(
                'a downward API volume shows what is wished; set [kubernetes] '
                'pod_cgroup to the cgroup that the limits bound'),
            caveats=tuple(
                f'{name} is not there: where no limit is set, what is shown '
                f'is the node\'s allocatable, and nothing tells it from a '
                f'limit. Add the item to the downward API volume.'
                for name, number in requests.items() if number is None))

    def watch(self, changed, stop):
        files.watch(
            [os.path.join(self._folder, name) for name in
             (CPU, MEMORY, CPU_REQUEST, MEMORY_REQUEST)], changed, stop)

    def _hugepages(self):
        try:
            names = sorted(os.listdir(self._folder))
        except OSError as exc:
            raise errors.Unreadable(
                f'{self._folder}: {exc.strerror}') from None
        for name in names:
            match = _HUGEPAGES.fullmatch(name)
            size = match and self._number(name)
            # 0 is shown where no limit is set.
            if size:
                yield match[1], size

    def _number(self, name, required=False):
        path = os.path.join(self._folder, name)
        try:
            with open(path, encoding='utf-8') as f:
                text = f.read().strip()
        except FileNotFoundError:
            if not required:
                return None
            raise errors.Unreadable(
                f'{path} is not there; add an item of that path to the '
                f'downward API volume, or set [kubernetes] downward_api_dir '
                f'to its folder') from None
        except (OSError, UnicodeDecodeError) as exc:
            raise errors.Unreadable(
                f'{path}: {getattr(exc, "strerror", None) or exc}') from None
        if not re.fullmatch('[0-9]{1,19}', text, re.ASCII):
            raise errors.Unreadable(
                f'{path}: {text[:40]!r} is not a whole number')
        return int(text)
