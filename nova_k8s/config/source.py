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

"""A source of oslo.config that has read all it will ever say."""

import sys

from oslo_config import cfg
from oslo_config import sources
from oslo_log import log as logging

from nova_k8s.config import errors
from nova_k8s.config import layers

LOG = logging.getLogger(__name__)

REQUIRED = cfg.BoolOpt(
    'required',
    default=True,
    help="""Whether the service must not start without this source.

A source that is not required is taken whole or not at all: where a part of it
cannot be read, a warning says so and the service starts without the source.
""")


class Source(sources.ConfigurationSource):
    """Documents, as oslo.config asks for them.

    :param conf: the ConfigOpts that asks
    :param documents: documents.Document of each, the last one counts most
    :raises errors.Refused: when one of them is no INI text
    """

    def __init__(self, conf, documents):
        self._conf = conf
        self.layers = layers.Layers(documents)

    def get(self, group_name, option_name, opt):
        try:
            value, layer = self.layers.find(group_name, opt)
        except KeyError:
            return sources._NoValue, None
        where = layer.where(group_name, opt)
        if layer.document.secret:
            # oslo.config masks what is secret where it logs all options.
            opt.secret = True
        self._check(group_name, opt, value, where)
        return value, cfg.LocationInfo(cfg.Locations.user, where)

    def _check(self, group, opt, value, where):
        """Raise what oslo.config raises of a file, with the place named.

        It converts what a source answers without a word on where it was.
        """
        try:
            self._conf._convert_value(
                self._conf._substitute(value, group), opt)
        except ValueError as exc:
            problem = '' if opt.secret else f': {exc}'
            raise cfg.ConfigFileValueError(
                f'Value for option {opt.name} from {where} is not valid'
                f'{problem}') from None


def all_of(conf):
    """Return the Sources that a configuration has, the first counts most."""
    return [each for each in conf._sources if isinstance(each, Source)]


class Driver(sources.ConfigurationSourceDriver):
    """What the drivers share: the service does not start without its source.

    :cvar OPTS: options of the group that names the driver
    """

    OPTS = []

    def list_options_for_discovery(self):
        return self.OPTS

    def open_source_from_opt_group(self, conf, group_name):
        try:
            conf.register_opts(self.OPTS, group_name)
            options = conf[group_name]
            required = options.required
            # Each, before anything is done with one of them.
            for each in self.OPTS:
                options[each.dest]
        except (cfg.Error, ValueError) as exc:
            _exit(conf, group_name, exc)
        try:
            return Source(conf, self.read(conf, group_name))
        except errors.ConfigError as exc:
            if required:
                _exit(conf, group_name, exc)
            LOG.warning('[%s] is left out, as it is not required: %s',
                        group_name, exc)
            return Source(conf, [])
        except Exception as exc:
            # Whatever it is, oslo.config would log it and go on without.
            _exit(conf, group_name, f'{type(exc).__name__}: {exc}')

    def read(self, conf, group_name):
        """Return the documents as the options of the group say.

        :raises errors.ConfigError: when that is not possible
        """
        raise NotImplementedError()


def _exit(conf, group, problem):
    # oslo.config takes any Exception of a driver for a reason to go on with
    # defaults. This is none, and Python prints it as it is.
    line = ' '.join(str(problem).split())
    sys.exit(f'{conf.prog} does not start: [{group}] {line}')
