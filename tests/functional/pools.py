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

"""Nova's thread pools, of which a process has one set."""

import importlib.util


def revive():
    """Have them again, whatever a test before has stopped.

    A service that ends has Nova end them for good, and with them all tests
    that are to come in the same process.
    """
    if importlib.util.find_spec('nova.thread_pool_factory'):
        from nova import thread_pool_factory
        thread_pool_factory.FACTORY._shutdown = False
