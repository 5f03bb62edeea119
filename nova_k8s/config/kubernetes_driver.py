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

"""``driver = kubernetes``: ConfigMaps and Secrets."""

import os

from oslo_config import cfg

from nova_k8s.config import api
from nova_k8s.config import cache
from nova_k8s.config import errors
from nova_k8s.config import source


class KubernetesDriver(source.Driver):
    """A backend driver for ConfigMaps and Secrets.

    One request for each object, and none for an option.
    """

    OPTS = [
        cfg.StrOpt(
            'namespace',
            help='Namespace of the objects. Default: ``POD_NAMESPACE`` in '
                 'the environment, then the namespace of the service '
                 'account.'),
        cfg.ListOpt(
            'config_maps',
            default=[],
            help='Names of ConfigMaps; a later one wins over an earlier one. '
                 'In each, a key that ends in ``.conf`` is a file in the '
                 'style of nova.conf, and a key ``group.option`` is one '
                 'option, which wins over the files.'),
        cfg.ListOpt(
            'secrets',
            default=[],
            help='Names of Secrets, with keys as in ConfigMaps. They win over '
                 'all ConfigMaps.'),
        cfg.StrOpt(
            'kubeconfig',
            help='Path of a kubeconfig file to reach the API server with. '
                 'Default: the service account of the pod.'),
        cfg.IntOpt(
            'timeout',
            default=10,
            min=1,
            help='Seconds to wait for an answer of the API server.'),
        source.REQUIRED,
        cfg.StrOpt(
            'cache_dir',
            help="""Folder for what was last read.

A start while the API server is away takes the values from there, and says so.
The file is readable for the user of the service only. By default nothing is
kept, and such a start fails.
"""),
        cfg.BoolOpt(
            'cache_secrets',
            default=False,
            help='Whether Secrets are kept in ``cache_dir`` as well. Without '
                 'them, a start while the API server is away fails where '
                 '``secrets`` names any.'),
    ]

    def read(self, conf, group_name):
        options = conf[group_name]
        namespace = api.namespace(options.namespace, os.environ)
        if not options.config_maps and not options.secrets:
            raise errors.Refused('neither config_maps nor secrets is set')

        def ask():
            with api.Reader(options.kubeconfig, options.timeout) as reader:
                return reader.documents(namespace, options.config_maps,
                                        options.secrets)
        return cache.read(self.cache(conf, group_name), ask, options.secrets)

    def cache(self, conf, group_name):
        """Return the Cache of a group."""
        options = conf[group_name]
        return cache_of(
            options.cache_dir, f'{conf.prog}-{group_name}',
            api.namespace(options.namespace, os.environ),
            options.config_maps, options.secrets, options.cache_secrets)


def cache_of(folder, name, namespace, config_maps, secrets, keep_secrets):
    """Return the cache of a read of these objects."""
    key = ' '.join([f'namespace={namespace}',
                    f'config_maps={",".join(config_maps)}',
                    f'secrets={",".join(secrets)}'])
    return cache.Cache(folder, name.replace('/', '-'), key, keep_secrets)
