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

"""The [kubernetes] options of nova.conf, all of them."""

from oslo_config import cfg

GROUP = cfg.OptGroup('kubernetes', title='Kubernetes pod of this node')

OPTS = [
    cfg.StrOpt(
        'limits_from',
        default='api',
        choices=[
            ('api', 'the pod itself, as the Kubernetes API server tells it'),
            ('manifest', 'a file with the manifest of the pod, see '
                         '``manifest``'),
            ('downward_api', 'the files of a downward API volume, see '
                             '``downward_api_dir``'),
        ],
        help='Where the CPU and memory limits of the pod are read from.'),
    cfg.StrOpt(
        'manifest',
        help='Path of the manifest to read with ``limits_from = manifest``.'),
    cfg.StrOpt(
        'container',
        help='Name of the container whose limits are meant for guests.'),
]


def register_opts(conf):
    """Make conf know the [kubernetes] options; harmless when repeated."""
    conf.register_group(GROUP)
    conf.register_opts(OPTS, group=GROUP)


def list_opts():
    """Entry point of the oslo.config generator."""
    return [(GROUP, OPTS)]
