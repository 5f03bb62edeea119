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
"""

import unittest

from nova.tests.unit.virt.libvirt import test_driver as upstream
from nova.virt import fake
from nova.virt.libvirt import driver

from nova_k8s.driver import K8sLibvirtDriver

STOCK = driver.LibvirtDriver

# What STOCK(...) makes. Tests refer to the class itself as well, to patch its
# methods, and then an instance of ours must be affected: so the name stays as
# it is and construction is what changes.
_made = STOCK


def _new(cls, *args, **kwargs):
    return object.__new__(_made if cls is STOCK else cls)


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
    for outcome, details in (('error', result.errors),
                             ('failure', result.failures),
                             ('skip', result.skipped),
                             ('expected failure', result.expectedFailures)):
        if details:
            return outcome, details[0][1]
    if result.unexpectedSuccesses:
        return 'unexpected success', ''
    return 'success', ''


class SubstitutionTest(unittest.TestCase):

    def test_ours_is_made_in_place_of_theirs(self):
        seen = []

        class Probe(unittest.TestCase):
            def test(self):
                seen.append(type(driver.LibvirtDriver(fake.FakeVirtAPI())))

        self.assertEqual('success', _run(Probe('test'), STOCK)[0])
        self.assertEqual('success', _run(Probe('test'), K8sLibvirtDriver)[0])
        self.assertEqual([STOCK, K8sLibvirtDriver], seen)


class ConformanceTest(unittest.TestCase):
    """One test of upstream's, known under its name."""

    def __init__(self, test):
        super().__init__('compare')
        self._class = type(test)
        self._method = test._testMethodName

    def id(self):
        return '.'.join((__name__, self._class.__name__, self._method))

    def __str__(self):
        return self.id()

    def compare(self):
        stock, why = _run(self._class(self._method), STOCK)
        ours, why_ours = _run(self._class(self._method), K8sLibvirtDriver)
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
    tests.addTests(ConformanceTest(test) for test in _tests(
        loader.loadTestsFromModule(upstream)))
    return tests
