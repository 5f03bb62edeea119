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

"""How far a drain or an evacuation is: for a terminal, or line by line."""

import contextlib
import time

from rich import console as consoles
from rich import filesize
from rich import live
from rich import progress_bar
from rich import table

from nova_k8s.drain import guests
from nova_k8s.drain import nova_api
from nova_k8s.drain import plan

# A guest that only waits for its turn is no news.
_TURN = 'for its turn'

# Guests that the table of a terminal shows at once.
_ROWS = 20

_SAYS = {
    plan.MOVES: 'moves', plan.WAITS: 'waits', plan.STAYS: 'stays',
    plan.FAILED: 'could not be moved', plan.ABORT: 'is aborted',
    plan.CONFIRM: 'is confirmed',
}


def text(verdict):
    """Return one line on a guest."""
    guest, dest = verdict.guest, verdict.migration and verdict.migration.dest
    line = f'{guest.name or guest.id}: {_SAYS.get(verdict.what, verdict.what)}'
    if verdict.what == plan.MOVES and dest:
        line += f' to {dest}'
    return f'{line}: {verdict.why}' if verdict.why else line


def moved_text(moved):
    """Return one line on a guest that is no longer here."""
    name = moved.guest.name or moved.guest.id
    if not moved.dest:
        return f'{name}: is gone'
    took = '' if moved.seconds is None else f' after {moved.seconds:.0f} s'
    return f'{name}: left for {moved.dest}{took}'


class Lines:
    """Prints a line for each change.

    :param out: a file
    """

    def __init__(self, out):
        self._out = out
        self._told = {}
        self._moved = 0
        self._problem = None

    def __enter__(self):
        return self

    def __exit__(self, *args):
        pass

    def __call__(self, state):
        for each in state.moved[self._moved:]:
            self._print(moved_text(each))
        self._moved = len(state.moved)
        for verdict in state.verdicts:
            line = text(verdict)
            if self._told.get(verdict.guest.id) != line:
                self._told[verdict.guest.id] = line
                if verdict.why != _TURN:
                    self._print(line)
        if state.problem and not self._problem:
            self._print(f'Nova does not answer, trying again: '
                        f'{state.problem}')
        self._problem = state.problem

    def _print(self, line):
        print(line, file=self._out, flush=True)


class Screen:
    """Shows a table that changes in place, with a bar for each guest.

    :param nova: nova_api.Nova, which is asked for the bytes left of each
        migration under way
    """

    def __init__(self, nova, console=None, clock=time.monotonic):
        self._nova = nova
        self._clock = clock
        self._began = None
        self._live = live.Live(console=console or consoles.Console(),
                               auto_refresh=False)

    def __enter__(self):
        self._live.__enter__()
        return self

    def __exit__(self, *args):
        self._live.__exit__(*args)

    def __call__(self, state):
        if self._began is None:
            self._began = self._clock()
        self._live.update(self._table(state), refresh=True)

    def _table(self, state):
        grid = table.Table(
            title=self._whole(state), title_justify='left',
            caption=state.problem and f'Nova does not answer: '
            f'{state.problem}')
        for heading in ('guest', 'status', 'what', 'left', 'to', 'why'):
            grid.add_column(heading, overflow='fold')
        # What goes on, before what waits.
        rows = sorted(state.verdicts, key=lambda each: (
            not each.open, each.what != plan.MOVES))
        for verdict in rows[:_ROWS]:
            grid.add_row(*self._row(verdict))
        if len(rows) > _ROWS:
            grid.add_row(f'and {len(rows) - _ROWS} more')
        return grid

    def _row(self, verdict):
        guest = verdict.guest
        bar, dest = '', ''
        if verdict.what == plan.MOVES and verdict.migration:
            dest = verdict.migration.dest or ''
            bar = self._bar(verdict)
        return (guest.name or guest.id, guest.status,
                _SAYS.get(verdict.what, verdict.what), bar, dest, verdict.why)

    def _bar(self, verdict):
        if verdict.migration.kind != guests.LIVE_MIGRATION:
            return ''
        found = None
        with contextlib.suppress(nova_api.Unreachable, nova_api.Refused,
                                 nova_api.Forbidden):
            found = self._nova.progress(verdict.guest.id)
        if not found:
            return ''
        grid = table.Table.grid(padding=(0, 1))
        grid.add_row(
            progress_bar.ProgressBar(
                total=found.total, completed=found.total - found.remaining,
                width=12), filesize.decimal(found.remaining))
        return grid

    def _whole(self, state):
        moved, left = len(state.moved), len(state.left)
        line = f'{moved} of {moved + left} guests have left'
        rest = remaining(state, self._clock() - self._began)
        if rest is not None:
            line += f', about {max(1, round(rest / 60))} min to go'
        return line


def remaining(state, seconds):
    """Return how many seconds more it will take, or None.

    From the memory that was moved so far, which is most of what a live
    migration has to carry.

    :param seconds: since it began
    """
    done = sum(each.guest.memory_mb for each in state.moved if each.dest)
    rest = sum(each.guest.memory_mb for each in state.verdicts if each.open)
    return rest * seconds / done if done and rest else None


def summary(host, state):
    """Return what scripts get to see in the end."""
    return {
        'host': host,
        'empty': state.empty,
        'moved': [{'id': each.guest.id, 'name': each.guest.name,
                   'to': each.dest, 'seconds': each.seconds and round(
                       each.seconds, 1)} for each in state.moved],
        'left': [left(each) for each in state.verdicts],
    }


def left(verdict):
    """Return the same of a guest that is still here."""
    guest = verdict.guest
    return {'id': guest.id, 'name': guest.name, 'status': guest.status,
            'what': verdict.what, 'why': verdict.why,
            'counts': verdict.counts}
