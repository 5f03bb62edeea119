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

import os
import stat
from unittest import mock

from oslo_config import cfg

from nova_k8s.config import documents
from nova_k8s.config import errors
from nova_k8s.config import folder
from tests.unit import base


def documents_of(*values):
    return [documents.Document('ConfigMap n/x', f'{i}.conf',
                               f'[DEFAULT]\na = {value}\nb = {value}\n')
            for i, value in enumerate(values)]


class FolderTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.written = folder.Folder(os.path.join(self.folder(), 'new'))

    def loaded(self):
        conf = cfg.ConfigOpts()
        conf.register_opts([cfg.StrOpt('a'), cfg.MultiStrOpt('b')])
        conf(['--config-dir', self.written.config_dir],
             default_config_files=[])
        return conf.a, conf.b

    def test_what_oslo_config_makes_of_it(self):
        self.written.start(documents_of(*range(12)))
        self.assertEqual(('11', [str(i) for i in range(12)]), self.loaded())

    def test_replaced_at_once(self):
        self.written.start(documents_of(1))
        self.written.replace(documents_of(2, 3))
        self.written.replace(documents_of(4))
        self.assertEqual(('4', ['4']), self.loaded())
        self.assertEqual(documents_of(1), self.written.read(folder.STARTED))
        self.assertEqual(documents_of(4), self.written.read(folder.CURRENT))
        # What it was started with, the one before, the present one.
        self.assertEqual(3, len([each for each in os.listdir(
            self.written.path) if each.startswith('..')]))

    def test_a_full_disk_leaves_it_as_it_was(self):
        self.written.start(documents_of(1))
        before = sorted(os.listdir(self.written.path))
        with mock.patch.object(folder, '_write', side_effect=OSError(28, '')):
            self.assertRaises(OSError, self.written.replace, documents_of(2))
        self.assertEqual(('1', ['1']), self.loaded())
        self.assertEqual(before, sorted(os.listdir(self.written.path)))

    def test_started_again(self):
        self.written.start(documents_of(1))
        self.written.replace(documents_of(2))
        self.written.start(documents_of(3))
        self.assertEqual(documents_of(3), self.written.read(folder.STARTED))
        self.assertEqual(1, len([each for each in os.listdir(
            self.written.path) if each.startswith('..')]))

    def test_nobody_else_can_read_it(self):
        self.written.start(documents_of(1))
        for path, _folders, files in os.walk(self.written.path):
            self.assertEqual(0o700, stat.S_IMODE(os.stat(path).st_mode))
            for name in files:
                self.assertEqual(0o600, stat.S_IMODE(os.stat(
                    os.path.join(path, name)).st_mode))

    def test_no_such_folder(self):
        exc = self.assertRaises(errors.Refused, self.written.read,
                                folder.STARTED)
        self.assertTrue(base.one_line(exc))
        self.assertIn('--dir', str(exc))
        broken = folder.Folder('/proc/nowhere')
        self.assertRaises(errors.Refused, broken.start, documents_of(1))
