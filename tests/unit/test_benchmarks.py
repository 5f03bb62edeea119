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

"""What the benchmarks found: the CSV, the page and the plots are one story."""

import dataclasses
import re
from xml.etree import ElementTree

import testtools

import benchmarks
from benchmarks import __main__ as program
from benchmarks import plot
from benchmarks import table

SVG = '{http://www.w3.org/2000/svg}'


def written():
    return table.from_csv(table.ALL.read_text(encoding='utf-8'))


def marks(svg):
    """{title: (x, y)} of the marks that stand for a figure."""
    found = {}
    for mark in ElementTree.fromstring(svg).iter(f'{SVG}path'):
        title = mark.find(f'{SVG}title')
        if title is not None:
            found[title.text] = tuple(map(float, re.fullmatch(
                r'translate\((\S+) (\S+)\)', mark.get('transform')).groups()))
    return found


class WrittenTest(testtools.TestCase):

    def test_page_and_plots_are_what_the_csv_says(self):
        page = table.PAGE.read_text(encoding='utf-8')
        for path, text in program.files([], written(), page).items():
            self.assertEqual(
                text, path.read_text(encoding='utf-8'),
                f'{path.name}: python -m benchmarks --write writes it')

    def test_page_shows_the_plots_and_links_the_csv(self):
        page = table.PAGE.read_text(encoding='utf-8')
        self.assertEqual(set(plot.PLOTS), set(re.findall(
            r'^\.\. image:: images/(.*)$', page, re.MULTILINE)))
        self.assertIn(f'<{table.ALL.name}>`', page)

    def test_rows_that_nobody_reads_are_not_on_the_page(self):
        self.assertLess(len(table.SHOWN), 20)
        self.assertGreater(len(written()), 3 * len(table.SHOWN))

    def test_each_benchmark_was_run(self):
        self.assertEqual(set(benchmarks.BENCHMARKS),
                         {row.benchmark for row in written()})

    def test_each_module_that_measures_is_a_benchmark(self):
        folder = table.DOC.parents[1] / 'benchmarks'
        self.assertEqual(set(benchmarks.BENCHMARKS), {
            path.stem for path in folder.glob('*.py')
            if '\ndef rows():' in path.read_text(encoding='utf-8')})

    def test_figures_have_one_name(self):
        names = [(row.what, row.unit) for row in written()]
        self.assertEqual(len(names), len(set(names)))


class TableTest(testtools.TestCase):

    rows = [table.Row('audit', 'calls, ours', '5, 2'),
            table.Row('cordon', 'p99', '1', 'ms')]

    def test_csv_and_back(self):
        self.assertEqual(self.rows, table.from_csv(table.to_csv(self.rows)))

    def test_what_ran_again_is_replaced(self):
        again = table.Row('audit', 'calls, ours', '4, 1')
        self.assertEqual([again, self.rows[1]],
                         table.merge(self.rows, [again]))
        other = table.Row('change', 'p50', '2', 's')
        self.assertEqual([self.rows[0], other, self.rows[1]],
                         table.merge(self.rows, [other]))

    def test_page_gets_the_new_figures_and_keeps_its_text(self):
        what, unit = table.SHOWN[0]
        rows = [dataclasses.replace(row, value='new figure')
                if (row.what, row.unit) == (what, unit) else row
                for row in written()]
        page = f'before\n{table.BEGIN}old figure\n{table.END}after\n'
        changed = table.on_page(page, rows)
        self.assertTrue(changed.startswith('before\n'))
        self.assertTrue(changed.endswith('after\n'))
        self.assertIn(f'   * - {what}\n     - new figure\n', changed)
        self.assertNotIn('old figure', changed)
        self.assertEqual(changed, table.on_page(changed, rows))

    def test_figure_that_is_missing_is_named(self):
        what, _unit = table.SHOWN[0]
        rows = [row for row in written() if row.what != what]
        failure = self.assertRaises(
            table.Missing, program.files, [], rows, '')
        self.assertIn(what, str(failure))


class PlotTest(testtools.TestCase):

    def audit(self, *figures):
        """The plot of these: (guests, state, ours, noise)."""
        return plot.audit([
            table.Row('audit', f'Audit, {guests} guests, API server {state}: '
                      f"time, {whose} / Nova's{noise}", value)
            for guests, state, *found in figures
            for whose, noise, value in zip(('ours', "Nova's"),
                                           ('', ' (noise)'), found)])

    def test_each_figure_is_where_it_belongs(self):
        found = marks(self.audit(
            (0, 'up', '1.000', '1.010'), (100, 'up', '1.050', '0.990'),
            (200, 'up', '0.950', '1.000'), (0, 'hanging', '1.100', '1.000'),
            (200, 'hanging', '0.900', '1.000')))
        middle = (plot.TOP + plot.BOTTOM) / 2
        left, right = plot.LEFT + 10, plot.RIGHT - 10
        self.assertEqual({
            'API server up, 0: 1': (left, middle),
            'API server up, 100: 1.05':
                ((left + right) / 2, (middle + plot.TOP) / 2),
            'API server up, 200: 0.95':
                (right, (middle + plot.BOTTOM) / 2),
            'API server hanging, 0: 1.1': (left, plot.TOP),
            'API server hanging, 200: 0.9': (right, plot.BOTTOM)}, found)

    def test_axis_has_room_for_what_is_far_off(self):
        found = marks(self.audit((0, 'up', '1.000', '1.000'),
                                 (200, 'up', '1.720', '1.010')))
        self.assertTrue(
            plot.TOP <= found['API server up, 200: 1.72'][1] < plot.BOTTOM)

    def test_band_is_as_wide_as_the_most_noise(self):
        self.assertEqual(
            [(0, 0.03), (200, 0.01)],
            [(x, round(most, 3)) for x, most in plot.noise(
                {'up': [(0, 0.97), (200, 1.01)],
                 'hanging': [(0, 1.02), (200, 1.0)]})])

    def test_ten_times_as_much_is_one_step_each_time(self):
        found = marks(plot.cluster([
            table.Row('cluster_size', f'Cluster of {nodes} nodes: a watch '
                      f'receives', str(nodes * 10), 'bytes/s')
            for nodes in (10, 100, 1000)]))
        (x1, y1), (x2, y2), (x3, y3) = sorted(found.values())
        self.assertAlmostEqual(x2 - x1, x3 - x2, delta=0.2)
        self.assertAlmostEqual(y1 - y2, y2 - y3, delta=0.2)
        self.assertEqual((plot.BOTTOM, plot.TOP), (y1, y3))

    def test_without_figures_there_is_no_plot(self):
        for draw in plot.PLOTS.values():
            self.assertRaises(table.Missing, draw, [])
