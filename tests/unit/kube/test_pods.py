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

"""One pod at the API server; more in tests/functional."""

import functools

from nova_k8s import errors
from nova_k8s.kube import client as kube_client
from nova_k8s.kube import pods
from tests.unit import api_server
from tests.unit import base

BODY = {'metadata': {'name': 'guests-a', 'uid': 'u', 'resourceVersion': '1'}}


class PodTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.server = self.useFixture(api_server.ApiServer())
        path = self.folder() + '/kubeconfig'
        with open(path, 'w', encoding='utf-8') as f:
            f.write('{"clusters": [{"name": "c", "cluster": {"server": "%s"}}'
                    '], "contexts": [{"name": "c", "context": {"cluster": '
                    '"c", "user": ""}}], "current-context": "c"}'
                    % self.server.url)
        conf = self.conf(kubeconfig=path)
        self.pod = pods.Pod(functools.partial(kube_client.api_client, conf),
                            'ns', 'guests-a', 1)

    def test_read(self):
        self.server.will_answer(BODY)
        self.assertEqual(BODY, self.pod.read())
        self.assertEqual('/api/v1/namespaces/ns/pods/guests-a',
                         self.server.requests[0][0])
        self.server.will_refuse(404, 'not found')
        self.assertIsNone(self.pod.read())

    def test_create(self):
        self.server.will_answer(BODY, 201)
        self.pod.create(BODY)
        self.assertEqual([BODY], self.server.bodies)
        # Somebody else was faster.
        self.server.will_refuse(409, 'it exists')
        self.pod.create(BODY)

    def test_annotate(self):
        after = {'metadata': dict(BODY['metadata'], resourceVersion='2')}
        self.server.will_answer(after)
        self.assertEqual(after, self.pod.annotate('u', {'a': 'b'}))
        self.assertEqual(
            [{'metadata': {'uid': 'u', 'annotations': {'a': 'b'}}}],
            self.server.bodies)
        for status in (404, 409):
            self.server.will_refuse(status, 'another one')
            self.assertIsNone(self.pod.annotate('u', {'a': 'b'}))

    def test_refused(self):
        for status in (400, 403, 422):
            self.server.will_refuse(status, 'not this one')
            exc = self.assertRaises(errors.Refused, self.pod.create, BODY)
            self.assertTrue(base.one_line(exc))
            self.assertIn('Pod ns/guests-a: API server', str(exc))
            self.assertIn('not this one', str(exc))

    def test_no_answer(self):
        for status in (401, 429, 500, 503):
            self.server.will_refuse(status, 'later')
            self.assertRaises(errors.Unreadable, self.pod.create, BODY)
        self.server.will_answer(b'{')
        self.assertRaises(errors.Unreadable, self.pod.read)
        self.server.will_hang()
        self.assertRaises(errors.Unreadable, self.pod.read)
