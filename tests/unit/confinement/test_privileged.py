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

"""When a helper with more rights writes limits, and what it writes at all."""

import os
import pathlib

import fixtures
from oslo_privsep import daemon

from nova_k8s.confinement import guest_slice
from nova_k8s.confinement import privileged
from nova_k8s import errors
from tests.unit import base

LIMITS = guest_slice.Limits(8 << 30, 2500)
TEXTS = {'memory.max': str(8 << 30), 'cpu.max': '250000 100000'}


class WriteTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.cgroup = pathlib.Path(self.folder())
        for name in ('cgroup.controllers', 'memory.max', 'cpu.max'):
            (self.cgroup / name).write_text('something that is longer\n')

    def test_write(self):
        privileged.write(str(self.cgroup), TEXTS)
        self.assertEqual(TEXTS, {name: (self.cgroup / name).read_text()
                                 for name in TEXTS})
        privileged.write(str(self.cgroup), {'memory.max': 'max',
                                            'cpu.max': 'max 100000'})

    def test_nothing_else(self):
        for texts in ({'cgroup.procs': '1'}, {'memory.max': '-1'},
                      {'memory.max': '1\n2'}, {'cpu.max': '1'},
                      {'../x': 'max'}, {'memory.max': 'max '}):
            self.assertRaises(ValueError, privileged.write,
                              str(self.cgroup), texts)

    def test_nowhere_else(self):
        folder = self.folder()
        pathlib.Path(folder, 'memory.max').write_text('x')
        self.assertRaises(ValueError, privileged.write, folder, TEXTS)
        os.unlink(self.cgroup / 'memory.max')
        os.symlink('/dev/null', self.cgroup / 'memory.max')
        self.assertRaises(OSError, privileged.write, str(self.cgroup), TEXTS)


class WriteLimitsTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.direct = self.patch('write')
        self.helper = self.patch('_write')
        self.unit_helper = self.patch('_set_limits')
        self.systemd = self.useFixture(fixtures.MockPatch(
            'nova_k8s.confinement.systemd.set_limits')).mock

    def patch(self, name):
        return self.useFixture(fixtures.MockPatchObject(
            privileged, name, return_value=None)).mock

    def write(self, unit=None):
        privileged.write_limits('/cg/a', unit, LIMITS)

    def test_not_where_it_is_not_needed(self):
        self.write()
        self.direct.assert_called_once_with('/cg/a', TEXTS)
        self.write('a.slice')
        self.systemd.assert_called_once_with('a.slice', 8 << 30, 2500)
        self.helper.assert_not_called()
        self.unit_helper.assert_not_called()

    def test_where_it_is(self):
        self.direct.side_effect = self.systemd.side_effect = PermissionError
        self.write()
        self.helper.assert_called_once_with('/cg/a', TEXTS)
        self.write('a.slice')
        self.unit_helper.assert_called_once_with('a.slice', 8 << 30, 2500)

    def refused(self, text, unit=None):
        exc = self.assertRaises(errors.NotYet, self.write, unit)
        self.assertIn(text, str(exc))
        self.assertTrue(base.one_line(exc))

    def test_without_rights(self):
        self.direct.side_effect = PermissionError
        for problem in (daemon.FailedToDropPrivileges('no sudo'),
                        PermissionError('no root')):
            self.helper.side_effect = problem
            self.refused('helper_command of [nova_k8s_guest_slice]')

    def test_what_systemd_answers_the_helper(self):
        self.systemd.side_effect = PermissionError
        self.unit_helper.return_value = 'systemd refuses'
        self.refused('systemd refuses', 'a.slice')

    def test_read_only(self):
        self.direct.side_effect = OSError(30, 'Read-only file system',
                                          '/cg/a/memory.max')
        self.refused('Read-only file system: /cg/a/memory.max')
        self.helper.assert_not_called()
