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

import nova.conf

CONF = nova.conf.CONF


def keep(test):
    """Have them for this test, and for those after it.

    A service that ends has Nova end them for good. Nova's fixture prevents
    that for as long as the test lasts, and Nova's tests do not wait for a
    service to end: one that takes its time would end those of the next test.

    :param test: nova.test.TestCase, in its setUp()
    """
    if importlib.util.find_spec('nova.thread_pool_factory'):
        from nova import thread_pool_factory
        thread_pool_factory.FACTORY._shutdown = False
    if 'manager_shutdown_timeout' in CONF:
        # What is beyond 20 seconds is for guests that are on their way.
        test.flags(manager_shutdown_timeout=20)
