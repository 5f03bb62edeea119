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

"""Limits from the files of a downward API volume."""

import os
import queue
import threading

from nova_k8s.confinement import cgroup
from nova_k8s import errors
from nova_k8s.limits import growth
from nova_k8s.limits.sources import downward_api
from tests.unit import base
from tests.unit.limits.sources import test_files
from tests import waiting

MI = 2 ** 20
GI = 2 ** 30
LIMITS = {'cpu_millicores': '4000', 'memory_bytes': str(8 * GI)}
REQUESTS = {'cpu_request_millicores': '4000',
            'memory_request_bytes': str(8 * GI)}


class DownwardApiTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.volume = self.folder()

    def _read(self, **files):
        for name, text in files.items():
            with open(os.path.join(self.volume, name), 'wb') as f:
                f.write(text if isinstance(text, bytes) else text.encode())
        return downward_api.Source(self.volume).read()

    def _unreadable(self, *names, **files):
        exc = self.assertRaises(errors.Unreadable, self._read, **files)
        for name in names:
            self.assertIn(name, str(exc))
        self.assertTrue(base.one_line(exc))

    def test_limits(self):
        found = self._read(**LIMITS)
        self.assertEqual(4000, found.cpu_millicores)
        self.assertEqual(8 * GI, found.memory_bytes)
        self.assertEqual((), found.missing)
        self.assertEqual((), found.hugepages)
        self.assertIsNone(found.ephemeral_storage_bytes)
        self.assertIsNone(found.cpu_request_millicores)
        self.assertIsNone(found.memory_request_bytes)
        self.assertIn(self.volume, found.source)
        # They may be the node's allocatable.
        self.assertEqual(2, len(found.caveats))
        for name, caveat in zip(REQUESTS, found.caveats):
            self.assertIn(name, caveat)

    def test_everything(self):
        found = self._read(
            **LIMITS, cpu_request_millicores='1500',
            memory_request_bytes='1024\n', ephemeral_storage_bytes='1000',
            hugepages_2Mi_bytes='4194304',
            hugepages_1Gi_bytes=str(GI), hugepages_x_bytes='rubbish')
        self.assertEqual((), found.caveats)
        self.assertEqual(1500, found.cpu_request_millicores)
        self.assertEqual(1024, found.memory_request_bytes)
        self.assertEqual(1000, found.ephemeral_storage_bytes)
        self.assertEqual((('1Gi', GI), ('2Mi', 4194304)), found.hugepages)

    def test_no_huge_pages(self):
        # What the kubelet shows where the limit is not set.
        found = self._read(**LIMITS, hugepages_2Mi_bytes='0')
        self.assertEqual((), found.hugepages)

    def test_requests_tell_limit_from_allocatable(self):
        found = self._read(**LIMITS, **dict(REQUESTS,
                                            cpu_request_millicores='0'))
        self.assertIsNone(found.cpu_millicores)
        self.assertEqual(8 * GI, found.memory_bytes)
        self.assertEqual(1, len(found.missing))
        self.assertIn('cpu_millicores', found.missing[0])
        self.assertIn('allocatable', found.missing[0])

        found = self._read(**LIMITS, **dict(REQUESTS,
                                            memory_request_bytes='0'))
        self.assertEqual(4000, found.cpu_millicores)
        self.assertIsNone(found.memory_bytes)
        self.assertIn('memory_bytes', found.missing[0])

    def test_zero_is_no_limit(self):
        found = self._read(cpu_millicores='0', memory_bytes='0')
        self.assertIsNone(found.cpu_millicores)
        self.assertIsNone(found.memory_bytes)
        self.assertEqual(2, len(found.missing))
        for each in found.missing:
            self.assertIn('(0, which Kubernetes takes for none)', each)

    def test_shows_what_is_wished(self):
        # Also of a resize that the kubelet has deferred: seen for a minute.
        known = self._read(cpu_millicores='1200',
                           memory_bytes=str(400 * MI))
        wished = self._read(cpu_millicores='1700',
                            memory_bytes=str(800 * MI))
        for enforced, expected in (
                (None, (1200, 400 * MI)),
                (cgroup.Enforced('x', 1200, 400 * MI, False),
                 (1200, 400 * MI)),
                (cgroup.Enforced('x', 1700, 800 * MI, False),
                 (1700, 800 * MI))):
            found = growth.follow(known, wished, enforced)
            self.assertEqual(expected, (found.cpu_millicores,
                                        found.memory_bytes))
        held = growth.follow(known, wished)
        for name in ('1700 millicores', '800 MiB', 'downward API volume',
                     '[kubernetes] pod_cgroup'):
            self.assertIn(name, held.withheld)
        # A shrink counts at once.
        self.assertEqual(1200, growth.follow(wished, known).cpu_millicores)

    def test_file_is_missing(self):
        for name in LIMITS:
            others = dict(LIMITS)
            del others[name]
            self.volume = self.folder()
            self._unreadable(f'{self.volume}/{name}',
                             '[kubernetes] downward_api_dir', **others)

    def test_folder_is_missing(self):
        self.volume = os.path.join(self.volume, 'gone')
        self._unreadable(self.volume, '[kubernetes] downward_api_dir')

    def test_folder_is_a_file(self):
        path = os.path.join(self.volume, 'file')
        with open(path, 'wb'):
            self.volume = path
        self._unreadable(path)

    def test_file_is_a_folder(self):
        os.mkdir(os.path.join(self.volume, 'cpu_millicores'))
        self._unreadable('cpu_millicores')

    def test_rubbish(self):
        for text in ('', ' ', '4.5', '4000m', '-1', '+1', '1e3', '1_000',
                     '0x10', 'NaN', '1 2', '\u0661', '9' * 20, b'\xff\xfe',
                     b'\x00' * 10000):
            self._unreadable(f'{self.volume}/cpu_millicores',
                             **dict(LIMITS, cpu_millicores=text))
            self._unreadable(
                f'{self.volume}/memory_request_bytes',
                **LIMITS, memory_request_bytes=text)
            os.unlink(f'{self.volume}/memory_request_bytes')

    def test_watch(self):
        source = downward_api.Source(self.volume)
        path = os.path.join(self.volume, 'cpu_millicores')
        self._read(**LIMITS)
        found = queue.Queue()
        stop = threading.Event()

        def changed():
            try:
                found.put(source.read().cpu_millicores)
            except errors.Unreadable as exc:
                found.put(str(exc))

        self.useFixture(test_files.Interval())
        thread = threading.Thread(target=source.watch, args=(changed, stop))
        thread.start()
        self.addCleanup(thread.join, 5)
        self.addCleanup(stop.set)
        self.assertEqual(4000, found.get(timeout=waiting.PATIENCE))
        for text, expected in (
                ('12000', 12000),
                ('', f"{path}: '' is not a whole number"),
                ('500', 500),
                (None, f'{path} is not there'),
                ('8000', 8000)):
            if text is None:
                os.unlink(path)
            else:
                # As the kubelet does it: never half of it.
                test_files.write(path + '.new', text)
                os.rename(path + '.new', path)
            told = found.get(timeout=waiting.PATIENCE)
            if isinstance(told, str):
                self.assertIn(expected, told)
            else:
                self.assertEqual(expected, told)
        # Each change is told once.
        self.assertRaises(queue.Empty, found.get, timeout=0.1)

    def test_folder_that_cannot_be_listed(self):
        # Root can list every folder: the error is one that root gets too.
        self.useFixture(base.fixtures.MockPatch(
            'os.listdir', side_effect=PermissionError(13, 'denied')))
        self._unreadable(self.volume, **LIMITS)
