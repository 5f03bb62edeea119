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

"""``driver = etcd``: keys ``<prefix>/<group>/<option>``."""

from urllib import parse

from oslo_config import cfg

from nova_k8s.config import documents
from nova_k8s.config import errors
from nova_k8s.config import source


class EtcdDriver(source.Driver):
    """A backend driver for etcd 3, over its JSON gateway.

    One request for all keys below the prefix.
    """

    OPTS = [
        cfg.URIOpt(
            'endpoint',
            schemes=['http', 'https'],
            default='http://localhost:2379',
            help='URL of etcd, such as ``https://etcd:2379``.'),
        cfg.StrOpt(
            'prefix',
            default='/openstack',
            help='What the keys begin with: ``<prefix>/<group>/<option>`` '
                 'holds the value of one option. Keys '
                 '``<prefix>/<group>/<option>/<any name>`` hold the values '
                 'of an option that may be given several times, in the order '
                 'of these names.'),
        cfg.StrOpt(
            'ca_file',
            help='File with the certificates of authorities to trust.'),
        cfg.StrOpt(
            'cert_file',
            help="File with this client's certificate, for etcd with "
                 '``client-cert-auth``.'),
        cfg.StrOpt(
            'key_file',
            help='File with the key of ``cert_file``.'),
        cfg.StrOpt(
            'user',
            help='User of etcd, where its authentication is enabled. The '
                 'JSON gateway then takes a ``cert_file`` only if its subject '
                 'has no common name.'),
        cfg.StrOpt(
            'password',
            secret=True,
            help='Password of ``user``.'),
        cfg.IntOpt(
            'timeout',
            default=10,
            min=1,
            help='Seconds to wait for an answer of etcd.'),
        source.REQUIRED,
    ]

    def read(self, conf, group_name):
        options = conf[group_name]
        prefix = options.prefix.rstrip('/') + '/'
        # Not above: oslo.config loads all drivers that are installed for a
        # service that uses one of them.
        import etcd3gw
        from etcd3gw import exceptions
        import requests
        url = parse.urlsplit(options.endpoint)
        # Nobody is to see a password there, which is not used either.
        url = url._replace(netloc=url.netloc.rpartition('@')[2])
        place = f'etcd {url.geturl()}'
        try:
            found = _client(etcd3gw, url, options).get_prefix(
                prefix, sort_order='ascend', sort_target='key')
        except exceptions.Etcd3Exception as exc:
            detail = getattr(exc, 'detail_text', None) or str(exc)
            raise errors.Refused(f'{place}, prefix {prefix}: '
                                 f'{_message(detail)}') from None
        except (requests.RequestException, OSError, ValueError,
                KeyError) as exc:
            raise errors.Refused(f'{place}, prefix {prefix}: '
                                 f'{type(exc).__name__}: {exc}') from None
        if not found:
            raise errors.Refused(f'{place}: there is no key below {prefix}')
        return documents.from_options(
            place, prefix + '{group}/{option}',
            [_option(place, prefix, metadata['key'], value)
             for value, metadata in found])


def _client(etcd3gw, url, options):
    client = etcd3gw.client(
        host=url.hostname, port=url.port or 2379, protocol=url.scheme,
        ca_cert=options.ca_file, cert_cert=options.cert_file,
        cert_key=options.key_file, timeout=options.timeout)
    # As to the API server: not through a proxy of the environment.
    client.session.trust_env = False
    if options.user:
        # etcd3gw knows certificates only.
        answer = client.post(
            client.get_url('/auth/authenticate'),
            json={'name': options.user, 'password': options.password or ''})
        client.session.headers['Authorization'] = answer['token']
    return client


def _option(place, prefix, key, value):
    """Return (key, group, option, value) of a key of etcd."""
    try:
        key = key.decode()
        value = value.decode()
    except UnicodeDecodeError:
        raise errors.Refused(
            f'{place}, key {key!r}: it is not UTF-8') from None
    parts = key.removeprefix(prefix).split('/')
    if not 2 <= len(parts) <= 3:
        raise errors.Refused(
            f'{place}, key {key!r}: it is not {prefix}<group>/<option>')
    return key, parts[0], parts[1], value


def _message(detail):
    """Return what etcd says, which is JSON in a text."""
    import json
    try:
        return json.loads(detail)['message']
    except (KeyError, TypeError, ValueError):
        return ' '.join(str(detail).split())
