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

"""What tests/functional cannot have a real Nova answer."""

from unittest import mock

from keystoneauth1 import exceptions as auth_exceptions
from openstack.compute.v2 import server
from openstack import exceptions
import requests

from nova_k8s.drain import nova_api
from nova_k8s.drain import sdk
from nova_k8s import errors
from tests.unit import base


def answer(status):
    found = requests.Response()
    found.status_code = status
    return found


class GuestTest(base.TestCase):

    def guest(self, tenants_decide=True, **fields):
        body = {'id': 'g', 'name': 'web', 'status': 'ACTIVE',
                'flavor': {'ram': 512, 'disk': 1, 'ephemeral': 0, 'swap': 0},
                'image': {'id': 'i'}, 'OS-EXT-STS:power_state': 1, **fields}
        return sdk.Nova(None, tenants_decide)._guest(server.Server(**body))

    def test_local_disk(self):
        flavor = {'ram': 1, 'disk': 1, 'ephemeral': 0, 'swap': 0}
        for fields, local in (
                ({}, True), ({'image': ''}, False), ({'image': None}, False),
                ({'image': '', 'flavor': {**flavor, 'ephemeral': 1}}, True),
                ({'image': '', 'flavor': {**flavor, 'swap': 512}}, True)):
            self.assertEqual(local, self.guest(**fields).local_disk, fields)

    def test_wish(self):
        tag = {'tags': ['x', 'nova-k8s:drain=stop']}
        metadata = {'metadata': {'nova-k8s:drain': 'cold'}}
        flavor = {'flavor': {'ram': 1, 'extra_specs': {
            'nova-k8s:drain': 'skip'}}}
        for fields, wish in (
                ({}, None), (tag, 'stop'), (metadata, 'cold'),
                ({**tag, **metadata}, 'stop'),
                ({**tag, **flavor}, 'skip')):
            self.assertEqual(wish, self.guest(**fields).wish, fields)
        self.assertIsNone(self.guest(False, **tag, **metadata).wish)
        self.assertEqual('skip', self.guest(False, **tag, **flavor).wish)

    def test_a_cell_is_down(self):
        # Nova then knows little more than the id.
        found = sdk.Nova(None)._guest(server.Server(id='g', status='UNKNOWN'))
        self.assertEqual(('g', 'UNKNOWN', 'g'),
                         (found.id, found.status, found.name))

    def test_fault(self):
        found = self.guest(status='ERROR', fault={
            'code': 500, 'message': 'No valid\nhost'})
        self.assertEqual('No valid host', found.fault)


class TranslatedTest(base.TestCase):

    def test_each(self):
        table = (
            (exceptions.ForbiddenException(
                'x', response=answer(403)), nova_api.Forbidden),
            (exceptions.BadRequestException(
                'x', response=answer(400)), nova_api.Refused),
            (exceptions.ConflictException(
                'x', response=answer(409)), nova_api.Refused),
            (exceptions.NotFoundException(
                'x', response=answer(404)), nova_api.Refused),
            (exceptions.HttpException(
                'x', response=answer(503)), nova_api.Unreachable),
            (auth_exceptions.Unauthorized('x'), nova_api.Forbidden),
            (auth_exceptions.ConnectFailure('x'), nova_api.Unreachable),
            (auth_exceptions.DiscoveryFailure('x'), nova_api.Unreachable),
            (requests.Timeout('x'), nova_api.Unreachable))
        for raised, expected in table:
            with self.subTest(raised=raised):
                compute = mock.Mock()
                compute.services.side_effect = raised
                nova = sdk.Nova(lambda: mock.Mock(compute=compute))
                exc = self.assertRaises(expected, nova.services)
                self.assertTrue(base.one_line(exc))

    def test_connecting_too(self):
        def connect():
            raise auth_exceptions.ConnectFailure('no Keystone')
        exc = self.assertRaises(nova_api.Unreachable,
                                sdk.Nova(connect).services)
        self.assertIn('no Keystone', str(exc))


class CloudTest(base.TestCase):

    def test_no_such_cloud(self):
        exc = self.assertRaises(errors.Refused, sdk.from_cloud, 'nowhere')
        self.assertIn('--cloud', str(exc))
        self.assertTrue(base.one_line(exc))
