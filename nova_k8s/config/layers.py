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

"""Looking options up in documents, exactly as oslo.config does in files.

The one module that uses what oslo.config keeps to itself: its parser, and how
an option finds its value under all its names. Its own driver for remote files
does the same.
"""

import io

from oslo_config import cfg
from oslo_config import iniparser

from nova_k8s.config import errors


class Layer:
    """One document, parsed.

    :raises errors.Refused: when it is no INI text
    """

    def __init__(self, document):
        self.document = document
        self.sections, self._normalized = {}, {}
        parser = cfg.ConfigParser(document.where(), self.sections)
        parser._add_normalized(self._normalized)
        try:
            # Lines end where they end in a file.
            iniparser.BaseParser.parse(
                parser, io.StringIO(document.text, newline=None))
        except iniparser.ParseError as exc:
            # Its text repeats the line, which may be a password.
            raise errors.Refused(f'{document.where()}: line {exc.lineno}: '
                                 f'{exc.msg}') from None
        self._namespace = cfg._Namespace(cfg.ConfigOpts())
        self._namespace._add_parsed_config_file(
            document.where(), self.sections, self._normalized)

    def find(self, group, opt):
        """Return the value of an option; a list where opt.multi.

        :param group: name of the group, or None for DEFAULT
        :raises KeyError: where it is not in the document
        """
        return opt._get_from_namespace(self._namespace, group)[0]

    def where(self, group, opt):
        """Return where an option stands that is in the document."""
        for section, name in names(group, opt):
            if name in self._normalized.get(normal(section), {}):
                return self.document.where(section, name)
        return self.document.where(group, opt.dest)


def normal(section):
    """Return the name of a section as oslo.config compares it."""
    return cfg._normalize_group_name(section)


def names(group, opt):
    """Yield the (group, name) by which a file can set an option.

    In the order in which oslo.config looks for them.
    """
    yield group or 'DEFAULT', opt.dest
    for old in opt.deprecated_opts:
        yield old.group or group or 'DEFAULT', old.name or opt.dest


class Layers:
    """Documents in which options are looked up, the last of them first."""

    def __init__(self, documents):
        """Parse documents.

        :raises errors.Refused: when one of them is no INI text
        """
        self.layers = [Layer(each) for each in documents]

    def find(self, group, opt):
        """Return (value, layer) of an option.

        The values of an option that may be given several times are those of
        all documents, in their order, and the layer is the last one.

        :raises KeyError: where no document has it
        """
        found, last = [], None
        for layer in reversed(self.layers):
            try:
                value = layer.find(group, opt)
            except KeyError:
                continue
            if not opt.multi:
                return value, layer
            found = value + found
            last = last or layer
        if last is None:
            raise KeyError(opt.name)
        return found, last

    def keys(self):
        """Return {(group, name): layer} of all that is set, known or not."""
        return {(group, name): layer for layer in self.layers
                for group, section in layer.sections.items()
                for name in section}
