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

Each test of upstream is one test here: it runs with Nova's driver and twice
with ours, one after the other, and fails where the results differ. So
upstream's tests may fail for reasons of the machine's or of Nova's, and only
what this driver changes counts against it.

Most of upstream's tests never start a host, and until then this driver is
Nova's. So the second time it has all its parts from the beginning, and limits
in force, which are above the machine of upstream's fixtures: what it reports
is what Nova's driver does, on the way of a driver with limits. Which tests
meet an override then stands in overrides.yaml.
"""

import atexit
import functools
import importlib.util
import inspect
import os
import pathlib
import tempfile
import threading
import unittest
from unittest import mock

import nova.conf
from nova.tests.unit.virt.libvirt import test_driver as upstream
from nova import version
from nova.virt import fake
from nova.virt.libvirt import driver
from oslo_config import cfg
import yaml

from nova_k8s import conf
from nova_k8s.driver import K8sLibvirtDriver
from nova_k8s.inventory import bounds
from nova_k8s.inventory import compute_node
from nova_k8s.limits import checkpoint
from nova_k8s.limits.sources import manifest
from nova_k8s.limits import watcher
from nova_k8s.service import record
from tests import speed

_folder = tempfile.TemporaryDirectory(prefix='nova-k8s-')
atexit.register(_folder.cleanup)


def _manifest(name, **resources):
    path = os.path.join(_folder.name, name)
    with open(path, 'w') as file:
        yaml.safe_dump({
            'apiVersion': 'v1', 'kind': 'Pod',
            'metadata': {'name': 'compute', 'namespace': 'openstack'},
            'spec': {'containers': [{'name': 'libvirt',
                                     'resources': resources}]}}, file)
    return path


# It would be the compute node's name.
os.environ.pop('NODE_NAME', None)

STOCK = driver.LibvirtDriver

# Upstream's tests of a start have no database.
compute_node.find = lambda host: []

# Names of the overrides that were met.
_met = set()


LIMITED = _manifest('limited.yaml', limits={
    'cpu': '10000', 'memory': '1Pi',
    **{f'hugepages-{size}': '1Pi' for size in ('2Mi', '4Mi', '16Mi', '1Gi')}})
# As read from it. Upstream's tests have open() and the like do nothing.
STATE = watcher.State(manifest.Source(LIMITED).read())


class LimitedDriver(K8sLibvirtDriver):
    """Ours with all its parts, and with limits, from the beginning."""

    def __init__(self, virtapi, read_only=False):
        super().__init__(virtapi, read_only)
        self._construct(nova.conf.CONF.host, [])

    def _construct(self, host, known, absent=None):
        # What a start does with files, and that it refuses options which Nova
        # does not take either, is not what is compared.
        with mock.patch.object(checkpoint, 'start', return_value=STATE), \
                mock.patch.object(record.File, 'forget'), \
                mock.patch.object(bounds, 'find_shortage', return_value=None):
            super()._construct(host, known, absent)
        # Upstream's instances are in no database.
        self._accounts._overhead._count_pci_devices = lambda *args: 0
        self._accounts._overhead._count_rbd_images = lambda *args: 0
        # Nor is their NUMA topology, where it is not set.
        self._accounts._topology_of = lambda instance: None


def _noted(name):
    overridden = getattr(K8sLibvirtDriver, name)

    @functools.wraps(overridden)
    def note(*args, **kwargs):
        # Not by a worker of ours.
        if threading.current_thread() is threading.main_thread():
            _met.add(name)
        return overridden(*args, **kwargs)
    # Upstream looks at it, and not behind what wraps it.
    note.__signature__ = inspect.signature(overridden)
    return note


OVERRIDES = sorted(
    name for name, value in vars(K8sLibvirtDriver).items()
    if callable(value) and hasattr(STOCK, name) and name != '__init__')

for _name in OVERRIDES:
    setattr(LimitedDriver, _name, _noted(_name))

# Of Nova's [DEFAULT] reserved_host_memory_mb, which is no option of ours.
RESERVED_MB = 512

# As defaults, because upstream's tests reset what is configured.
OPTIONS = {
    STOCK: {},
    # Reports what Nova's driver does.
    K8sLibvirtDriver: {
        'manifest': _manifest('unlimited.yaml'), 'unlimited': 'host'},
    # So does this, with limits above the machine of upstream's fixtures.
    LimitedDriver: {
        'manifest': LIMITED, 'unlimited': 'error',
        'reserved_memory_mb': RESERVED_MB},
}
cfg.set_defaults(conf.OPTS, limits_from='manifest')
# Where the last known limits are kept.
cfg.set_defaults(nova.conf.paths.ALL_OPTS, state_path=_folder.name)

# Upstream's tests that meet an override of LimitedDriver, and with which
# release of Nova. `python -m tests.conformance` writes it.
MET = pathlib.Path(__file__).parent / 'overrides.yaml'
MET_HEAD = """\
# Which tests of Nova's meet which override of K8sLibvirtDriver, with limits in
# force: what these say of Nova's driver holds for ours. `python -m
# tests.conformance` writes it; a test fails where it is not so.
"""

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
    _met.clear()
    cfg.set_defaults(conf.OPTS, **OPTIONS[made])
    try:
        test.run(result)
    finally:
        _made = STOCK
        while _instances:
            # Upstream's tests start a host and never stop one.
            parts = vars(_instances.pop())
            for name in ('_service', '_watcher', '_publisher'):
                if parts.get(name):
                    parts[name].stop()
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

        for made in OPTIONS:
            self.assertEqual('success', _run(Probe('test'), made)[0])
        self.assertEqual(list(OPTIONS), seen)


class EnvironmentTest(unittest.TestCase):

    def test_upstream_tests_succeed_here(self):
        # Where they fail with both drivers, nothing is compared.
        for test in (
                upstream.LibvirtConnTestCase('test_public_api_signatures'),
                upstream.LibvirtConnTestCase('test_get_connector'),
                upstream.TestUpdateProviderTree('test_update_provider_tree')):
            self.assertEqual(('success', ''), _run(test, STOCK), test)


class MetTest(unittest.TestCase):

    def test_overrides_are_those_of_the_driver(self):
        self.assertEqual(OVERRIDES, sorted(_listed()['overrides']))

    def test_what_nova_reports_is_met_most(self):
        met = _listed()['overrides']
        self.assertGreater(len(met['update_provider_tree']), 10)
        self.assertGreater(len(met['check_can_live_migrate_destination']), 10)


@functools.cache
def _listed():
    return yaml.safe_load(MET.read_text())


# Guests whose flavor has no memory, as no other: what they need
# cannot be said, and with limits they are not started.
_WITHOUT_MEMORY = 'unable to load memory_mb', (LimitedDriver,)

# What is different with ours: its reason, and in which form of ours.
DIFFERENT = {
    'LibvirtDriverTestCase.test_hard_reboot_allocate_missing_mdevs':
        _WITHOUT_MEMORY,
    'LibvirtDriverTestCase.test_hard_reboot_allocate_missing_mdevs_fail':
        _WITHOUT_MEMORY,
    'LibvirtDriverTestCase.test_hard_reboot_cyborg_mdevs_not_duplicated':
        _WITHOUT_MEMORY,
    # More huge pages are reserved than there are; none are offered, and that
    # is all that is said.
    'LibvirtConnTestCase.test_does_want_hugepages':
        ('MismatchError: 128 != 0', (LimitedDriver,)),
    # The record of the compute service is written by a worker, which knows
    # other reasons than libvirt's connection.
    'LibvirtConnTestCase.test_service_resume_after_broken_connection':
        ('assertFalse(service_mock.disabled)',
         (K8sLibvirtDriver, LimitedDriver)),
    'LibvirtConnTestCase.test_set_host_enabled_with_disable':
        ("Expected '_update_compute_provider_status' to be called once",
         (LimitedDriver,)),
}


class ConformanceTest(unittest.TestCase):
    """One test of upstream's, known under its name.

    :param tests: three copies of it, as some use up what they find
    """

    def __init__(self, *tests):
        super().__init__('compare')
        self._stock, self._ours, self._limited = tests
        self.name = '.'.join((type(self._stock).__name__,
                              self._stock._testMethodName))

    def id(self):
        return f'{__name__}.{self.name}'

    def __str__(self):
        return self.id()

    def compare(self):
        stock, why = _run(self._stock, STOCK)
        for test, made, how in (
                (self._ours, K8sLibvirtDriver, 'ours'),
                (self._limited, LimitedDriver, 'ours and limits')):
            ours, why_ours = _run(test, made)
            reason, forms = DIFFERENT.get(self.name, ('', ()))
            if made in forms:
                self.assertIn(reason, why_ours, f'no longer so with {how}')
            elif ours != stock:
                self.fail(f'{stock} with the driver of Nova, {ours} with '
                          f'{how}\n{why_ours or why}')
        met = sorted(_met)
        if stock not in ('success', 'expected failure'):
            self.skipTest(f'{stock} with both drivers: {why}')
        self.check(met)

    def meet(self):
        """Run it with limits, and return the overrides that it met."""
        _run(self._limited, LimitedDriver)
        return sorted(_met)

    def check(self, met):
        listed = _listed()
        expected = [name for name in OVERRIDES
                    if self.name in listed['overrides'].get(name, ())]
        if listed['nova'] == version.version_string():
            self.assertEqual(expected, met, MET.name)
        else:
            # Another Nova has tests that are not on the list.
            self.assertEqual([], sorted(set(expected) - set(met)), MET.name)


def _tests(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from _tests(test)
        else:
            yield test


def load_tests(loader, tests, pattern):
    tests.addTests(conformance_tests(loader))
    return tests


def conformance_tests(loader):
    return list(map(ConformanceTest, *(
        _tests(loader.loadTestsFromModule(module)) for module in (
            upstream, _copy(upstream), _copy(upstream)))))
