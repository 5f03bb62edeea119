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

"""What becomes of a wish, by what the API server answers."""

import json
from unittest import mock

from kubernetes import client
import urllib3

from nova_k8s import errors
from nova_k8s.kube import resize
from tests.unit import base

POD = {'metadata': {'namespace': 'a', 'name': 'b', 'uid': 'u',
                    'resourceVersion': '7'}}


class ResizeTest(base.TestCase):

    answer = b'{"metadata": {"generation": 5}}'

    def wish(self, status=200, message='', failure=None):
        api = mock.Mock()
        api.configuration.host = 'https://server'
        if status != 200:
            failure = client.ApiException(status=status, reason='R')
            failure.body = json.dumps({'message': message})
        with mock.patch.object(resize.kube_client, 'call', side_effect=failure,
                               return_value=mock.Mock(data=self.answer)
                               ) as call:
            self.found = resize.wish(lambda: api, POD, 'c',
                                     {'memory': '4Mi'}, 5)
        return call

    def test_what_is_asked(self):
        call = self.wish()
        (_api, verb, path, body, timeout), options = call.call_args
        self.assertEqual(
            ('PATCH', '/api/v1/namespaces/a/pods/b/resize', 5),
            (verb, path, timeout))
        self.assertIn('strategic-merge', options['content_type'])
        self.assertEqual(
            {'metadata': {'uid': 'u', 'resourceVersion': '7'},
             'spec': {'containers': [{'name': 'c', 'resources': {
                 'limits': {'memory': '4Mi'},
                 'requests': {'memory': '4Mi'}}}]}}, body)

        self.assertEqual(5, self.found)

    def test_an_answer_that_says_nothing(self):
        for self.answer in (b'', b'{', b'[]', b'{"metadata": 3}'):
            self.assertRaises(errors.Unreadable, self.wish)

    def test_another_pod_or_version(self):
        for status in (404, 409):
            self.assertRaises(resize.Changed, self.wish, status)

    def test_who_refuses(self):
        # The words of Kubernetes 1.37.
        for message, who in (
                ('pods "b" is forbidden: exceeded quota: small, requested: '
                 'limits.memory=2Gi', 'Quota'),
                ('pods "b" is forbidden: maximum memory usage per Container '
                 'is 1Gi, but limit is 2Gi', 'LimitRange'),
                ('ValidatingAdmissionPolicy \'x\' with binding \'x\' denied '
                 'request: no', 'Policy'),
                ('User "u" cannot patch resource "pods/resize"', 'Rights'),
                ('node didn\'t have enough allocatable resources: memory',
                 'NodeCapacity'),
                ('Pod QOS Class may not change', 'Invalid')):
            exc = self.assertRaises(resize.Refusal, self.wish, 403, message)
            self.assertEqual(who, exc.reason)
            self.assertIn(message, exc.text)
            self.assertIn('Pod a/b: API server https://server: 403', exc.text)

    def test_no_answer(self):
        for status in (401, 429, 500, 503):
            self.assertRaises(errors.Unreadable, self.wish, status)
        exc = self.assertRaises(
            errors.Unreadable, self.wish,
            failure=urllib3.exceptions.ReadTimeoutError(None, '', 'slow'))
        self.assertTrue(base.one_line(exc))
