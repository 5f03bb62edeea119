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

"""What the unit tests share."""

import tempfile

import fixtures
import hypothesis
from hypothesis import configuration
from oslo_config import cfg
from oslotest import base

from nova_k8s import conf

# A run of the tests is to give the same answer every time, on slow machines
# too, and to leave nothing in the working directory.
hypothesis.settings.register_profile(
    'unit', deadline=None, derandomize=True, database=None, max_examples=100)
hypothesis.settings.load_profile('unit')
configuration.set_hypothesis_home_dir(tempfile.gettempdir())


class TestCase(base.BaseTestCase):

    def setUp(self):
        super().setUp()
        # A test may run in a pod.
        for name in ('POD_NAME', 'POD_NAMESPACE', 'NODE_NAME',
                     'KUBERNETES_SERVICE_HOST', 'KUBERNETES_SERVICE_PORT'):
            self.useFixture(fixtures.EnvironmentVariable(name))

    def conf(self, **options):
        """A configuration with the [kubernetes] options of a nova.conf."""
        found = cfg.ConfigOpts()
        conf.register_opts(found)
        found([], project='nova', default_config_files=[],
              default_config_dirs=[])
        for name, value in options.items():
            found.set_override(name, value, group='kubernetes')
            # All that know the group share what it holds, overrides too.
            self.addCleanup(found.clear_override, name, group='kubernetes')
        return found

    def folder(self):
        return self.useFixture(fixtures.TempDir()).path


def forget_override(conf, name):
    """Have an option be as if it had never been set.

    oslo.config keeps the location of an override that was cleared.
    """
    conf._opts[name].pop('location', None)


def one_line(exc):
    """Whether it is a message for operators: one line, and not empty."""
    return bool(str(exc)) and len(str(exc).splitlines()) == 1
