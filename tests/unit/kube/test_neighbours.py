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

"""The pods of one node."""

import threading

import fixtures

from nova_k8s import errors
from nova_k8s.kube import neighbours
from nova_k8s.kube import watch
from tests.unit import base
from tests import waiting


class Watch:
    """As kube.watch.Watch, of what a test says."""

    made = []

    def __init__(self, connect, path, what, changed, timeout, **query):
        self.path, self.query, self.changed = path, query, changed
        self.running = threading.Event()
        self.made.append(self)

    def objects(self):
        return [{'metadata': {'name': 'one'}}]

    def run(self, stop):
        self.running.set()
        stop.wait()


class NeighboursTest(base.TestCase):

    def test_watches_those_of_one_node(self):
        Watch.made = []
        self.useFixture(fixtures.MockPatchObject(watch, 'Watch', Watch))
        changed = threading.Event()
        found = neighbours.Neighbours(None, 'node1', 5, changed.set)
        self.assertRaises(errors.Unreadable, found.latest)
        found.start()
        try:
            for _ in range(500):
                if Watch.made and Watch.made[0].running.wait(0.01):
                    break
            only, = Watch.made
            self.assertEqual('/api/v1/pods', only.path)
            self.assertEqual({'field_selector': 'spec.nodeName=node1'},
                             only.query)
            self.assertEqual('one', found.latest()[0]['metadata']['name'])
            only.changed()
            self.assertTrue(changed.wait(waiting.PATIENCE))
        finally:
            found.stop()
