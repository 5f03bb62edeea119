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

"""Whose a lease is; tests/functional has them at a real API server."""

import datetime
import types
from unittest import mock

from nova_k8s import errors
from nova_k8s.kube import leases
from tests.unit import base

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.timezone.utc)


def lease(seconds_ago, holder='a', **spec):
    renewed = NOW - datetime.timedelta(seconds=seconds_ago)
    return {'spec': {'holderIdentity': holder, 'leaseDurationSeconds': 120,
                     'renewTime': renewed.strftime('%Y-%m-%dT%H:%M:%S.%fZ'),
                     **spec}}


class FreeTest(base.TestCase):

    def test_each(self):
        for found, free in (
                (None, True), ({}, True), ({'spec': {}}, True),
                (lease(0), False), (lease(120), False), (lease(121), True),
                (lease(0, ''), True), (lease(0, renewTime=None), True),
                # A clock that is ahead.
                (lease(-60), False),
                (lease(60, leaseDurationSeconds=30), True)):
            self.assertEqual(free, leases.is_free(found, NOW), found)

    def test_no_time(self):
        self.assertRaises(errors.Unreadable, leases.is_free,
                          lease(0, renewTime='now'), NOW)


class HoldTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.now, self.away, self.takes = 1000, False, 0
        self.slots = leases.Slots(self.connect, 'x', 'drain', 1, 'me', 10,
                                  clock=lambda: self.now)
        self.slots._take = mock.Mock(return_value='drain-0')
        self.assertTrue(self.slots.hold())

    def connect(self):
        if self.away:
            self.now += self.takes
            raise errors.Unreadable('away')
        return types.SimpleNamespace(
            configuration=types.SimpleNamespace(host='a'))

    def test_given_up_before_others_may_take_it(self):
        self.away = True
        self.now += leases.DEADLINE - 1
        self.assertTrue(self.slots.hold())
        self.now += 1
        self.assertFalse(self.slots.hold())
        # By others' clocks, too, if they are ahead.
        self.assertEqual(leases.DURATION - leases.RENEW, leases.DEADLINE)

    def test_given_up_while_it_is_asked(self):
        self.away, self.takes = True, 10
        self.now += leases.DEADLINE - 5
        self.assertFalse(self.slots.hold())

    def test_renewed_in_time(self):
        for _ in range(3):
            self.now += leases.DEADLINE
            self.assertTrue(self.slots.hold())
        self.assertEqual(4, self.slots._take.call_count)
