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

"""Files that are replaced in the ways of editors and of the kubelet."""

import os
import threading

from nova_k8s.limits.sources import files
from tests.unit import base
from tests import waiting


def write(path, text):
    with open(path, 'w', encoding='utf-8') as f:
        f.write(text)


class Watch:
    """files.watch() in a thread, and how often it called back."""

    def __init__(self, test, paths):
        test.useFixture(Interval())
        self._stop = threading.Event()
        self._called = threading.Semaphore(0)
        self._thread = threading.Thread(
            target=files.watch, args=(paths, self._called.release,
                                      self._stop))
        self._thread.start()
        test.addCleanup(self.stop)

    def called(self, timeout=waiting.PATIENCE):
        return self._called.acquire(timeout=timeout)

    def stop(self):
        self._stop.set()
        self._thread.join(waiting.PATIENCE)
        return not self._thread.is_alive()


class Interval(base.fixtures.MockPatchObject):
    """Look more often: a test has no time."""

    def __init__(self):
        super().__init__(files, 'INTERVAL', 0.01)


class FilesTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.path = os.path.join(self.folder(), 'file')

    def test_same(self):
        write(self.path, 'a')
        self.assertEqual(files.signature([self.path]),
                         files.signature([self.path]))

    def _differs(self, change):
        before = files.signature([self.path])
        change()
        self.assertNotEqual(before, files.signature([self.path]))

    def test_appears_and_goes(self):
        self._differs(lambda: write(self.path, 'a'))
        self._differs(lambda: os.unlink(self.path))

    def test_is_written(self):
        write(self.path, 'a')
        self._differs(lambda: write(self.path, 'ab'))

    def test_is_written_with_as_much(self):
        write(self.path, 'a')
        os.utime(self.path, (1, 1))
        self._differs(lambda: write(self.path, 'b'))

    def test_is_renamed_over_with_the_same_size_and_time(self):
        write(self.path, 'a')
        write(self.path + '.new', 'b')
        for path in (self.path, self.path + '.new'):
            os.utime(path, (1, 1))
        self._differs(lambda: os.rename(self.path + '.new', self.path))

    def test_volume_of_the_kubelet(self):
        # cpu -> ..data/cpu, ..data -> ..1, and ..data is what changes.
        folder = os.path.dirname(self.path)
        for version in ('..1', '..2'):
            os.mkdir(os.path.join(folder, version))
            write(os.path.join(folder, version, 'file'), 'a')
        os.symlink('..1', os.path.join(folder, '..data'))
        os.symlink('..data/file', self.path)
        os.symlink('..2', os.path.join(folder, '..data_tmp'))
        self._differs(lambda: os.rename(
            os.path.join(folder, '..data_tmp'),
            os.path.join(folder, '..data')))

    def test_cannot_be_looked_at(self):
        write(self.path, 'a')
        self.assertNotEqual(
            files.signature([self.path]),
            files.signature([os.path.join(self.path, 'below')]))

    def test_watch(self):
        write(self.path, 'a')
        watch = Watch(self, [self.path])
        # What changed before the first look counts too.
        self.assertTrue(watch.called())
        self.assertFalse(watch.called(0.1))
        write(self.path, 'ab')
        self.assertTrue(watch.called())
        os.unlink(self.path)
        self.assertTrue(watch.called())
        self.assertFalse(watch.called(0.1))
        write(self.path, 'a')
        self.assertTrue(watch.called())

    def test_not_while_it_is_being_written(self):
        # Each look sees another file, until the writer is done.
        looks = iter([1, 2, 3, 4, 4])
        seen = []
        stop = threading.Event()

        def look(_paths):
            try:
                seen.append(next(looks))
            except StopIteration:
                stop.set()
            return seen[-1]
        self.useFixture(Interval())
        self.useFixture(base.fixtures.MockPatchObject(
            files, 'signature', look))
        told = []
        files.watch(['a'], lambda: told.append(seen[-1]), stop)
        self.assertEqual([4], told)

    def test_watch_ends(self):
        watch = Watch(self, [self.path])
        self.assertTrue(watch.stop())
