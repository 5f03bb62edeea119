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

"""What of a pod and of its node decides on a wish, from their objects.

Pure functions over the dicts that Kubernetes serialises.
"""

import dataclasses
import math
import typing as ty

from nova_k8s.elastic import values
from nova_k8s import errors
from nova_k8s.limits import quantity

MIB = 1024 * 1024

# What the message of an Infeasible resize has where CPU can never be resized
# (pkg/kubelet/allocation/handlers.go).
_CPU_MANAGER = 'CPU Manager'

# What a Vertical Pod Autoscaler writes on the pods that it sizes
# (vertical-pod-autoscaler/pkg/utils/annotations).
VPA_ANNOTATIONS = ('vpaUpdates', 'vpaObservedContainers')


@dataclasses.dataclass(frozen=True)
class Seen:
    """The guests' pod, as the API server has it."""

    pod: values.Pod
    container: str
    uid: str
    generation: int = 0
    message: str = ''
    """What the kubelet says of a wish that it has not taken."""

    busy: bool = False
    """The kubelet has not told yet what it makes of the spec."""

    ending: bool = False
    """Somebody deletes it: Kubernetes would take a resize, and never do it."""

    vpa: bool = False
    resized_by: ty.Optional[str] = None
    """The client that wrote the wish last."""

    @property
    def no_cpu(self):
        return self.pod.answer == values.INFEASIBLE and (
            _CPU_MANAGER in self.message)


def see(pod, container, who):
    """Return the Seen of a pod.

    :param container: [kubernetes] container, or None
    :param who: the pod, for messages
    :raises errors.Refused: when it cannot be resized as a whole
    """
    try:
        metadata, spec, status = pod['metadata'], pod['spec'], pod['status']
        containers = spec['containers']
        if len(containers) != 1 or (
                container not in (None, '', '*', containers[0]['name'])):
            raise errors.Refused(
                f'{who}: [kubernetes] elastic needs a pod of one container, '
                f'and it has '
                f'{errors.listed(each.get("name") for each in containers)}')
        name = containers[0]['name']
        wished = room(containers[0].get('resources') or {}, 'limits', who)
        requested = room(containers[0].get('resources') or {}, 'requests',
                         who)
        if None in (wished, requested) or requested != wished or (
                spec.get('resources')):
            raise errors.Refused(
                f'{who}: [kubernetes] elastic needs requests that are its '
                f'limits, of CPU and memory, at its container {name} and not '
                f'at the pod')
        told = [each for each in status.get('containerStatuses') or []
                if each.get('name') == name]
        told = told[0] if told else {}
        enforced = room(told.get('resources') or {}, 'limits', who)
        allocated = room({'limits': told.get('allocatedResources')},
                         'limits', who)
        answer, message, busy = _conditions(metadata, status)
        return Seen(
            # What is not told is not there. What is enforced without a word
            # of what is allocated was allocated.
            values.Pod(wished, allocated or enforced or values.Room(),
                       enforced or values.Room(), answer),
            name, metadata['uid'], metadata.get('generation') or 0, message,
            busy,
            metadata.get('deletionTimestamp') is not None,
            any(each in (metadata.get('annotations') or {})
                for each in VPA_ANNOTATIONS), _resized_by(metadata))
    except (AttributeError, KeyError, TypeError, IndexError):
        raise errors.Unreadable(
            f'{who}: what the API server answers is no pod') from None


def _conditions(metadata, status):
    """Return (answer, message, whether the kubelet is behind)."""
    generation = metadata.get('generation')
    busy = status.get('observedGeneration', generation) != generation
    answer = message = None
    for each in status.get('conditions') or []:
        if each.get('status') != 'True':
            continue
        if each.get('type') == 'PodResizePending' and each.get(
                'observedGeneration', generation) == generation:
            if each.get('reason') in (values.DEFERRED, values.INFEASIBLE):
                answer = each['reason']
            message = each.get('message')
        elif each.get('type') == 'PodResizeInProgress':
            busy = True
    return answer, message or '', busy


def _resized_by(metadata):
    found = [each for each in metadata.get('managedFields') or []
             if each.get('subresource') == 'resize']
    found.sort(key=lambda each: each.get('time') or '')
    return found[-1].get('manager') if found else None


def room(resources, kind, who):
    """Return the Room of {kind: {cpu, memory}}; None without one of them.

    :raises errors.Unreadable: of what is no quantity
    """
    amounts = resources.get(kind) or {}
    if not {'cpu', 'memory'} <= set(amounts):
        return None
    return values.Room(
        int(quantity.parse(amounts['memory'], f'{who}: {kind}.memory') / MIB),
        int(quantity.parse(amounts['cpu'], f'{who}: {kind}.cpu') * 1000))


def free(allocatable, pods):
    """Return the Room of a node that no pod has requested.

    A pod counts as Kubernetes' scheduler counts it: the larger of what it
    wishes and what it was allocated, unless it wishes the infeasible
    (k8s.io/component-helpers/resource). It may be the less by what init
    containers need beside.

    :param allocatable: quantities by resource
    :param pods: those of the node, as dicts
    :raises errors.Unreadable: of what is no quantity
    """
    left = room({'limits': allocatable}, 'limits', 'Node') or values.Room()
    for pod in pods:
        status = pod.get('status') or {}
        if status.get('phase') in ('Succeeded', 'Failed'):
            continue
        left = left.minus(_requested(pod.get('spec') or {}, status))
    return left


def _requested(spec, status):
    told = {each.get('name'): each.get('allocatedResources') or {}
            for each in status.get('containerStatuses') or []}
    infeasible = any(
        each.get('type') == 'PodResizePending' and
        each.get('reason') == values.INFEASIBLE
        for each in status.get('conditions') or [])
    total = values.Room()
    for each in spec.get('containers') or []:
        wished = (each.get('resources') or {}).get('requests') or {}
        allocated = _partly(told.get(each.get('name')) or wished)
        total = total.plus(allocated if infeasible else
                           allocated.most(_partly(wished)))
    own = (spec.get('resources') or {}).get('requests')
    if own:
        total = _partly(own)
    once = total
    for each in spec.get('initContainers') or []:
        asks = _partly((each.get('resources') or {}).get('requests') or {})
        if each.get('restartPolicy') == 'Always':
            total = total.plus(asks)
        else:
            once = once.most(asks)
    return total.most(once).plus(_partly(spec.get('overhead') or {}))


def _partly(amounts):
    """The Room of amounts that may be missing."""
    return values.Room(
        math.ceil(quantity.parse(amounts.get('memory', 0), 'memory') / MIB),
        math.ceil(quantity.parse(amounts.get('cpu', 0), 'cpu') * 1000))
