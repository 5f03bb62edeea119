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

"""What is kept beside the record of the compute service."""

import os
from unittest import mock

import fixtures

from nova_k8s.kube import node
from nova_k8s.service import reasons
from nova_k8s.service import record
from nova_k8s.service import switch
from tests.unit import base

NODE = 'kube-1'
SERVICE = '5c1d4c8e-0000-4000-8000-000000000001'


class FileTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.log = self.useFixture(fixtures.FakeLogger('nova_k8s'))
        self.path = self.folder()
        self.kept = reasons.Kept(
            frozenset((node.CORDONED, reasons.LIBVIRT)),
            frozenset((node.CORDONED,)))

    def _file(self, host='host-1', name=NODE):
        return record.File(self.path, host, name)

    def test_survives(self):
        self.assertIsNone(self._file().load(SERVICE))
        self._file().save(self.kept, SERVICE)
        self.assertEqual(self.kept, self._file().load(SERVICE))
        self.assertEqual(['nova-k8s-service.json'], os.listdir(self.path))

    def test_of_another_node(self):
        self._file().save(self.kept, SERVICE)
        self.assertIsNone(self._file(name='kube-2').load(SERVICE))
        self.assertIsNone(self._file(host='host-2').load(SERVICE))
        self.assertIn('belongs to', self.log.output)

    def test_of_a_service_that_was_deleted(self):
        self._file().save(self.kept, SERVICE)
        self.assertIsNone(self._file().load('another'))
        self.assertIn('belongs to', self.log.output)

    def test_damaged(self):
        self._file().save(self.kept, SERVICE)
        target = os.path.join(self.path, 'nova-k8s-service.json')
        for text in ('', '{', '[]', '{"key": {}, "acted": ["x"]}'):
            with open(target, 'w') as f:
                f.write(text)
            self.assertIsNone(self._file().load(SERVICE))
        self.assertEqual(4, self.log.output.count('is ignored'))

    def _conf(self, follow_cordon):
        return mock.Mock(state_path=self.path, kubernetes=mock.Mock(
            follow_cordon=follow_cordon, not_ready_grace=60))

    def test_switched_off(self):
        self._file().save(self.kept, SERVICE)
        self.assertIsNone(switch.from_conf(
            self._conf(False), 'host-1', None, None, None, None))
        self.assertEqual([], os.listdir(self.path))

    def test_no_node_is_followed(self):
        # Lost limits and libvirt are reasons all the same.
        there = True
        made = switch.from_conf(
            self._conf(True), 'host-1', None, lambda: there, None,
            lambda line, node: None)
        service = mock.Mock(uuid=SERVICE, host='host-1')
        written = [reasons.Record(False)]
        service.read = lambda: written[-1]
        service.write = lambda found: written.append(found) or found
        made._service = service
        made.libvirt(True)
        made.step()
        self.assertEqual([reasons.Record(False)], written)
        there = False
        made.step()
        self.assertEqual(reasons.Record(True, 'AUTO: no budget'), written[-1])
        there = True
        made.step()
        self.assertEqual(reasons.Record(False), written[-1])
        self.assertEqual('', self.log.output)

    def test_no_folder_is_said_once(self):
        file = record.File(os.path.join(self.path, 'none'), 'host-1', NODE)
        for _ in range(3):
            file.save(self.kept, SERVICE)
        self.assertEqual(1, self.log.output.count('After a restart'))
