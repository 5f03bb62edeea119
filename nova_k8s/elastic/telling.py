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

"""What operators are told of the boundary: log lines and events. Pure."""

from nova_k8s.elastic import bounds
from nova_k8s.elastic import wish
from nova_k8s.limits import messages

WHY = {
    wish.STAYS: 'what is free for guests is right',
    wish.GROWS: 'less than the headroom was free for guests',
    wish.IDLE: 'room was idle',
    wish.PRESSURE: 'containers need room, and guests do not use it',
    wish.AT_MOST: 'the headroom is used up, and there is no more to have',
    wish.NOT_TAKEN: 'the node cannot give what was wished',
}


def for_move(before, after, used, reason, source):
    """The Line for a move of the boundary."""
    grows = after.covers(before)
    return messages.Line(
        messages.NORMAL, 'GuestsPodGrows' if grows else 'GuestsPodShrinks',
        f'{source}: guests hold {bounds.shown(used)}; the pod wishes '
        f'{bounds.shown(after)}, before {bounds.shown(before)}: '
        f'{WHY[reason]}.')


def for_answer(seen, source):
    """The Line for what the kubelet answers."""
    if seen.no_cpu:
        return messages.Line(
            messages.WARNING, 'ElasticMemoryOnly',
            f'{source}: the kubelet cannot resize CPU while its CPU manager '
            f'is static; only memory is elastic here.')
    return messages.Line(
        messages.WARNING, f'Resize{seen.pod.answer}',
        f'{source}: the wish of {bounds.shown(seen.pod.wished)} is '
        f'{seen.pod.answer}: {seen.message or "?"}. What is in force stays: '
        f'{bounds.shown(seen.pod.sure)}.')


def for_rest(why, source):
    """The Line for an end of all moves, until something changes."""
    return messages.Line(
        messages.WARNING, 'ElasticRests',
        f'{source}: the boundary rests: {why}')
