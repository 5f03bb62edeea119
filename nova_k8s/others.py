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

from oslo_log import log as logging

from nova_k8s import inventory
from nova_k8s import measure

LOG = logging.getLogger(__name__)


class Others:
    """Memory to keep for nova-compute, libvirtd and the like.

    Readers read ``mb``, in MiB; ``option`` is the option that decides it.

    :param mb: None to measure it
    :param cgroup: the folder to measure, None where there is none
    """

    def __init__(self, mb, option, cgroup=None, proc='/proc'):
        self.mb = mb
        self.option = option
        self._measured = mb is None
        self._cgroup = cgroup
        self._proc = proc
        self._problem = None
        if self._measured:
            self.mb = measure.FLOOR
            self.measure()

    def measure(self, known=None):
        """Look again. Does I/O.

        :param known: as for measure.others_kb()
        """
        if not self._measured:
            return
        if not self._cgroup:
            self._tell('this process is in no cgroup of its own')
            return
        try:
            used = measure.others_kb(self._cgroup, self._proc, known)
        except OSError as exc:
            self._tell(exc)
            return
        before, self.mb = self.mb, measure.steady_mb(self.mb, used)
        if self.mb != before:
            LOG.info('Keeping %s MiB for what runs in the pod besides guests; '
                     '%s uses %s KiB', self.mb, self._cgroup, used)

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


def from_conf(conf, look=True):
    """Return the Others that nova.conf asks for. Does I/O.

    :param conf: nova.conf.CONF
    :param look: False where this is not the pod: what is kept at least, then
    """
    mb, option = inventory.reserved_memory(conf)
    if mb is not None or not look:
        return Others(measure.FLOOR if mb is None else mb, option)
    whose = _limits_of_another(conf.kubernetes)
    if whose and not conf.kubernetes.pod_cgroup:
        LOG.warning(
            'What is kept for others is measured in the cgroup that '
            'nova-compute runs in, and the limits may be those of another '
            '([kubernetes] %s): set [kubernetes] pod_cgroup to the cgroup '
            'that they bound, or [kubernetes] reserved_memory_mb to what its '
            'other processes need.', whose)
    return Others(None, option,
                  conf.kubernetes.pod_cgroup or measure.cgroup())
