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

"""The Containerfile says what the manifests count on."""

import pathlib
import re

import testtools
import yaml

TOP = pathlib.Path(__file__).resolve().parents[2]
BASE = TOP / 'etc' / 'kubernetes' / 'base'


class ContainerfileTest(testtools.TestCase):

    def setUp(self):
        super().setUp()
        self.text = (TOP / 'Containerfile').read_text()
        lines = re.sub(r'(?m)^\s*#.*\n', '', self.text)
        self.steps = [line.split(None, 1) for line
                      in lines.replace('\\\n', ' ').splitlines() if line]
        self.stages = {}
        for word, rest in self.steps:
            if word == 'FROM':
                stage = self.stages.setdefault(rest.split()[-1], [])
            elif self.stages:
                stage.append((word, rest))

    def test_it_installs_as_the_tests_do(self):
        # See tests/functional/test_install.py.
        runs = [rest for word, rest in self.stages['build'] if word == 'RUN']
        self.assertEqual(
            'PIP_NO_CACHE_DIR=1 /src/tools/install.sh /opt/nova-k8s',
            runs[-1])
        self.assertNotIn('pip install', self.text)
        self.assertTrue((TOP / 'tools' / 'install.sh').exists())

    def test_nova_is_pinned(self):
        self.assertThat(
            (TOP / 'tools' / 'install.sh').read_text(),
            testtools.matchers.MatchesRegex(
                r'(?s).*NOVA_VERSION:-\d+\.\d+\.\d+\}'))

    def test_nova_compute_is_not_root(self):
        self.assertEqual([('USER', '42424:42424')], [
            step for step in self.stages['nova-compute']
            if step[0] == 'USER'])
        # A build without --target makes the last one.
        self.assertEqual('nova-compute', list(self.stages)[-1])

    def test_manifests_know_user_and_folder(self):
        spec = yaml.safe_load((BASE / 'nova-compute.yaml').read_text())[
            'spec']['template']['spec']
        context = spec['containers'][0]['securityContext']
        self.assertEqual((42424, 42424),
                         (context['runAsUser'], context['runAsGroup']))
        self.assertIn('42424', spec['initContainers'][0]['command'])
        helper = 'sudo /opt/nova-k8s/bin/privsep-helper '
        self.assertEqual(
            4, (BASE / 'nova.conf').read_text().count(helper))
        self.assertIn('/opt/nova-k8s/bin/privsep-helper *', self.text)

    def test_tags_are_those_of_the_manifests(self):
        images = set(re.findall(r'--tag (\S+)', self.text))
        used = {
            image for path in BASE.glob('*.yaml')
            for image in re.findall(r'^[ -]*image: (\S+)', path.read_text(),
                                    re.MULTILINE)}
        self.assertEqual(used, images | {'kubernetes-entrypoint:v1.0.0'})

    def test_no_registry_is_named(self):
        bases = [rest for word, rest in self.steps if word == 'ARG']
        self.assertEqual(['BASE=debian:bookworm-slim'], bases)
