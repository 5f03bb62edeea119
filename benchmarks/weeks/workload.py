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

"""A week of guests and containers, after published distributions.

Guests: Cortez et al., "Resource Central", SOSP 2017, and the totals of the
trace published with it (AzurePublicDatasetV1): most have one or two cores
(figure 2) and little memory (figure 3), they come in deployments of which most
are small (figure 4), and more than 90 % live for less than a day (section
3.5); 2,013,767 of them lasted for 104,371,713 hours, which is 51.8 hours each,
and had 237,815,104 core hours, which is 2.28 cores.

Containers: how long they live is the table of the Sysdig Container Usage
Report 2019. How large they are is heavy-tailed: Tirmazi et al., "Borg: the
Next Generation", EuroSys 2020, section 7, gives what jobs use as Pareto with
a shape of 0.69 (CPU) and 0.72 (memory); here that is the memory of one,
bounded.

By day more comes than by night (both papers): short-lived work follows the
hour.
"""

import bisect
import itertools
import math
import typing as ty

HOUR = 3600
DAY = 24 * HOUR
WEEK = 7 * DAY

# What runs as the week begins has come in the time before, in seconds.
BEFORE = 6 * HOUR

# Share of guests, cores, memory in MiB.
FLAVORS = ((0.45, 1, 2048), (0.27, 2, 4096), (0.10, 2, 8192),
           (0.06, 4, 8192), (0.06, 4, 16384), (0.04, 8, 32768),
           (0.02, 16, 65536))

# Share, and the shortest and longest life in seconds, evenly in its logarithm
# between. The last is as long as the mean of 51.8 hours asks for.
GUEST_LIVES = ((0.55, 300, HOUR), (0.35, HOUR, DAY),
               (0.10, DAY, 96 * DAY))

CONTAINER_LIVES = (
    (0.22, 1, 10), (0.17, 10, 60), (0.15, 60, 300), (0.09, 300, 600),
    (0.10, 600, 1800), (0.04, 1800, HOUR), (0.06, HOUR, 6 * HOUR),
    (0.03, 6 * HOUR, DAY), (0.08, DAY, WEEK), (0.04, WEEK, 2 * WEEK),
    (0.04, 2 * WEEK, 8 * WEEK))

# Shape, smallest and largest memory of a container in MiB.
CONTAINER_MEMORY = (0.72, 64, 16384)

# Cores for each MiB of a container: as the machines have.
CORES_PER_MIB = 1 / 3072

# Share and number of guests of a deployment, and of replicas.
DEPLOYMENTS = ((0.50, 1, 1), (0.35, 2, 5), (0.14, 6, 20), (0.01, 21, 100))

# What comes at the busiest hour is so much above the mean, and as much below
# at the quietest.
BY_DAY = 0.5


class Arrival(ty.NamedTuple):
    """Something that wants to run."""

    at: float
    life: float
    memory_mb: int
    cpu_millicores: int
    guest: bool


def mean_life(lives):
    total = sum(share for share, _, _ in lives)
    return sum(share * (longest - shortest) / math.log(longest / shortest)
               for share, shortest, longest in lives) / total


def _bounded_pareto(draw, shape, low, high):
    return (low ** -shape - draw * (low ** -shape - high ** -shape)) ** (
        -1 / shape)


def mean_memory(shape, low, high):
    """Of a bounded Pareto distribution."""
    return (low ** shape / (1 - (low / high) ** shape) *
            shape / (1 - shape) * (high ** (1 - shape) - low ** (1 - shape)))


class _Choice:
    """One of several rows that begin with a share."""

    def __init__(self, rows):
        self._rows = rows
        self._sums = list(itertools.accumulate(row[0] for row in rows))

    def __call__(self, random):
        return self._rows[bisect.bisect(
            self._sums, random.random() * self._sums[-1])]


class Workload:
    """What arrives, all of it, in order.

    :param random: a random.Random with a seed
    :param memory_mb: of the whole cluster
    :param guests: the share of that memory that guests want on average
    :param containers: the same for containers
    """

    def __init__(self, random, memory_mb, guests, containers, days=7):
        self._random = random
        self._end = days * DAY
        self._flavor = _Choice(FLAVORS)
        self._size = _Choice(DEPLOYMENTS)
        guest_mb = sum(share * memory for share, _, memory in FLAVORS)
        group = sum(share * (low + high) / 2
                    for share, low, high in DEPLOYMENTS)
        self.arrivals = []
        for share, lives, each_mb, make in (
                (guests, GUEST_LIVES, guest_mb, self._guest),
                (containers, CONTAINER_LIVES, mean_memory(*CONTAINER_MEMORY),
                 self._container)):
            rate = memory_mb * share / each_mb / mean_life(lives) / group
            self._come(rate, lives, make)
            self._are_there(rate, lives, make)
        self.arrivals.sort()

    def _guest(self):
        _, cores, memory_mb = self._flavor(self._random)
        return memory_mb, 1000 * cores, True

    def _container(self):
        memory_mb = int(_bounded_pareto(self._random.random(),
                                        *CONTAINER_MEMORY))
        return memory_mb, max(1, int(memory_mb * CORES_PER_MIB * 1000)), False

    def _group(self):
        _, low, high = self._size(self._random)
        return self._random.randint(low, high)

    def _come(self, rate, lives, make):
        """What comes during the week, at a rate that follows the hour."""
        life = _Choice(lives)
        at, most = 0.0, rate * (1 + BY_DAY)
        while True:
            at += self._random.expovariate(most)
            if at >= self._end:
                return
            _, shortest, longest = life(self._random)
            wave = 1 - BY_DAY * math.cos(2 * math.pi * at / DAY)
            # What lives for longer than a day does not care for the hour.
            if self._random.random() * (1 + BY_DAY) > (
                    wave if longest <= DAY else 1):
                continue
            what = make()
            for _ in range(self._group()):
                self.arrivals.append(Arrival(
                    at, shortest * (longest / shortest) **
                    self._random.random(), *what))

    def _are_there(self, rate, lives, make):
        """What runs as the week begins, for as long as it still does."""
        total = sum(share for share, _, _ in lives)
        for share, shortest, longest in lives:
            mean = (longest - shortest) / math.log(longest / shortest)
            expected = rate * share / total * mean
            number = int(expected + self._random.random())
            for _ in range(number):
                what = make()
                for _ in range(self._group()):
                    # Those that live for long are met more often: of lives
                    # evenly spread in the logarithm, the lengths met are
                    # spread evenly.
                    life = self._random.uniform(shortest, longest)
                    at = -BEFORE * self._random.random()
                    self.arrivals.append(Arrival(
                        at, life * self._random.random() - at, *what))
