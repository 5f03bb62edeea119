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

"""What is said to systemd, and what is made of its answers."""

from unittest import mock

import fixtures
import jeepney
from jeepney import wrappers

from nova_k8s.confinement import systemd
from nova_k8s import errors
from tests.unit import base


class SystemdTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.asked, self.answers = [], []
        connection = mock.MagicMock()
        connection.__enter__.return_value.send_and_get_reply = self.answer
        self.open = self.useFixture(fixtures.MockPatch(
            'jeepney.io.blocking.open_dbus_connection',
            return_value=connection)).mock

    def answer(self, message, timeout):
        # As it goes over the wire, where the signature counts.
        parser = jeepney.Parser()
        parser.add_data(message.serialise(1))
        sent = parser.get_next_message()
        fields = sent.header.fields
        self.asked.append((fields[jeepney.HeaderFields.path],
                           fields[jeepney.HeaderFields.member], sent.body))
        answer = self.answers.pop(0)
        if isinstance(answer, str):
            return wrappers.new_error(sent, answer, 's', ('not you',))
        signature, body = answer
        return wrappers.new_method_return(sent, signature, body)

    def test_cgroup(self):
        unit = '/org/freedesktop/systemd1/unit/machine_2eslice'
        self.answers = [('o', (unit,)), ('v', (('s', '/machine.slice'),))]
        self.assertEqual('/machine.slice', systemd.cgroup_of('machine.slice'))
        self.assertEqual([
            ('/org/freedesktop/systemd1', 'LoadUnit', ('machine.slice',)),
            (unit, 'Get', ('org.freedesktop.systemd1.Slice', 'ControlGroup')),
        ], self.asked)
        self.open.assert_called_with('SYSTEM')

    def test_unit_that_is_not_active(self):
        self.answers = [('o', ('/x',)), ('v', (('s', ''),))]
        self.assertIsNone(systemd.cgroup_of('a.scope'))
        self.assertEqual('org.freedesktop.systemd1.Scope',
                         self.asked[-1][-1][0])

    def test_limits(self):
        self.answers = [('', ())] * 2
        systemd.set_limits('machine.slice', 8 << 30, 2500)
        systemd.set_limits('machine.slice', None, None)
        self.assertEqual([
            ('machine.slice', True, [('MemoryMax', ('t', 8 << 30)),
                                     ('CPUQuotaPerSecUSec', ('t', 2500000))]),
            ('machine.slice', True, [
                ('MemoryMax', ('t', 2 ** 64 - 1)),
                ('CPUQuotaPerSecUSec', ('t', 2 ** 64 - 1))]),
        ], [body for _, _, body in self.asked])

    def test_without_the_right(self):
        for name in systemd._DENIED:
            self.answers = [name]
            self.assertRaises(PermissionError, systemd.set_limits, 'a.slice',
                              1, 1)

    def test_refused(self):
        self.answers = ['org.freedesktop.systemd1.NoSuchUnit']
        exc = self.assertRaises(errors.NotYet, systemd.set_limits, 'a.slice',
                                1, 1)
        self.assertIn('SetUnitProperties: not you', str(exc))

    def test_no_bus(self):
        for problem in (FileNotFoundError(2, 'No such file'),
                        TimeoutError('late'), ConnectionResetError(),
                        jeepney.AuthenticationError('no')):
            self.open.side_effect = problem
            exc = self.assertRaises(errors.NotYet, systemd.cgroup_of,
                                    'a.slice')
            self.assertIn('/run/dbus', str(exc))
            self.assertTrue(base.one_line(exc))
