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

"""Run the benchmarks and print what they found.

Each runs in a process of its own: Nova's tests change the process that they
run in.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
import traceback

import benchmarks
from benchmarks import plot
from benchmarks import table


def run(name, quick, written):
    """Return the table.Row's of a benchmark."""
    environment = dict(os.environ)
    if quick:
        environment['NOVA_K8S_BENCH_QUICK'] = '1'
    if written:
        # For what has a page of its own.
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
    return [table.Row(name, *row) for row in json.loads(text)]


def send_rows(name, descriptor):
    # Nova's tests end after some minutes, and swallow what is printed.
    os.environ.update(OS_TEST_TIMEOUT='0', OS_STDOUT_CAPTURE='0',
                      OS_STDERR_CAPTURE='0')
    os.environ.setdefault('OS_NOVA_DISABLE_EVENTLET_PATCHING', '1')
    # It patches for Nova, which must come first.
    importlib.import_module('tests.functional')
    rows = list(importlib.import_module(f'benchmarks.{name}').rows())
    with open(descriptor, 'w', encoding='utf-8') as answer:
        json.dump(rows, answer)


def files(before, rows, page):
    """Return {path: text} of all that is written.

    :param before: the rows of what did not run this time
    :param page: the text of table.PAGE
    :raises table.Missing: where a figure to show was never measured
    """
    rows = table.merge(before, rows)
    return {table.ALL: table.to_csv(rows),
            table.PAGE: table.on_page(page, rows),
            **{plot.IMAGES / name: draw(rows)
               for name, draw in plot.PLOTS.items()}}


def write(rows):
    before = table.from_csv(table.ALL.read_text(encoding='utf-8'))
    # All or nothing: they are to agree.
    for path, text in files(before, rows, table.PAGE.read_text(
            encoding='utf-8')).items():
        path.write_text(text, encoding='utf-8')


def main():
    parser = argparse.ArgumentParser(prog='python -m benchmarks',
                                     description=__doc__)
    parser.add_argument('name', nargs='*', metavar='NAME',
                        help='benchmark to run, by default all: %s'
                        % ', '.join(benchmarks.BENCHMARKS))
    parser.add_argument('--quick', action='store_true',
                        help='few runs: whether all of it works')
    parser.add_argument('--write', action='store_true',
                        help=f'write {table.ALL.name}, and what '
                        f'{table.PAGE.name} shows of it; benchmarks that '
                        f'did not run keep their figures')
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
    unknown = set(options.name) - set(benchmarks.BENCHMARKS)
    if unknown:
        parser.error('no such benchmark: %s' % ', '.join(sorted(unknown)))
    if options.quick and options.write:
        parser.error('the figures of --quick are not worth writing')
    begin = time.monotonic()
    rows = []
    for name in options.name or benchmarks.BENCHMARKS:
        rows += run(name, options.quick, options.write)
    print(table.to_rst((row.what, row.value, row.unit) for row in rows))
    print('%.0f s' % (time.monotonic() - begin))
    if options.write:
        try:
            write(rows)
        except table.Missing as exc:
            sys.exit(f'nothing is written: {exc}')


if __name__ == '__main__':
    main()
