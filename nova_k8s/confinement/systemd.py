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

"""The limits of a unit of systemd, through its D-Bus.

systemd writes the cgroups of its units itself, and writes them again: whoever
writes their files does not count for long.
"""

import jeepney
from jeepney.io import blocking

from nova_k8s import errors

# Seconds for one answer.
TIMEOUT = 10

_SYSTEMD = 'org.freedesktop.systemd1'
_MANAGER = jeepney.DBusAddress('/org/freedesktop/systemd1', _SYSTEMD,
                               f'{_SYSTEMD}.Manager')

# What systemd takes for no limit.
INFINITY = 2 ** 64 - 1

# Who asks may not; on the bus this is no error of its own.
_DENIED = ('org.freedesktop.DBus.Error.AccessDenied',
           'org.freedesktop.DBus.Error.InteractiveAuthorizationRequired')


def cgroup_of(unit):
    """Return the path of a unit's cgroup, None where it has none now.

    :raises errors.NotYet: when systemd does not answer
    """
    path, = _ask(_MANAGER, 'LoadUnit', 's', (unit,))
    kind = unit.rpartition('.')[2].capitalize()
    found = _ask(jeepney.DBusAddress(
        path, _SYSTEMD, 'org.freedesktop.DBus.Properties'), 'Get', 'ss',
        (f'{_SYSTEMD}.{kind}', 'ControlGroup'))
    return found[0][1] or None


def set_limits(unit, memory_bytes, cpu_millicores):
    """Set limits of a unit, until the machine is booted again.

    None is no limit. systemd writes them to the kernel a moment later.

    :raises PermissionError: when who asks may not
    :raises errors.NotYet: when systemd does not answer, or refuses
    """
    _ask(_MANAGER, 'SetUnitProperties', 'sba(sv)', (unit, True, [
        ('MemoryMax', ('t', INFINITY if memory_bytes is None
                       else memory_bytes)),
        # Microseconds of CPU in each second.
        ('CPUQuotaPerSecUSec', ('t', INFINITY if cpu_millicores is None
                                else cpu_millicores * 1000))]))


def _ask(address, method, signature, arguments):
    try:
        with blocking.open_dbus_connection('SYSTEM') as connection:
            answer = connection.send_and_get_reply(
                jeepney.new_method_call(address, method, signature,
                                        arguments), timeout=TIMEOUT)
    except (OSError, EOFError, jeepney.AuthenticationError) as exc:
        # TimeoutError is an OSError.
        raise errors.NotYet(
            f'systemd cannot be asked ({exc}); mount /run/dbus of the node '
            f'in the container of nova-compute') from None
    if answer.header.message_type is not jeepney.MessageType.error:
        return answer.body
    name = answer.header.fields.get(jeepney.HeaderFields.error_name)
    text = answer.body[0] if answer.body else name
    if name in _DENIED:
        raise PermissionError(text)
    raise errors.NotYet(f'systemd refuses {method}: {text}')
