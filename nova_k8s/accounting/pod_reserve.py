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

"""What the pod uses besides guests: [kubernetes] reserved_memory_mb."""

import collections
import os
import pathlib

from oslo_config import cfg
from oslo_log import log as logging

from nova_k8s.accounting import usage
from nova_k8s.confinement import cgroup
from nova_k8s.kube import client as kube_client

LOG = logging.getLogger(__name__)

# What is kept for the pod's other processes at least, in MiB: nova-compute,
# libvirtd and virtlogd after start, before they had anything to do.
FLOOR = 256

# The same in a guests' pod: libvirtd and what holds the pod, and nothing else
# is in it.
GUESTS_POD_FLOOR = 128

# By how much it changes, and how far a measurement is kept away from the
# next such step, in MiB: a daemon that breathes does not change inventories.
STEP = 64
HEADROOM = 32

# For how many measurements a peak counts.
LOOKS = 10

# A change from one measurement to the next, in MiB, after which the next one
# comes sooner: what grows is noticed before it has used up its headroom.
MOVES = 8


def configured_mb(conf):
    """Return (MiB, option): memory for what runs in the pod besides guests.

    MiB is None where it is to be measured. What the operator has set wins over
    what is measured, and Nova's default over nothing.

    :param conf: nova.conf.CONF
    """
    if conf.get_location('reserved_host_memory_mb').location not in (
            cfg.Locations.opt_default, cfg.Locations.set_default):
        return conf.reserved_host_memory_mb, 'reserved_host_memory_mb'
    text = conf.kubernetes.reserved_memory_mb
    return (None if text == 'auto' else int(text),
            '[kubernetes] reserved_memory_mb')


def measure_kb(folder, proc='/proc', known=None):
    """Return what the processes of a cgroup use that belong to no guest.

    Guests have cgroups of their own below it, or none, as libvirt is
    configured.

    :param known: the UUIDs of guests that are accounted for; None for all. A
        guest that Nova has forgotten is one of the others until it ends.

    :raises OSError: when the cgroup is not there, or may not be read
    """
    top = pathlib.Path(folder)
    seen = usage.guests(proc, map(str, cgroup.pids_below(top)))
    forgotten = {guest.pid for uuid, guest in seen.items()
                 if known is not None and uuid not in known}
    apart = [path for path in top.rglob('*')
             if path.is_dir() and (path.name.endswith('.libvirt-qemu') or
                                   path.name.startswith('machine-qemu')) and
             not cgroup.pids_below(path) & forgotten]
    used = cgroup.charged_kb(top) - sum(
        cgroup.charged_kb(each) for each in apart)
    pids = set()
    for path in [top, *top.rglob('*')]:
        if not path.is_dir() or any(each == path or each in path.parents
                                    for each in apart):
            continue
        try:
            pids.update((path / 'cgroup.procs').read_text().split())
        except OSError:
            continue
    for guest in seen.values():
        if guest.pid in forgotten:
            continue
        for pid in (guest.pid, *guest.helpers):
            if str(pid) in pids:
                used -= usage.process_kb(proc, pid)
    return max(0, used)


def steady_mb(measured_kb, floor=FLOOR):
    """Return what to keep for the pod's other processes.

    What the largest of the last measurements asks for: more at once, less when
    a peak is LOOKS measurements past.

    :param measured_kb: the last of them
    :param floor: what is kept at least, in MiB
    """
    wanted_mb = max(measured_kb) // usage.KIB_PER_MIB + HEADROOM
    return max(floor, -(-wanted_mb // STEP) * STEP)


class PodReserve:
    """Memory to keep for nova-compute, libvirtd and the like.

    Readers read ``mb``, in MiB; ``option`` is the option that decides it.

    :param mb: None to measure it
    :param find: returns the folder of the cgroup to measure, None where
        there is none
    :param floor: what is kept at least, in MiB, where it is measured
    """

    def __init__(self, mb, option, find=lambda: None, proc='/proc',
                 floor=FLOOR):
        self.mb = mb
        self.option = option
        self._measured = mb is None
        self._find = find
        self._floor = floor
        self._proc = proc
        self._problem = None
        self._last_kb = 0
        self._seen_kb = collections.deque(maxlen=LOOKS)
        if self._measured:
            self.mb = floor
            self.measure()

    def measure(self, known=None):
        """Look again. Does I/O.

        :param known: as for measure_kb()
        :returns: whether it moves
        """
        if not self._measured:
            return False
        folder = self._find()
        if not folder:
            self._tell('its cgroup is not seen here')
            return False
        try:
            used = measure_kb(folder, self._proc, known)
            self._seen_kb.append(used)
        except OSError as exc:
            self._tell(exc)
            return False
        before, self.mb = self.mb, steady_mb(self._seen_kb, self._floor)
        if self.mb != before:
            LOG.info('Keeping %s MiB for what runs in the pod besides guests; '
                     '%s uses %s KiB', self.mb, folder, used)
        last_kb, self._last_kb = self._last_kb, used
        return abs(used - last_kb) > MOVES * usage.KIB_PER_MIB

    def _tell(self, problem):
        if str(problem) != self._problem:
            LOG.warning(
                'Cannot measure what runs in the pod besides guests, %s MiB '
                'are kept for it: %s. Set [kubernetes] pod_cgroup to the '
                'cgroup to measure, or [kubernetes] reserved_memory_mb to '
                'what is needed.', self.mb, problem)
        self._problem = str(problem)


def _limits_of_another(options):
    """The option that may name another pod or container, or None."""
    if options.limits_from == 'api' and options.pod_selector:
        return 'pod_selector'
    if options.limits_from != 'downward_api' and (
            options.container not in (None, '', '*')):
        return 'container'
    return None


def _is_bounded_by(folder, limit_bytes):
    """Whether the memory limit of a cgroup is this one."""
    if not folder or limit_bytes is None:
        return False
    try:
        text = (pathlib.Path(folder) / 'memory.max').read_text().strip()
    except OSError:
        return False
    page = os.sysconf('SC_PAGE_SIZE')
    # The kernel rounds to whole pages.
    return text.isdigit() and int(text) // page == limit_bytes // page


def from_conf(conf, limit_bytes=None, look=True):
    """Return the PodReserve that nova.conf asks for. Does I/O.

    :param conf: nova.conf.CONF
    :param limit_bytes: the memory limit that guests are bounded by
    :param look: False where this is not the pod: what is kept at least, then
    """
    mb, option = configured_mb(conf)
    guests_pod = kube_client.guests_pod(conf, os.environ)
    floor = GUESTS_POD_FLOOR if guests_pod else FLOOR
    if mb is not None or not look:
        return PodReserve(floor if mb is None else mb, option)
    if conf.kubernetes.pod_cgroup:
        return PodReserve(None, option, lambda: conf.kubernetes.pod_cgroup,
                          floor=floor)
    if guests_pod:
        return PodReserve(None, option, cgroup.guests_pod_folder, floor=floor)
    folder = cgroup.own_folder()
    whose = _limits_of_another(conf.kubernetes)
    if whose and not _is_bounded_by(folder, limit_bytes):
        LOG.warning(
            'What is kept for others is measured in the cgroup that '
            'nova-compute runs in, whose memory limit is not the one that '
            'guests are bounded by, which may be that of another '
            '([kubernetes] %s): set [kubernetes] pod_cgroup to the cgroup '
            'that it bounds, or [kubernetes] reserved_memory_mb to what its '
            'other processes need.', whose)
    return PodReserve(None, option, lambda: folder)
