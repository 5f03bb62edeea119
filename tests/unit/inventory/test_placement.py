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

"""Writing inventories while somebody else allocates."""

import threading
from unittest import mock

from nova_k8s import errors
from nova_k8s.inventory import placement
from tests.unit import base

UUID = '2f1f0b2e-6a0c-4a1e-9d2c-000000000001'


def record(total, reserved=0, ratio=1.0):
    return {'total': total, 'reserved': reserved, 'min_unit': 1,
            'max_unit': total, 'step_size': 1, 'allocation_ratio': ratio}


class Client:
    """Placement, with allocations that come between two requests."""

    def __init__(self, inventories, allocations=0, status=200):
        self.inventories = inventories
        self.generation = 1
        self.allocations = allocations
        self.status = status
        self.writes = []

    def _answer(self, status, body=None):
        return mock.Mock(status_code=status, text='some\ntext',
                         json=lambda: body)

    def get(self, url, version=None):
        assert url == f'/resource_providers/{UUID}/inventories'
        body = {'inventories': dict(self.inventories),
                'resource_provider_generation': self.generation}
        if self.allocations:
            self.allocations -= 1
            self.generation += 1
        return self._answer(self.status, body)

    def put(self, url, body, version=None):
        self.writes.append(body)
        if body['resource_provider_generation'] != self.generation:
            return self._answer(409)
        self.inventories = body['inventories']
        self.generation += 1
        return self._answer(200, dict(
            body, resource_provider_generation=self.generation))


class DifferTest(base.TestCase):

    def test_differ(self):
        present = {'VCPU': record(4)}
        for wanted, expected in (
                ({'VCPU': record(4)}, False),
                ({'VCPU': record(4, ratio=2.0)}, False),
                ({'VCPU': record(4, 1)}, True),
                ({'VCPU': record(3)}, True),
                ({}, True),
                ({'VCPU': record(4), 'MEMORY_MB': record(1)}, True)):
            self.assertEqual(expected, placement.differ(present, wanted),
                             wanted)


class WriteTest(base.TestCase):

    def write(self, client, **wanted):
        found, generation = placement.write(
            client, UUID, wanted, threading.Event())
        self.assertEqual(client.inventories, found)
        self.assertEqual(client.generation, generation)

    def test_only_what_differs(self):
        client = Client({'VCPU': record(4), 'MEMORY_MB': record(8, ratio=2.0),
                         'DISK_GB': record(9)})
        self.write(client, MEMORY_MB=record(6, 3), NONE=record(1))
        self.assertEqual(
            {'VCPU': record(4), 'DISK_GB': record(9),
             'MEMORY_MB': dict(record(6, 3), allocation_ratio=2.0)},
            client.inventories)
        self.assertEqual(1, len(client.writes))
        self.write(client, MEMORY_MB=record(6, 3))
        self.assertEqual(1, len(client.writes))

    def test_conflicts(self):
        client = Client({'VCPU': record(4)}, allocations=3)
        self.write(client, VCPU=record(3))
        self.assertEqual({'VCPU': record(3)}, client.inventories)
        self.assertEqual(4, len(client.writes))

    def test_conflicts_without_end(self):
        client = Client({'VCPU': record(4)}, allocations=4)
        exc = self.assertRaises(errors.NotWritten, self.write, client,
                                VCPU=record(3))
        self.assertIn('409', str(exc))
        self.assertTrue(base.one_line(exc))

    def test_given_up(self):
        # While it waited for the generation, somebody else wrote.
        client = Client({'VCPU': record(4)})
        given_up = threading.Event()
        stock = client.get

        def get(url, version=None):
            given_up.set()
            return stock(url, version)

        client.get = get
        self.assertRaises(errors.NotWritten, placement.write, client, UUID,
                          {'VCPU': record(3)}, given_up)
        self.assertEqual([], client.writes)

    def test_no_answer_that_says_anything(self):
        client = Client({}, status=503)
        exc = self.assertRaises(errors.NotWritten, self.write, client)
        self.assertIn('503', str(exc))
