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


import threading
import time

import fixtures
from kubernetes import client

from nova_k8s.config import documents
from nova_k8s.config import folder
from nova_k8s.config import follower
from tests.unit import api_server
from tests.unit import base
from tests import waiting

CONFIG_MAP = {'metadata': {'namespace': 'n', 'name': 'a'},
              'data': {'nova.conf': '[DEFAULT]\nhost = b\n'}}


class FollowerTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.server = self.useFixture(api_server.ApiServer())
        self.server.will_list(CONFIG_MAP)
        self.server.will_watch()
        self.changed = threading.Event()
        self.written = folder.Folder(self.folder())
        self.written.start([documents.Document('ConfigMap n/a', 'nova.conf',
                                               '[DEFAULT]\nhost = a\n')])

    def follow(self, timeout):
        found = follower.Follower(
            follower.Objects('n', ('a',), ()), self.connect, timeout,
            self.written, self.changed.set)
        found.start()
        self.addCleanup(found._worker.stop)

    def connect(self):
        configuration = client.Configuration()
        configuration.host = self.server.url
        configuration.retries = False
        return client.ApiClient(configuration)

    def asked(self):
        """Return of each request whether it was a watch."""
        return ['watch' in query for _path, query in self.server.requests]

    def test_what_has_changed_before_it_began(self):
        self.follow(10)
        self.assertTrue(self.changed.wait(waiting.PATIENCE))
        document, = self.written.read(folder.CURRENT)
        self.assertEqual('[DEFAULT]\nhost = b\n', document.text)

    def test_what_could_not_be_written_is_written_later(self):
        # A volume in memory is small.
        replace, left = self.written.replace, [OSError(28, 'No space left')]

        def full(found):
            if left:
                raise left.pop()
            replace(found)
        self.useFixture(fixtures.MockPatchObject(follower, 'AGAIN', 0.1))
        self.written.replace = full
        self.follow(10)
        self.assertTrue(self.changed.wait(waiting.PATIENCE))
        document, = self.written.read(folder.CURRENT)
        self.assertEqual('[DEFAULT]\nhost = b\n', document.text)
        # Not because everything was listed anew meanwhile.
        self.assertEqual([False, True], self.asked())

    def test_nothing_is_asked_while_nothing_changes(self):
        # Here, it is the time between two questions of other watches.
        self.follow(0.2)
        self.assertTrue(self.changed.wait(waiting.PATIENCE))
        time.sleep(1)
        self.assertEqual([False, True], self.asked())
