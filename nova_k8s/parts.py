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

"""What a running compute node is made of, and who tells whom."""

import functools
import os

import nova.conf
from oslo_log import log as logging

from nova_k8s.accounting import accounts
from nova_k8s.accounting import instance_overhead
from nova_k8s.accounting import pod_reserve
from nova_k8s.accounting import summary
from nova_k8s.accounting import usage
from nova_k8s.confinement import cgroup
from nova_k8s.confinement import guest_slice
from nova_k8s.confinement import guests_pod
from nova_k8s.drain import drainer
from nova_k8s.elastic import ways
from nova_k8s import errors
from nova_k8s.inventory import affinity
from nova_k8s.inventory import bounds
from nova_k8s.inventory import compute_node
from nova_k8s.inventory import cpu_sets
from nova_k8s.inventory import disk
from nova_k8s.inventory import publisher
from nova_k8s.inventory import reported
from nova_k8s.kube import client as kube_client
from nova_k8s.kube import events
from nova_k8s.kube import node
from nova_k8s.limits import budget
from nova_k8s.limits import checkpoint
from nova_k8s.limits import messages
from nova_k8s.limits import sources
from nova_k8s.limits import watcher
from nova_k8s.service import reasons
from nova_k8s.service import switch

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)


class Parts:
    """The parts of K8sLibvirtDriver: made in one place, and connected.

    driver.py has what Nova calls. It sets every part to None before
    init_host() and starts and stops them; until then, all is as in Nova's own
    driver.
    """

    # What was left for nova-k8s status last.
    _summary = _summary_problem = None

    def _construct(self, host, known, absent=None):
        """Make all parts, once the limits are known and fit for use.

        :param known: what Nova has of this host, as from compute_node.find()
        :param absent: why the guests' pod does not run, None where it does
        :raises errors.LimitsError: when nova-compute must not start
        """
        overhead = instance_overhead.InstanceOverhead(
            instance_overhead.settings_from(CONF))
        source = sources.from_conf(CONF)
        enforced = cgroup.enforced_from_conf(CONF)
        state = checkpoint.start(
            CONF, source, enforced or watcher.nothing, closed=bool(known))
        found = state.budget
        reserve = pod_reserve.from_conf(CONF, found and found.memory_bytes)
        problem = absent or state.problem
        if found:
            problem = bounds.find_shortage(
                found, CONF.kubernetes.unlimited,
                bounds.reserved_by_class(CONF, reserve.mb), reserve.option)
        if problem and not known:
            raise errors.Refused(problem)
        self._node_name = compute_node.choose_name(
            CONF, os.environ, found, known)
        compute_node.check_name(host, self._node_name, known)
        node_source = self._connect(host, found)
        self._publisher = publisher.Publisher(self._publish, self._measure)
        self._watcher = watcher.Watcher(
            source, state, self._tell, self._publisher.wake, enforced)
        self._reported = reported.Reported(
            self._budget, CONF.kubernetes.unlimited,
            next((each for each in known if self._node_name in (
                None, each.hypervisor_hostname)), None),
            ram=not CONF.libvirt.file_backed_memory,
            disk_gb=disk.adopt(CONF).limit_gb)
        # Before Nova's driver looks, which it does next.
        self._cpu_sets = cpu_sets.from_conf(
            CONF, host, self._guests_pod and source, self._budget)
        self._cpu_sets.begin(known)
        self._reported.sets = lambda: self._cpu_sets.sets
        self._account(overhead, reserve, source)
        if self._holding:
            self._hold(bool(known))
        self._follow(host, source, node_source)
        if problem:
            self._tell_closed(problem, found)
        else:
            self._tell(None, state)

    def _connect(self, host, found):
        """Return the source of the node; have events written."""
        kube_node = (kube_client.node_name(CONF, os.environ) or
                     (found and found.node_name))
        node_source = node.from_conf(CONF, kube_node)
        if CONF.kubernetes.limits_from == 'api' or node_source:
            self._recorder = events.Recorder(
                functools.partial(kube_client.api_client, CONF),
                kube_node or host, CONF.kubernetes.api_timeout)
            self._recorder.start()
        return node_source

    def _account(self, overhead, reserve, source):
        """Have counted what guests cost."""
        self._accounts = accounts.Accounts(
            CONF, overhead, reserve, self._reported.memory_limit_mb,
            self._publisher.wake, lambda: self._reported.closed,
            self._refusal, self._reported.start_limit_mb,
            self._reported.pages_mb)
        self._reported.accounts = self._accounts
        tracker = self._tracker()
        if tracker:
            self._accounts.follow(tracker, self._reported.memory_used_mb)
        self._cpu_sets.connect(
            tracker, self._get_host_numa_topology,
            functools.partial(affinity.move, self._host),
            self._tell_of_guests, self._publisher.wake,
            self._guests_pod and self._guests_pod.wake)
        if self._guests_pod:
            self._guests_pod.connect(
                source.latest, self._accounts.held_bytes, usage.pids,
                self._tell_of_guests, self._wake_service)

    def _follow(self, host, source, node_source):
        """Have followed what changes: room, guests and node."""
        self._elastic = ways.from_conf(
            CONF, source, node_source, self._accounts, self._reported,
            self._tracker(), self._publisher.wake,
            lambda line: self._say(line, self._budget() and
                                   self._budget().pod),
            self._refusal, self._guests_pod and self._guests_pod.refresh)
        self._drainer = drainer.from_conf(
            CONF, host, lambda: self._watcher.state, node_source,
            self._tell_of_drain)
        if CONF.kubernetes.metrics_port:
            # Megabytes, for nothing where there are no metrics.
            from nova_k8s.metrics import exporter
            self._exporter = exporter.from_conf(
                CONF, self._watcher, self._reported, self._accounts,
                self._elastic, self._guests_pod or self._holding,
                self._drainer)
        self._service = switch.from_conf(
            CONF, host, self.virtapi, self._is_open, node_source,
            self._tell_of_service, self._reasons)

    def _first_size(self, host, node):
        """What a guests' pod of this host is made with; see ways.first()."""
        return ways.first(
            CONF, lambda: instance_overhead.of_host(CONF, host),
            pod_reserve.from_conf(CONF, look=False).mb, node)

    def _hold(self, known):
        """Have the cgroup of all guests hold them, before any of it is told.

        :raises errors.Refused: where it does not, and Nova does not know this
            node yet
        """
        self._reported.hold(self._holding.cap)
        self._holding.connect(
            lambda: guest_slice.wanted(self._budget(),
                                       CONF.kubernetes.unlimited),
            self._reported.told, self._publisher.wake, usage.pids,
            self._tell_of_guests, self._wake_service)
        problem = self._holding.hold()
        if problem and not known:
            raise errors.Refused(problem)

    def _budget(self):
        return self._watcher.state.budget

    def _refusal(self):
        """Why this node takes no guest, or None."""
        return self._drainer and self._drainer.refusal()

    def _is_open(self):
        """Whether the limits leave anything for guests."""
        found = self._budget()
        return bool(found) and not bounds.find_shortage(
            found, CONF.kubernetes.unlimited, bounds.reserved_by_class(
                CONF, self._accounts.others_mb))

    def _tracker(self):
        """Nova's resource tracker; None in what uses no compute manager."""
        manager = getattr(self.virtapi, '_compute', None)
        return manager and manager.rt

    # Called by the workers, each in a thread of its own.

    def _publish(self):
        """Have Nova and Placement know what is to be reported now.

        :raises errors.NotWritten: and what Nova's client of Placement raises
        """
        tracker = self._tracker()
        for nodename in self.get_available_nodes():
            if tracker:
                self._reported.publish(tracker, nodename)
        self._leave_summary()

    def _leave_summary(self):
        """Leave the accounts for nova-k8s status; nothing depends on it."""
        present, problem = self._accounts.summary(), None
        if present == self._summary:
            return
        self._summary = present
        try:
            summary.save(CONF, present)
        except OSError as exc:
            problem = str(exc)
        # Not in the handler: there, oslo.log says the problem a second time.
        if problem and problem != self._summary_problem:
            LOG.warning('nova-k8s status will not show what memory is '
                        'reserved for: %s', problem)
        self._summary_problem = problem

    def _measure(self):
        return self._accounts.measure()

    def _tell(self, before, after):
        """Say once what changed, and keep it for the next start."""
        # What it starts with is kept before it is checked.
        if before and before != after and after.budget and not after.problem:
            checkpoint.save(CONF, after.budget)
        if not after.budget:
            checkpoint.forget(CONF)
        subject = after.budget or (before and before.budget)
        use = None
        if before and before.budget != after.budget:
            use = messages.Use(*self._accounts.use())
        for line in messages.for_change(
                before, after, CONF.kubernetes.unlimited, use):
            self._say(line, subject and subject.pod)
        if self._guests_pod:
            self._guests_pod.look()
        for each in (self._holding, self._drainer, self._elastic):
            if each:
                each.wake()
        self._wake_service()

    def _wake_service(self):
        if self._service:
            self._service.wake()

    def _reasons(self):
        """Why the compute service is to be disabled, beside node and limits.

        A pod that comes to its end is a drain, and told as that.
        """
        found = frozenset().union(*(
            each.reasons() for each in (self._drainer, self._guests_pod,
                                        self._holding) if each))
        return (found - {guests_pod.ENDING} if reasons.DRAINING in found
                else found)

    def _tell_of_drain(self, line, kube_node):
        # The pod is gone in the end.
        known = self._budget()
        self._tell_of_service(line, kube_node)
        if self._recorder and known and known.pod:
            self._recorder.record(known.pod, *line)

    def _tell_closed(self, problem, found):
        """Say why a node that was there before starts without room."""
        text = (f'{" ".join(problem.split())}. nova-compute starts, and '
                f'nothing new is placed on this compute node until that is '
                f'mended.')
        LOG.error('%s', text)
        if self._recorder and found and found.pod:
            self._recorder.record(
                found.pod, messages.WARNING, 'StartedClosed', text)

    def _tell_of_service(self, line, kube_node):
        self._say(line, kube_node and kube_node.name and budget.Reference(
            'Node', kube_node.name, kube_node.uid))

    def _tell_of_guests(self, line):
        known = self._budget()
        self._say(line, known and known.pod)

    def _say(self, line, reference):
        (LOG.info if line.type == messages.NORMAL else LOG.warning)(
            '%s', line.text)
        if self._recorder and reference:
            self._recorder.record(reference, *line)
