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

"""The Kubernetes API server: a client for it, and its errors in words."""

import json
import re
import socket
from urllib import parse

from kubernetes import client
from kubernetes import config
from kubernetes import dynamic
import urllib3
import yaml

from nova_k8s import errors

# What the client raises for a kubeconfig, or the files of a service account,
# that it cannot use.
NOT_LOADED = (config.ConfigException, OSError, ValueError, TypeError,
              AttributeError, KeyError, yaml.YAMLError)

_NAMESPACE_FILE = '/var/run/secrets/kubernetes.io/serviceaccount/namespace'


def api_client(conf):
    """Return a kubernetes.client.ApiClient as [kubernetes] in conf says.

    :raises errors.Refused: when there is neither a cluster nor a kubeconfig
    """
    options = conf.kubernetes
    try:
        return connect(options.kubeconfig)
    except NOT_LOADED as exc:
        if options.kubeconfig:
            raise errors.Refused(
                f'[kubernetes] kubeconfig {options.kubeconfig}: '
                f'{" ".join(str(exc).split())}') from None
        raise errors.Refused(
            f'No service account of a pod here ({exc}); set [kubernetes] '
            f'kubeconfig, or limits_from = manifest') from None


def connect(kubeconfig):
    """Return a kubernetes.client.ApiClient, which has not connected yet.

    :param kubeconfig: path, or None for the service account of the pod
    :raises: one of NOT_LOADED
    """
    configuration = client.Configuration()
    if kubeconfig:
        config.load_kube_config(
            kubeconfig, client_configuration=configuration,
            persist_config=False)
    else:
        config.load_incluster_config(client_configuration=configuration)
    # A repetition is the caller's affair: urllib3's own would hide for how
    # long nothing was heard.
    configuration.retries = False
    return client.ApiClient(configuration)


def namespace(conf, environ):
    """The namespace of the pod: option, POD_NAMESPACE, service account's."""
    found = conf.kubernetes.namespace or environ.get('POD_NAMESPACE')
    if found:
        return found
    try:
        with open(_NAMESPACE_FILE, encoding='utf-8') as f:
            return f.read().strip()
    except OSError:
        raise errors.Refused(
            '[kubernetes] namespace is not set; nor is POD_NAMESPACE in the '
            'environment') from None


def pod_name(conf, environ):
    """The name of the pod: guests' pod, option, POD_NAME, host name."""
    return (guests_pod(conf, environ) or conf.kubernetes.pod_name or
            environ.get('POD_NAME') or socket.gethostname())


def guests_pod_name(node):
    """Return the name of the guests' pod of a node."""
    return f'guests-{node}'


def guests_pod(conf, environ):
    """The name of the guests' pod where its limits count, or None.

    Either this driver makes it, or somebody else has.
    """
    options = conf.kubernetes
    node = node_name(conf, environ)
    if options.limits_from != 'api' or options.pod_selector or not node:
        return None
    name = guests_pod_name(node)
    return name if options.guests_pod or options.pod_name == name else None


def node_name(conf, environ):
    """The Kubernetes node of this pod, or None: option, NODE_NAME."""
    return conf.kubernetes.node_name or environ.get('NODE_NAME') or None


def path(version, plural, namespace=None, name=None):
    """Return where the API server has a kind of objects, or one of them.

    :param version: 'v1', or with its group, as 'policy/v1'
    """
    parts = ['apis' if '/' in version else 'api', version]
    if namespace:
        parts += ['namespaces', parse.quote(namespace, safe='')]
    parts.append(plural)
    if name:
        parts.append(parse.quote(name, safe=''))
    return '/' + '/'.join(parts)


def call(api, verb, path, body=None, timeout=None, **query):
    """Ask the API server, and return its raw answer.

    CoreV1Api has methods for it, and has every kind of Kubernetes loaded:
    21 MiB in each nova-compute.

    :param api: kubernetes.client.ApiClient
    :param verb: of HTTP
    :param path: see path()
    :param body: a dict
    :param timeout: seconds, or those to connect and those to wait for more
    :param query: in the words of kubernetes.client: field_selector, watch
    :raises kubernetes.client.ApiException: unless it is a success
    """
    # Which would ask the API server for all that it has, first.
    requests = dynamic.DynamicClient(api, discoverer=lambda *_args: None)
    answer = requests.request(verb, path, body=body, serialize=False,
                              _request_timeout=timeout, **query)
    # Before 37 the client does not look at answers that it does not decode.
    if not 200 <= answer.status < 300:
        exc = client.ApiException(status=answer.status, reason=answer.reason)
        exc.body = answer.data
        raise exc
    return answer


def shown(text):
    """Return a URL, or a text with URLs, without user names and passwords."""
    return re.sub(r'(\w+://)?\S*@', r'\1', text)


def is_timeout(exc):
    """Whether an error of the client says that there was no answer."""
    exc = getattr(exc, 'reason', exc)
    return isinstance(exc, urllib3.exceptions.TimeoutError) and not (
        # Of some releases it is one, and says that nobody listens.
        isinstance(exc, urllib3.exceptions.NewConnectionError))


def explain(exc, host):
    """Return one line on an error of the client, for an operator."""
    host = shown(host)
    if isinstance(exc, AttributeError) and isinstance(
            exc.__context__, client.ApiException):
        # Before its release 37, the client stumbles over an error without an
        # answer, as TLS has them.
        exc = exc.__context__
    if isinstance(exc, client.ApiException) and exc.status:
        try:
            message = json.loads(exc.body)['message']
        except (KeyError, TypeError, ValueError):
            message = exc.reason
        # A refusal for want of a right names the account, the verb, the
        # resource and the namespace.
        return (f'API server {host}: {exc.status}: '
                f'{" ".join(str(message).split())}')
    if isinstance(exc, urllib3.exceptions.MaxRetryError):
        exc = exc.reason
    text = ' '.join(str(exc).split())
    if 'Invalid header value' in text:
        # Python's words for it hold the whole token.
        text = ('the token holds a line break; take it out of token or '
                'tokenFile of the user in the kubeconfig, or of the file of '
                'the service account')
    return f'API server {host}: {shown(text)}'
