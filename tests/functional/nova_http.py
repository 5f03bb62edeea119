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

"""Nova's API over HTTP, as openstacksdk reaches it anywhere else.

The application is the one that Nova's tests call in place; here it listens on
a port of this machine. Instead of Keystone, the token says who asks.
"""

import socketserver
import threading
from wsgiref import simple_server

import fixtures
from keystoneauth1 import session
from keystoneauth1 import token_endpoint
from nova.api import wsgi
from nova.tests.fixtures.nova import PROJECT_ID
from openstack import connection

# Token: (user, roles). Nova's tests take the user admin for an administrator.
TOKENS = {'operator': ('admin', 'reader,member,manager,admin'),
          'member': ('fake', 'reader,member')}


class _Server(socketserver.ThreadingMixIn, simple_server.WSGIServer):

    daemon_threads = True

    def handle_error(self, request, client_address):
        # A client that went away is no news.
        pass


class _Handler(simple_server.WSGIRequestHandler):

    protocol_version = 'HTTP/1.1'

    def address_string(self):
        return self.client_address[0]

    def log_message(self, *args):
        pass


class NovaApi(fixtures.Fixture):
    """Serve Nova's API on a port.

    :ivar url: of the endpoint
    :ivar requests: [(method, path)] that were answered
    :ivar note: called with method and path of each request that comes
    :ivar broken: while it is set, every answer is 503
    """

    def _setUp(self):
        self.requests = []
        self.note = lambda method, path: None
        self.broken = threading.Event()
        self._app = wsgi.Loader().load_app('osapi_compute')
        server = simple_server.make_server(
            '127.0.0.1', 0, self._answer, _Server, _Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,),
                                  daemon=True)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        self.url = 'http://127.0.0.1:%d/v2.1' % server.server_port

    def _answer(self, environ, start_response):
        asked = environ['REQUEST_METHOD'], environ['PATH_INFO']
        self.note(*asked)
        self.requests.append(asked)
        if self.broken.is_set():
            start_response('503 Service Unavailable',
                           [('Content-Length', '0')])
            return [b'']
        user, roles = TOKENS.get(environ.get('HTTP_X_AUTH_TOKEN'),
                                 ('nobody', 'none'))
        environ.update(HTTP_X_AUTH_USER=user, HTTP_X_ROLES=roles,
                       HTTP_X_AUTH_PROJECT_ID=PROJECT_ID)
        return self._app(environ, start_response)

    def connect(self, token='operator'):
        """A connection of openstacksdk."""
        return connection.Connection(
            session=session.Session(
                auth=token_endpoint.Token(self.url, token), timeout=30),
            compute_endpoint_override=self.url)
