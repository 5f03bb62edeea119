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

"""The plots of the benchmarks: SVG, always the same for the same figures.

They bring their own background, light or dark as the reader's system is: what
is drawn on that of a page cannot know it.
"""

import collections
import math
import re
from xml.etree import ElementTree

from benchmarks import table

IMAGES = table.DOC / 'images'

WIDTH, HEIGHT = 720, 360
# Of the area that figures are drawn in.
LEFT, RIGHT, TOP, BOTTOM = 120, 700, 84, 306

STYLE = """
.paper { fill: #ffffff } .text { fill: #222222 } .axis { stroke: #767676 }
.grid { stroke: #e2e2e2 } .band { fill: #d9d9d9 }
.line { fill: none; stroke-width: 2 }
.a { color: #0060a8 } .b { color: #b34700 } .c { color: #1f7a33 }
.line, .mark { stroke: currentColor } .mark { fill: currentColor }
@media (prefers-color-scheme: dark) {
.paper { fill: #1c1c1c } .text { fill: #eeeeee } .axis { stroke: #9a9a9a }
.grid { stroke: #3a3a3a } .band { fill: #4a4a4a }
.a { color: #6db8ff } .b { color: #ff9d5c } .c { color: #7ad68e }
}
"""

# The same in print and to those who do not see the colours.
MARKS = {'a': 'M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z', 'b': 'M-4-4h8v8h-8z',
         'c': 'M0-5l5 9h-10z'}


class Scale:
    """Where a value lies between two points of the picture."""

    def __init__(self, values, begin, end, transform=float):
        self._transform = transform
        low, high = (transform(each) for each in (min(values), max(values)))
        self._low, self._begin = low, begin
        self._slope = (end - begin) / (high - low)

    def __call__(self, value):
        return round(self._begin + self._slope * (
            self._transform(value) - self._low), 1)


class Plot:
    """An SVG with two axes.

    :param x: (title, Scale, [(value, label)]) of the axis at the bottom
    :param y: the same of the axis at the left
    """

    def __init__(self, title, x, y):
        self._svg = ElementTree.Element('svg', {
            'xmlns': 'http://www.w3.org/2000/svg',
            'viewBox': f'0 0 {WIDTH} {HEIGHT}',
            'font-family': 'sans-serif', 'font-size': '14'})
        self._add('title').text = title
        self._add('style').text = STYLE
        self._add('rect', 'paper', width=WIDTH, height=HEIGHT)
        self.text(14, 26, title, font_size=16)
        (x_title, self._x, x_ticks), (y_title, self._y, y_ticks) = x, y
        self._legend = LEFT
        self._axes(x_title, x_ticks, y_title, y_ticks)

    def _add(self, tag, css=None, parent=None, **attributes):
        if css:
            attributes['class'] = css
        return ElementTree.SubElement(
            self._svg if parent is None else parent, tag,
            {name.replace('_', '-'): str(value)
             for name, value in attributes.items()})

    def text(self, x, y, text, **attributes):
        self._add('text', 'text', x=x, y=y, **attributes).text = text

    def _axes(self, x_title, x_ticks, y_title, y_ticks):
        self._grid = self._add('g')
        for value, label in y_ticks:
            y = self._y(value)
            self._add('path', 'grid', self._grid, d=f'M{LEFT} {y}H{RIGHT}')
            self.text(LEFT - 8, y + 5, label, text_anchor='end')
        for value, label in x_ticks:
            x = self._x(value)
            self._add('path', 'axis', d=f'M{x} {BOTTOM}v5')
            self.text(x, BOTTOM + 20, label, text_anchor='middle')
        self._add('path', 'axis', fill='none',
                  d=f'M{LEFT} {TOP}V{BOTTOM}H{RIGHT}')
        middle = (LEFT + RIGHT) / 2
        self.text(middle, HEIGHT - 12, x_title, text_anchor='middle')
        x, y = 20, (TOP + BOTTOM) / 2
        self.text(x, y, y_title, text_anchor='middle',
                  transform=f'rotate(-90 {x} {y})')

    def _explain(self, name):
        """Name something above the axes; return where its sign belongs."""
        x = self._legend
        self.text(x + 18, 58, name)
        self._legend += round(46 + 7.5 * len(name))
        return x + 4, 53

    def _path(self, points):
        return 'M' + 'L'.join(
            f'{self._x(x)} {self._y(y)}' for x, y in points)

    def band(self, name, low, high):
        """Fill what lies between two lines, below all others."""
        ElementTree.SubElement(self._grid, 'path', {
            'class': 'band', 'd': self._path([*low, *reversed(high)]) + 'z'})
        x, y = self._explain(name)
        self._add('rect', 'band', x=x - 4, y=y - 5, width=12, height=10)

    def line(self, css, name, points, unit=''):
        """Draw [(x, y)] as a line with marks, which say their value."""
        self._add('path', f'line {css}', d=self._path(points))
        for x, y in points:
            mark = self._mark(css, self._x(x), self._y(y))
            ElementTree.SubElement(mark, 'title').text = (
                f'{name}, {x:g}: {y:g}{unit}')
        self._mark(css, *self._explain(name))

    def _mark(self, css, x, y):
        return self._add('path', f'mark {css}', d=MARKS[css],
                         transform=f'translate({x} {y})')

    def svg(self):
        ElementTree.indent(self._svg)
        return ElementTree.tostring(self._svg, encoding='unicode') + '\n'


def series(rows, pattern):
    """Return {name: [(x, y)]} of the rows that a pattern matches.

    :param pattern: has the groups x and name
    """
    found = collections.defaultdict(list)
    for row in rows:
        match = re.fullmatch(pattern, f'{row.what} {row.unit}'.strip())
        if match:
            found[match['name']].append((int(match['x']), float(row.value)))
    if not found:
        raise table.Missing(f'{pattern}: nothing has measured it')
    return {name: sorted(points) for name, points in found.items()}


def noise(series):
    """Return [(x, the most by which a ratio there is not 1)]."""
    most = collections.defaultdict(float)
    for points in series.values():
        for x, ratio in points:
            most[x] = max(most[x], abs(ratio - 1))
    return sorted(most.items())


def audit(rows):
    what = r'Audit, (?P<x>\d+) guests, API server (?P<name>\w+): time, '
    ours = series(rows, what + "ours / Nova's")
    around = noise(series(rows, what + r"Nova's / Nova's \(noise\)"))
    low = [(x, 1 - most) for x, most in around]
    high = [(x, 1 + most) for x, most in around]
    drawn = [*low, *high, *(point for line in ours.values()
                            for point in line)]
    # Never less than this, or noise would look like mountains.
    margin = max(0.1, *(abs(ratio - 1) for _x, ratio in drawn))
    percents = math.ceil(round(margin * 20, 6)) * 5
    guests = [x for x, _most in around]
    plot = Plot(
        "Nova's periodic audit: time with this driver / with Nova's own",
        ('guests on the compute node', Scale(guests, LEFT + 10, RIGHT - 10),
         [(x, str(x)) for x in guests]),
        ("ours / Nova's",
         Scale((1 - percents / 100, 1 + percents / 100), BOTTOM, TOP),
         [(1 + each / 100, f'{1 + each / 100:.2f}')
          for each in range(-percents, percents + 1, 5)]))
    plot.band("noise", low, high)
    for css, (state, points) in zip(MARKS, ours.items()):
        plot.line(css, f'API server {state}', points)
    return plot.svg()


def cluster(rows):
    receivers = series(
        rows, r'Cluster of (?P<x>\d+) nodes: (?P<name>.*) receives bytes/s')
    points = [point for line in receivers.values() for point in line]
    nodes = sorted({x for x, _size in points})
    decades = range(math.floor(math.log10(min(y for _x, y in points))),
                    math.ceil(math.log10(max(y for _x, y in points))) + 1)
    plot = Plot(
        'Received from the API server, by size of the cluster',
        ('nodes in the cluster',
         Scale(nodes, LEFT + 10, RIGHT - 10, math.log10),
         [(x, str(x)) for x in nodes]),
        ('bytes per second',
         Scale([10 ** each for each in decades], BOTTOM, TOP, math.log10),
         [(10 ** each, f'{10 ** each:,}') for each in decades]))
    for css, (name, line) in zip(MARKS, receivers.items()):
        plot.line(css, name, line, ' bytes/s')
    return plot.svg()


# By the file below IMAGES.
PLOTS = {'benchmark-audit.svg': audit, 'benchmark-cluster.svg': cluster}
