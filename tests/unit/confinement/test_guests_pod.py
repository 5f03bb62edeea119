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

"""The guests' pod, made of a template and a Node."""

import pathlib

import hypothesis
from hypothesis import strategies as st
import yaml

from nova_k8s.confinement import guests_pod
from nova_k8s import errors
from nova_k8s.limits import pod_spec
from tests.unit import base

TEMPLATE = (pathlib.Path(__file__).resolve().parents[3] / 'etc' /
            'kubernetes' / 'base' / 'guests-pod.yaml')

ALLOCATABLE = {'cpu': '15900m', 'memory': '64000003Ki',
               'hugepages-2Mi': '4Gi', 'hugepages-1Gi': '3Gi', 'pods': '110'}


def template(**spec):
    body = yaml.safe_load(TEMPLATE.read_text())
    body['spec'].update(spec)
    return body


def host(**annotations):
    return guests_pod.Host('kube-1', 'node-uid', {
        f'nova-k8s/guests-{name.replace("_", "-")}': value
        for name, value in annotations.items()}, ALLOCATABLE)


def render(body=None, on=None, grace=3600):
    return guests_pod.render(body or template(), on or host(),
                             'guests-kube-1', 'openstack', grace, 'T')


class ParseTest(base.TestCase):

    def refusal(self, text):
        exc = self.assertRaises(errors.Refused, guests_pod.parse_template,
                                text, '/t.yaml')
        self.assertTrue(base.one_line(exc))
        self.assertIn('/t.yaml', str(exc))
        return str(exc)

    def test_shipped(self):
        text = TEMPLATE.read_text()
        self.assertEqual(yaml.safe_load(text),
                         guests_pod.parse_template(text, 'x'))

    def test_no_template(self):
        self.assertIn('no YAML', self.refusal('{'))
        for text in ('', '- 1', 'kind: Deployment\nspec: {}'):
            self.assertIn('kind Pod', self.refusal(text))
        self.assertIn('spec is missing', self.refusal('kind: Pod'))

    def test_what_would_change_whose_limits_count(self):
        for containers in (None, [], [{}, {}], [1]):
            self.assertIn('one container', self.refusal(
                yaml.safe_dump(template(containers=containers))))
        self.assertIn('initContainers', self.refusal(
            yaml.safe_dump(template(initContainers=[{'name': 'x'}]))))
        self.assertIn('spec.resources', self.refusal(yaml.safe_dump(
            template(resources={'limits': {'cpu': '1'}}))))

    def test_the_scheduler_is_asked(self):
        self.assertIn('nodeName', self.refusal(
            yaml.safe_dump(template(nodeName='kube-1'))))


class SizeTest(base.TestCase):

    def size(self, **annotations):
        return guests_pod.size(template(), host(**annotations), 'T')

    def test_what_it_starts_with_where_it_is_elastic(self):
        first = {'cpu': '2000m', 'memory': '4096Mi'}
        found = guests_pod.size(
            template(), host(cpu='rubbish', memory='75%',
                             hugepages_2Mi='1Gi'), 'T', first)
        self.assertEqual(dict(first, **{'hugepages-2Mi': '1Gi'}), found)
        pod = guests_pod.render(template(), host(), 'guests-a', 'n', 60, 'T',
                                first)
        self.assertEqual({'limits': first, 'requests': first},
                         pod['spec']['containers'][0]['resources'])

    def refusal(self, **annotations):
        exc = self.assertRaises(
            errors.LimitsError, self.size, **annotations)
        self.assertTrue(base.one_line(exc))
        return str(exc)

    def test_of_the_template(self):
        self.assertEqual({'cpu': '8', 'memory': '32Gi'}, self.size())

    def test_of_the_node(self):
        self.assertEqual(
            {'cpu': '12500m', 'memory': '40Gi', 'hugepages-2Mi': '1Gi'},
            self.size(cpu='12500m', memory='40Gi', hugepages_2Mi='1Gi'))

    def test_shares_are_rounded_down(self):
        self.assertEqual(
            # 3/4 of 15.9 cores, of 62500 MiB and 3 KiB, and of 3 pages.
            {'cpu': '11925m', 'memory': '46875Mi', 'hugepages-1Gi': '2048Mi'},
            self.size(cpu='75%', memory='75%', hugepages_1Gi='75%'))

    def test_nothing_takes_a_resource_away(self):
        self.assertEqual({'cpu': '8', 'memory': '32Gi'},
                         self.size(hugepages_2Mi='0'))
        self.assertNotIn('hugepages-1Gi', self.size(hugepages_1Gi='10%'))
        self.assertIn('annotation nova-k8s/guests-memory',
                      self.refusal(memory='0'))

    def test_other_annotations_are_others_affair(self):
        on = guests_pod.Host('kube-1', 'u', {
            'nova-k8s/other': 'x', guests_pod.HELD: '7',
            'nova-k8s/guests-drain': 'y'}, ALLOCATABLE)
        self.assertEqual({'cpu': '8', 'memory': '32Gi'},
                         guests_pod.size(template(), on, 'T'))

    def test_refused(self):
        for value in ('abc', '-1', '', '101%', '1.5.5%', '%', 'nan'):
            self.assertIn('annotation nova-k8s/guests-memory',
                          self.refusal(memory=value))
        self.assertIn('page size', self.refusal(hugepages_2Mi='3Mi'))
        self.assertIn('allocatable.hugepages-64Ki',
                      self.refusal(hugepages_64Ki='50%'))

    def test_nothing_is_said_of_it(self):
        body = template()
        del body['spec']['containers'][0]['resources']
        exc = self.assertRaises(errors.Refused, guests_pod.size, body,
                                host(cpu='3'), 'T')
        self.assertIn('no memory', str(exc))

    @hypothesis.given(st.decimals(0, 100, places=3), st.integers(1, 1 << 50))
    def test_a_share_is_never_more_than_that(self, percent, memory):
        on = guests_pod.Host('n', 'u', {
            'nova-k8s/guests-memory': f'{percent}%'},
            {'memory': str(memory)})
        try:
            found = guests_pod.size(template(), on, 'T')['memory']
        except errors.Refused:
            # Below one MiB.
            found = '0Mi'
        share = memory * percent / 100
        self.assertTrue(
            0 <= share - int(found[:-2]) * 1024 * 1024 < 1024 * 1024)


class RenderTest(base.TestCase):

    def test_belongs_to_its_node(self):
        found = render()
        self.assertEqual('guests-kube-1', found['metadata']['name'])
        self.assertEqual('openstack', found['metadata']['namespace'])
        self.assertEqual([{
            'apiVersion': 'v1', 'kind': 'Node', 'name': 'kube-1',
            'uid': 'node-uid', 'controller': True}],
            found['metadata']['ownerReferences'])
        self.assertNotIn('nodeName', found['spec'])
        term, = found['spec']['affinity']['nodeAffinity'][
            'requiredDuringSchedulingIgnoredDuringExecution'][
            'nodeSelectorTerms']
        self.assertEqual([{'key': 'metadata.name', 'operator': 'In',
                           'values': ['kube-1']}], term['matchFields'])

    def test_is_guaranteed(self):
        found = render(on=host(hugepages_2Mi='4Gi'))
        budget = pod_spec.parse(found, '*')
        self.assertEqual((8000, 8000, 32 << 30, 32 << 30), (
            budget.cpu_millicores, budget.cpu_request_millicores,
            budget.memory_bytes, budget.memory_request_bytes))
        self.assertEqual((('2Mi', 4 << 30),), budget.hugepages)

    def test_stays(self):
        found = render(template(tolerations=[{'key': 'x'}]), grace=77)
        self.assertEqual(77, found['spec']['terminationGracePeriodSeconds'])
        stay = {'operator': 'Exists', 'effect': 'NoExecute'}
        self.assertEqual([{'key': 'x'}, stay], found['spec']['tolerations'])
        # Once.
        self.assertEqual([stay], render(template(tolerations=[stay]))[
            'spec']['tolerations'])

    def test_leaves_the_template_alone(self):
        body = template()
        render(body)
        self.assertEqual(template(), body)

    def test_name_too_long(self):
        self.assertRaises(errors.Refused, guests_pod.render, template(),
                          host(), 'guests-' + 'n' * 250, 'x', 60, 'T')


class PhaseTest(base.TestCase):

    def phase(self, phase=None, deleted=None, **status):
        return guests_pod.phase({
            'metadata': {'deletionTimestamp': deleted},
            'status': {'phase': phase, **status}})

    def test_phases(self):
        self.assertEqual('missing', guests_pod.phase(None)[0])
        self.assertEqual('runs', self.phase('Running')[0])
        self.assertEqual('ends', self.phase('Running', 'now')[0])
        self.assertEqual(('ended', 'Terminated'),
                         self.phase('Failed', reason='Terminated'))
        self.assertEqual(('ended', 'Succeeded'), self.phase('Succeeded'))
        self.assertEqual('pending', self.phase('Pending')[0])
        self.assertEqual('pending', self.phase()[0])

    def test_why_it_is_pending(self):
        self.assertEqual(
            ('pending', '0/1 nodes are available'),
            self.phase('Pending', conditions=[
                {'type': 'A', 'status': 'True', 'message': 'x'},
                {'type': 'PodScheduled', 'status': 'False',
                 'message': '0/1 nodes are available'}]))


class NewsTest(base.TestCase):

    def test_a_rise_at_once_and_a_fall_when_it_is_large(self):
        for known, held, expected in (
                (None, None, False), ('5', None, False), (None, 0, True),
                ('abc', 5, True), ('100', 100, False), ('100', 101, True),
                ('100', 95, False), ('100', 89, True), ('100', 0, True),
                ('0', 0, False)):
            self.assertEqual(expected, guests_pod.is_news(known, held),
                             (known, held))
