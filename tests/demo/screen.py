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

"""What the demo shows: a few lines of text, tables and bars."""

import rich.box
import rich.console
import rich.table
import rich.text

BAR = 20


def _number(value):
    return f'{value:g}'


class Screen:
    """Prints snapshots (see story.py) for somebody who does not know Nova."""

    UNITS = {'VCPU': 'cores', 'MEMORY_MB': 'MiB'}
    NAMES = {'VCPU': 'CPU', 'MEMORY_MB': 'memory'}

    def __init__(self, file):
        self.console = rich.console.Console(file=file, highlight=False)
        utf = self.console.encoding.startswith('utf')
        self.used, self.free, self.beyond = '█░▓' if utf else '#.!'
        # the largest figures so far: the bars of all steps compare
        self.scale = {}

    @property
    def legend(self):
        return (f'{self.used} used, {self.free} free, '
                f'{self.beyond} used beyond the limit')

    def say(self, text='', style=None):
        self.console.print(text, style=style)

    def step(self, title):
        self.say()
        self.say(title, 'bold')

    def show(self, snapshot):
        self.console.print(self._resources(snapshot['resources']))
        if snapshot['guests']:
            self.console.print(self._guests(snapshot['guests']))

    def _table(self):
        return rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False,
                                padding=(0, 1, 0, 0))

    def _resources(self, rows):
        table = self._table()
        table.add_column('', no_wrap=True)
        titles = ['machine', "pod's limit", 'inventory', 'sold as', 'used']
        reserved = any(row['reserved'] for row in rows.values())
        if reserved:
            titles.insert(3, 'reserved')
        for title in titles:
            table.add_column(title, justify='right', no_wrap=True)
        table.add_column('', no_wrap=True)
        for resource, row in rows.items():
            sold = _number(row['capacity'])
            if row['allocation_ratio'] != 1:
                sold = f"x {_number(row['allocation_ratio'])} = {sold}"
            cells = [f"{row['machine']} {self.UNITS[resource]}", row['limit'],
                     str(row['total']), sold, str(row['used'])]
            if reserved:
                cells.insert(3, str(row['reserved']))
            table.add_row(self.NAMES[resource], *cells,
                          self._bar(resource, row['used'], row['capacity']))
        return table

    def _bar(self, resource, used, capacity):
        scale = max(self.scale.get(resource, 1), capacity, used)
        self.scale[resource] = scale

        def cells(amount):
            return round(BAR * amount / scale)

        inside = cells(min(used, capacity))
        text = rich.text.Text()
        text.append(self.used * inside, 'green')
        text.append(self.beyond * (cells(used) - inside), 'red')
        text.append(self.free * (cells(max(used, capacity)) - cells(used)),
                    'dim')
        return text

    def _guests(self, rows):
        table = self._table()
        table.add_column('guest')
        table.add_column('cores', justify='right')
        table.add_column('MiB', justify='right')
        table.add_column('Nova says')
        table.add_column('libvirt says')
        table.add_column('QEMU')
        for guest in rows:
            table.add_row(
                guest['name'], str(guest['vcpus']), str(guest['memory_mb']),
                guest['nova'], guest['libvirt'] or 'not there',
                f"process {guest['pid']}" if guest['pid'] else 'none')
        return table
