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


"""The [kubernetes] options of nova.conf, all of them."""

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
]


def _group():
    # A new one each time: what is set in one configuration lies in its group.
    return cfg.OptGroup(
        'kubernetes', title='Kubernetes options',
        help='How K8sLibvirtDriver finds out what its Kubernetes pod may '
             'use, and what it makes of it.')


def register_opts(conf):
    """Make conf know the [kubernetes] options; harmless when repeated."""
    conf.register_group(_group())
    conf.register_opts(OPTS, group='kubernetes')


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
    return [(_group(), OPTS)]
