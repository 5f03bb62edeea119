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

"""The glue to Nova, as far as it can be tested without Nova's services."""

import copy
import inspect
import os
import pathlib
import threading
from unittest import mock

import fixtures
from nova.compute import claims
from nova.compute import manager
from nova.compute import provider_tree
from nova.compute import resource_tracker
from nova.conductor.tasks import live_migrate
import nova.conf
from nova import exception
from nova import objects
from nova.scheduler.client import report
from nova.virt import driver as virt_driver
from nova.virt import fake
from nova.virt.libvirt import driver as libvirt_driver
from nova.virt.libvirt import guest
from nova.virt.libvirt import host
from oslo_config import fixture as config_fixture
import yaml

from nova_k8s.accounting import accounts
from nova_k8s.accounting import ledger as ledgers
from nova_k8s.accounting import overhead
from nova_k8s.confinement import findings
from nova_k8s import driver
from nova_k8s import errors
from nova_k8s.inventory import bounds
from nova_k8s.inventory import reported
from nova_k8s.kube import node as kube_node
from nova_k8s.limits import budget
from nova_k8s.limits import messages
from nova_k8s.limits import watcher
from nova_k8s import parts
from nova_k8s.service import reasons
from tests.unit import base
from tests.unit.confinement import test_holding
from tests.unit.inventory import test_hugepages
from tests import waiting

CONF = nova.conf.CONF
GI = 2 ** 30
NODE = 'node-1'
GUESTS_POD = str(pathlib.Path(__file__).resolve().parents[2] / 'etc' /
                 'kubernetes' / 'base' / 'guests-pod.yaml')
UUID = '2f1f0b2e-6a0c-4a1e-9d2c-000000000001'


def some(cpu=4000, memory=8 * GI, **fields):
    return budget.Budget('Pod a/b', cpu, memory, **fields)


def record(total):
    return {'total': total, 'min_unit': 1, 'max_unit': total, 'step_size': 1,
            'allocation_ratio': 1.0, 'reserved': 0}


class DriverTestBase(base.TestCase):

    def setUp(self):
        super().setUp()
        CONF([], project='nova', default_config_files=[],
             default_config_dirs=[])
        self.conf_fixture = self.useFixture(config_fixture.Config(CONF))
        self.flags(state_path=self.folder(), reserved_host_memory_mb=0)
        self.log = self.useFixture(fixtures.FakeLogger('nova_k8s'))
        self.driver = driver.K8sLibvirtDriver(fake.FakeVirtAPI())
        self.patch_nova('_host', get_hostname=lambda: 'random-x7k2p',
                        get_node_uuid=lambda: UUID)

    def flags(self, **options):
        self.conf_fixture.config(**options)

    def patch_nova(self, name, **attributes):
        return self.useFixture(fixtures.MockPatchObject(
            self.driver, name, mock.Mock(**attributes))).mock

    def patch_stock(self, **methods):
        """Replace what Nova's own driver does."""
        for name, value in methods.items():
            self.useFixture(fixtures.MockPatchObject(
                libvirt_driver.LibvirtDriver, name, value))

    def patch_nodes(self, *names):
        """What Nova's database knows of this host."""
        def nodes(context, host):
            if not names:
                raise exception.ComputeHostNotFound(host=host)
            return [mock.Mock(hypervisor_hostname=name, vcpus=4,
                              memory_mb=8192, numa_topology=None)
                    for name in names]

        self.useFixture(fixtures.MockPatchObject(
            objects.ComputeNodeList, 'get_all_by_host', nodes))

    def patch_other_host(self, host=None):
        """What Nova's database knows of compute nodes of this name."""
        def node(context, name):
            if not host:
                raise exception.ComputeHostNotFound(host=name)
            return mock.Mock(host=host, hypervisor_hostname=name)

        self.useFixture(fixtures.MockPatchObject(
            objects.ComputeNode, 'get_by_nodename', node))

    def follow(self, present):
        self.driver._watcher = watcher.Watcher(
            None, watcher.State(present), None, None)
        if not self.driver._reported:
            self.driver._publisher = mock.Mock()
            self.driver._reported = reported.Reported(
                self.driver._budget, CONF.kubernetes.unlimited)

    def manifest(self, name='compute', node=None, **limits):
        path = self.folder() + '/pod.yaml'
        with open(path, 'w', encoding='utf-8') as f:
            yaml.safe_dump({
                'kind': 'Pod', 'metadata': {'name': name},
                'spec': {'nodeName': node, 'containers': [
                    {'name': 'libvirt', 'resources': {'limits': limits}}]}},
                f)
        self.flags(group='kubernetes', limits_from='manifest', manifest=path)


class InertTest(DriverTestBase):
    """Until init_host() everything is as in Nova's own driver."""

    def test_names(self):
        self.assertEqual(['random-x7k2p'], self.driver.get_available_nodes())
        self.assertEqual({UUID: 'random-x7k2p'},
                         self.driver.get_nodenames_by_uuid())

    def test_resource(self):
        stock = {'vcpus': 64, 'memory_mb': 1000, 'hypervisor_hostname': 'x'}
        self.patch_stock(get_available_resource=lambda self, node: stock)
        self.assertEqual(dict(stock),
                         self.driver.get_available_resource('x'))

    def test_provider_tree(self):
        called = mock.Mock()
        self.patch_stock(update_provider_tree=called)
        tree = mock.Mock()
        self.driver.update_provider_tree(tree, 'x', allocations={})
        called.assert_called_once_with(tree, 'x', allocations={})
        self.assertEqual([], tree.mock_calls)

    def test_numa_topology(self):
        topology = test_hugepages.topology([(4, 9, 0), (2048, 512, 7)])
        self.patch_stock(_get_host_numa_topology=lambda self: topology)
        self.assertEqual(
            505, self.driver._get_host_numa_topology().cells[0].mempages[
                1].free)
        # From then on there are those of the pod.
        self.driver._cpu_sets = mock.Mock(mems=None)
        self.follow(some(hugepages=(('2Mi', 2 ** 30 // 4),)))
        self.assertEqual(
            128, self.driver._get_host_numa_topology().cells[0].mempages[
                1].free)

    def test_cleanup(self):
        called = mock.Mock()
        self.patch_stock(cleanup_host=called)
        self.driver.cleanup_host('host')
        called.assert_called_once_with('host')


class StartTest(DriverTestBase):

    def setUp(self):
        super().setUp()
        self.init_host = mock.Mock()
        self.patch_stock(init_host=self.init_host, cleanup_host=mock.Mock())
        self.patch_nodes()
        self.patch_other_host()

    def _start(self):
        self.driver.init_host('host')
        self.addCleanup(self.driver.cleanup_host, 'host')

    def _refused(self, *names):
        before = len(self.log.output)
        exc = self.assertRaises(SystemExit, self.driver.init_host, 'host')
        self.assertEqual(1, exc.code)
        found = self.log.output[before:].splitlines()
        self.assertEqual(1, len(found), found)
        for name in ['nova-compute does not start', *names]:
            self.assertIn(name, found[0])
        self.init_host.assert_not_called()

    def test_start(self):
        self.manifest(cpu='4', memory='8Gi')
        self._start()
        self.init_host.assert_called_once_with('host')
        self.assertIn('4000 millicores of CPU and 8192 MiB', self.log.output)

    def test_what_was_refused_is_not_what_was_known_before(self):
        self.flags(group='kubernetes', limits_from='api', pod_name='p',
                   namespace='n', follow_cordon=False, node_name=NODE)
        self.flags(state_path=self.folder())
        self.useFixture(fixtures.MockPatch('nova_k8s.kube.events.Recorder'))
        away = errors.Unreadable('no answer')
        for answer in (some(cpu=500), some(cpu=None, missing=('a field',)),
                       errors.Refused('not found')):
            for found, starts in ((some(), True), (away, True),
                                  (answer, False), (away, False)):
                self.useFixture(fixtures.MockPatch(
                    'nova_k8s.limits.sources.from_conf'))
                self.useFixture(fixtures.MockPatch(
                    'nova_k8s.limits.watcher.read_first', side_effect=[found]))
                self.driver = driver.K8sLibvirtDriver(fake.FakeVirtAPI())
                if starts:
                    self._start()
                else:
                    self.assertRaises(SystemExit, self.driver.init_host,
                                      'host')

    def test_a_guests_pod_starts_with_what_its_guests_hold(self):
        self.flags(group='kubernetes', elastic=True, elastic_max='65536:32',
                   elastic_min='4096:2', elastic_step='1024:1',
                   reserved_memory_mb='100')
        self.flags(initial_cpu_allocation_ratio=1.0)
        asked = self.useFixture(fixtures.MockPatch(
            'nova_k8s.accounting.instance_overhead.of_host',
            return_value=([overhead.Need(7000, 50, 7000)], 6))).mock
        made = self.useFixture(fixtures.MockPatch(
            'nova_k8s.confinement.controller.from_conf',
            side_effect=errors.Refused('no further'))).mock
        self._refused('no further')
        first = made.call_args[1]['first']
        self.assertEqual(
            {'memory': '7168Mi', 'cpu': '6000m'},
            first(kube_node.Node(NODE, 'u', allocatable={
                'cpu': '64', 'memory': '256Gi'})))
        asked.assert_called_once_with(CONF, 'host')

    def test_source_that_is_not_configured(self):
        self.flags(group='kubernetes', limits_from='manifest')
        self._refused('[kubernetes] manifest', 'limits_from')

    def test_option_that_is_not_valid(self):
        # Whenever it is used first.
        for line, *names in (
                ('limits_from = x', 'limits_from', "'x'"),
                ('overhead_factor = nan', 'overhead_factor'),
                ('overhead_addition_mb = -1', 'overhead_addition_mb'),
                ('reserve_ahead = x', 'reserve_ahead'),
                ('[DEFAULT]\ncpu_allocation_ratio = nan',
                 '[DEFAULT] cpu_allocation_ratio is nan'),
                ('[libvirt]\nvirt_type = qemu\ntb_cache_size = x',
                 'tb_cache_size')):
            path = self.folder() + '/nova.conf'
            with open(path, 'w', encoding='utf-8') as f:
                f.write(f'[kubernetes]\n{line}\n')
            CONF([], project='nova', default_config_files=[path],
                 default_config_dirs=[])
            if 'limits_from' not in line:
                self.manifest(cpu='4', memory='8Gi')
            self._refused(*names)

    def test_in_a_green_thread(self):
        # What such a thread ends with is forgotten.
        self.flags(group='kubernetes', limits_from='manifest')
        register = self.useFixture(
            fixtures.MockPatch('atexit.register')).mock
        thread = threading.Thread(target=self._refused,
                                  args=('[kubernetes] manifest',))
        thread.start()
        thread.join()
        register.assert_called_once_with(os._exit, 1)

    def test_source_that_cannot_be_read(self):
        path = self.folder() + '/none'
        self.flags(group='kubernetes', limits_from='manifest', manifest=path)
        self._refused(path)

    def test_no_limit(self):
        self.manifest(cpu='4')
        self._refused('limits.memory', '[kubernetes] unlimited')

    def test_no_limit_and_that_is_wanted(self):
        self.manifest(cpu='4')
        self.flags(group='kubernetes', unlimited='host')
        self._start()

    def test_below_one_core(self):
        self.manifest(cpu='999m', memory='8Gi')
        self._refused('limits.cpu', '[kubernetes] container')

    def test_below_what_is_reserved(self):
        self.flags(reserved_host_memory_mb=8193)
        self.manifest(cpu='4', memory='8Gi')
        self._refused('limits.memory', 'reserved_host_memory_mb')

    def test_unknown_container(self):
        self.manifest(cpu='4', memory='8Gi')
        self.flags(group='kubernetes', container='nova')
        self._refused('[kubernetes] container', 'libvirt')

    def _starts_closed(self, *names, besides=()):
        before = len(self.log.output)
        driver_ = self.driver = driver.K8sLibvirtDriver(fake.FakeVirtAPI())
        self.init_host.reset_mock()
        # As it is before the first look of the watcher.
        with mock.patch.object(watcher.Watcher, 'start'):
            self._start()
        self.init_host.assert_called_once_with('host')
        self.assertFalse(driver_._is_open())
        found = [line for line in self.log.output[before:].splitlines()
                 if 'not followed' not in line]
        self.assertEqual(1, len(found), found)
        for name in (*names, 'nothing new is placed on this compute node'):
            self.assertIn(name, found[0])
        records, _ = driver_._reported.bound(
            {'VCPU': record(64), 'MEMORY_MB': record(65536)})
        self.assertEqual([], [name for name, each in records.items()
                              if each['total'] > each['reserved'] and
                              name not in besides])
        return driver_, records

    def test_closed_where_nova_knows_the_node(self):
        self.patch_nodes(NODE)
        self.flags(group='kubernetes', node_name=NODE, follow_cordon=False)
        path = self.folder() + '/none'
        self.flags(group='kubernetes', limits_from='manifest', manifest=path)
        _, records = self._starts_closed(path)
        # As the node had them: they may be allocated.
        self.assertEqual((4, 8192), (records['VCPU']['total'],
                                     records['MEMORY_MB']['total']))
        self.flags(group='kubernetes', limits_from='downward_api',
                   downward_api_dir=path)
        self._starts_closed(path)
        self.manifest('another', cpu='4', memory='8Gi')
        self.flags(group='kubernetes', pod_name='compute')
        self._starts_closed('no object is called compute')

    def test_closed_without_an_answer_of_the_api_server(self):
        self.patch_nodes(NODE)
        self.useFixture(fixtures.MockPatch('nova_k8s.kube.events.Recorder'))
        self.useFixture(fixtures.MockPatch(
            'nova_k8s.limits.sources.from_conf'))
        self.flags(group='kubernetes', limits_from='api', pod_name='p',
                   namespace='n', follow_cordon=False, node_name=NODE)
        for problem in (errors.Unreadable('no answer'),
                        errors.Refused('not found')):
            with mock.patch('nova_k8s.limits.watcher.read_first',
                            side_effect=problem):
                self._starts_closed(str(problem))

    def _guests_pod(self, problem):
        """Have a guests' pod that cannot be made, for a libvirt that runs."""
        self.useFixture(fixtures.MockPatch('nova_k8s.kube.events.Recorder'))
        self.useFixture(fixtures.MockPatch(
            'nova_k8s.kube.client.api_client'))
        self.useFixture(fixtures.MockPatch(
            'nova_k8s.inventory.host.ask_libvirt', lambda uri: True))
        self.useFixture(fixtures.MockPatch(
            'nova_k8s.kube.pods.Pod.read', side_effect=problem))
        # What follows is the controller's.
        self.useFixture(fixtures.MockPatch(
            'nova_k8s.confinement.controller.Controller.start'))
        self.useFixture(fixtures.MockPatch(
            'nova_k8s.confinement.controller.Controller.stop'))
        self.useFixture(fixtures.MockPatch(
            'nova_k8s.limits.watcher.read_first',
            side_effect=errors.Refused('not found')))
        self.flags(group='kubernetes', limits_from='api', namespace='n',
                   follow_cordon=False, node_name=NODE,
                   guests_pod=GUESTS_POD)

    def test_closed_without_the_guests_pod(self):
        self.patch_nodes(NODE)
        for problem in (errors.Refused('no such right'),
                        errors.Unreadable('no answer')):
            self._guests_pod(problem)
            self._starts_closed(str(problem))

    def test_first_start_without_the_guests_pod(self):
        for problem in (errors.Refused('no such right'),
                        errors.Unreadable('no answer')):
            self._guests_pod(problem)
            self._refused(str(problem))

    def test_closed_by_the_limits_themselves(self):
        self.patch_nodes(NODE)
        self.flags(group='kubernetes', node_name=NODE, follow_cordon=False)
        self.manifest(cpu='999m', memory='8Gi')
        self._starts_closed('limits.cpu', 'below one core',
                            besides=['MEMORY_MB'])
        self.manifest(cpu='4')
        self._starts_closed('limits.memory', besides=['VCPU'])
        self.flags(reserved_host_memory_mb=8193)
        self.manifest(cpu='4', memory='8Gi')
        self._starts_closed('reserved_host_memory_mb',
                            besides=['VCPU', 'MEMORY_MB'])

    def hold(self, *names):
        """A cgroup tree with these in it, and [kubernetes] guest_slice."""
        tree = self.useFixture(test_holding.Tree())
        self.useFixture(fixtures.MockPatch(
            'nova_k8s.confinement.cgroup.node_tree', return_value=tree.path))
        for name in names:
            tree.make(name)
        self.flags(group='kubernetes', guest_slice='/machine')
        return tree

    def limits(self, found):
        limits = found._reported.limits
        return limits['VCPU'], limits['MEMORY_MB']

    def test_guest_slice(self):
        tree = self.hold('machine')
        self.manifest(cpu='4', memory='8Gi')
        self._start()
        self.assertEqual((str(8 << 30), '400000 100000'),
                         tree.read('machine'))
        self.assertEqual((4, 8192), self.limits(self.driver))
        self.assertEqual(frozenset(), self.driver._reasons())
        # The pod shrinks; Nova has been told nothing yet.
        with open(CONF.kubernetes.manifest, 'r+', encoding='utf-8') as f:
            text = f.read().replace('8Gi', '4Gi')
            f.seek(0)
            f.write(text)
        self.driver._watcher.refresh()
        self.assertEqual(4096, self.driver._reported.memory_limit_mb() or
                         self.driver._reported.limits['MEMORY_MB'])

    def test_guest_slice_that_cannot_be_held(self):
        self.hold()
        self.manifest(cpu='4', memory='8Gi')
        before = len(self.log.output)
        self.assertRaises(SystemExit, self.driver.init_host, 'host')
        last = self.log.output[before:].splitlines()[-1]
        self.assertIn('nova-compute does not start: [kubernetes] guest_slice '
                      '/machine: there is no such cgroup', last)

    def test_guest_slice_that_must_not_be(self):
        self.hold()
        self.patch_nodes(NODE)
        self.flags(group='kubernetes', guest_slice='/kubepods')
        self.manifest(cpu='4', memory='8Gi')
        self._refused('guest_slice /kubepods', 'guests_pod')

    def test_guest_slice_where_nova_knows_the_node(self):
        tree = self.hold()
        self.patch_nodes(NODE)
        self.flags(group='kubernetes', node_name=NODE, follow_cordon=False)
        self.manifest(cpu='4', memory='8Gi')
        found = driver.K8sLibvirtDriver(fake.FakeVirtAPI())
        found.init_host('host')
        self.addCleanup(found.cleanup_host, 'host')
        self.assertEqual((0, 0), self.limits(found))
        self.assertEqual({findings.NOT_HELD}, found._reasons())
        # After a boot, it comes with libvirt.
        tree.make('machine')
        found._holding._step()
        self.assertEqual((4, 8192), self.limits(found))
        self.assertEqual(frozenset(), found._reasons())

    def test_closed_opens_by_itself(self):
        self.patch_nodes(NODE)
        self.manifest(cpu='4', memory='8Gi')
        path = CONF.kubernetes.manifest
        os.rename(path, path + '.away')
        self.flags(group='kubernetes', node_name=NODE, follow_cordon=False)
        self._start()
        self.assertFalse(self.driver._is_open())
        os.rename(path + '.away', path)
        waiting.until(self.driver._is_open)
        # It is told a moment later.
        waiting.until(lambda: 'The limits can be read again'
                      in self.log.output)

    def test_what_no_node_that_runs_could_have(self):
        self.patch_nodes(NODE)
        self.flags(group='kubernetes', node_name=NODE)
        self.manifest(cpu='4', memory='8Gi')
        self.flags(group='kubernetes', container='nova')
        self._refused('[kubernetes] container', 'libvirt')
        self.flags(group='kubernetes', container=None, manifest=None)
        self._refused('[kubernetes] manifest', 'limits_from')

    def test_name_that_the_limits_do_not_tell_now(self):
        self.useFixture(fixtures.EnvironmentVariable(
            'KUBERNETES_SERVICE_HOST', '10.96.0.1'))
        self.flags(group='kubernetes', limits_from='manifest',
                   manifest=self.folder() + '/none')
        self._refused('none')
        self.patch_nodes('from-the-pod')
        self._start()
        self.assertEqual(['from-the-pod'], self.driver.get_available_nodes())

    def _name(self):
        self.manifest(node='from-the-pod', cpu='4', memory='8Gi')
        self._start()
        name, = self.driver.get_available_nodes()
        self.assertEqual({UUID: name}, self.driver.get_nodenames_by_uuid())
        return name

    def test_name_from_the_pod(self):
        self.assertEqual('from-the-pod', self._name())

    def test_name_from_the_environment(self):
        self.useFixture(fixtures.EnvironmentVariable('NODE_NAME', 'b'))
        self.assertEqual('b', self._name())

    def test_name_from_the_option(self):
        self.useFixture(fixtures.EnvironmentVariable('NODE_NAME', 'b'))
        self.flags(group='kubernetes', node_name='c')
        self.assertEqual('c', self._name())

    def test_name_that_keeps_the_old_record(self):
        self.flags(group='kubernetes', node_name='c',
                   hypervisor_hostname='d')
        self.assertEqual('d', self._name())

    def test_name_that_nobody_knows_in_a_pod(self):
        self.useFixture(fixtures.EnvironmentVariable(
            'KUBERNETES_SERVICE_HOST', '10.96.0.1'))
        self.manifest(cpu='4', memory='8Gi')
        self._refused('NODE_NAME', '[kubernetes] node_name')

    def test_name_that_nobody_knows(self):
        self.manifest(cpu='4', memory='8Gi')
        self._start()
        self.assertEqual(['random-x7k2p'], self.driver.get_available_nodes())

    def test_name_that_nova_knows(self):
        self.patch_nodes('from-the-pod')
        self.assertEqual('from-the-pod', self._name())

    def test_one_of_the_names_that_nova_knows(self):
        self.patch_nodes('another', 'from-the-pod')
        self.assertEqual('from-the-pod', self._name())

    def test_new_host_where_nova_knows_the_name(self):
        self.patch_other_host('nova-compute-7d9f-abcde')
        self.manifest(node='from-the-pod', cpu='4', memory='8Gi')
        self._refused(
            'compute node from-the-pod', 'this host is host',
            '[DEFAULT] host = nova-compute-7d9f-abcde',
            '[kubernetes] hypervisor_hostname')

    def test_another_name_than_nova_knows(self):
        self.patch_nodes('host.example')
        self.manifest(node='from-the-pod', cpu='4', memory='8Gi')
        self._refused(
            'host host', 'host.example', 'from-the-pod',
            '[kubernetes] hypervisor_hostname = host.example')


class ReportTest(DriverTestBase):

    def setUp(self):
        super().setUp()
        self.driver._node_name = NODE
        self.machine = {bounds.VCPU: 64, bounds.MEMORY_MB: 2 ** 18}
        test = self

        def update_provider_tree(self, tree, nodename, allocations=None):
            tree.update_inventory(nodename, {
                name: record(total) for name, total in dict(
                    test.machine, DISK_GB=100).items() if total})
            self.provider_tree = copy.deepcopy(tree)

        def get_available_resource(self, nodename):
            return {'vcpus': test.machine[bounds.VCPU],
                    'memory_mb': test.machine[bounds.MEMORY_MB],
                    'local_gb': 100, 'hypervisor_hostname': 'random-x7k2p'}

        self.patch_stock(update_provider_tree=update_provider_tree,
                         get_available_resource=get_available_resource)
        self.tree = provider_tree.ProviderTree()
        self.tree.new_root(NODE, UUID)

    def _report(self, present):
        self.follow(present)
        self.driver.update_provider_tree(self.tree, NODE)
        if self.driver._publisher.wake.called:
            # It writes what is wanted, and the next audit finds that.
            found = self.driver._reported
            found._records = found._wanted()
            self.driver.update_provider_tree(self.tree, NODE)
        found = self.tree.data(NODE).inventory
        # What spawn() and others look at later.
        self.assertEqual(
            found, self.driver.provider_tree.data(NODE).inventory)
        self.assertEqual(record(100), found['DISK_GB'])

        data = self.driver.get_available_resource(NODE)
        self.assertEqual(NODE, data['hypervisor_hostname'])
        self.assertEqual(100, data['local_gb'])
        for name, field in ((bounds.VCPU, 'vcpus'),
                            (bounds.MEMORY_MB, 'memory_mb')):
            self.assertEqual(found[name]['total'] if name in found else 0,
                             data[field])
        return {name: (each['total'], each['reserved'])
                for name, each in found.items() if name != 'DISK_GB'}

    def test_both_tell_the_same_story(self):
        for present, expected in (
                (some(), {'VCPU': (4, 0), 'MEMORY_MB': (8192, 0)}),
                (some(8500), {'VCPU': (8, 0), 'MEMORY_MB': (8192, 0)}),
                (some(500), {'VCPU': (8, 8), 'MEMORY_MB': (8192, 0)}),
                (None, {'VCPU': (8, 8), 'MEMORY_MB': (8192, 8192)}),
                (some(None), {'VCPU': (8, 8), 'MEMORY_MB': (8192, 0)}),
                (some(10 ** 9), {'VCPU': (64, 0), 'MEMORY_MB': (8192, 0)})):
            self.assertEqual(expected, self._report(present))

    def test_no_limit_and_that_is_wanted(self):
        self.flags(group='kubernetes', unlimited='host')
        self.assertEqual({'VCPU': (64, 0), 'MEMORY_MB': (8192, 0)},
                         self._report(some(None)))

    def test_class_that_nova_does_not_offer(self):
        self.machine[bounds.VCPU] = 0
        self.assertEqual({'MEMORY_MB': (8192, 0)}, self._report(some()))

    def test_resource_before_the_first_report(self):
        # Nova asks for it first.
        self.follow(some())
        data = self.driver.get_available_resource(NODE)
        self.assertEqual((4, 8192), (data['vcpus'], data['memory_mb']))

    def test_class_that_nova_offers_no_longer(self):
        # As if all CPUs were dedicated since: those allocated are still there.
        self._report(some())
        self.machine[bounds.VCPU] = 0
        self.assertEqual((4, 4), self._report(some())['VCPU'])

    def test_only_what_was_read_is_kept(self):
        save = self.useFixture(
            fixtures.MockPatch('nova_k8s.limits.checkpoint.save')).mock
        present, stale = watcher.State(some()), watcher.State(some(), 'away')
        for before, after in ((present, stale), (stale, stale)):
            self.driver._tell(before, after)
        save.assert_not_called()
        self.driver._tell(stale, present)
        save.assert_called_once_with(CONF, some())

    def test_shrink_below_what_guests_may_use(self):
        self.follow(some())
        self.driver._accounts = accounts.Accounts(
            CONF, None, mock.Mock(mb=256), lambda: 8192, None)
        ledger = self.driver._accounts._ledger
        ledger.add('a', overhead.Need(4096, 60, 4096))
        ledger.add('b', overhead.Need(1024, 50, 1024))
        ledger.stop(['b'])
        self.driver._tell(watcher.State(some()),
                          watcher.State(some(memory=5 * GI)))
        line = self.log.output.splitlines()[-1]
        for figure in (f'{4096 + 60 + 256} MiB in use',
                       '1074 MiB of stopped guests', 'limit of 5120 MiB'):
            self.assertIn(figure, line)

    def test_one_limit_for_shared_and_dedicated_cpus(self):
        for dedicated, expected in ((1, (1, 3)), (3, (3, 1))):
            self.machine['PCPU'] = dedicated
            found = self._report(some())
            self.assertEqual(expected, (found['PCPU'][0], found['VCPU'][0]))
        # All of them: what was shared is closed.
        self.machine['PCPU'] = 60
        found = self._report(some())
        self.assertEqual(((4, 0), (1, 1)), (found['PCPU'], found['VCPU']))

    def test_warns_once_for_each_change(self):
        for present in (some(65000), some(65000), None, some(),
                        some(cpu_request_millicores=1)):
            self._report(present)
        self.assertEqual(1, self.log.output.count('the machine has 64'))
        self.assertEqual(1, self.log.output.count('resources.requests.cpu'))


class LiveMigrationTest(DriverTestBase):
    """Room that is held for a guest on its way here."""

    def setUp(self):
        super().setUp()
        self.follow(some())
        self.changed = self.driver._publisher.wake
        self.driver._accounts = accounts.Accounts(
            CONF, mock.Mock(return_value=overhead.Need(512, 60, 512)),
            mock.Mock(mb=0), lambda: 8192, self.changed)
        self.instance = mock.Mock(uuid=UUID)

    def check(self, **stock):
        self.patch_stock(check_can_live_migrate_destination=mock.Mock(**stock))
        return self.driver.check_can_live_migrate_destination(
            'context', self.instance, 'source', 'destination')

    @property
    def held(self):
        return self.driver._accounts._ledger.holds(UUID)

    def test_held(self):
        self.assertEqual('data', self.check(return_value='data'))
        self.assertTrue(self.held)
        self.changed.assert_called_once_with()

    def test_no_room(self):
        self.driver._accounts._limit_mb = lambda: 571
        exc = self.assertRaises(exception.MigrationPreCheckError, self.check)
        self.assertIn('leaves 571 MiB', str(exc))
        self.assertFalse(self.held)
        self.changed.assert_not_called()

    def test_released_when_nova_refuses(self):
        self.assertRaises(
            exception.MigrationPreCheckError, self.check,
            side_effect=exception.MigrationPreCheckError(reason='CPU'))
        self.assertFalse(self.held)
        self.assertEqual(2, self.changed.call_count)

    def roll_back(self, **stock):
        self.check()
        self.assertTrue(self.held)
        self.patch_stock(
            rollback_live_migration_at_destination=mock.Mock(**stock))
        self.driver.rollback_live_migration_at_destination(
            'context', self.instance, [], {})

    def test_released_when_it_is_rolled_back(self):
        self.roll_back()
        self.assertFalse(self.held)

    def test_released_when_that_fails_too(self):
        self.assertRaises(OSError, self.roll_back, side_effect=OSError())
        self.assertFalse(self.held)


class StartOfGuestTest(DriverTestBase):
    """Guests that are started have no claim."""

    def setUp(self):
        super().setUp()
        self.ledger = ledgers.Ledger()
        self.driver._accounts = accounts.Accounts(
            CONF, mock.Mock(return_value=overhead.Need(512, 60, 512)),
            mock.Mock(mb=100), lambda: 100 + 2 * 572, mock.Mock())
        self.driver._accounts._ledger = self.ledger
        for uuid in 'abc':
            self.ledger.add(uuid, overhead.Need(512, 60, 512))
        self.stock = mock.Mock()
        self.patch_stock(_hard_reboot=self.stock, resume=self.stock)
        self.running('a')

    def running(self, *uuids):
        self.driver._host.list_guests = lambda: [
            mock.Mock(uuid=uuid) for uuid in uuids]

    def start(self, uuid, method='power_on'):
        getattr(self.driver, method)(
            'context', mock.Mock(uuid=uuid), 'network')

    def refused(self, *args):
        exc = self.assertRaises(
            exception.ComputeResourcesUnavailable, self.start, *args)
        self.assertIn('leaves 0 MiB', str(exc))

    def test_room_for_one_of_two(self):
        self.ledger.stop('bc')
        self.start('b')
        # Before it runs, and before Nova reads that it does.
        self.refused('c')
        self.ledger.stop('bc')
        self.refused('c')
        self.running('a', 'b')
        self.refused('c', 'resume')
        self.assertEqual(1, self.stock.call_count)

    def test_room_that_was_left(self):
        self.ledger.stop('abc')
        self.running()
        self.start('b', 'resume')
        self.running('b')
        self.start('c')
        self.assertEqual(2, self.stock.call_count)

    def test_one_that_runs(self):
        self.ledger.stop('bc')
        self.driver._accounts._limit_mb = lambda: 0
        self.start('a')
        self.stock.assert_called_once()

    def test_guest_that_is_being_built_counts(self):
        self.ledger.stop('c')
        self.refused('c')

    def test_after_a_boot_of_the_machine(self):
        # Nothing is counted yet.
        self.driver._accounts._ledger = ledgers.Ledger()
        self.running()
        self.start('a')
        self.start('b')
        self.refused('c')

    def test_before_init_host(self):
        self.driver._accounts = None
        self.start('a')
        self.stock.assert_called_once()


class ServiceTest(DriverTestBase):
    """Libvirt's connection comes and goes."""

    def setUp(self):
        super().setUp()
        self.manager = mock.Mock()
        self.useFixture(fixtures.MockPatch(
            'nova.virt.libvirt.volume.mount.get_manager',
            lambda: self.manager))
        self.record = self.useFixture(fixtures.MockPatchObject(
            objects.Service, 'get_by_compute_host')).mock
        self.record.return_value = mock.Mock(disabled=False)

    def _mounts(self):
        """What happens to mounts when it goes, and when it comes."""
        self.manager.reset_mock()
        self.driver._handle_conn_event(False, 'lost')
        self.driver._handle_conn_event(True, None)
        return self.manager.mock_calls

    def test_nova_disables_before_init_host(self):
        self._mounts()
        self.assertEqual(2, self.record.call_count)

    def test_it_is_one_reason_of_several(self):
        self.driver._service = mock.Mock()
        self._mounts()
        self.assertEqual([mock.call.libvirt(False), mock.call.libvirt(True)],
                         self.driver._service.mock_calls)
        self.record.assert_not_called()

    def test_mounts_are_treated_as_in_novas_own_driver(self):
        stock = self._mounts()
        self.assertEqual([mock.call.host_down(),
                          mock.call.host_up(self.driver._host)], stock)
        self.driver._service = mock.Mock()
        self.assertEqual(stock, self._mounts())

    def test_events(self):
        self.driver._recorder = mock.Mock()
        line = messages.Line(
            messages.NORMAL, 'ComputeServiceEnabled', 'Enabled.')
        self.driver._tell_of_service(line, None)
        self.driver._tell_of_service(line, kube_node.Node(NODE, 'uid-1'))
        self.assertEqual(
            [mock.call.record(budget.Reference('Node', NODE, 'uid-1'),
                              messages.NORMAL, 'ComputeServiceEnabled',
                              'Enabled.')],
            self.driver._recorder.mock_calls)
        self.assertEqual(2, self.log.output.count('Enabled.'))


class NovaTest(base.TestCase):
    """What of Nova, beyond its interface for drivers, is relied on.

    A failure here says what a new Nova changed.
    """

    def test_signatures_of_what_is_overridden(self):
        overridden = {
            name: method
            for name, method in vars(driver.K8sLibvirtDriver).items()
            if inspect.isfunction(method) and
            hasattr(libvirt_driver.LibvirtDriver, name)}
        self.assertEqual(
            {'__init__', 'init_host', 'cleanup_host', 'get_available_nodes',
             'get_nodenames_by_uuid', 'get_available_resource',
             'update_provider_tree', '_set_host_enabled', 'set_host_enabled',
             'check_can_live_migrate_destination',
             'rollback_live_migration_at_destination', '_hard_reboot',
             'resume', 'attach_volume', 'detach_volume',
             '_get_host_numa_topology', '_live_migration_operation'},
            set(overridden))
        for name, method in overridden.items():
            stock = self._parameters(
                getattr(libvirt_driver.LibvirtDriver, name))
            own = self._parameters(method)
            if own[-1][1] == inspect.Parameter.VAR_KEYWORD:
                # What it passes on has changed from release to release.
                own, stock = own[:-2], stock[:len(own) - 2]
            self.assertEqual(stock, own, name)

    def test_ways_to_start_a_guest(self):
        stock = libvirt_driver.LibvirtDriver
        for method in (stock.power_on, stock.reboot,
                       stock.resume_state_on_host_boot):
            self.assertIn('_hard_reboot', method.__code__.co_names)
        self.assertIn('uuid', dir(guest.Guest))
        inspect.signature(host.Host.list_guests).bind(None)

    def _parameters(self, method):
        return [(each.name, each.kind, each.default)
                for each in inspect.signature(method).parameters.values()]

    def test_names_of_our_own_are_not_novas(self):
        # Attributes that Nova's driver sets are not in its class.
        nova = set(dir(libvirt_driver.LibvirtDriver)) | set(
            libvirt_driver.LibvirtDriver.__init__.__code__.co_names)
        own = set(vars(driver.K8sLibvirtDriver)) | set(
            vars(parts.Parts)) | set(
            driver.K8sLibvirtDriver.__init__.__code__.co_names)
        self.assertEqual({
            '_set_host_enabled', '_hard_reboot', '_get_host_numa_topology',
            '_live_migration_operation'}, {
            name for name in own & nova
            if name.startswith('_') and not name.startswith('__')})

    def test_what_novas_own_does_when_libvirt_comes_and_goes(self):
        stock = libvirt_driver.LibvirtDriver._set_host_enabled
        self.assertEqual(
            {'objects', 'Service', 'get_by_compute_host', 'CONF', 'host',
             'disabled', 'disabled_reason', 'startswith', 'DISABLE_PREFIX',
             'DISABLE_REASON_UNDEFINED', 'save',
             '_update_compute_provider_status', 'mount', 'get_manager',
             'host_up', '_host', 'host_down'},
            set(stock.__code__.co_names) -
            {'LOG', 'debug', 'warning', 'exception', 'ComputeHostNotFound',
             'Exception', 'nova_context', 'get_admin_context'})
        self.assertEqual(libvirt_driver.DISABLE_PREFIX, reasons.PREFIX)

    def test_way_to_placement(self):
        inspect.signature(
            manager.ComputeVirtAPI.update_compute_provider_status).bind(
                None, 'context', 'uuid', enabled=True)

    def test_public_names_are_those_of_nova(self):
        self.assertEqual([], [
            name for name in vars(driver.K8sLibvirtDriver)
            if not name.startswith('_') and
            not hasattr(virt_driver.ComputeDriver, name)])

    def test_way_to_the_resource_tracker(self):
        compute = mock.Mock()
        self.assertIs(compute, manager.ComputeVirtAPI(compute)._compute)
        self.assertIn('rt',
                      manager.ComputeManager.__init__.__code__.co_names)

    def test_resource_tracker(self):
        tracker = resource_tracker.ResourceTracker
        inspect.signature(tracker.disabled).bind(None, 'node')
        inspect.signature(tracker.update_available_resource).bind(
            None, 'context', 'node')
        self.assertIn('reportclient', tracker.__init__.__code__.co_names)
        for method, arguments in (
                (tracker._get_usage_dict, ('instance', 'instance')),
                (tracker._update_usage, ('usage', 'node')),
                (tracker._update_usage_from_instances,
                 ('context', [], 'node')),
                (tracker._ensure_compute_id_for_instances,
                 ('context', [], 'node')),
                (tracker._update_usage_from_migrations,
                 ('context', [], 'node')),
                (tracker.build_failed, ('node',))):
            inspect.signature(method).bind(None, *arguments)
        # What claims.follow() builds on: all that is counted passes here.
        for method in (tracker._update_usage_from_instance,
                       tracker._update_usage_from_migration,
                       tracker._drop_move_claim):
            for name in ('_get_usage_dict', '_update_usage'):
                self.assertIn(name, method.__code__.co_names)
        self.assertEqual('compute_resources',
                         resource_tracker.COMPUTE_RESOURCE_SEMAPHORE)
        self.assertIn('compute_nodes', tracker.__init__.__code__.co_names)

    def test_client_of_placement(self):
        client = report.SchedulerReportClient
        inspect.signature(client.get).bind(None, 'url', version='1.26')
        inspect.signature(client.put).bind(None, 'url', {}, version='1.26')
        self.assertIn('_provider_tree', client.__init__.__code__.co_names)
        self.assertIs(provider_tree, report.provider_tree)

    def test_claims(self):
        # The constructor asks, with the tracker and the instance in place,
        # and the claim of a move has its flavor and image by then.
        for claim, names in (
                (claims.Claim, ('tracker', 'instance', '_pci_requests',
                                '_claim_test')),
                (claims.MoveClaim, ('flavor', 'image_meta'))):
            for name in names:
                self.assertIn(name, claim.__init__.__code__.co_names)
        self.assertIn('migration',
                      claims.NopClaim.__init__.__code__.co_names)
        self.assertTrue(issubclass(claims.MoveClaim, claims.Claim))
        self.assertIs(claims.Claim._claim_test, claims.MoveClaim._claim_test)
        inspect.signature(claims.Claim._claim_test).bind(None, 'node')
        # Every claim is made under the lock of the tracker.
        for name in ('instance_claim', 'resize_claim', 'rebuild_claim',
                     'live_migration_claim'):
            self.assertTrue(hasattr(
                getattr(resource_tracker.ResourceTracker, name),
                '__wrapped__'), name)
        # What makes Nova try another host.
        self.assertIn('ComputeResourcesUnavailable', (
            manager.ComputeManager._build_and_run_instance.__wrapped__
            if hasattr(manager.ComputeManager._build_and_run_instance,
                       '__wrapped__')
            else manager.ComputeManager._build_and_run_instance
        ).__code__.co_names)
        self.assertIn(
            'MigrationPreCheckError',
            live_migrate.LiveMigrationTask._find_destination.__code__.co_names)
        self.assertIn('is_same_host_resize', dir(objects.Migration))

    def test_copy_of_the_provider_tree(self):
        stock = libvirt_driver.LibvirtDriver.update_provider_tree
        self.assertIn('provider_tree', stock.__code__.co_names)
        self.assertIn('deepcopy', stock.__code__.co_names)

    def test_compute_nodes_of_a_host(self):
        inspect.signature(objects.ComputeNodeList.get_all_by_host).bind(
            'context', 'host')
        inspect.signature(objects.ComputeNode.get_by_nodename).bind(
            'context', 'name')
        self.assertTrue(issubclass(exception.ComputeHostNotFound,
                                   exception.NotFound))

    def test_options(self):
        for name in ('reserved_host_cpus', 'reserved_host_memory_mb',
                     'state_path', 'host'):
            self.assertIn(name, CONF)

    def test_our_errors_are_not_novas(self):
        # Nova catches and goes on with some of its own.
        self.assertFalse(issubclass(errors.LimitsError,
                                    exception.NovaException))
