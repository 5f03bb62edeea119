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

"""Looking at processes of other users, with one capability and no more.

QEMU has a user of its own, whose memory nova-compute may not look into. Nova's
way to more rights is oslo.privsep: a helper process that can do what is listed
here, and is started when it is needed first, as [nova_k8s_guests] says.
"""

import dataclasses

from oslo_log import log as logging
from oslo_privsep import capabilities
from oslo_privsep import daemon
from oslo_privsep import priv_context

from nova_k8s.accounting import usage

LOG = logging.getLogger(__name__)

# /proc/PID/smaps of another user asks for it, and so does nothing else here.
guests_pctxt = priv_context.PrivContext(
    'nova_k8s',
    cfg_section='nova_k8s_guests',
    pypath=__name__ + '.guests_pctxt',
    capabilities=[capabilities.CAP_SYS_PTRACE],
)


@guests_pctxt.entrypoint
def _used(uuid, pid, memory_kb, helpers):
    """Return the fields of usage.Used, or None. Sums, nothing of a content."""
    found = usage.Process(uuid, int(pid), memory_kb, tuple(helpers)).used()
    return found and dataclasses.asdict(found)


def used(process, proc='/proc'):
    """Return what a process uses, with more rights where that needs them.

    :param process: usage.Process
    :raises OSError: when it has ended, or may not be read even so
    """
    try:
        return process.used(proc)
    except PermissionError as exc:
        denied = exc
    try:
        found = _used(process.uuid, process.pid, process.memory_kb,
                      list(process.helpers))
    except (daemon.FailedToDropPrivileges, PermissionError) as exc:
        _warn(exc)
        raise denied from None
    return found and usage.Used(**found)


_warned = []


def _warn(exc):
    """Once: the estimates stand, and that is what it says."""
    if not _warned:
        _warned.append(True)
        LOG.warning(
            'What guests cost cannot be measured, the estimates stand: %s. '
            'Set helper_command of [nova_k8s_guests] as that of '
            '[nova_sys_admin] is set, and give the container CAP_SYS_PTRACE '
            'and hostPID.', exc)
