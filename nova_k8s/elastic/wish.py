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

# A shrink was wrong where the room is missed within so many times the time for
# which it was idle, and right where it is not within twice as many.
REGRET = 8

# The least time between two resizes because of pressure, in seconds.
HASTE = 10


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


def first(settings, demand):
    """Return the Room that a pod that is made anew starts with.

    What its guests hold, and the minimum. Not the headroom: a pod that is made
    pushes others off a node that is full, while one that grows waits for them.
    """
    return _within(settings, demand.most(settings.step), demand)


def _within(settings, room, demand):
    """The Room in whole steps between the bounds, and never below demand."""
    return room.up(settings.step).least(settings.largest).most(demand).most(
        settings.smallest)


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
    share = _share(settings, demand, pod, node)
    past = _headroom(settings, share, node, past, now)
    keep = _sized(settings, demand, past.headroom, pod)
    need = _sized(settings, demand, past.headroom.least(share), pod)
    past = _idle(settings, demand, pod.wished, keep, past, now)
    room, reason, past = _chosen(settings, demand, pod, node, keep, need,
                                 past, now)
    if room != pod.wished:
        past = dataclasses.replace(past, resized_at=now, idle_since=None)
    elif not room.covers(demand.plus(past.headroom)):
        reason = AT_MOST
    return values.Wish(room, room.least(pod.sure), reason, past,
                       _again(settings, past, room, keep, node, now))


def _chosen(settings, demand, pod, node, keep, need, past, now):
    """Return (Room, why, Past)."""
    wished = pod.wished
    if pod.answer == values.INFEASIBLE and not keep.covers(wished):
        # It was never had.
        return wished.least(keep), NOT_TAKEN, past
    if not wished.covers(need):
        return wished.most(need), GROWS, _regretted(settings, past, now)
    if _pressed(settings, node) and wished != wished.least(keep) and (
            now >= past.resized_at + HASTE):
        return wished.least(keep), PRESSURE, past
    patience = past.patience or settings.idle
    if past.idle_since is not None and (
            now >= max(past.idle_since, past.resized_at) + patience):
        return _given_back(settings, demand, pod, past, now)
    return wished, STAYS, past


def _as_answered(settings, pod, past):
    """Never wish again what the node can never give."""
    if pod.answer == values.INFEASIBLE and (
            settings.cpu or
            pod.wished.cpu_millicores == pod.allocated.cpu_millicores):
        past = dataclasses.replace(past, ceiling=pod.allocated)
    if past.ceiling:
        settings = dataclasses.replace(
            settings, largest=settings.largest.least(past.ceiling))
    return settings, past


def _share(settings, demand, pod, node):
    """The part of the headroom that is left once containers have theirs.

    Containers are to have the spare room ahead of them; where less than twice
    that is free, guests and containers share it half and half.
    """
    if node.free is None:
        return settings.headroom
    free = node.free.plus(pod.held.minus(demand))
    half = values.Room(free.memory_mb // 2, free.cpu_millicores // 2)
    return settings.headroom.least(free.minus(settings.spare).most(half))


def _pressed(settings, node):
    """Whether containers have less than half of the spare room left."""
    return node.free is not None and (
        2 * node.free.memory_mb < settings.spare.memory_mb or
        2 * node.free.cpu_millicores < settings.spare.cpu_millicores)


def _headroom(settings, share, node, past, now):
    """Lower the headroom under pressure, and raise it after a calm time."""
    if past.headroom is None:
        return dataclasses.replace(past, headroom=share)
    if _pressed(settings, node):
        return dataclasses.replace(
            past, headroom=past.headroom.least(share), calm_since=None)
    if past.headroom.covers(share):
        return dataclasses.replace(past, calm_since=None)
    if past.calm_since is None:
        return dataclasses.replace(past, calm_since=now, calm=share)
    calm = past.calm.least(share)
    if now >= past.calm_since + settings.idle:
        return dataclasses.replace(past, headroom=past.headroom.most(calm),
                                   calm_since=None)
    return dataclasses.replace(past, calm=calm)


def _sized(settings, demand, headroom, pod):
    """The Room for a demand and what is to be free beside it."""
    room = _within(settings, demand.plus(headroom), demand)
    if not settings.cpu:
        room = room._replace(cpu_millicores=pod.allocated.cpu_millicores)
    return room


def _worth(settings, wished, room):
    """Whether a step or more is too much in one of them."""
    spare = wished.minus(room)
    return (spare.memory_mb >= settings.step.memory_mb or
            spare.cpu_millicores >= settings.step.cpu_millicores)


def _idle(settings, demand, wished, keep, past, now):
    if not _worth(settings, wished, keep):
        return dataclasses.replace(past, idle_since=None)
    if past.idle_since is None:
        return dataclasses.replace(past, idle_since=now, peak=demand)
    return dataclasses.replace(past, peak=past.peak.most(demand))


def _regretted(settings, past, now):
    """Wait longer the next time, where room was missed soon after it went."""
    patience = past.patience or settings.idle
    if now < past.shrunk_at + REGRET * patience:
        patience = min(LONGEST, 2 * patience)
    return dataclasses.replace(past, patience=patience)


def _given_back(settings, demand, pod, past, now):
    """Return (Room, why, Past) after room was idle for long enough."""
    room = pod.wished.least(
        _sized(settings, past.peak, past.headroom, pod))
    if not _worth(settings, pod.wished, room):
        # It was needed meanwhile: from now on.
        return pod.wished, STAYS, dataclasses.replace(
            past, idle_since=now, peak=demand)
    patience = past.patience or settings.idle
    if now >= past.shrunk_at + 2 * REGRET * patience:
        # Nobody regretted the one before.
        patience = max(settings.idle, patience / 2)
    return room, IDLE, dataclasses.replace(past, shrunk_at=now,
                                           patience=patience)


def _again(settings, past, room, keep, node, now):
    patience = past.patience or settings.idle
    times = []
    if past.idle_since is not None:
        times.append(max(past.idle_since, past.resized_at) + patience)
    if past.calm_since is not None:
        times.append(past.calm_since + settings.idle)
    if _pressed(settings, node) and room != room.least(keep):
        times.append(past.resized_at + HASTE)
    return max(now, min(times)) if times else None
