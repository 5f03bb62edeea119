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

"""The options that a service knows, from its own lists.

OpenStack's distributions advertise their options as entry points
``oslo.config.opts``, which the sample files are made of.
"""

import copy
from importlib import metadata
import os
import re

from oslo_config import cfg
from oslo_log import log as logging

from nova_k8s.config import command_line
from nova_k8s.config import errors
from nova_k8s.config import layers

LOG = logging.getLogger(__name__)

_LISTS = 'oslo.config.opts'
_PROGRAMS = ('console_scripts', 'wsgi_scripts')

# oslo.config adds them itself, and no file can set them.
_OF_COMMAND_LINE = {'config_file', 'config_dir', 'shell_completion'}

# Whose driver brings options that Nova does not list.
_NOVA, _OURS = 'nova', 'nova-k8s'


class Definitions:
    """Options by group and name, in the order in which they were listed.

    :ivar opts: {(group or None, dest): cfg.Opt}
    """

    def __init__(self, lists):
        """Take lists as their entry points return them."""
        self.opts = {}
        self._by_name = {}
        for group, opts in lists:
            group = getattr(group, 'name', group)
            group = None if group in (None, 'DEFAULT') else group
            for opt in opts:
                self._add(group, opt)

    def _add(self, group, opt):
        if (group, opt.dest) in self.opts or (
                group is None and opt.dest in _OF_COMMAND_LINE):
            return
        # Of a plugin's options some are required where the plugin is used.
        opt = copy.copy(opt)
        opt.required = False
        self.opts[group, opt.dest] = opt
        for section, name in layers.names(group, opt):
            self._by_name.setdefault(_key(section, name), (group, opt))

    def find(self, section, name):
        """Return (group, opt) that a name in a file stands for, or None."""
        return self._by_name.get(_key(section, name))

    def register(self, conf, words=()):
        """Make conf know all options.

        :param words: with which the service is started
        :returns: those of the words that set options or name files
        """
        named, found = command_line.known(words, self._flags())
        for key, opt in self.opts.items():
            register = (conf.register_cli_opt if key in named else
                        conf.register_opt)
            try:
                register(opt, group=key[0])
            except cfg.DuplicateOptError:
                # oslo.config's own, such as config_source.
                continue
        return found

    def _flags(self):
        """Return {flag: (key, whether it takes a value)} of all options."""
        found = {}
        for (group, dest), opt in self.opts.items():
            flag = f'{group}-{opt.name}' if group else opt.name
            is_bool = isinstance(opt, cfg.BoolOpt)
            found[f'--{flag}'] = (group, dest), not is_bool
            if is_bool:
                no = f'{group}-no{opt.name}' if group else f'no{opt.name}'
                found[f'--{no}'] = (group, dest), False
        return found


def _key(section, name):
    return layers.normal(section or 'DEFAULT'), name


def for_service(program):
    """Return the Definitions of the service that a program belongs to.

    They are those of the program's distribution, then those of all that it
    requires; of Nova, those of this package as well.

    :param program: the name of a script, such as nova-compute
    :raises errors.Refused: when no distribution that is installed has it
    """
    program = os.path.basename(program)
    owner = _owner(program)
    if owner is None:
        raise errors.Refused(
            f'{program}: no installed package has a script of this name, so '
            f'its options are not known; name another program')
    wanted = [_normal(owner.name)]
    wanted += [_normal(re.match(r'[A-Za-z0-9._-]+', each)[0])
               for each in owner.requires or []]
    if _NOVA in wanted:
        wanted.append(_OURS)
    found = sorted(
        (each for each in metadata.entry_points(group=_LISTS)
         if _normal(each.dist.name) in wanted),
        key=lambda each: wanted.index(_normal(each.dist.name)))
    lists = []
    for each in found:
        try:
            lists += each.load()()
        except Exception as exc:
            # A library of which an optional part is missing. Its options
            # count as unknown.
            LOG.info('The options of %s are not known: %s', each.name, exc)
    return Definitions(lists)


def _owner(program):
    for group in _PROGRAMS:
        for each in metadata.entry_points(group=group, name=program):
            return each.dist
    # Scripts that are no entry points, such as those of uWSGI.
    return None


def _normal(name):
    return re.sub('[-_.]+', '-', name).lower()
