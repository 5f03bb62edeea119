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

"""What the documentation quotes is there."""

import ast
import pathlib
import re

import testtools
import yaml

from nova_k8s import conf

TOP = pathlib.Path(__file__).resolve().parents[2]
DOC = TOP / 'doc' / 'source'

# What a message has filled in.
GAP = '\0'


def messages():
    """Every text in the source, with a gap where a value is filled in."""
    found = []
    for path in (TOP / 'nova_k8s').rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                found.append(''.join(
                    each.value if isinstance(each, ast.Constant) else GAP
                    for each in node.values))
            elif isinstance(node, ast.Constant) and isinstance(
                    node.value, str):
                found.append(re.sub('%[sd]', GAP, node.value))
    return found


def quotes(text):
    """The log lines that a page quotes."""
    block = r'(?m)^\.\. code-block:: none\n   :class: log\n\n   (.*)\n'
    return re.findall(block, text)


def is_in_source(line, texts):
    """Whether a line, with <gaps>, could be one of the source's."""
    # What it is about often stands before a message that is raised below.
    line = re.sub('^<[^>]*>: ', '', line)
    parts = [part for part in re.split('<[^>]*>', line) if part.strip()]
    quoted = re.compile('.*'.join(map(re.escape, parts)), re.DOTALL)
    return any(quoted.search(text) for text in texts)


class TroubleshootingTest(testtools.TestCase):

    def setUp(self):
        super().setUp()
        self.messages = messages()
        self.page = (DOC / 'troubleshooting.rst').read_text()

    def test_log_lines_are_those_of_the_source(self):
        lines = quotes(self.page)
        self.assertGreater(len(lines), 20)
        self.assertEqual(self.page.count(':class: log'), len(lines))
        self.assertEqual([], [line for line in lines if not
                              is_in_source(line, self.messages)])

    def test_another_line_is_found_out(self):
        self.assertFalse(is_in_source(
            '<object>: no limit was set at <field>', self.messages))
        self.assertFalse(is_in_source(
            'no limit is set at <field>, or <field>; set one', self.messages))

    def test_other_messages_in_the_text(self):
        for quoted in ('nova-compute does not start:',):
            self.assertIn(quoted, self.page)
            self.assertTrue(is_in_source(quoted, self.messages))


class PagesTest(testtools.TestCase):

    def setUp(self):
        super().setUp()
        self.pages = {path: path.read_text() for path in (
            *DOC.rglob('*.rst'), TOP / 'CONTRIBUTING.rst',
            TOP / 'devstack' / 'README.rst')}

    def test_options_exist(self):
        known = {option.name for option in conf.OPTS}
        for path, text in self.pages.items():
            named = re.findall(r'\[kubernetes\]\s+([a-z_0-9]{3,})', text)
            self.assertEqual(
                [], [name for name in named if name not in known], path)

    def test_nothing_is_left_to_be_filled_in(self):
        for path in (TOP / 'README.md', *(TOP / 'doc').rglob('*.rst')):
            self.assertEqual([], [line for line in
                                  path.read_text().splitlines()
                                  if '@@' in line], path)

    def test_versions_of_python_are_those_of_the_package(self):
        setup = (TOP / 'setup.cfg').read_text()
        versions = re.findall(r'Python :: (3\.\d+)\n', setup)
        first, last = versions[0], versions[-1]
        self.assertIn(f'python_requires = >={first}\n', setup)
        self.assertIn(f'Python {first} to {last} and make',
                      (TOP / 'README.md').read_text())
        makefile = (TOP / 'Makefile').read_text()
        self.assertIn(f'No Python {first} to {last} was found', makefile)
        self.assertIn('({}) <= sys.version_info[:2] <= ({})'.format(
            first.replace('.', ', '), last.replace('.', ', ')), makefile)
        for version in versions:
            self.assertIn(f'python{version}', makefile)

    def test_files_exist(self):
        for path, text in self.pages.items():
            for name in re.findall(r'``((?:etc|devstack|doc|tools|tests|'
                                   r'nova_k8s|overlays)/[^`<> ]+)``', text):
                places = (TOP / name, TOP / 'etc' / 'kubernetes' / name)
                self.assertTrue(any(each.exists() for each in places),
                                f'{path}: {name}')

    def test_environment_is_that_of_the_manifest(self):
        deployment = yaml.safe_load(
            (TOP / 'etc' / 'kubernetes' / 'base' / 'nova-compute.yaml')
            .read_text())
        container, = deployment['spec']['template']['spec']['containers']
        expected = {each['name']: each['valueFrom']['fieldRef']['fieldPath']
                    for each in container['env']}
        page = self.pages[DOC / 'configuration.rst']
        self.assertEqual(expected, dict(re.findall(
            r'\* - ``([A-Z_]+)``\n     - ``([a-zA-Z.]+)``', page)))

    def test_versions_of_charts_are_those_that_were_read(self):
        charts = yaml.safe_load((pathlib.Path(__file__).parent /
                                 'openstack_helm_keys.yaml').read_text())
        for name, chart in charts.items():
            self.assertIn(f'{name} {chart["version"]}',
                          self.pages[DOC / 'comparison.rst'])


class ArchitectureTest(testtools.TestCase):
    """The page for contributors has every room and module."""

    def test_modules(self):
        page = (DOC / 'contributor' / 'architecture.rst').read_text()
        package = TOP / 'nova_k8s'
        names = {path.stem for path in package.rglob('*.py')
                 if path.stem != '__init__' and path.parent != package and
                 'sources' not in path.parts and 'cmd' not in path.parts}
        self.assertGreater(len(names), 20)
        self.assertEqual([], sorted(
            name for name in names if f'``{name}``' not in page))
        rooms = {path.parent.name for path in package.glob('*/__init__.py')}
        self.assertEqual([], sorted(
            name for name in rooms if f'``{name}``' not in page and
            f'{name}/' not in page))
