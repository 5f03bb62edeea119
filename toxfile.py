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

"""A plugin of tox: environments that share one directory.

tox recreates a directory as soon as an environment with another name uses it.
Ours differ in their commands only, so a second copy of Nova for each of them
would cost minutes and say nothing.
"""

from tox.plugin import impl
from tox.tox_env.info import Info
from tox.tox_env.python.virtual_env.runner import VirtualEnvRunner


class SharedInfo(Info):

    def compare(self, value, section, sub_section=None):
        if isinstance(value, dict) and value.get('type') == 'SharedRunner':
            value = dict(value, name='shared')
        return super().compare(value, section, sub_section)


class SharedRunner(VirtualEnvRunner):

    @staticmethod
    def id():
        return 'shared'

    @property
    def cache(self):
        return SharedInfo(self.env_dir)


@impl
def tox_register_tox_env(register):
    register.add_run_env(SharedRunner)
