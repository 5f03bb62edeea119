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

"""nova-k8s guests-pod, as it is called."""

import contextlib
import io
import pathlib

import nova.conf
import yaml

from nova_k8s.cmd import main
from nova_k8s import conf
from nova_k8s.limits import pod_spec
from tests.unit import api_server
from tests.unit import base

CONF = nova.conf.CONF
TEMPLATE = (pathlib.Path(__file__).resolve().parents[3] / 'etc' /
            'kubernetes' / 'base' / 'guests-pod.yaml')

NODE = {
    'metadata': {'name': 'kube-1', 'uid': 'node-uid',
                 'annotations': {'nova-k8s/guests-memory': '50%'}},
    'status': {'allocatable': {'cpu': '16', 'memory': '64Gi'}}}


class GuestsPodTest(base.TestCase):

    def setUp(self):
        super().setUp()
        conf.register_opts(CONF)
        self.addCleanup(CONF.reset)
        self.server = self.useFixture(api_server.ApiServer())
        self.server.will_answer({'metadata': {'resourceVersion': '1'},
                                 'items': [NODE]})
        folder = self.folder()
        kubeconfig, self.config = f'{folder}/kubeconfig', f'{folder}/n.conf'
        with open(kubeconfig, 'w', encoding='utf-8') as f:
            f.write('{"clusters": [{"name": "c", "cluster": {"server": "%s"}}'
                    '], "contexts": [{"name": "c", "context": {"cluster": '
                    '"c", "user": ""}}], "current-context": "c"}'
                    % self.server.url)
        with open(self.config, 'w', encoding='utf-8') as f:
            f.write(f'[kubernetes]\nkubeconfig = {kubeconfig}\n'
                    f'namespace = openstack\n')

    def run_command(self, *args):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main.main(['guests-pod', '--config-file', self.config,
                                *args])
        return status, out.getvalue(), err.getvalue()

    def test_manifest(self):
        status, out, err = self.run_command(
            '--template', str(TEMPLATE), '--node', 'kube-1')
        self.assertEqual((0, ''), (status, err))
        pod = yaml.safe_load(out)
        self.assertEqual(('guests-kube-1', 'openstack'), (
            pod['metadata']['name'], pod['metadata']['namespace']))
        budget = pod_spec.parse(pod, '*')
        self.assertEqual((8000, 32 << 30),
                         (budget.cpu_millicores, budget.memory_bytes))
        self.assertEqual([('/api/v1/nodes', {
            'fieldSelector': 'metadata.name=kube-1'})], self.server.requests)

    def refuse(self, *args):
        status, out, err = self.run_command(*args)
        self.assertEqual((1, ''), (status, out))
        self.assertEqual(1, len(err.splitlines()))
        return err

    def test_what_is_missing(self):
        self.assertIn('--template', self.refuse('--node', 'kube-1'))
        self.assertIn('--node', self.refuse('--template', str(TEMPLATE)))
        self.assertIn('/none: No such file', ' '.join(self.refuse(
            '--template', '/none', '--node', 'kube-1').split()))

    def test_no_such_node(self):
        self.server.will_answer({'metadata': {'resourceVersion': '1'},
                                 'items': []})
        self.assertIn('Node kube-1: not found', self.refuse(
            '--template', str(TEMPLATE), '--node', 'kube-1'))
