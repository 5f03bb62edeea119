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


# Before anything that imports eventlet or urllib3: Nova patches for the
# concurrency backend that OS_NOVA_DISABLE_EVENTLET_PATCHING asks for. Before
# Nova 32 the import does it.
from nova import monkey_patch

getattr(monkey_patch, 'patch', bool)()

from tests import speed  # noqa: E402

speed.up()
