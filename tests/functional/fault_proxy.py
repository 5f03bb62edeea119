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

"""A proxy between a client and the API server, for the faults of networks.

It passes TCP bytes on as they are. With ``tls=True`` it ends TLS on both
sides: then it sees requests, can answer them itself and can show another
certificate. Clients have to use bearer tokens there, because a client
certificate does not get through.
"""

import collections
import json
import os
import random
import re
import selectors
import socket
import ssl
import struct
import threading
from urllib import parse

import fixtures

from tests.functional import certificates
from tests.functional import control_plane

_CHUNK = 65536
# Neither TLS nor HTTP, neither UTF-8 nor JSON. Ends of lines stay, otherwise
# who reads lines would wait for one and never see the rubbish.
_RUBBISH = bytes(byte if byte == 0x0a else byte ^ 0xff for byte in range(256))
_REASONS = {
    400: 'BadRequest', 401: 'Unauthorized', 403: 'Forbidden',
    404: 'NotFound', 409: 'Conflict', 410: 'Expired',
    429: 'TooManyRequests', 500: 'InternalError',
    503: 'ServiceUnavailable', 504: 'Timeout'}

Request = collections.namedtuple('Request', 'method path')


def status(code, message='injected by a test', reason=None):
    """Return a Kubernetes Status as the API server would write it."""
    return {'kind': 'Status', 'apiVersion': 'v1', 'metadata': {},
            'status': 'Failure', 'code': code, 'message': message,
            'reason': reason or _REASONS.get(code, 'Unknown')}


def right(request):
    """Return (namespace, verb, resource): what RBAC asks of a Request.

    :returns: None as the namespace of what belongs to the whole cluster
    """
    url = parse.urlsplit(request.path)
    # /api/v1/namespaces/<namespace>/<resource>/<name>/<subresource>
    parts = url.path.strip('/').split('/')[2:]
    namespace = None
    if parts[0] == 'namespaces' and len(parts) > 2:
        namespace, parts = parts[1], parts[2:]
    resource = '/'.join([parts[0], *parts[2:]])
    verb = {'POST': 'create', 'PUT': 'update', 'PATCH': 'patch',
            'DELETE': 'delete', 'GET': 'get'}[request.method]
    query = parse.parse_qs(url.query)
    if verb == 'get' and len(parts) == 1:
        verb = 'list'
        if query.get('watch', ['false'])[0].lower() in ('true', '1'):
            verb = 'watch'
    return namespace, verb, resource


class _Rule:
    def __init__(self, pattern, answer, times):
        self.pattern = re.compile(pattern)
        self.answer = answer
        self.times = times


class _Requests:
    """Cuts what a client sends into requests: HTTP/1.1, no pipelining."""

    def __init__(self):
        self._buffer = b''
        # Of the request that is passing: bytes of body still to come, and
        # whether they are swallowed.
        self._left = 0
        self._swallow = False
        self._opaque = False

    def feed(self, data, decide):
        """Return what goes on to the server.

        :param decide: called with each Request; true where it is answered
            here and must not go on
        """
        if self._opaque:
            return data
        passed = b''
        self._buffer += data
        while self._buffer:
            if self._left:
                body = self._buffer[:self._left]
                self._buffer = self._buffer[self._left:]
                self._left -= len(body)
                passed += b'' if self._swallow else body
                continue
            head, end, rest = self._buffer.partition(b'\r\n\r\n')
            if not end:
                break
            self._buffer = rest
            method, path = head.split(b'\r\n')[0].decode('latin1').split()[:2]
            length = re.search(rb'(?i)\r\ncontent-length: *(\d+)', head)
            self._left = int(length.group(1)) if length else 0
            self._swallow = decide(Request(method, path))
            if not self._swallow:
                passed += head + end
                if re.search(rb'(?i)\r\n(upgrade|transfer-encoding):', head):
                    # What follows has no length: nothing to be cut any more.
                    self._opaque = True
                    passed += self._buffer
                    self._buffer = b''
        return passed


def _line(peer):
    return socket.socket(fileno=os.dup(peer.fileno()))


class _Connection:
    """A client's connection and the one to the server that belongs to it."""

    def __init__(self, proxy, client):
        self._proxy = proxy
        self._client = client
        self._server = None
        self._requests = _Requests()
        # The same sockets without TLS, whose shutdown would send an alert
        # and is nothing for another thread.
        self._lines = [_line(client)]
        self.closed = False

    def abort(self):
        """End it from another thread; run() notices."""
        self.closed = True
        for line in tuple(self._lines):
            try:
                line.shutdown(socket.SHUT_RDWR)
            except OSError:
                # Ended by itself already.
                pass

    def run(self):
        try:
            if self._proxy._wait(self):
                self._connect()
                self._pass_on()
        except OSError:
            # Either side is gone, or does not trust the other.
            pass
        finally:
            self._proxy._ended(self)
            if self.closed:
                # Reset, in place of an orderly end.
                for line in self._lines:
                    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                    struct.pack('ii', 1, 0))
            for peer in (self._client, self._server, *self._lines):
                if peer is not None:
                    peer.close()

    def _connect(self):
        tls = self._proxy._tls_contexts()
        if tls:
            self._client = tls[0].wrap_socket(self._client, server_side=True)
        self._server = socket.create_connection(self._proxy._target, 10)
        self._lines.append(_line(self._server))
        if tls:
            self._server = tls[1].wrap_socket(
                self._server, server_hostname=self._proxy._target[0])
        for peer in (self._client, self._server):
            # What is held back here would be measured as the server's delay.
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.closed:
            raise OSError('cut meanwhile')

    def _pass_on(self):
        # One thread for both directions: an SSL object does not bear two.
        with selectors.DefaultSelector() as selector:
            for peer in (self._client, self._server):
                selector.register(peer, selectors.EVENT_READ)
            while not self.closed:
                for key, _events in selector.select():
                    if not self._proxy._wait(self):
                        return
                    if not self._transfer(key.fileobj):
                        return

    def _transfer(self, source):
        """Pass on all that there is; false at the end of the connection."""
        while True:
            # Something may lie there that is no data, such as a session
            # ticket: waiting for more would block the other direction.
            source.setblocking(False)
            try:
                data = source.recv(_CHUNK)
            except (ssl.SSLWantReadError, BlockingIOError):
                return True
            finally:
                source.setblocking(True)
            if not data:
                return False
            if source is self._client:
                self._to_server(data)
            else:
                self._to_client(data)
            # Decrypted already, so the selector would not tell of it.
            if not getattr(source, 'pending', int)():
                return True

    def _to_server(self, data):
        self._proxy._count(to_server=len(data))
        if self._proxy.tls:
            data = self._requests.feed(data, self._decide)
        if data:
            self._server.sendall(data)

    def _to_client(self, data):
        if self._proxy._corrupting:
            data = data.translate(_RUBBISH)
        self._proxy._count(to_client=len(data))
        self._client.sendall(data)

    def _decide(self, request):
        answer = self._proxy._answer_to(request)
        if answer is None:
            return False
        self._proxy._count(to_client=len(answer))
        self._client.sendall(answer)
        return True


class FaultProxy(fixtures.Fixture):
    """A proxy that can fail; it passes everything on at first.

    :ivar url: to use in place of the API server's
    :ivar ca_file: certificate of the authority that issued the certificate
        which clients of it see
    :ivar connections: how many were accepted so far
    :ivar bytes_to_server: how many were passed on, on the wire without tls,
        of HTTP with it
    :ivar bytes_to_client: the same in the other direction
    :ivar requests: with tls, every Request (method, path) so far
    """

    def __init__(self, plane, tls=False):
        """Describe a proxy.

        :param plane: the ControlPlane in front of which it stands
        :param tls: whether it ends TLS
        """
        super().__init__()
        self._plane = plane
        self.tls = tls

    def _setUp(self):
        address = parse.urlsplit(self._plane.url)
        self._target = (address.hostname, address.port)
        self.ca_file = self._plane.ca_file
        self._condition = threading.Condition()
        self._live = set()
        self._rules = []
        self._stalling = False
        self._corrupting = False
        self._ending = False
        self.connections = 0
        self.bytes_to_server = 0
        self.bytes_to_client = 0
        self.requests = []
        if self.tls:
            self._upstream = ssl.create_default_context(
                cafile=self._plane.ca_file)
            self._show(self._plane.authority)
        self._listener = control_plane.reserve_port()
        self.port = self._listener.getsockname()[1]
        self.url = 'https://127.0.0.1:%d' % self.port
        self._listening = True
        self._listener.listen(128)
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()
        self.addCleanup(self._end)

    def _show(self, authority):
        certificate, key = authority.issue(
            control_plane.unique('proxy'), 'kube-apiserver')
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        # HTTP/2 is nothing that _Requests could cut.
        context.set_alpn_protocols(['http/1.1'])
        self._context = context

    def _tls_contexts(self):
        return (self._context, self._upstream) if self.tls else None

    def _accept(self):
        while True:
            try:
                client, _address = self._listener.accept()
            except OSError:
                with self._condition:
                    while not (self._listening or self._ending):
                        self._condition.wait()
                    if self._ending:
                        return
                continue
            connection = _Connection(self, client)
            with self._condition:
                if not self._listening:
                    client.close()
                    continue
                self.connections += 1
                self._live.add(connection)
            threading.Thread(target=connection.run, daemon=True).start()

    def _end(self):
        with self._condition:
            self._ending = True
        self.cut()
        self._acceptor.join(10)
        self._listener.close()

    # What connections ask for

    def _wait(self, connection):
        """Wait while stalled; false where the connection was cut."""
        with self._condition:
            while self._stalling and not connection.closed:
                self._condition.wait()
        return not connection.closed

    def _ended(self, connection):
        with self._condition:
            self._live.discard(connection)

    def _count(self, to_server=0, to_client=0):
        with self._condition:
            self.bytes_to_server += to_server
            self.bytes_to_client += to_client

    def _answer_to(self, request):
        with self._condition:
            self.requests.append(request)
            for rule in self._rules:
                if rule.times and rule.pattern.search('%s %s' % request):
                    rule.times -= 1
                    return rule.answer
        return None

    # What tests ask for

    @property
    def open_connections(self):
        with self._condition:
            return len(self._live)

    def drop(self):
        """Close all connections with a reset; new ones are welcome."""
        with self._condition:
            for connection in self._live:
                connection.abort()
            self._condition.notify_all()

    def cut(self):
        """Close all connections and refuse new ones, until restore()."""
        with self._condition:
            if self._listening:
                self._listening = False
                # On Linux it stays bound then, so nobody takes the port.
                self._listener.shutdown(socket.SHUT_RDWR)
            self._condition.notify_all()
        self.drop()

    def stall(self):
        """Accept connections and keep all open, but pass nothing on.

        What arrives meanwhile is passed on after restore().
        """
        with self._condition:
            self._stalling = True

    def corrupt(self):
        """Make rubbish of all that the server sends, until restore().

        Without tls that breaks TLS, with it HTTP.
        """
        self._corrupting = True

    def answer(self, pattern, code, times=None, body=None, headers=None,
               event=False):
        """Answer requests in place of the server, until forget_answers().

        :param pattern: regular expression that is searched for in
            ``METHOD /path?query``
        :param code: of HTTP; without a body a Kubernetes Status is sent
        :param times: how many requests are answered so; None is all
        :param body: other text to send
        :param headers: further headers, such as Retry-After
        :param event: send 200 and an ERROR event with the Status in it, as a
            watch that was accepted gets it
        """
        if body is None:
            body = json.dumps(status(code))
            if event:
                body = '{"type": "ERROR", "object": %s}\n' % body
        head = ['HTTP/1.1 %d Injected' % (200 if event else code),
                'Content-Type: application/json',
                'Content-Length: %d' % len(body.encode())]
        head += ['%s: %s' % header for header in (headers or {}).items()]
        text = '\r\n'.join(head) + '\r\n\r\n' + body
        with self._condition:
            self._rules.append(_Rule(
                pattern, text.encode(), float('inf') if times is None
                else times))

    def forget_answers(self):
        with self._condition:
            self._rules.clear()

    def change_ca(self):
        """Show a certificate of a new authority, and close all connections.

        :returns: the new authority's file, which is ca_file from now on
        """
        authority = certificates.Authority(
            self._plane.directory,
            'ca-%08x' % random.SystemRandom().getrandbits(32))
        self._show(authority)
        self.ca_file = authority.path
        self.drop()
        return self.ca_file

    def restore(self):
        """Pass everything on again; answers that were set stay."""
        with self._condition:
            self._stalling = False
            self._corrupting = False
            if not self._listening:
                self._listening = True
                self._listener.listen(128)
            self._condition.notify_all()
