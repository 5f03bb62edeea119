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

"""Run the benchmarks and print or write one table.

Each module runs in a process of its own: Nova's tests change the process that
they run in.
"""

import argparse
import importlib
import json
import os
import pathlib
import pkgutil
import subprocess
import sys
import time
import traceback

FOLDER = pathlib.Path(__file__).parent
TABLE = FOLDER.parent / 'doc' / 'source' / 'benchmarks.rst'

# What lies between them is written, the rest of the page is for people.
BEGIN, END = '.. The table begins.\n', '.. The table ends.\n'


def names():
    return [module.name for module in pkgutil.iter_modules([str(FOLDER)])
            if not module.name.startswith('_')]


def run(name, quick, written):
    """Return (rows, whether they have a page of their own) of a module.

    The rows are None where it is no benchmark.
    """
    environment = dict(os.environ)
    if quick:
        environment['NOVA_K8S_BENCH_QUICK'] = '1'
    if written:
        environment['NOVA_K8S_BENCH_WRITE'] = '1'
    reading, writing = os.pipe()
    with open(reading, encoding='utf-8') as answer:
        # Not its output, which is for people.
        process = subprocess.Popen(
            [sys.executable, '-m', 'benchmarks', '--rows', name,
             str(writing)], env=environment, pass_fds=[writing])
        os.close(writing)
        text = answer.read()
    if process.wait():
        sys.exit(f'benchmarks.{name} failed')
    return json.loads(text)


def send_rows(name, descriptor):
    module = importlib.import_module(f'benchmarks.{name}')
    rows = None
    if hasattr(module, 'rows'):
        rows = list(module.rows())
    with open(descriptor, 'w', encoding='utf-8') as answer:
        json.dump((rows, hasattr(module, 'PAGE')), answer)


def table(rows):
    """Return the rows as a reST table."""
    lines = ['.. list-table::', '   :header-rows: 1', '   :widths: 70 20 10',
             '']
    for row in [('What', 'Value', 'Unit'), *rows]:
        for cell, mark in zip(row, '*  '):
            lines.append(f'   {mark} - {cell}'.rstrip())
    return '\n'.join(lines) + '\n'


def write(text):
    page = TABLE.read_text(encoding='utf-8')
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    TABLE.write_text(f'{head}{BEGIN}\n{text}\n{END}{tail}', encoding='utf-8')


def main():
    parser = argparse.ArgumentParser(prog='python -m benchmarks',
                                     description=__doc__)
    parser.add_argument('name', nargs='*',
                        help='module to run, by default all: %s'
                        % ', '.join(names()))
    parser.add_argument('--quick', action='store_true',
                        help='few runs: whether all of it works')
    parser.add_argument('--write', action='store_true',
                        help=f'write the table to {TABLE.name}')
    parser.add_argument('--rows', nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rows:
        try:
            send_rows(options.rows[0], int(options.rows[1]))
        except Exception:
            # Nova's hook would log it, twice.
            traceback.print_exc()
            sys.exit(1)
        return
    begin = time.monotonic()
    rows, elsewhere = [], []
    for name in options.name or names():
        found, own_page = run(name, options.quick, options.write)
        (elsewhere if own_page else rows).extend(found or [])
    if options.write and rows:
        write(table(rows))
    print(table(rows + elsewhere))
    print('%.0f s' % (time.monotonic() - begin))


if __name__ == '__main__':
    main()
