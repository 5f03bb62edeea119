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

"""What the benchmarks found, and where it is kept: all of it in a CSV.

The page has a dozen rows of it, and plots.
"""

import csv
import dataclasses
import io
import pathlib

DOC = pathlib.Path(__file__).parent.parent / 'doc' / 'source'
PAGE = DOC / 'benchmarks.rst'
ALL = DOC / 'benchmarks.csv'

# What lies between them is written, the rest of the page is for people.
BEGIN, END = '.. The table begins.\n', '.. The table ends.\n'

# What the page shows: (what, unit).
SHOWN = (
    ("Audit, 200 guests, API server up: median time, Nova's", 'ms'),
    ("Audit, 200 guests, API server up: time, ours / Nova's", ''),
    ("Audit, 200 guests, API server hanging: time, ours / Nova's", ''),
    ("Idle, 0 guests: CPU, Nova's", 'ms/min'),
    ("Idle, 0 guests, API server up: CPU, ours / Nova's", ''),
    ("Idle, 200 guests, API server up: CPU, ours / Nova's", ''),
    ("Idle, 200 guests, API server hanging: CPU, ours / Nova's", ''),
    ("Idle, 200 guests, API server up: RSS, ours / Nova's", ''),
    ('Limit to Placement, 200 guests: p99', 's'),
    ("Without following, by Nova's periodic task: its period", 's'),
    ('Cluster of 1000 nodes: a compute node receives', 'bytes/s'),
    ('Cluster of 1000 nodes: a watch on all pods receives', 'bytes/s'),
    ('Options from ConfigMap and Secret: loading them, beyond files', 's'),
    ('Options from ConfigMap and Secret: memory, beyond files', 'MiB'),
    ('kubectl edit configmap to the log of nova-compute: p99', 's'),
    ('nova-k8s config run, one of 5000 nodes: it receives, with TLS',
     'bytes/s'),
    ('cordon to disabled in Placement, p99 of 200', 'ms'),
    ('uncordon to enabled in Placement, p99 of 200', 'ms'),
)


@dataclasses.dataclass(frozen=True)
class Row:
    """One figure; all of it is text."""

    benchmark: str
    """The module that found it."""

    what: str
    value: str
    unit: str = ''


FIELDS = [field.name for field in dataclasses.fields(Row)]


class Missing(Exception):
    """A figure that is to be shown was not found; the text names it."""


def find(rows, what, unit):
    """Return the value of a row.

    :raises Missing: where there is none
    """
    for row in rows:
        if (row.what, row.unit) == (what, unit):
            return row.value
    raise Missing(f'{what} ({unit or "a ratio"}): nothing has measured it')


def merge(before, after):
    """Return the rows with those of the benchmarks that ran again replaced."""
    again = {row.benchmark for row in after}
    return sorted([row for row in before if row.benchmark not in again] +
                  list(after), key=lambda row: row.benchmark)


def from_csv(text):
    return [Row(**record) for record in csv.DictReader(io.StringIO(text))]


def to_csv(rows):
    written = io.StringIO()
    writer = csv.DictWriter(written, FIELDS, lineterminator='\n')
    writer.writeheader()
    writer.writerows(map(dataclasses.asdict, rows))
    return written.getvalue()


def to_rst(rows):
    """Return a reST table of [(what, value, unit)]."""
    lines = ['.. list-table::', '   :header-rows: 1', '   :widths: 70 20 10',
             '']
    for row in [('What', 'Value', 'Unit'), *rows]:
        for cell, mark in zip(row, '*  '):
            lines.append(f'   {mark} - {cell}'.rstrip())
    return '\n'.join(lines) + '\n'


def on_page(page, rows):
    """Return the page with what it shows of the rows.

    :raises Missing: where one is not there
    """
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    table = to_rst((what, find(rows, what, unit), unit)
                   for what, unit in SHOWN)
    return f'{head}{BEGIN}\n{table}\n{END}{tail}'
