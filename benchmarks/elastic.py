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

"""A week of guests and containers on nodes that both share.

Simulated, with the decision that the driver takes. With
NOVA_K8S_BENCH_WRITE=1, which ``--write`` sets, it draws the picture and
writes the table of doc/source/elastic.rst.
"""

import os
import pathlib
import random

import benchmarks
from benchmarks.weeks import cluster
from benchmarks.weeks import picture
from benchmarks.weeks import workload
from nova_k8s.accounting import overhead
from nova_k8s.elastic import values

DOC = pathlib.Path(__file__).resolve().parents[1] / 'doc' / 'source'
PAGE = DOC / 'elastic.rst'
PICTURES = DOC / 'images'

BEGIN, END = '.. The table begins.\n', '.. The table ends.\n'

SEED = 20170704

# Of 128 cores and 384 GiB, what is left to pods.
ROOM = values.Room(372 * 1024, 124000)

# Shares of the cluster's memory that guests and containers want.
MIXES = ((0.25, 0.55), (0.30, 0.50), (0.40, 0.42), (0.50, 0.30),
         (0.55, 0.25))[:benchmarks.times(5, 1)]
NODES = benchmarks.times(100, 10)

# (nodes, days): what does not depend on the mix.
SIZES = benchmarks.times(((1000, 7), (5000, 1)), ())

# One guest of the largest flavor; a container of the largest size.
LARGEST = overhead.need(overhead.Guest(65536, 16), overhead.Settings())
ELASTIC = values.Settings(
    smallest=values.Room(4096, 2000),
    largest=values.Room(int(0.9 * ROOM.memory_mb),
                        int(0.9 * ROOM.cpu_millicores)),
    headroom=values.Room(LARGEST.total_mb, 16000),
    spare=values.Room(16384, 5000),
    step=values.Room(2048, 1000),
    idle=600)

FIXED = tuple(cluster.Rule(f'{percent} %', split=percent / 100)
              for percent in (30, 50, 70))
BLIND = cluster.Rule('elastic, blind', settings=ELASTIC)
MOVES = cluster.Rule('elastic', settings=ELASTIC, knows=True)
POOL = cluster.Rule('one pool')
RULES = (*FIXED, BLIND, MOVES, POOL)


def simulate(rule, nodes, mix, days=7):
    """Return the cluster.Result of a rule."""
    rng = random.Random(SEED)
    arrivals = workload.Workload(
        rng, nodes * ROOM.memory_mb, *mix, days=days).arrivals
    return cluster.Cluster(rule, nodes, ROOM).run(
        arrivals, days * workload.DAY, 900)


def name_of(mix):
    return '%d:%d' % (100 * mix[0], 100 * mix[1])


def rows():
    results = {}
    for mix in MIXES:
        for rule in RULES:
            results[mix, rule.name] = result = simulate(rule, NODES, mix)
            name = f'Week of {name_of(mix)}, {NODES} nodes, {rule.name}'
            yield (f'{name}: guests rejected, pods Pending',
                   f'{result.rejected}, {result.pending}', '')
            yield f'{name}: memory in use', '%.1f' % (
                100 * result.memory), '%'
    totals = {rule.name: sum(results[mix, rule.name].unserved
                             for mix in MIXES) for rule in RULES}
    best = sum(min(results[mix, rule.name].unserved for rule in FIXED)
               for mix in MIXES)
    yield ('Rejected and Pending, the best fixed split of each week / '
           'elastic', '%.1f' % (best / max(1, totals[MOVES.name])), '')
    yield ('Rejected and Pending, the best fixed split of all weeks / '
           'elastic', '%.1f' % (
               min(totals[rule.name] for rule in FIXED) /
               max(1, totals[MOVES.name])), '')
    yield ('Memory in use, elastic / one pool, the worst week', '%.3f' % min(
        results[mix, MOVES.name].memory / results[mix, POOL.name].memory
        for mix in MIXES), '')
    yield ('Resizes of a node in a day, the busiest week', '%.1f' % (
        max(results[mix, MOVES.name].resizes for mix in MIXES) /
        NODES / 7), '')
    sizes = {}
    for nodes, days in SIZES:
        for rule in (FIXED[1], MOVES, POOL):
            sizes[nodes, days, rule.name] = simulate(
                rule, nodes, (0.40, 0.42), days)
    if os.environ.get('NOVA_K8S_BENCH_WRITE'):
        write(results, sizes)


def line(what, result, nodes, days=7):
    return (*what, f'{result.rejected} of {result.guests}',
            f'{result.pending} of {result.pods}', str(result.late),
            '%.1f' % (100 * result.memory), '%.1f' % (100 * result.cores),
            '%.1f' % (result.resizes / nodes / days))


def write(results, sizes):
    """Write the table and draw the pictures."""
    lines = [('Nodes', 'Guests : containers', 'Rule', 'Guests rejected',
              'Pods Pending', 'longer than 5 min', 'Memory in use, %',
              'Cores in use, %', 'Resizes a node and day')]
    lines += [line((str(NODES), name_of(mix), rule), result, NODES)
              for (mix, rule), result in results.items()]
    lines += [line((f'{nodes}, {days} d', name_of((0.40, 0.42)), rule),
                   result, nodes, days)
              for (nodes, days, rule), result in sizes.items()]
    text = ['.. list-table::', '   :header-rows: 1', '']
    for row in lines:
        text += [f'   {mark} - {cell}'.rstrip() for cell, mark in zip(
            row, '*' + ' ' * len(row))]
    page = PAGE.read_text(encoding='utf-8')
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    PAGE.write_text(f'{head}{BEGIN}\n' + '\n'.join(text) +
                    f'\n\n{END}{tail}', encoding='utf-8')
    (PICTURES / 'elastic-rules.svg').write_text(picture.bars(
        [name_of(mix) for mix in MIXES], [rule.name for rule in RULES],
        {(name_of(mix), rule): result.unserved
         for (mix, rule), result in results.items()}), encoding='utf-8')
    write_week(results[MIXES[len(MIXES) // 2], MOVES.name])


def write_week(result):
    """Draw the node whose boundary moved furthest."""
    (PICTURES / 'elastic-week.svg').write_text(picture.week(max(
        result.nodes, key=lambda samples: max(
            each[2] for each in samples) - min(each[2] for each in samples))),
        encoding='utf-8')
