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

"""Reading a few objects from the Kubernetes API server, once.

Every service that has a source pays for this at its start, so it does without
the client of Kubernetes, whose models take longer and more memory than all the
rest: what remains is a GET. Only a kubeconfig is left to the client.
"""

import os

import requests

from nova_k8s.config import documents
from nova_k8s.config import errors

_SERVICE_ACCOUNT = '/var/run/secrets/kubernetes.io/serviceaccount'

_RESOURCES = {documents.CONFIG_MAP: 'configmaps', documents.SECRET: 'secrets'}


def namespace(given, environ):
    """Return the namespace of objects: as given, or that of the pod.

    :raises errors.Refused: when there is neither
    """
    found = given or environ.get('POD_NAMESPACE')
    if found:
        return found
    try:
        return _read('namespace').strip()
    except OSError:
        raise errors.Refused(
            'namespace is not set; nor is POD_NAMESPACE in the environment'
        ) from None


def _read(name):
    with open(os.path.join(_SERVICE_ACCOUNT, name), encoding='utf-8') as f:
        return f.read()


def path(kind, namespace):
    """Return the path of the objects of a kind at the API server."""
    return f'/api/v1/namespaces/{namespace}/{_RESOURCES[kind]}'


class Reader:
    """Reads objects over one connection.

    :param kubeconfig: path, or None for the service account of the pod
    :param timeout: seconds to wait for an answer
    :raises errors.Refused: when there is no way to the API server
    """

    def __init__(self, kubeconfig, timeout):
        self._timeout = timeout
        self._session = requests.Session()
        # A proxy in the environment is for the world, and a .netrc of no use.
        self._session.trust_env = False
        if kubeconfig:
            self._take_kubeconfig(kubeconfig)
        else:
            self._take_service_account()

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self._session.close()

    def documents(self, namespace, config_maps, secrets):
        """Return the documents of objects: all ConfigMaps, then Secrets.

        :raises errors.ConfigError: when one of them cannot be read
        """
        found = []
        for kind, names in ((documents.CONFIG_MAP, config_maps),
                            (documents.SECRET, secrets)):
            for name in names:
                found += documents.from_object(
                    kind, self.get(kind, namespace, name))
        return found

    def get(self, kind, namespace, name):
        """Return an object as a dict.

        :raises errors.Unreachable: when the API server gives no answer
        :raises errors.Refused: when it is none that can be used
        """
        what = documents.origin(kind, namespace, name)
        try:
            answer = self._session.get(
                f'{self._host}{path(kind, namespace)}/{name}',
                timeout=self._timeout)
        except (requests.ConnectionError, requests.Timeout,
                # It ended in the middle of its answer.
                requests.exceptions.ChunkedEncodingError) as exc:
            raise errors.Unreachable(
                f'{what}: API server {self._shown}: {_reason(exc)}') from None
        except (requests.RequestException, ValueError, OSError) as exc:
            raise errors.Refused(
                f'{what}: API server {self._shown}: '
                f'{type(exc).__name__}') from exc
        # Which urllib3 before 2 does not say.
        length = answer.headers.get('Content-Length', '')
        if length.isdigit() and answer.raw.tell() < int(length):
            raise errors.Unreachable(
                f'{what}: API server {self._shown}: it ended in the middle of '
                f'its answer')
        if answer.status_code == 429 or answer.status_code >= 500:
            raise errors.Unreachable(f'{what}: {self._said(answer)}')
        try:
            body = answer.json()
            if answer.status_code == 200 and body['kind'] == kind:
                return body
        except (ValueError, KeyError, TypeError):
            pass
        raise errors.Refused(f'{what}: {self._said(answer)}')

    def _said(self, answer):
        try:
            # Of a right that is missing it names the account and the verb.
            message = ' '.join(answer.json()['message'].split())
        except (ValueError, KeyError, TypeError, AttributeError):
            message = answer.reason
        return f'API server {self._shown}: {answer.status_code}: {message}'

    def _take_service_account(self):
        try:
            host = os.environ['KUBERNETES_SERVICE_HOST']
            port = os.environ['KUBERNETES_SERVICE_PORT']
            token = _read('token').strip()
        except KeyError as exc:
            raise errors.Refused(
                f'no service account of a pod here ({exc.args[0]} is not in '
                f'the environment); set kubeconfig') from None
        except OSError as exc:
            raise errors.Refused(
                f'no service account of a pod here ({exc.filename}: '
                f'{exc.strerror}); set kubeconfig') from None
        if ':' in host:
            host = f'[{host}]'
        self._host = self._shown = f'https://{host}:{port}'
        self._session.verify = os.path.join(_SERVICE_ACCOUNT, 'ca.crt')
        self._session.headers['Authorization'] = f'Bearer {token}'

    def _take_kubeconfig(self, path):
        from nova_k8s.kube import client
        try:
            found = client.connect(path).configuration
        except client.NOT_LOADED as exc:
            raise errors.Refused(
                f'kubeconfig {path}: {" ".join(str(exc).split())}') from None
        self._host = found.host
        self._shown = client.shown(found.host)
        self._session.verify = found.verify_ssl and (found.ssl_ca_cert or True)
        if found.cert_file:
            self._session.cert = (found.cert_file, found.key_file)
        for name, setting in found.auth_settings().items():
            self._session.headers[setting['key']] = setting['value']
        if found.proxy:
            self._session.proxies = {'https': found.proxy,
                                     'http': found.proxy}


def _reason(exc):
    """Return the innermost reason of an error of requests."""
    while getattr(exc, 'reason', None) or exc.args:
        inner = getattr(exc, 'reason', None) or exc.args[0]
        if not isinstance(inner, Exception):
            break
        exc = inner
    return ' '.join(str(exc).split()).rpartition('>: ')[2]
