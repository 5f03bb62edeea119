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

"""A Nova without what the driver relies on is refused by name."""

import configparser
import pathlib
import pkgutil
import re
from unittest import mock

import fixtures
from nova.compute import manager
from nova import version

from nova_k8s import errors
from nova_k8s import hooks
from tests.unit import base

TOP = pathlib.Path(__file__).resolve().parents[2]


class HooksTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.log = self.useFixture(fixtures.FakeLogger('nova_k8s'))

    def _refusal(self, virtapi=None):
        self.useFixture(fixtures.MockPatchObject(
            version, 'version_string', lambda: '35.1.0'))
        exc = self.assertRaises(errors.Refused, hooks.check, virtapi)
        self.assertTrue(base.one_line(str(exc)))
        self.assertIn('Nova 35.1.0 has no', str(exc))
        self.assertIn('install Nova 31 to 34, or a release of nova-k8s for '
                      'Nova 35', str(exc))
        return str(exc)

    def test_this_nova(self):
        hooks.check(None)
        self.assertEqual('', self.log.output)

    def test_each_that_is_missing(self):
        for name in hooks.FUNCTIONS:
            path, attribute = re.match('(.*)[:.](.*)', name).groups()
            with mock.patch.object(pkgutil.resolve_name(path), attribute,
                                   None):
                self.assertIn(name.replace(':', '.'), self._refusal())

    def test_each_that_takes_something_else(self):
        def other(one_that_nobody_passes, *, name):
            pass

        from nova.compute import claims

        with mock.patch.object(claims.Claim, '_claim_test', other):
            self.assertIn('nova.compute.claims.Claim._claim_test',
                          self._refusal())

    def test_what_objects_hold(self):
        compute = mock.Mock()
        virtapi = manager.ComputeVirtAPI(compute)
        hooks.check(virtapi)
        compute.rt.reportclient = object()
        self.assertIn(
            'ComputeVirtAPI._compute.rt.reportclient._provider_tree',
            self._refusal(virtapi))
        del compute.rt
        self.assertIn('ComputeVirtAPI._compute.rt.compute_nodes',
                      self._refusal(virtapi))

    def test_a_new_nova_with_all_that_is_needed(self):
        with mock.patch.object(version, 'version_string', lambda: '35.0.0'):
            hooks.check(None)
        self.assertIn('Nova 35.0.0 is none of those that this driver was '
                      'tested with, 31 to 34', self.log.output)

    def test_what_pip_is_told_is_the_same(self):
        parser = configparser.ConfigParser()
        parser.read(TOP / 'setup.cfg')
        self.assertIn(
            f'nova>={hooks.OLDEST}.0.0,<{hooks.NEWEST + 1}',
            parser['options']['install_requires'].splitlines())
