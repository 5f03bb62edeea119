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

"""What a pod tells of a resize, of its end, and of what runs in it.

The rules are those of Kubernetes 1.37. Pure functions over the dict that
Kubernetes serialises.
"""

import typing as ty

from nova_k8s import errors
from nova_k8s.limits import fields

# Reasons of the condition PodResizePending: the kubelet has not accepted the
# resize, so the spec says what is wished and never what will be.
_RESIZE_NOT_ACCEPTED = ('Deferred', 'Infeasible')


class Pending(ty.NamedTuple):
    """A resize that the kubelet has not accepted."""

    why: ty.Optional[str]
    """None where there is none."""

    certain: bool
    """It is about the present wish.

    Before Kubernetes 1.34 it may be about one that was replaced since.
    """


def resize_not_accepted(pod, status):
    """Return the Pending resize."""
    generation = _metadata(pod).get('generation')
    for each in _conditions(status, 'PodResizePending'):
        about = each.get('observedGeneration')
        if (each.get('reason') in _RESIZE_NOT_ACCEPTED and
                about in (None, generation)):
            why = errors.named(each.get('message') or '?')
            return Pending(f'{each["reason"]}: {why}', about is not None)
    return Pending(None, False)


def observed(pod, status):
    """Return what says whether the kubelet has done what the spec wishes.

    The status has observedGeneration since Kubernetes 1.34.

    :returns: generation, resizing and unconfirmed of a Budget
    """
    generation = _metadata(pod).get('generation')
    seen = status.get('observedGeneration')
    found = {'generation': generation if isinstance(generation, int) and
             not isinstance(generation, bool) and generation >= 0 else None}
    if not status:
        # A manifest: what it says is meant.
        return found
    if seen is None or found['generation'] is None:
        return dict(found, unconfirmed=(
            'its status has no observedGeneration (Kubernetes before 1.34)'))
    if seen != generation:
        return dict(found, resizing=(
            f'status.observedGeneration is {errors.shown(seen)}, '
            f'metadata.generation {generation}'))
    if _conditions(status, 'PodResizeInProgress'):
        return dict(found, resizing='PodResizeInProgress')
    return found


def resize_error(status):
    """Return why a resize is not done that the kubelet has begun, or None."""
    for each in _conditions(status, 'PodResizeInProgress'):
        if each.get('reason') == 'Error':
            return errors.named(each.get('message') or '?')
    return None


def deletion_time(pod):
    """Return by when the pod is to be gone, None where nobody deletes it."""
    # Not told apart from rubbish: whatever is there, the pod will go.
    found = _metadata(pod).get('deletionTimestamp')
    return None if found is None else errors.named(found)


def check_running(chosen, status):
    """Refuse containers of which none runs: nothing holds guests there.

    :param chosen: each with name, path and its status
    :raises errors.NotYet: when none runs
    """
    states = [fields.mapping(each.status.get('state'),
                             f'status of {each.path}.state')
              for each in chosen]
    if any('running' in each for each in states):
        return
    why = ['%s: %s' % (name, errors.named(
        fields.mapping(found, f'state.{name}').get('reason') or '?'))
        for each in states for name, found in each.items()
        if name in ('waiting', 'terminated')]
    why = why or [f'the pod is {errors.named(status.get("phase") or "new")}']
    raise errors.NotYet(
        f'container {errors.listed(each.name for each in chosen)} does not '
        f'run ({errors.listed(why)}), so that its limits hold no guests')


def _metadata(pod):
    return fields.mapping(pod.get('metadata'), 'metadata')


def _conditions(status, kind):
    """The conditions of a kind that hold."""
    found = []
    for i, each in enumerate(fields.sequence(
            status.get('conditions'), 'status.conditions')):
        each = fields.mapping(each, f'status.conditions[{i}]')
        if each.get('type') == kind and each.get('status') == 'True':
            found.append(each)
    return found
