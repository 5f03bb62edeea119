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


"""The options of nova.conf that are ours, all of them."""

import re

from keystoneauth1 import loading
from oslo_config import cfg
from oslo_config import types

from nova_k8s import errors

# The largest allocation ratio that Placement takes, that of its schema.
_LARGEST_RATIO = 3.40282e+38


class _Factor(types.Float):
    """A number from 0 to 1000; oslo.config takes nan to be above 0."""

    def __call__(self, value):
        number = super().__call__(value)
        # With more, what a guest costs may be too large for a float.
        if number is not None and not 0 <= number <= 1000:
            raise ValueError('Should be a number from 0 to 1000')
        return number


class _Size(types.ConfigType):
    """Memory in MiB and cores, as in 16384:4.

    :returns: (MiB, millicores)
    """

    def __init__(self):
        super().__init__(type_name='memory:cores')

    def __call__(self, value):
        if isinstance(value, tuple):
            return value
        found = re.fullmatch(r'(\d{1,9}):(\d{1,5})', value.strip())
        if not found:
            raise ValueError(
                'Should be memory in MiB and cores, for instance 16384:4')
        return int(found.group(1)), 1000 * int(found.group(2))

    def __repr__(self):
        return 'Size'

    def __eq__(self, other):
        return self.__class__ == other.__class__

    def _formatter(self, value):
        return (value if isinstance(value, str) else
                f'{value[0]}:{value[1] // 1000}')


OPTS = [
    cfg.StrOpt(
        'limits_from',
        default='api',
        choices=[
            ('api', 'the pod itself, as the Kubernetes API server tells it'),
            ('manifest', 'a file with the manifest of the pod, see '
                         '``manifest``'),
            ('downward_api', 'the files of a downward API volume, see '
                             '``downward_api_dir``'),
        ],
        help='Where the CPU and memory limits of the pod are read from.'),
    cfg.StrOpt(
        'unlimited',
        default='error',
        choices=[
            ('error', 'a new compute node does not start, and one that '
                      'Nova knows takes no new guests'),
            ('host', 'the whole machine is reported'),
        ],
        help="""What to do where no CPU or memory limit is set.

A pod without a limit competes for the machine with every other pod, so the
machine is reported only where that is asked for.
"""),
    cfg.StrOpt(
        'container',
        help="""The container whose limits are meant for guests.

The name of a container or of a restartable init container: the one in which
libvirt starts QEMU. May be left out where the pod has one container only.
``*`` is the container that may use most, resource by resource: all guests
are in one of them, and the kernel holds them to the limit of that one. A
container without a limit may use that of the pod; without that either, there
is none.

Do not name the container of a daemon: nova-compute's own limit is meant for
nova-compute.
"""),
    cfg.StrOpt(
        'namespace',
        help='Namespace of the pod. Default: ``POD_NAMESPACE`` in the '
             'environment, then the namespace of the service account.'),
    cfg.StrOpt(
        'pod_name',
        help='Name of the pod. Default: ``POD_NAME`` in the environment, then '
             'the host name. With ``limits_from = manifest``: the name of the '
             'Pod or workload, where the file holds several.'),
    cfg.StrOpt(
        'pod_selector',
        help="""Labels of the pod, as kubectl takes them.

For a pod whose name is random, libvirt's pod in most deployments: exactly one
pod with these labels must be on this node. Wins over ``pod_name``. Only for
``limits_from = api``.
"""),
    cfg.StrOpt(
        'guests_pod',
        help="""Path of the template of the guests' pod.

A Pod whose one container has as its limits what all guests of a node may use
together. With it this driver makes a pod ``guests-<node>`` for its own node
where there is none and the node is not cordoned, reads its limits, and tells
libvirt's container, in a file on the node, where guests belong. Annotations of
the Node change the size: ``nova-k8s/guests-memory``, ``nova-k8s/guests-cpu``,
``nova-k8s/guests-hugepages-2Mi`` and so on; a value may be a share of what is
allocatable on the node, such as ``75%``. Only for ``limits_from = api``, and
without ``pod_name`` and ``pod_selector``.
"""),
    cfg.IntOpt(
        'guests_pod_grace',
        default=2592000,
        min=60,
        help="""Seconds that a guests' pod waits for its guests to leave.

That is its terminationGracePeriodSeconds, 30 days by default. When they are
over, the kubelet ends the guests that are left. For ``guests_pod``, whenever a
pod is made.
"""),
    cfg.StrOpt(
        'guest_slice',
        help="""The cgroup that all guests are in, where that is no pod's.

As ``/proc/PID/cgroup`` shows it: ``/machine.slice``, where libvirt uses
systemd-machined on the node, or ``/machine``. The driver limits the memory and
CPU of this cgroup to what the limits allow, and tells Nova no more than it
enforces: it grows before Nova is told, and shrinks after, never below what
guests use. Default: no cgroup is touched, and nothing holds guests that are
outside of a pod. Needs cgroup v2, the node's tree at ``/sys/fs/cgroup`` or
``/node/cgroup``, and for a unit of systemd, such as a slice, its D-Bus below
``/run/dbus``. Not together with ``guests_pod``.
"""),
    cfg.StrOpt(
        'on_escape',
        default='warn',
        choices=[
            ('warn', 'a warning and an event name it'),
            ('disable', 'the compute service is disabled as well'),
        ],
        help="""What to do about a guest outside of the guests' pod.

Or of ``guest_slice``: no limit holds it. A guest of a pod that Kubernetes has
forgotten, because it was deleted by force, disables the service always: its
memory is promised to others. ``nova-k8s check`` shows such guests.
"""),
    cfg.StrOpt(
        'cpus',
        default='shared',
        choices=[
            ('off', 'nothing: Nova knows all CPUs of the machine'),
            ('shared', 'guests float over the CPUs of the guests\' pod'),
            ('dedicated', 'each guest that asks for it has CPUs of the '
                          'guests\' pod for itself'),
        ],
        help="""What Nova is told of the CPUs of the guests' pod.

They become ``[compute] cpu_shared_set`` or ``cpu_dedicated_set``, where
neither is set, and follow the pod. Sets of your own must lie in those of the
pod. ``dedicated`` needs CPUs that no other pod has: a Guaranteed pod, a limit
of whole cores, and ``cpuManagerPolicy: static`` of the kubelet. ``shared``
turns itself off where guests are that Nova pinned. Whatever is set here, the
kernel holds guests to the CPUs of their pod.
"""),
    cfg.IntOpt(
        'cpus_shared',
        default=0,
        min=0,
        help='How many CPUs of a ``dedicated`` set are kept for guests '
             'without CPUs of their own, for the shared part of mixed guests, '
             'and for emulator threads with ``hw:emulator_threads_policy = '
             'share``. Whole cores where that can be.'),
    cfg.StrOpt(
        'node_name',
        help='Name of the Kubernetes node of the pod. Default: ``NODE_NAME`` '
             'in the environment (from ``spec.nodeName``), then what the pod '
             'itself says.'),
    cfg.StrOpt(
        'hypervisor_hostname',
        help="""Name of Nova's compute node. Default: ``node_name``.

It stays the same whatever the pod is called. Where Nova already knows this
host under another name, because it ran with another driver, set that name
here to keep the record with its allocations. Do not change it afterwards.
"""),
    cfg.StrOpt(
        'kubeconfig',
        help='Path of a kubeconfig file to reach the API server with. '
             'Default: the service account of the pod.'),
    cfg.IntOpt(
        'api_timeout',
        default=10,
        min=1,
        help='Seconds to wait for an answer of the API server. At start, '
             'nova-compute waits this long for the limits before it gives '
             'up.'),
    cfg.BoolOpt(
        'follow_cordon',
        default=True,
        help="""Whether the compute service follows the Kubernetes node.

It is disabled while the node is cordoned, shuts down, or is not ready for
longer than ``not_ready_grace``, and enabled again afterwards. What an
administrator disabled stays disabled. The name of the node must be known, see
``node_name``, and the API server must be reachable.
"""),
    cfg.IntOpt(
        'not_ready_grace',
        default=60,
        min=0,
        help='Seconds for which the node may be not ready before the compute '
             'service is disabled, so that the restart of a kubelet is not '
             'noticed in Nova. For ``follow_cordon``.'),
    cfg.StrOpt(
        'drain_on',
        default='eviction',
        choices=[
            ('eviction', 'the pod whose limits are meant for guests is '
                         'deleted or evicted, as ``kubectl drain`` does'),
            ('cordon', 'the Kubernetes node is cordoned'),
            ('taint', 'the Kubernetes node has the taint '
                      '``nova-k8s/drain:NoSchedule``'),
            ('never', 'nothing: guests stay until somebody moves them'),
        ],
        help="""When the guests of this node are moved away, by live migration.

Nothing is ever done because nova-compute or libvirt ends, is restarted or is
updated. ``cordon`` and ``taint`` are for a pod that ``kubectl drain`` leaves
alone, as that of a DaemonSet, and can be taken back: migrations under way
finish then, and no more begin. With ``eviction``, the pod must come from the
API server, see ``limits_from``. The account that asks Nova for migrations is
that of ``[kubernetes_drain]``, otherwise that of ``[service_user]``.
"""),
    cfg.StrOpt(
        'manifest',
        help='Path of a YAML file that holds a Pod, Deployment, StatefulSet, '
             'DaemonSet or ReplicaSet, for ``limits_from = manifest``. A '
             'changed file counts at once; while it is broken, the last good '
             'limits stay.'),
    cfg.StrOpt(
        'downward_api_dir',
        default='/etc/podinfo',
        help="""Folder of a downward API volume, for ``limits_from =
downward_api``.

Files in it: ``cpu_millicores`` (``limits.cpu`` with ``divisor: 1m``) and
``memory_bytes`` (``limits.memory``). Add ``cpu_request_millicores``
(``requests.cpu`` with ``divisor: 1m``) and ``memory_request_bytes``
(``requests.memory``): where no limit is set, Kubernetes shows the node's
allocatable instead, which is noticed where the request is not set either (0).
A request without a limit cannot be told from one below a limit: make sure that
the limit is set.

A volume shows what is wished, also while the kubelet has deferred a resize.
So a growth counts only when the cgroup that nova-compute runs in shows it
too. Where the volume shows the limits of another container, set
``pod_cgroup``. At a start, what the volume shows is believed.
"""),
    cfg.StrOpt(
        'reserved_memory_mb',
        default='auto',
        regex=r'^(auto|\d+)$',
        help="""Memory for what runs in the pod besides guests, in MiB.

``auto`` measures what nova-compute, libvirtd and the like use, see
``pod_cgroup``, and keeps a little more than that. ``reserved_host_memory_mb``
of ``[DEFAULT]`` wins where it is set; its default of 512 does not count with
this driver.
"""),
    cfg.StrOpt(
        'pod_cgroup',
        help="""Folder of the cgroup that the limits bound.

``reserved_memory_mb = auto`` measures what is used in it. With cgroup v2, no
more is offered than it and those above it enforce. Default: the cgroup that
nova-compute runs in; as a bound only where the limits are read from the API
server, of the only container of this pod.
"""),
    cfg.IntOpt(
        'disk_limit_gb',
        min=1,
        help="""The most that the disks of guests may take, in GiB.

Of ``[DEFAULT] instances_path``, the image cache included; never more than the
file system has. Default: where that folder is on a volume of the kind emptyDir
of nova-compute's pod, or in its container, what the pod may have there: the
``sizeLimit`` of the volume, and the limits of its containers for
``ephemeral-storage`` less the size of its other volumes of that kind.
Anywhere else, the file system. Set it where the pod cannot be read: with
``limits_from = downward_api``, for instance.
"""),
    cfg.Opt(
        'overhead_factor',
        type=_Factor(min=0),
        default=1.0,
        help="""Scales the estimate of what QEMU costs beyond a guest's memory.

A number from 0 to 1000.

0, together with ``overhead_addition_mb = 0``, accounts for none of it, as
Nova's own driver, which leaves that to ``reserved_host_memory_mb``.
"""),
    cfg.IntOpt(
        'overhead_addition_mb',
        default=0,
        min=0,
        help='Memory that is added to the estimate of each guest, in MiB.'),
    cfg.IntOpt(
        'reserve_ahead',
        default=1,
        min=0,
        help="""For how many more guests the overhead is reserved in advance.

Placement allocates the memory of a guest before this node hears of it and can
reserve what it costs beyond. Without any, the scheduler tries a node that is
full, and is refused there.
"""),
    cfg.BoolOpt(
        'elastic',
        default=False,
        help="""Whether the pod grows and shrinks with the demand for guests.

The driver asks Kubernetes to resize the pod whose limits it reports, in place,
requests and limits together. Kubernetes decides, and what it has not granted
is not reported. For ``limits_from = api``, with ``elastic_max``. The pod must
have one container, Guaranteed, with ``resizePolicy`` NotRequired.
"""),
    cfg.Opt(
        'elastic_min', type=_Size(), default='4096:2',
        help="""What the pod has even without a guest: memory in MiB and cores.

The annotations ``nova-k8s/elastic-min-memory`` and
``nova-k8s/elastic-min-cpu`` of the Kubernetes node win, with quantities as
Kubernetes writes them.
"""),
    cfg.Opt(
        'elastic_max', type=_Size(),
        help="""The most that the pod may have: memory in MiB and cores.

The annotations ``nova-k8s/elastic-max-memory`` and
``nova-k8s/elastic-max-cpu`` of the Kubernetes node win.
"""),
    cfg.Opt(
        'elastic_headroom', type=_Size(), default='16384:4',
        help="""What is to be free for the next guests: MiB and cores.

A guest that is larger is refused by the scheduler even where the pod could
grow for it, as nobody tells the node. One guest of the largest flavor is a
good choice. The annotations ``nova-k8s/elastic-headroom-memory`` and
``nova-k8s/elastic-headroom-cpu`` of the Kubernetes node win, so that a few
nodes can be ready for what is rare.
"""),
    cfg.ListOpt(
        'elastic_flavors', item_type=_Size(), default=[],
        help='Flavors of which each must fit at any time, as memory in MB and '
             'VCPUs: ``65536:16, 32768:8``. Their overhead is added. Where '
             'that is more than ``elastic_headroom``, it is the headroom.'),
    cfg.Opt(
        'elastic_spare', type=_Size(), default='16384:4',
        help="""What containers are to have free: memory in MiB and cores.

While less than half of it is left of the node, the headroom is given up for
it, never what guests hold. Where less than twice as much is free, guests and
containers have half of it each. The right to list pods in all namespaces is
needed, of which those on this node are read; without it, and with ``0:0``, a
container waits while the headroom is idle.
"""),
    cfg.IntOpt(
        'elastic_idle', default=600, min=10,
        help='Seconds for which room must have been idle before it is given '
             'back. As often as that was regretted, the time doubles, up to a '
             'day.'),
    cfg.Opt(
        'elastic_step', type=_Size(), default='2048:1',
        help='What the size of the pod is a multiple of, and the least that '
             'is worth a resize: memory in MiB and cores.'),
    cfg.PortOpt(
        'metrics_port',
        help='Port at which Prometheus finds the metrics of this compute '
             'node, at ``/metrics``. Default: there are none.'),
    cfg.HostAddressOpt(
        'metrics_address', default='127.0.0.1',
        help='Address to listen at for ``metrics_port``: that of the pod, '
             '``OS_KUBERNETES__METRICS_ADDRESS`` from ``status.podIP``, where '
             'Prometheus is elsewhere. Nothing in the metrics is secret, and '
             'nobody is asked who he is.'),
]

DRAIN = 'kubernetes_drain'

DRAIN_OPTS = [
    cfg.IntOpt(
        'parallel',
        min=1,
        help="""How many guests leave this node at a time.

Default: what Nova allows, ``[DEFAULT] max_concurrent_live_migrations``, which
is 1. Nova itself advises against more than one: each gets less of the
network, and so takes longer to catch up with what its guest writes. Rather
give one migration more connections, with ``[libvirt]
live_migration_parallel_connections``.
"""),
    cfg.IntOpt(
        'nodes',
        min=1,
        help="""How many nodes of the cluster move guests away at a time.

Default: as many as are drained. The others wait for their turn. There is a
Lease of Kubernetes for each, ``nova-k8s-drain-0`` and so on, in ``[kubernetes]
namespace``; without an answer of the API server no migration begins.
"""),
    cfg.IntOpt(
        'attempts',
        default=3,
        min=1,
        help='How often it is tried to move a guest before it is left where '
             'it is. It is tried once more whenever a compute node has come '
             'or a guest has left.'),
    cfg.IntOpt(
        'migration_timeout',
        min=1,
        help="""Seconds after which a running live migration is aborted.

It counts as an attempt that failed. By default only Nova's own options decide:
``[libvirt] live_migration_completion_timeout``, and
``live_migration_permit_post_copy`` or ``live_migration_permit_auto_converge``
for a guest that writes faster than the network is.
"""),
    cfg.StrOpt(
        'shut_off',
        default='stays',
        choices=[
            ('stays', 'they stay'),
            ('cold', 'they are migrated, and the migration is confirmed'),
        ],
        help='What happens to guests that are shut off. They do not hold up '
             'the end of the pod, as nothing of them runs.'),
    cfg.BoolOpt(
        'tenants_decide',
        default=True,
        help="""Whether what tenants say of their servers counts.

The tag ``nova-k8s:drain=skip`` of a server, or its metadata of the same name,
has it stay; ``stop`` has it stopped, ``cold`` migrated cold, and ``live``
moved live or not at all. The extra spec ``nova-k8s:drain`` of a flavor is the
operator's: it says the same, always counts, and wins.
"""),
]


def _keystone_options():
    """The options of keystoneauth that each such section has."""
    session = loading.get_session_conf_options()
    for option in session:
        if option.name == 'timeout':
            # Its own default is to wait for ever.
            option.default = 60
    return session + loading.get_auth_common_conf_options() + [
        option for option in loading.get_adapter_conf_options(
            include_deprecated=False)
        if option.dest in ('region_name', 'valid_interfaces',
                           'endpoint_override')]


def _drain_group():
    return cfg.OptGroup(
        DRAIN, title='Kubernetes drain options',
        help='How guests are moved away from this node, and the account that '
             'asks Nova for it: an auth_type and what belongs to it, as in '
             '[service_user], which counts where none is given here. The '
             'account needs the role admin, as Nova asks for it where hosts '
             'are concerned.')


def _group():
    # A new one each time: what is set in one configuration lies in its group.
    return cfg.OptGroup(
        'kubernetes', title='Kubernetes options',
        help='How K8sLibvirtDriver finds out what its Kubernetes pod may '
             'use, and what it makes of it.')


def register_opts(conf):
    """Make conf know our options; harmless when repeated."""
    conf.register_group(_group())
    conf.register_opts(OPTS, group='kubernetes')
    conf.register_group(_drain_group())
    conf.register_opts(DRAIN_OPTS, group=DRAIN)
    conf.register_opts(_keystone_options(), group=DRAIN)


def check(conf):
    """Look at every option that decides on what Nova is told.

    oslo.config looks at a value when it is used first, which may be in a
    periodic task long after the start, and takes nan for a ratio.

    :param conf: nova.conf.CONF
    :raises cfg.ConfigFileValueError: of an option of [kubernetes]
    :raises errors.Refused: of an allocation ratio
    """
    for option in OPTS:
        conf.kubernetes[option.dest]
    for option in DRAIN_OPTS:
        conf[DRAIN][option.dest]
    for name in ('cpu_allocation_ratio', 'ram_allocation_ratio',
                 'initial_cpu_allocation_ratio',
                 'initial_ram_allocation_ratio'):
        ratio = conf[name]
        if ratio is not None and not 0 <= ratio <= _LARGEST_RATIO:
            raise errors.Refused(
                f'[DEFAULT] {name} is {ratio}, which Placement does not take; '
                f'set a number such as 1.0')


def list_opts():
    """Entry point of the oslo.config generator."""
    # The plugin that most deployments use; each has options of its own.
    plugin = loading.get_auth_plugin_conf_options('password')
    return [(_group(), OPTS),
            (_drain_group(), DRAIN_OPTS + _keystone_options() + plugin)]
