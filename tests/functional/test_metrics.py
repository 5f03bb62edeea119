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

"""What operators watch: a real Prometheus, and a real nova-compute."""

import json
import pathlib
import urllib.request

import fixtures
import testtools
import yaml

from tests.functional import base
from tests.functional import cluster
from tests.functional import control_plane
from tests.functional import prometheus

FOLDER = pathlib.Path(__file__).resolve().parents[2] / 'etc' / 'prometheus'

MIB = 1024 * 1024

# The time at which an alert is looked for, a while after it may be.
LATE = '2h'


def rules():
    return yaml.safe_load((FOLDER / 'rules.yaml').read_text())['spec']


def alerts():
    return [rule for group in rules()['groups'] for rule in group['rules']]


def series(name, value, **labels):
    shown = ','.join(f'{key}="{each}"' for key, each in dict(
        labels, instance='node1', job='nova-k8s').items())
    return {'series': f'nova_k8s_{name}{{{shown}}}', 'values': value}


# By alert, what makes it fire, and what does not.
CASES = {
    'NovaK8sLimitsLost': ([series('limits_lost', '1+0x150')],
                          [series('limits_lost', '0+0x150')]),
    'NovaK8sLimitsStale': ([series('limits_stale', '1+0x150')],
                           [series('limits_stale', '0+0x150')]),
    'NovaK8sOverReported': (
        [series('inventory_memory_bytes', '11+0x150'),
         series('limit_memory_bytes', '10+0x150')],
        [series('inventory_memory_bytes', '10+0x150'),
         series('limit_memory_bytes', '10+0x150')]),
    'NovaK8sOverheadUnderestimated': (
        [series('guest_overhead_bytes', '13+0x150', source='measured'),
         series('guest_overhead_bytes', '10+0x150', source='estimated')],
        [series('guest_overhead_bytes', '11+0x150', source='measured'),
         series('guest_overhead_bytes', '10+0x150', source='estimated')]),
    'NovaK8sGuestsRefused': (
        [series('guest_refusals_total', '0+1x150', operation='claim')],
        [series('guest_refusals_total', '7+0x150', operation='claim')]),
    'NovaK8sGuestsEscaped': ([series('guests_escaped', '1+0x150')],
                             [series('guests_escaped', '0+0x150')]),
    'NovaK8sDrainStuck': ([series('drain_guests_left', '2+0x150')],
                          [series('drain_guests_left', '150-1x150')]),
    'NovaK8sResizeDeferred': (
        [series('elastic_pending', '1+0x150', reason='Deferred')],
        [series('elastic_pending', '0+0x150', reason='Deferred')]),
    'NovaK8sElasticRests': ([series('elastic_resting', '1+0x150')],
                            [series('elastic_resting', '0+0x150')]),
    'NovaK8sAtMaximum': (
        [series('elastic_demand_memory_bytes', '96+0x150', kind='used'),
         series('elastic_bound_memory_bytes', '100+0x150', kind='max'),
         series('elastic_bound_memory_bytes', '10+0x150', kind='min')],
        [series('elastic_demand_memory_bytes', '90+0x150', kind='used'),
         series('elastic_bound_memory_bytes', '100+0x150', kind='max')]),
    'NovaK8sResizesOften': (
        [series('elastic_resizes_total', '0+1x150', direction='grow')],
        [series('elastic_resizes_total', '30+0x150', direction='grow')]),
}


class RulesTest(testtools.TestCase):

    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.rules = self.folder / 'rules.yaml'
        self.rules.write_text(yaml.safe_dump(rules()))

    def test_promtool_takes_them(self):
        done = prometheus.promtool('check', 'rules', self.rules)
        self.assertEqual(0, done.returncode, done.stdout)
        self.assertIn(f'{len(alerts())} rules found', done.stdout)

    def test_each_says_what_to_do(self):
        for each in alerts():
            self.assertEqual({'summary', 'runbook'},
                             set(each['annotations']))
            self.assertIn(each['labels']['severity'],
                          ('warning', 'critical'))

    def test_they_fire(self):
        self.assertEqual({each['alert'] for each in alerts()}, set(CASES))
        tests = []
        for name, (yes, no) in CASES.items():
            for given, fires in ((yes, True), (no, False)):
                labels = {'severity': next(
                    each['labels']['severity'] for each in alerts()
                    if each['alert'] == name), 'instance': 'node1',
                    'job': 'nova-k8s'}
                # Those of the sample, where nothing sums it up or joins it.
                if name in ('NovaK8sResizeDeferred',):
                    labels['reason'] = 'Deferred'
                tests.append({
                    'interval': '1m', 'input_series': given,
                    'promql_expr_test': [], 'alert_rule_test': [{
                        'eval_time': LATE, 'alertname': name,
                        'exp_alerts': [{'exp_labels': labels}] if fires
                        else []}]})
        # The texts are not compared: promtool would want them repeated.
        plain = rules()
        for group in plain['groups']:
            for rule in group['rules']:
                rule['annotations'] = {}
        self.rules.write_text(yaml.safe_dump(plain))
        test = self.folder / 'test.yaml'
        test.write_text(yaml.safe_dump({
            'rule_files': [str(self.rules)], 'evaluation_interval': '1m',
            'tests': tests}))
        done = prometheus.promtool('test', 'rules', test)
        self.assertEqual(0, done.returncode, done.stdout)


class MetricsTest(base.ServersTestBase):

    def setUp(self):
        # First: Nova's tests have a home directory of their own.
        control_plane.shared()
        prometheus.binaries()
        super().setUp()
        self.compute = self.useFixture(cluster.ComputePod(
            cpu='4', memory='4Gi', labels={'nova-k8s/elastic': 'on'}))
        self.compute.apply_elastic()
        holder = control_plane.reserve_port()
        self.port = holder.getsockname()[1]
        holder.close()
        self.flags(
            limits_from='api', hypervisor_hostname='compute1',
            elastic=True, elastic_max=(16384, 8000),
            elastic_headroom=(2048, 2000), elastic_spare=(2048, 1000),
            elastic_step=(1024, 1000), reserved_memory_mb='256',
            metrics_port=self.port, group='kubernetes',
            **self.compute.options())
        self.flags(state_path=self.useFixture(fixtures.TempDir()).path)

    def text(self):
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f'http://127.0.0.1:{self.port}/metrics',
                         timeout=10) as answer:
            return answer.read().decode()

    def test_prometheus_sees_the_boundary_move(self):
        server = self.useFixture(prometheus.Prometheus(
            f'127.0.0.1:{self.port}'))
        self.start_compute()
        self.wait_for_inventory(VCPU=(4, 0))
        self.assertEqual(1, server.wait_for('up == 1')[0][1])
        for _ in range(3):
            self.boot(vcpus=1, memory_mb=1024)
        self.assertTrue(server.wait_for(
            'nova_k8s_elastic_resizes_total{direction="grow"} == 1', 20),
            self.text())
        self.compute.pod = self.compute.plane.set_pod_status(
            self.compute.pod)
        pod = {labels['kind']: number for labels, number in server.wait_for(
            f'nova_k8s_elastic_pod_memory_bytes > {4096 * MIB}')}
        self.assertIn('wished', pod)
        self.assertTrue(server.wait_for(
            'nova_k8s_elastic_resize_duration_seconds_count == 1'))
        found = {labels['kind']: number for labels, number in server.query(
            'nova_k8s_elastic_pod_memory_bytes')}
        self.assertEqual({pod['wished']}, set(found.values()))
        self.assertTrue(server.wait_for(
            f'nova_k8s_inventory_memory_bytes == {int(pod["wished"])}'))
        self.check_dashboard(server)
        for each in alerts():
            server.query(each['expr'])
        self.check_text()

    def check_dashboard(self, server):
        dashboard = json.loads((FOLDER / 'dashboard.json').read_text())
        number = 0
        for panel in dashboard['panels']:
            for target in panel['targets']:
                number += 1
                expression = target['expr'].replace('$instance', '.*')
                if 'guests_escaped' in expression:
                    # There is no guests' pod here; it is a query all the same.
                    self.assertEqual([], server.query(expression))
                    continue
                self.assertTrue(server.wait_for(expression), expression)
        self.assertGreater(number, 15)

    def check_text(self):
        text = self.text()
        done = prometheus.promtool('check', 'metrics', stdin=text)
        self.assertEqual('', done.stdout)
        self.assertEqual(0, done.returncode)
        with open(self.compute.kubeconfig()) as f:
            token = yaml.safe_load(f)['users'][0]['user']['token']
        self.assertNotIn(token[:20], text)

    def test_a_port_that_is_taken(self):
        with control_plane.reserve_port() as holder:
            holder.listen()
            self.flags(metrics_port=holder.getsockname()[1],
                       group='kubernetes')
            self.start_compute()
            self.assertIn('There are no metrics at 127.0.0.1:',
                          self.stdlog.logger.output)
        self.wait_for_inventory(VCPU=(4, 0))
