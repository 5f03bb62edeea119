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

"""As much of a Kubernetes API server as the sources talk to."""

import http.server
import json
import socket
import threading
from urllib import parse

import fixtures


class ApiServer(fixtures.Fixture):
    """Answers each request with what it was told to answer.

    :ivar url: to reach it with
    :ivar requests: of each request the path and the query
    :ivar bodies: what was sent with those that send something
    :ivar watched: how many watches were opened
    :ivar connections: how many connections were made
    """

    def _setUp(self):
        self.requests = []
        self.bodies = []
        self.watched = 0
        self.connections = 0
        self._open = set()
        self._watch = None
        self.release = threading.Event()
        self.addCleanup(self.release.set)
        self._status, self._body = 200, b'{}'
        fixture = self

        class Handler(http.server.BaseHTTPRequestHandler):

            # As the API server: a watch ends when the client wants it to.
            protocol_version = 'HTTP/1.1'

            def setup(self):
                super().setup()
                fixture.connections += 1
                fixture._open.add(self.connection)

            def finish(self):
                fixture._open.discard(self.connection)
                super().finish()

            def do_GET(self):
                fixture._answer(self)

            def do_POST(self):
                length = int(self.headers['Content-Length'])
                fixture.bodies.append(json.loads(self.rfile.read(length)))
                fixture._answer(self)

            do_PATCH = do_POST

            def log_message(self, *args):
                pass

        self._server = http.server.ThreadingHTTPServer(
            ('127.0.0.1', 0), Handler)
        self._server.daemon_threads = True
        # Clients that go are no news.
        self._server.handle_error = lambda request, client: None
        self.url = f'http://127.0.0.1:{self._server.server_port}'
        # How often it looks whether it is to end.
        thread = threading.Thread(
            target=self._server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        self.addCleanup(self._server.server_close)
        self.addCleanup(self._server.shutdown)

    def will_answer(self, body, status=200):
        self._status = status
        self._body = (body if isinstance(body, bytes)
                      else json.dumps(body).encode())

    def will_list(self, *pods):
        # The items of a list have no kind of their own.
        self.will_answer({
            'kind': 'PodList', 'apiVersion': 'v1',
            'metadata': {'resourceVersion': '1'},
            'items': [{key: value for key, value in pod.items()
                       if key != 'kind'} for pod in pods]})

    def will_refuse(self, status, message):
        self.will_answer({'kind': 'Status', 'apiVersion': 'v1',
                          'status': 'Failure', 'message': message,
                          'code': status}, status)

    def will_hang(self):
        self._status = None

    def close_all(self):
        """Break all connections, as a network does."""
        for connection in list(self._open):
            connection.shutdown(socket.SHUT_RDWR)

    def will_watch(self, *events, status=200, lasts=30):
        """Answer watches with events, then be silent for some seconds."""
        self._watch = (status, events, lasts)

    def _answer(self, handler):
        url = parse.urlsplit(handler.path)
        query = dict(parse.parse_qsl(url.query))
        self.requests.append((url.path, query))
        if self._watch and 'watch' in query:
            self.watched += 1
            self._answer_watch(handler, *self._watch)
            return
        if self._status is None:
            self.release.wait(30)
            return
        handler.send_response(self._status)
        handler.send_header('Content-Type', 'application/json')
        handler.send_header('Content-Length', str(len(self._body)))
        handler.end_headers()
        handler.wfile.write(self._body)

    def _answer_watch(self, handler, status, events, lasts):
        handler.send_response(status)
        handler.send_header('Content-Type', 'application/json')
        handler.send_header('Transfer-Encoding', 'chunked')
        handler.end_headers()
        for line in [json.dumps(each).encode() + b'\n' for each in events]:
            handler.wfile.write(b'%x\r\n%s\r\n' % (len(line), line))
        self.release.wait(lasts)
        try:
            handler.wfile.write(b'0\r\n\r\n')
        except OSError:
            # The client has gone.
            pass
        handler.close_connection = True
