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

import ast
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

    def test_each_value_that_is_missing(self):
        for name in hooks.VALUES:
            module, attribute = name.split(':')
            kept = getattr(pkgutil.resolve_name(module), attribute)
            delattr(pkgutil.resolve_name(module), attribute)
            try:
                self.assertIn(name.replace(':', '.'), self._refusal())
            finally:
                setattr(pkgutil.resolve_name(module), attribute, kept)

    def test_each_that_a_constructor_does_not_set(self):
        def constructor(self):
            self.other = None

        for name, attributes in hooks.SET.items():
            with mock.patch.object(pkgutil.resolve_name(name), '__init__',
                                   constructor):
                for each in attributes:
                    self.assertIn(f'{name.replace(":", ".")}.{each}',
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


class ReliedOnTest(base.TestCase):
    """What the package uses of Nova beside its interfaces is checked."""

    # What Nova has for drivers, and what others are told to use.
    PUBLIC = ('nova.conf', 'nova.context', 'nova.exception', 'nova.objects',
              'nova.config', 'nova.version')
    # Private names that are documented, and not Nova's.
    OTHERS = {'_asdict', '_exit', '_replace'}
    # What knows nothing of Nova, and what does not run in nova-compute.
    APART = ('config/', 'cmd/', 'hooks.py')
    # One class.
    TOGETHER = ('driver.py', 'parts.py')

    def setUp(self):
        super().setUp()
        self.trees = {
            str(path.relative_to(TOP / 'nova_k8s')): ast.parse(
                path.read_text())
            for path in (TOP / 'nova_k8s').rglob('*.py')
            if not str(path.relative_to(TOP / 'nova_k8s')).startswith(
                self.APART)}
        self.checked = {
            *hooks.FUNCTIONS, *hooks.VALUES,
            *(f'{name}.{each}' for name, attributes in hooks.SET.items()
              for each in attributes),
            *(f'ComputeVirtAPI:{each}' for each in hooks.ATTRIBUTES)}

    @staticmethod
    def _own(tree):
        """Names that a module gives: functions, variables, attributes."""
        for each in ast.walk(tree):
            if isinstance(each, (ast.FunctionDef, ast.ClassDef)):
                yield each.name
            elif isinstance(each, ast.Name) and isinstance(
                    each.ctx, ast.Store):
                yield each.id
            elif isinstance(each, ast.Attribute) and isinstance(
                    each.ctx, ast.Store) and getattr(
                        each.value, 'id', None) == 'self':
                yield each.attr

    def test_private_names(self):
        words = {word for each in self.checked
                 for word in re.split('[:.]', each)}
        used = set()
        for path, tree in self.trees.items():
            own = set()
            for each in self.TOGETHER if path in self.TOGETHER else (path,):
                own.update(self._own(self.trees[each]))
            used.update(
                (path, each.attr) for each in ast.walk(tree)
                if isinstance(each, ast.Attribute) and
                each.attr.startswith('_') and
                not each.attr.startswith('__') and
                each.attr not in own | self.OTHERS)
        self.assertIn(('accounting/instance_overhead.py', '_pci_requests'),
                      used)
        self.assertIn(('driver.py', '_uri'), used)
        self.assertEqual([], sorted(
            each for each in used if each[1] not in words))

    def test_what_is_taken_of_modules(self):
        used = set()
        for path, tree in self.trees.items():
            modules = {
                alias.asname or alias.name: f'{each.module}.{alias.name}'
                for each in ast.walk(tree)
                if isinstance(each, ast.ImportFrom) and
                each.module.partition('.')[0] == 'nova'
                for alias in each.names}
            used.update(
                f'{modules[each.value.id]}:{each.attr}'
                for each in ast.walk(tree)
                if isinstance(each, ast.Attribute) and
                isinstance(each.value, ast.Name) and
                each.value.id in modules and
                modules[each.value.id] not in self.PUBLIC)
        self.assertIn('nova.virt.libvirt.volume.mount:get_manager', used)
        self.assertEqual([], sorted(
            each for each in used if not any(
                name == each or name.startswith(f'{each}.')
                for name in self.checked)))
