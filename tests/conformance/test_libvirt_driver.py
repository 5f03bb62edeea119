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

"""Nova's own unit tests of its libvirt driver, on its driver and on ours.

Each test of upstream is one test here: it runs with both drivers, one after
the other, and fails where the results differ. So upstream's tests may fail for
reasons of the machine's or of Nova's, and only what this driver changes counts
against it.

A pod without limits and ``unlimited = host`` make this driver report what
Nova's does.
"""

import atexit
import importlib.util
import os
import tempfile
import unittest

from nova.tests.unit.virt.libvirt import test_driver as upstream
from nova.virt import fake
from nova.virt.libvirt import driver
from oslo_config import cfg

from nova_k8s import conf
from nova_k8s.driver import K8sLibvirtDriver
from tests import speed

POD = """\
apiVersion: v1
kind: Pod
metadata: {name: compute, namespace: openstack}
spec: {containers: [{name: libvirt}]}
"""

_folder = tempfile.TemporaryDirectory(prefix='nova-k8s-')
atexit.register(_folder.cleanup)
_manifest = os.path.join(_folder.name, 'pod.yaml')
with open(_manifest, 'w') as _file:
    _file.write(POD)

# The defaults, because upstream's tests reset what is configured.
cfg.set_defaults(conf.OPTS, limits_from='manifest', manifest=_manifest,
                 unlimited='host')
# It would be the compute node's name.
os.environ.pop('NODE_NAME', None)

STOCK = driver.LibvirtDriver

speed.up()

# What STOCK(...) makes. Tests refer to the class itself as well, to patch its
# methods, and then an instance of ours must be affected: so the name stays as
# it is and construction is what changes.
_made = STOCK
_instances = []


def _new(cls, *args, **kwargs):
    _instances.append(object.__new__(_made if cls is STOCK else cls))
    return _instances[-1]


# For good: a class whose __new__ is removed again takes no arguments any more.
STOCK.__new__ = _new


def _run(test, made):
    """Run an upstream test: its outcome in a word, and the reason."""
    global _made
    result = unittest.TestResult()
    _made = made
    try:
        test.run(result)
    finally:
        _made = STOCK
        while _instances:
            # Upstream's tests start a host and never stop one.
            follower = getattr(_instances.pop(), '_follower', None)
            if follower:
                follower.stop()
    for outcome, details in (('error', result.errors),
                             ('failure', result.failures),
                             ('skip', result.skipped),
                             ('expected failure', result.expectedFailures)):
        if details:
            return outcome, details[0][1]
    if result.unexpectedSuccesses:
        return 'unexpected success', ''
    return 'success', ''


def _copy(module):
    """Import a module once more.

    Some of upstream's tests use up what their module or class made.
    """
    spec = importlib.util.spec_from_file_location(
        module.__name__ + '_copy', module.__file__)
    copy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copy)
    return copy


class SubstitutionTest(unittest.TestCase):

    def test_ours_is_made_in_place_of_theirs(self):
        seen = []

        class Probe(unittest.TestCase):
            def test(self):
                seen.append(type(driver.LibvirtDriver(fake.FakeVirtAPI())))

        self.assertEqual('success', _run(Probe('test'), STOCK)[0])
        self.assertEqual('success', _run(Probe('test'), K8sLibvirtDriver)[0])
        self.assertEqual([STOCK, K8sLibvirtDriver], seen)


class EnvironmentTest(unittest.TestCase):

    def test_upstream_tests_succeed_here(self):
        # Where they fail with both drivers, nothing is compared.
        for test in (
                upstream.LibvirtConnTestCase('test_public_api_signatures'),
                upstream.LibvirtConnTestCase('test_get_connector'),
                upstream.TestUpdateProviderTree('test_update_provider_tree')):
            self.assertEqual(('success', ''), _run(test, STOCK), test)


class ConformanceTest(unittest.TestCase):
    """One test of upstream's, known under its name."""

    def __init__(self, stock, ours):
        super().__init__('compare')
        self._stock = stock
        self._ours = ours

    def id(self):
        return '.'.join((__name__, type(self._stock).__name__,
                         self._stock._testMethodName))

    def __str__(self):
        return self.id()

    def compare(self):
        stock, why = _run(self._stock, STOCK)
        ours, why_ours = _run(self._ours, K8sLibvirtDriver)
        if ours != stock:
            self.fail(f'{stock} with the driver of Nova, {ours} with ours\n'
                      f'{why_ours or why}')
        if stock not in ('success', 'expected failure'):
            self.skipTest(f'{stock} with both drivers: {why}')


def _tests(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from _tests(test)
        else:
            yield test


def load_tests(loader, tests, pattern):
    tests.addTests(map(
        ConformanceTest,
        _tests(loader.loadTestsFromModule(upstream)),
        _tests(loader.loadTestsFromModule(_copy(upstream)))))
    return tests
