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

"""Limiting a cgroup that is root's, with no capability at all.

Nova's way to more rights is oslo.privsep: a helper process that does what is
listed here, and is started when it is needed first, as [nova_k8s_guest_slice]
says. The files of a cgroup are root's, and so is the word to systemd: being
root is enough for both, and the helper gives up everything else.
"""

import os
import re

from oslo_privsep import daemon
from oslo_privsep import priv_context

from nova_k8s.confinement import systemd
from nova_k8s import errors

slice_pctxt = priv_context.PrivContext(
    'nova_k8s',
    cfg_section='nova_k8s_guest_slice',
    pypath=__name__ + '.slice_pctxt',
    capabilities=[],
)

# Whatever the helper is asked, it writes nothing else.
_FILES = {'memory.max': re.compile(r'max|\d+'),
          'cpu.max': re.compile(r'(max|\d+) \d+')}


@slice_pctxt.entrypoint
def _write(folder, texts):
    write(folder, texts)


@slice_pctxt.entrypoint
def _set_limits(unit, memory_bytes, cpu_millicores):
    """Return what is wrong, or None: privsep knows none of our errors."""
    try:
        systemd.set_limits(unit, memory_bytes, cpu_millicores)
    except errors.NotYet as exc:
        return str(exc)
    return None


def write(folder, texts):
    """Write limits to the files of a cgroup.

    :param texts: by name of the file
    :raises OSError: when one cannot be written
    :raises ValueError: when that is no limit of a cgroup v2
    """
    for name, text in texts.items():
        if not (name in _FILES and _FILES[name].fullmatch(text)):
            raise ValueError(f'{name} = {text} is no limit')
    # In every cgroup, and nowhere else.
    if not os.path.exists(os.path.join(folder, 'cgroup.controllers')):
        raise ValueError(f'{folder} is no cgroup')
    for name, text in texts.items():
        # Never made: it is the kernel's.
        fd = os.open(os.path.join(folder, name),
                     os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)


def write_limits(folder, unit, limits):
    """Have a cgroup have limits, with more rights where that needs them.

    :param unit: of systemd, whose cgroup it is; None for no unit
    :param limits: guest_slice.Limits
    :raises errors.NotYet: when that is not done
    """
    try:
        if unit:
            _do(systemd.set_limits, _set_limits, unit, limits.memory_bytes,
                limits.cpu_millicores)
        else:
            _do(write, _write, folder, _texts(limits))
    except (OSError, ValueError) as exc:
        raise errors.NotYet(
            f'it cannot be written ({getattr(exc, "strerror", None) or exc}: '
            f'{getattr(exc, "filename", None) or folder})') from None


def _texts(limits):
    # The quota for each 100 ms, in microseconds.
    quota = ('max' if limits.cpu_millicores is None
             else limits.cpu_millicores * 100)
    return {'memory.max': str('max' if limits.memory_bytes is None
                              else limits.memory_bytes),
            'cpu.max': f'{quota} 100000'}


def _do(directly, through_helper, *args):
    try:
        directly(*args)
        return
    except PermissionError:
        pass
    try:
        problem = through_helper(*args)
    except (daemon.FailedToDropPrivileges, PermissionError) as exc:
        raise errors.NotYet(
            f'nova-compute may not write it, nor may its helper ({exc}); set '
            f'helper_command of [nova_k8s_guest_slice] as that of '
            f'[nova_sys_admin] is set') from None
    if problem:
        raise errors.NotYet(problem)
