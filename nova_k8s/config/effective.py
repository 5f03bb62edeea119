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

from nova_k8s.config import command_line
from nova_k8s.config import documents
from nova_k8s.config import folder
from nova_k8s.config import layers
from nova_k8s.config import source

MASK = '****'

# In place of a value that the service cannot take.
INVALID = 'not valid'

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
class Loaded:
    """A configuration, as a service would have it.

    :ivar conf: cfg.ConfigOpts
    :ivar definitions: the definitions.Definitions of its options
    :ivar words: of the command line, as they were taken
    """

    conf: object
    definitions: object
    words: list


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


def load(definitions, project, program, words=(), **defaults):
    """Return what a service would make of its configuration, Loaded.

    :param words: of its command line
    :param defaults: default_config_files and default_config_dirs, where it
        does not find them by itself
    :raises cfg.Error: what the service would end with
    """
    conf = cfg.ConfigOpts()
    taken = definitions.register(conf, words)
    conf(taken, project=project, prog=program, **defaults)
    return Loaded(conf, definitions, taken)


def settings(loaded):
    """Yield a Setting of each option, and of what is set and not known."""
    places = _Places(loaded)
    _hide(loaded.conf, places)
    for group, opt in _options(loaded.definitions):
        where, secret = places.of(group, opt)
        value = _value(loaded.conf, group, opt)
        yield Setting(group, opt.dest, shown(opt, value, secret), where)
    for section, name, layer in places.unknown():
        yield Setting(
            None if section == 'DEFAULT' else section, name, MASK,
            f'{layer.where(section, _unknown(name))}; no option of the '
            f'service')


def changes(old, new):
    """Return the Changes between two configurations, by group and name.

    Of options that nobody knows it is compared what is written.

    :param old: Loaded, as the service has it
    :param new: Loaded, as it would have it after a restart
    """
    before, after = places = _Places(old), _Places(new)
    different = [(group, opt) for group, opt in _options(new.definitions)
                 if _value(old.conf, group, opt) != _value(
                     new.conf, group, opt)]
    for each, there in zip((old, new), places):
        _hide(each.conf, there)
    found = {}
    for group, opt in different:
        secret = any(each.of(group, opt)[1] for each in places)
        found[group, opt.dest] = Change(
            group, opt.dest, *(
                shown(opt, _value(each.conf, group, opt), secret)
                for each in (old, new)),
            after.of(group, opt)[0], not opt.mutable)
    for section, name, _layer in (*before.unknown(), *after.unknown()):
        opt = _unknown(name)
        texts = [each.find(section, opt) for each in places]
        if texts[0][0] != texts[1][0]:
            group = None if section == 'DEFAULT' else section
            found[group, name] = Change(
                group, name, *(shown(None, each) for each, _ in texts),
                texts[1][1] and texts[1][1].where(section, opt), True)
    return sorted(found.values(), key=lambda each: (each.group or '',
                                                    each.name))


def _hide(conf, places):
    """Have a configuration hide its secrets from what refers to them."""
    for (group, dest), (opt, (where, secret)) in places.known.items():
        if where and (secret or opt.secret):
            try:
                conf.set_override(dest, [MASK] if opt.multi else MASK, group)
            except ValueError:
                # No text: it is masked itself, and not a part of others.
                continue


def _options(definitions):
    """Yield (group, opt) of all that can be set, in their order."""
    for (group, _dest), opt in definitions.opts.items():
        if not isinstance(opt, cfg.SubCommandOpt):
            yield group, opt


def _value(conf, group, opt):
    try:
        return (conf if group is None else conf[group])[opt.dest]
    except (cfg.Error, ValueError):
        # A service ends here, or where it uses the option.
        return INVALID


class _Places:
    """Where options of a configuration stand.

    :ivar known: {(group, dest): (opt, of())} of all options
    """

    def __init__(self, loaded):
        self._conf = loaded.conf
        self._definitions = loaded.definitions
        # The first counts most.
        self._layers = [layers.Layers(_files(loaded)), *(
            each.layers for each in source.all_of(loaded.conf))]
        self.known = {
            (group, opt.dest): (opt, self._look(group, opt))
            for group, opt in _options(loaded.definitions)}

    def of(self, group, opt):
        """Return (what sets an option, whether nobody may see its value).

        None and False of a default.
        """
        return self.known[group, opt.dest][1]

    def _look(self, group, opt):
        try:
            location = self._conf.get_location(opt.dest, group)
        except (cfg.Error, ValueError):
            # It was found, or it could not be wrong.
            location = cfg.LocationInfo(cfg.Locations.user, '')
        if location is None or not location.location.is_user_controlled:
            return None, False
        if location.location == cfg.Locations.user:
            # oslo.config names the last file that has the section.
            _value, layer = self.find(group, opt)
            if layer:
                return layer.where(group, opt), layer.document.secret
        return (location.detail or location.location.name.replace('_', ' '),
                False)

    def find(self, group, opt):
        """Return (value, layer) of what is written; None of each if none."""
        for each in self._layers:
            try:
                return each.find(group, opt)
            except KeyError:
                continue
        return None, None

    def unknown(self):
        """Yield (section, name, layer) of what no list of options has."""
        # Their options are the drivers'.
        sources = self._conf.config_source
        for each in self._layers:
            for (section, name), layer in each.keys().items():
                if section not in sources and not self._definitions.find(
                        section, name):
                    yield section, name, layer


def _files(loaded):
    """Yield the files that were read, the last one counts most.

    Of what `config run` has written it is known where it is from, and that
    nobody may see what is from a Secret.
    """
    named = command_line.files(loaded.words)
    conf = loaded.conf
    defaults = [
        *((each, False) for each in conf.default_config_files
          if not any(not is_folder for _path, is_folder in named)),
        *((each, True) for each in conf.default_config_dirs
          if not any(is_folder for _path, is_folder in named))]
    for path, is_folder in (*defaults, *named):
        if not is_folder:
            yield _document(path)
            continue
        try:
            yield from folder.read_index(path)
        except FileNotFoundError:
            for each in sorted(glob.glob(os.path.join(path, '*.conf'))):
                yield _document(each)


def _document(path):
    with open(path, encoding='utf-8') as f:
        return documents.Document(path, '', f.read())


def _unknown(name):
    # All of its values count: which one would, nobody knows.
    return cfg.MultiStrOpt(name, dest=name)
