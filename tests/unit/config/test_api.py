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


import os
import socket
import threading

import yaml

from nova_k8s.config import api
from nova_k8s.config import documents
from nova_k8s.config import errors
from tests.unit import base

# A server that ends in the middle of what it says.
HALF = (b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n'
        b'Content-Length: 999\r\n\r\n{"kind": "ConfigMap"')


class ReaderTest(base.TestCase):

    def kubeconfig(self, server):
        path = os.path.join(self.folder(), 'kubeconfig')
        with open(path, 'w') as out:
            yaml.safe_dump({
                'apiVersion': 'v1', 'kind': 'Config', 'current-context': 'c',
                'contexts': [{'name': 'c', 'context': {
                    'cluster': 'c', 'user': 'u'}}],
                'clusters': [{'name': 'c', 'cluster': {'server': server}}],
                'users': [{'name': 'u', 'user': {'token': 't'}}]}, out)
        return path

    def test_half_an_answer_is_none(self):
        server = socket.create_server(('127.0.0.1', 0))
        self.addCleanup(server.close)

        def serve():
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(HALF)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        url = 'http://127.0.0.1:%d' % server.getsockname()[1]
        with api.Reader(self.kubeconfig(url), 10) as reader:
            # As if there were none: what was last read may still be true.
            problem = self.assertRaises(
                errors.Unreachable, reader.get, documents.CONFIG_MAP, 'n', 'a')
        thread.join()
        self.assertTrue(str(problem).startswith(
            f'ConfigMap n/a: API server {url}: '), str(problem))
