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

"""What size the guests' pod wishes to be. Pure functions over values.

Guests that are here always fit: a claim that does not is refused. So what a
growth is for is the next guest, the *headroom*, and that alone may be given
up when containers need it.
"""

import dataclasses
import math

from nova_k8s.elastic import values

# Why a wish is what it is.
STAYS = 'stays'
GROWS = 'grows'
IDLE = 'idle'
PRESSURE = 'pressure'
AT_MOST = 'at most'
NOT_TAKEN = 'not taken'

# The longest that room is idle before it goes, in seconds: as often as a
# shrink was regretted, the time doubles.
LONGEST = 86400

# The least time between two resizes because of pressure, in seconds.
HASTE = 60


def demand(needs, vcpus, reserve_mb, allocated, ratio=1.0):
    """Return the Room that must not be given back.

    :param needs: accounting's Need of each guest that is here, those that
        are stopped included
    :param vcpus: of these guests
    :param reserve_mb: what else runs in the pod
    :param allocated: values.Room that Placement has allocated: guests that
        the scheduler has sent here and that have not come yet are in it
    :param ratio: VCPU that are sold of a core
    """
    own_mb = sum(need.total_mb for need in needs)
    known_mb = sum(need.allocated_mb for need in needs)
    # What Placement has beyond those that are known here is on its way.
    coming_mb = max(0, allocated.memory_mb - known_mb)
    cores = max(vcpus, allocated.cpu_millicores / 1000) / ratio
    return values.Room(own_mb + coming_mb + reserve_mb,
                       math.ceil(cores * 1000))


def decide(settings, demand, pod, node, past, now):
    """Return the Wish.

    :param settings: values.Settings
    :param demand: values.Room, as from demand()
    :param pod: values.Pod
    :param node: values.Node
    :param past: the values.Past of the Wish before
    :param now: in seconds, from a clock that never goes back
    """
    settings, past = _as_answered(settings, pod, past)
    past = _headroom(settings, demand, pod, node, past, now)
    target = _target(settings, demand, pod, node, past.headroom)
    wished = pod.wished
    past = _idle(settings, demand, wished, target, past, now)
    patience = past.patience or settings.idle
    room, reason = wished, STAYS
    if pod.answer == values.INFEASIBLE and not target.covers(wished):
        # It was never had.
        room, reason = wished.least(target), NOT_TAKEN
    elif not wished.covers(target):
        room, reason = wished.most(target), GROWS
        if now - past.shrunk_at < patience:
            past = dataclasses.replace(
                past, patience=min(LONGEST, 2 * patience))
    elif wished != target and _pressed(settings, node) and (
            now - past.resized_at >= HASTE):
        room, reason = wished.least(target), PRESSURE
    elif past.idle_since is not None and (
            now - max(past.idle_since, past.resized_at) >= patience):
        room, past = _given_back(settings, demand, pod, node, past, now)
        reason = IDLE if room != wished else STAYS
    if room != wished:
        past = dataclasses.replace(past, resized_at=now, idle_since=None)
    elif demand.plus(past.headroom) != wished.least(
            demand.plus(past.headroom)):
        reason = AT_MOST
    return values.Wish(room, room.least(pod.sure), reason, past,
                       _again(settings, past, room, target, node, now))


def _as_answered(settings, pod, past):
    """Never wish again what the node can never give."""
    if pod.answer == values.INFEASIBLE:
        past = dataclasses.replace(past, ceiling=pod.allocated)
    if past.ceiling:
        settings = dataclasses.replace(
            settings, largest=settings.largest.least(past.ceiling))
    return settings, past


def _fair(settings, demand, pod, node):
    """The headroom that is fair to containers.

    While that is scarce which nobody has, neither guests nor containers, both
    have half of it ahead of them.
    """
    if node.free is None:
        return settings.headroom
    free = node.free.plus(pod.wished.minus(demand))
    half = values.Room(free.memory_mb // 2, free.cpu_millicores // 2)
    return settings.headroom.least(half).least(free.minus(node.wanted))


def _headroom(settings, demand, pod, node, past, now):
    """Lower the headroom at once, and raise it after a time of calm."""
    fair = _fair(settings, demand, pod, node)
    if past.headroom is None:
        return dataclasses.replace(past, headroom=fair)
    headroom = past.headroom.least(fair)
    if headroom.covers(fair.least(settings.headroom)):
        return dataclasses.replace(past, headroom=headroom, calm_since=None)
    if past.calm_since is None:
        return dataclasses.replace(past, headroom=headroom, calm_since=now,
                                   calm=fair)
    calm = past.calm.least(fair)
    if now - past.calm_since >= settings.idle:
        return dataclasses.replace(past, headroom=headroom.most(calm),
                                   calm_since=None)
    return dataclasses.replace(past, headroom=headroom, calm=calm)


def _target(settings, demand, pod, node, headroom):
    """The Room that is right for a demand."""
    target = demand.plus(headroom).up(settings.step).least(settings.largest)
    if node.free is not None:
        # What the node has not is not wished: the scheduler would keep it
        # from containers.
        most = pod.wished.plus(node.free).minus(node.wanted)
        target = target.least(most.down(settings.step).most(
            pod.wished.least(most)))
    target = target.most(demand).most(settings.smallest)
    if not settings.cpu:
        target = target._replace(cpu_millicores=pod.wished.cpu_millicores)
    return target


def _worth(settings, wished, target):
    """Whether a step or more is too much in one of them."""
    spare = wished.minus(target)
    return (spare.memory_mb >= settings.step.memory_mb or
            spare.cpu_millicores >= settings.step.cpu_millicores)


def _pressed(settings, node):
    return any(node.wanted) or (
        node.free is not None and not node.free.covers(settings.headroom))


def _idle(settings, demand, wished, target, past, now):
    if not _worth(settings, wished, target):
        return dataclasses.replace(past, idle_since=None)
    if past.idle_since is None:
        return dataclasses.replace(past, idle_since=now, peak=demand)
    return dataclasses.replace(past, peak=past.peak.most(demand))


def _given_back(settings, demand, pod, node, past, now):
    """Return (Room, Past) after room was idle for long enough."""
    target = _target(settings, past.peak, pod, node, past.headroom)
    room = pod.wished.least(target)
    if not _worth(settings, pod.wished, room):
        # It was needed meanwhile: from now on.
        return pod.wished, dataclasses.replace(
            past, idle_since=now, peak=demand)
    patience = past.patience or settings.idle
    if now - past.shrunk_at >= 2 * patience:
        # Nobody regretted the one before.
        patience = max(settings.idle, patience / 2)
    return room, dataclasses.replace(past, shrunk_at=now, patience=patience)


def _again(settings, past, room, target, node, now):
    patience = past.patience or settings.idle
    times = []
    if past.idle_since is not None:
        times.append(max(past.idle_since, past.resized_at) + patience)
    if past.calm_since is not None:
        times.append(past.calm_since + settings.idle)
    if room != target and _pressed(settings, node):
        times.append(past.resized_at + HASTE)
    return max(0, min(times) - now) if times else None
