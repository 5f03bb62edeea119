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

"""What a service makes of its configuration, and where each value is from."""

import dataclasses
import glob
import os
import re

from oslo_config import cfg

from nova_k8s.config import documents
from nova_k8s.config import folder
from nova_k8s.config import layers

MASK = '****'

_USER = re.compile(r'(\w+://[^:/@\s]*:)[^@\s]+@')


@dataclasses.dataclass(frozen=True)
class Setting:
    """An option, and what it is set to.

    :ivar group: None of an option in DEFAULT
    :ivar value: as people may see it
    :ivar where: what set it, None for its default
    """

    group: str
    name: str
    value: object
    where: str


@dataclasses.dataclass(frozen=True)
class Change:
    """An option that would be another after a restart.

    :ivar restart: whether the service needs one for it
    :ivar where: what sets it now
    """

    group: str
    name: str
    old: object
    new: object
    where: str
    restart: bool


def shown(opt, value, secret=False):
    """Return a value without what nobody may see."""
    if value is None:
        return None
    if secret or opt is None or opt.secret:
        return MASK
    if isinstance(value, str):
        return _USER.sub(rf'\1{MASK}@', value)
    if isinstance(value, (list, tuple)):
        return [shown(opt, each) for each in value]
    if isinstance(value, dict):
        return {key: shown(opt, each) for key, each in value.items()}
    return value if isinstance(value, (bool, int, float)) else str(value)


def load(definitions, project, program, config_files, config_dirs):
    """Return a ConfigOpts as the service would have it.

    :param config_files: None for those that the service finds by itself
    :raises cfg.Error: what the service would end with
    """
    conf = cfg.ConfigOpts()
    definitions.register(conf)
    conf([], project=project, prog=program,
         default_config_files=config_files, default_config_dirs=config_dirs)
    return conf


def settings(conf, definitions):
    """Yield a Setting of each option, and of what is set and not known."""
    files = layers.Layers(_files(conf))
    for (group, dest), opt in definitions.opts.items():
        if isinstance(opt, cfg.SubCommandOpt):
            continue
        where, secret = _where(conf, files, group, opt)
        value = (conf if group is None else conf[group])[dest]
        yield Setting(group, opt.dest, shown(opt, value, secret), where)
    for (section, name), layer in files.keys().items():
        if not definitions.find(section, name):
            yield Setting(
                None if section == 'DEFAULT' else section, name, MASK,
                f'{layer.document.origin}; no option of the service')


def _where(conf, files, group, opt):
    location = conf.get_location(opt.dest, group)
    if location is None or not location.location.is_user_controlled:
        return None, False
    if location.location == cfg.Locations.user:
        # oslo.config names the last file that has the section.
        try:
            _value, layer = files.find(group, opt)
            return (layer.where(group, opt) if layer.document.key
                    else layer.document.origin), layer.document.secret
        except KeyError:
            pass
    return (location.detail or location.location.name.replace('_', ' '),
            False)


def _files(conf):
    """Return the files that were read, the last one counts most.

    Of what `config run` has written it is known where it is from, and that
    nobody may see what is from a Secret.
    """
    found = [*conf.default_config_files]
    for path in conf.default_config_dirs:
        try:
            yield from folder.read_index(path)
        except FileNotFoundError:
            found += sorted(glob.glob(os.path.join(path, '*.conf')))
    for path in found:
        with open(path, encoding='utf-8') as f:
            yield documents.Document(path, '', f.read())


def changes(old, new, definitions):
    """Return the Changes between documents, by group and name.

    :param old: the documents that the service started with
    :param new: those that it would start with now
    :raises errors.Refused: when one of them is no INI text
    """
    old, new = layers.Layers(old), layers.Layers(new)
    found = {}
    for section, name in sorted({*old.keys(), *new.keys()}):
        known = definitions.find(section, name)
        group, opt = known or (section, _unknown(name))
        group = None if group == 'DEFAULT' else group
        before, former = _find(old, group, opt)
        after, layer = _find(new, group, opt)
        if before == after:
            continue
        secret = any(each and each.document.secret
                     for each in (former, layer)) or not known
        found[group, opt.dest] = Change(
            group, opt.dest, shown(opt, before, secret),
            shown(opt, after, secret), layer and layer.where(group, opt),
            not opt.mutable)
    return list(found.values())


def _find(found, group, opt):
    try:
        return found.find(group, opt)
    except KeyError:
        return None, None


def _unknown(name):
    # All of its values count: which one would, nobody knows.
    return cfg.MultiStrOpt(name, dest=name)
