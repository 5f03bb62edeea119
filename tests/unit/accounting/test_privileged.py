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

"""When a helper with more rights is asked, and when not."""

from unittest import mock

import fixtures
from oslo_privsep import daemon

from nova_k8s.accounting import privileged
from nova_k8s.accounting import usage
from tests.unit import base

USED = {'guest_kb': 5, 'own_kb': 6, 'kernel_kb': 7, 'translated_kb': 8,
        'helpers_kb': 9}


class UsedTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.log = self.useFixture(fixtures.FakeLogger('nova_k8s'))
        self.useFixture(fixtures.MockPatchObject(privileged, '_warned', []))
        self.helper = self.useFixture(fixtures.MockPatchObject(
            privileged, '_used', return_value=dict(USED))).mock

    def used(self, **direct):
        process = usage.Process('u', 42, 1024, (43,))
        with mock.patch.object(usage.Process, 'used', **direct):
            return privileged.used(process)

    def test_not_where_it_is_not_needed(self):
        self.assertEqual('x', self.used(return_value='x'))
        self.helper.assert_not_called()
        self.assertRaises(FileNotFoundError, self.used,
                          side_effect=FileNotFoundError)
        self.helper.assert_not_called()

    def test_where_it_is(self):
        self.assertEqual(usage.Used(**USED),
                         self.used(side_effect=PermissionError))
        self.helper.assert_called_once_with('u', 42, 1024, [43])
        self.helper.return_value = None
        self.assertIsNone(self.used(side_effect=PermissionError))

    def test_without_rights_the_estimates_stand(self):
        for problem in (daemon.FailedToDropPrivileges('no sudo'),
                        PermissionError('no capability')):
            self.helper.side_effect = problem
            self.assertRaises(PermissionError, self.used,
                              side_effect=PermissionError)
        self.assertEqual(1, self.log.output.count('nova_k8s_guests'))
