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

"""Limits from a manifest, as people and machines write it."""

import os

import testscenarios
import yaml

from nova_k8s import errors
from nova_k8s.limits.sources import manifest
from tests.unit import base

load_tests = testscenarios.load_tests_apply_scenarios


def spec(cpu='4', memory='8Gi', container='libvirt'):
    return {'containers': [{'name': container, 'resources': {
        'limits': {'cpu': cpu, 'memory': memory}}}]}


def pod(name='compute', **fields):
    return {'apiVersion': 'v1', 'kind': 'Pod',
            'metadata': {'namespace': 'openstack', 'name': name},
            'spec': spec(**fields)}


def workload(kind='Deployment', name='compute', **fields):
    return {'apiVersion': 'apps/v1', 'kind': kind,
            'metadata': {'namespace': 'openstack', 'name': name},
            'spec': {'selector': {}, 'template': {
                'metadata': {'labels': {}}, 'spec': spec(**fields)}}}


SERVICE = {'apiVersion': 'v1', 'kind': 'Service',
           'metadata': {'name': 'compute'}, 'spec': {'ports': []}}


class ManifestTestBase(base.TestCase):

    def setUp(self):
        super().setUp()
        self.path = os.path.join(self.folder(), 'pod.yaml')

    def write(self, *documents):
        with open(self.path, 'w', encoding='utf-8') as f:
            yaml.safe_dump_all(documents, f)

    def write_text(self, text):
        with open(self.path, 'wb') as f:
            f.write(text if isinstance(text, bytes) else text.encode())

    def read(self, container=None, name=None):
        return manifest.Source(self.path, container, name).read()

    def refused(self, expected, *names, **options):
        exc = self.assertRaises(expected, self.read, **options)
        for name in [self.path, *names]:
            self.assertIn(name, str(exc))
        self.assertTrue(base.one_line(exc), str(exc))
        return exc


class ManifestTest(ManifestTestBase):

    def test_pod(self):
        self.write(pod())
        found = self.read()
        self.assertEqual(4000, found.cpu_millicores)
        self.assertEqual(8 * 2 ** 30, found.memory_bytes)
        self.assertEqual(
            f'Pod openstack/compute, container libvirt ({self.path})',
            found.source)

    def test_workloads(self):
        for kind in ('Deployment', 'StatefulSet', 'DaemonSet', 'ReplicaSet'):
            self.write(workload(kind))
            found = self.read()
            self.assertEqual(4000, found.cpu_millicores)
            self.assertTrue(
                found.source.startswith(f'{kind} openstack/compute'))

    def test_status_of_a_workload_is_not_that_of_a_pod(self):
        self.write(dict(workload(), status={'conditions': 'rubbish'}))
        self.assertEqual(4000, self.read().cpu_millicores)

    def test_status_of_a_pod(self):
        # As kubectl get -o yaml prints it.
        self.write(dict(pod(), status={'containerStatuses': [
            {'name': 'libvirt', 'resources': {'limits': {'cpu': '2'}}}]}))
        self.assertEqual(2000, self.read().cpu_millicores)

    def test_several_documents(self):
        self.write(SERVICE, None, workload(), None, SERVICE)
        self.assertEqual(4000, self.read().cpu_millicores)

    def test_list(self):
        self.write({'apiVersion': 'v1', 'kind': 'List',
                    'items': [SERVICE, pod(), 'rubbish']})
        self.assertEqual(4000, self.read().cpu_millicores)

    def test_custom_tags_of_other_tools_in_other_objects(self):
        self.write_text('kind: Service\nmetadata: {name: a}\n---\n' +
                        yaml.safe_dump(pod()))
        self.assertEqual(4000, self.read().cpu_millicores)

    def test_json(self):
        # Every JSON file is YAML.
        self.write_text(
            '{"kind": "Pod", "metadata": {"name": "a"}, "spec": '
            '{"containers": [{"name": "b", "resources": {"limits": '
            '{"cpu": 2, "memory": "1Gi"}}}]}}')
        self.assertEqual(2000, self.read().cpu_millicores)

    def test_merged_keys_may_be_overridden(self):
        self.write_text(
            'kind: Pod\nspec: {containers: [{name: b, resources: {requests: '
            '&a {cpu: 2, memory: 1Gi}, limits: {<<: *a, cpu: 3}}}]}')
        self.assertEqual(3000, self.read().cpu_millicores)

    def test_numbers_as_kubernetes_takes_them(self):
        for text, expected in (('0x10', 16000), ('010', 8000), ('1_0', 10000),
                               ('0b11', 3000), ('1.5', 1500), ('089', 89000)):
            self.write_text(GOOD.replace("'4'", text))
            self.assertEqual(expected, self.read().cpu_millicores, text)

    def test_windows_wrote_it(self):
        self.write_text('\ufeff' + yaml.safe_dump(pod()).replace(
            '\n', '\r\n'))
        self.assertEqual(4000, self.read().cpu_millicores)

    def test_without_metadata(self):
        self.write({'kind': 'Pod', 'spec': spec()})
        self.assertEqual(4000, self.read().cpu_millicores)

    def test_changed(self):
        source = manifest.Source(self.path)
        self.assertRaises(errors.Unreadable, source.read)
        self.write(pod())
        self.assertEqual(4000, source.read().cpu_millicores)
        self.write(pod(cpu='6'))
        self.assertEqual(6000, source.read().cpu_millicores)
        self.write_text('')
        self.assertRaises(errors.Unreadable, source.read)
        self.write(pod(cpu='2'))
        self.assertEqual(2000, source.read().cpu_millicores)


class SeveralTest(ManifestTestBase):

    def setUp(self):
        super().setUp()
        self.write(pod('a', cpu='1', container='nova'), SERVICE,
                   workload(name='b', cpu='2'),
                   workload('DaemonSet', name='c', cpu='3'))

    def test_refused(self):
        self.refused(
            errors.Refused, 'Pod openstack/a', 'Deployment openstack/b',
            'DaemonSet openstack/c', '[kubernetes] pod_name', 'container')
        self.refused(errors.Refused, 'pod_name', container='*')

    def test_by_name(self):
        self.assertEqual(2000, self.read(name='b').cpu_millicores)
        self.assertEqual(3000, self.read('libvirt', 'c').cpu_millicores)

    def test_by_container(self):
        self.assertEqual(1000, self.read('nova').cpu_millicores)

    def test_by_container_of_two(self):
        self.refused(errors.Refused, 'Deployment openstack/b',
                     'DaemonSet openstack/c', container='libvirt')

    def test_by_container_beside_rubbish(self):
        self.write(pod('a'), {'kind': 'Pod', 'spec': {'containers': 5}},
                   {'kind': 'Pod', 'spec': ['rubbish']})
        self.assertEqual(4000, self.read('libvirt').cpu_millicores)

    def test_container_of_none(self):
        self.refused(errors.Refused, '[kubernetes] pod_name', container='x')

    def test_unknown_name(self):
        self.refused(errors.Refused, 'no object is called x',
                     'Pod openstack/a', '[kubernetes] pod_name', name='x')

    def test_no_name_is_no_match(self):
        nameless = pod(cpu='9')
        del nameless['metadata']['name']
        self.write(nameless, workload(name='b', cpu='2'))
        self.assertEqual(2000, self.read(name='b').cpu_millicores)

    def test_sidecar(self):
        third = pod('d')
        third['spec']['initContainers'] = [dict(
            spec(cpu='5', container='side')['containers'][0],
            restartPolicy='Always')]
        self.write(pod('a'), third)
        self.assertEqual(5000, self.read('side').cpu_millicores)

    def test_many(self):
        self.write(*(pod(f'pod-{i}') for i in range(1000)))
        self.refused(errors.Refused, 'pod-9 ', 'and 990 more')
        many = pod()
        many['spec']['containers'] = [{'name': f'c-{i}'} for i in range(1000)]
        self.write(many)
        self.refused(errors.Refused, 'c-9 and 990 more')

    def test_same_name_twice(self):
        self.write(pod('a'), workload(name='a'))
        self.refused(errors.Refused, 'Pod openstack/a',
                     'Deployment openstack/a', name='a')


GOOD = yaml.safe_dump(pod())
LONG = '0x' + 'f' * 4000
# Ten of ten of ten, and so on: a small file, and a large text.
ALIASES = 'a: &a [x]\n' + '\n'.join(
    f'{new}: &{new} [{", ".join(["*" + old] * 10)}]'
    for old, new in zip('abcdefgh', 'bcdefghi'))
BROKEN = {
    'empty': '',
    'white space': ' \n\n',
    'comments': '# nothing yet\n',
    'documents of nothing': '---\n---\n',
    'a string': 'hello',
    'a list': '- a\n- b\n',
    'a number': '1',
    'no YAML': 'a: b: c',
    'tabs': 'kind:\n\tPod',
    'an open bracket': '{kind: Pod, spec: {',
    'half of a line': GOOD[:GOOD.index('limits') + 3],
    'half of a name': GOOD[:GOOD.index('containers') + 4],
    'binary': bytes(range(256)),
    'zeroes': b'\0' * 4096,
    'not UTF-8': b'kind: \xff\xfe',
    'an ELF file': b'\x7fELF\x02\x01\x01' + b'\0' * 9,
    'an archive': b'\x1f\x8b\x08\x00\x00\x00\x00\x00',
    'a tag of Python': '!!python/object/apply:os.getcwd []',
    'a tag of other tools': 'kind: !vault Pod',
    'a date that is none': 'a: 2001-99-99',
    'a tag that does not fit: timestamp': '!!timestamp x',
    'a tag that does not fit: int': '!!int ""',
    'a tag that does not fit: bool': '!!bool x',
    'a tag that does not fit: float': '!!float x',
    'a tag that does not fit: set': '!!set [a]',
    'deep': '[' * 5000,
    'deep on one line each': '\n'.join(
        ' ' * i + 'a:' for i in range(3000)),
    'a key that is an object': '{a: b}: c',
    'an alias of nothing': '*a',
    'itself': '&a [*a]',
    'itself as a pod': '&a {kind: Pod, spec: *a}',
    'other kinds only': yaml.safe_dump(SERVICE),
    'an empty list': 'kind: List\nitems: []',
    'a list without items': 'kind: List',
    'a list of a number': 'kind: List\nitems: 5',
    'a list of a string': 'kind: List\nitems: Pod',
    'a list of an object': 'kind: List\nitems: {kind: Pod}',
    'a kind that is a list': 'kind: [Pod]',
    'no kind': yaml.safe_dump(spec()),
    'a pod without a spec': 'kind: Pod',
    'a pod with a string for it': 'kind: Pod\nspec: rubbish',
    'a pod with a list for metadata': 'kind: Pod\nmetadata: [a]',
    'a workload without a spec': 'kind: Deployment',
    'a workload without a template': 'kind: Deployment\nspec: {}',
    'a workload with a string for it':
        'kind: Deployment\nspec: {template: rubbish}',
    'a workload with a string for its spec':
        'kind: Deployment\nspec: {template: {spec: rubbish}}',
    'limits that are rubbish': GOOD.replace('8Gi', '8GB'),
    'a limit that is not a number': GOOD.replace("'4'", '.nan'),
    'a limit without end': GOOD.replace("'4'", '.inf'),
    'a limit that is a date': GOOD.replace("'4'", '2001-01-01'),
    'a limit that is true': GOOD.replace("'4'", 'yes'),
    'a limit that is a time': GOOD.replace("'4'", '1:30'),
    'a limit that is a time with a fraction': GOOD.replace("'4'", '1:30.5'),
    'a key twice': GOOD.replace("cpu: '4'", "'cpu': 5\n{0}cpu: 4".format(
        ' ' * 8)),
    'a key twice and merged': 'a: {<<: {b: 1}, c: 1, c: 2}',
    'a long number': GOOD.replace("'4'", LONG),
    'a longer number': GOOD.replace("'4'", '9' * 5000),
    'a long number for a document': LONG,
    'a long number for a spec': f'{{kind: Pod, spec: {LONG}}}',
    'a long number for a template':
        f'{{kind: Deployment, spec: {{template: [{LONG}]}}}}',
    'a long number for a name':
        f'{{kind: Pod, metadata: {{name: {LONG}, namespace: {LONG}}}}}',
    'a long number for a container':
        f'{{kind: Pod, spec: {{containers: [{{name: {LONG}, '
        f'resources: 1}}]}}}}',
    'a long string': 'x' * 500000,
    'a long string for a name': GOOD.replace('compute', 'x' * 500000).replace(
        '8Gi', 'x'),
    'a long limit': GOOD.replace("'4'", '4' + 'x' * 500000),
    'a limit below a long request': GOOD.replace(
        'limits:', f'requests: {{cpu: 9.{"1" * 99999}}}\n      limits:'),
    'a long resource': GOOD.replace(
        "cpu: '4'", f'? {"x" * 900}\n        : y'),
    'many aliases': ALIASES,
    'many aliases for a spec': f'{ALIASES}\nkind: Pod\nspec: [*i]',
    'many aliases for a limit': f"""{ALIASES}
kind: Pod
spec: {{containers: [{{name: a, resources: {{limits: {{cpu: *i}}}}}}]}}""",
}


class BrokenTest(ManifestTestBase):

    scenarios = [(name, {'text': text}) for name, text in BROKEN.items()]

    def test_unreadable(self):
        # Not refused: what was last known holds until the file is mended.
        self.write_text(self.text)
        exc = self.refused(errors.Unreadable, container='libvirt')
        self.assertLess(len(str(exc)), 600)


class NoFileTest(ManifestTestBase):

    def test_not_there(self):
        self.refused(errors.Unreadable, '[kubernetes] manifest')

    def test_folder(self):
        os.mkdir(self.path)
        self.refused(errors.Unreadable, '[kubernetes] manifest')
