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

"""How `tox -e docs` builds the documentation."""

import configparser
import pathlib

TOP = pathlib.Path(__file__).resolve().parents[2]

_setup = configparser.ConfigParser()
_setup.read(TOP / 'setup.cfg')

project = 'nova-k8s'
copyright = 'the nova-k8s developers'
version = release = _setup['metadata']['version']

extensions = [
    'openstackdocstheme',
    'oslo_config.sphinxext',
    'reno.sphinxext',
]

html_theme = 'openstackdocs'
# Nothing is fetched, and nothing is asked of where this was cloned from.
openstackdocs_auto_name = False
openstackdocs_auto_version = False
openstackdocs_bug_project = ''
openstackdocs_repo_name = ''
html_theme_options = {'sidebar_mode': 'toc', 'display_badge': False}

pygments_style = 'native'
exclude_patterns = []
