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

from kubernetes import client
from kubernetes import config
import urllib3
import yaml

from nova_k8s import errors

_NAMESPACE_FILE = '/var/run/secrets/kubernetes.io/serviceaccount/namespace'


def api_client(conf):
    """Return a kubernetes.client.ApiClient as [kubernetes] in conf says.

    :raises errors.Refused: when there is neither a cluster nor a kubeconfig
    """
    configuration = client.Configuration()
    options = conf.kubernetes
    try:
        if options.kubeconfig:
            config.load_kube_config(
                options.kubeconfig, client_configuration=configuration,
                persist_config=False)
        else:
            config.load_incluster_config(client_configuration=configuration)
    except (config.ConfigException, OSError, ValueError, TypeError,
            AttributeError, KeyError, yaml.YAMLError) as exc:
        if options.kubeconfig:
            raise errors.Refused(
                f'[kubernetes] kubeconfig {options.kubeconfig}: '
                f'{" ".join(str(exc).split())}') from None
        raise errors.Refused(
            f'No service account of a pod here ({exc}); set [kubernetes] '
            f'kubeconfig, or limits_from = manifest') from None
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
    """The name of this pod: option, POD_NAME, host name."""
    return (conf.kubernetes.pod_name or environ.get('POD_NAME') or
            socket.gethostname())


def node_name(conf, environ):
    """The Kubernetes node of this pod, or None: option, NODE_NAME."""
    return conf.kubernetes.node_name or environ.get('NODE_NAME') or None


def check_status(answer):
    """Raise ApiException unless the raw answer of a call is a success.

    The calls do it themselves only for answers that they decode.
    """
    if not 200 <= answer.status < 300:
        exc = client.ApiException(status=answer.status, reason=answer.reason)
        exc.body = answer.data
        raise exc


def body_of(answer):
    """Return the JSON in the raw answer of a call."""
    check_status(answer)
    return json.loads(answer.data)


def shown(text):
    """Return a URL, or a text with URLs, without user names and passwords."""
    return re.sub(r'(\w+://)?\S*@', r'\1', text)


def explain(exc, host):
    """Return one line on an error of the client, for an operator."""
    host = shown(host)
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
