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

"""The pictures of the documentation, as SVG."""

import math
from xml.sax import saxutils

HEAD = '''<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 {height}"
     font-family="sans-serif" font-size="13">
  <title>{title}</title>
  <rect width="760" height="{height}" fill="#fff"/>
'''

COLOURS = ('#d9b38c', '#c78f57', '#9c6730', '#b8cbe0', '#2f6db0', '#7a9a4d')

LEFT, RIGHT, TOP, BOTTOM = 70, 740, 46, 270


def _text(x, y, words, anchor='middle', more=''):
    return (f'  <text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" '
            f'fill="#222"{more}>{saxutils.escape(words)}</text>\n')


def bars(mixes, rules, counts):
    """How many were rejected or Pending, on a logarithmic scale.

    :param counts: by (mix, rule)
    """
    most = max(counts.values())
    decades = max(1, math.ceil(math.log10(max(10, most))))

    def height(count):
        # What is none has none; one begins above the line.
        if not count:
            return 0
        return (BOTTOM - TOP) * (0.3 + math.log10(count)) / (decades + 0.3)

    out = HEAD.format(height=330, title='Rejected guests and Pending pods')
    for power in range(decades + 1):
        y = BOTTOM - height(10 ** power)
        out += (f'  <line x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" '
                f'y2="{y:.1f}" stroke="#ddd"/>\n')
        out += _text(LEFT - 6, y + 4, f'{10 ** power:,}', 'end')
    group = (RIGHT - LEFT) / len(mixes)
    wide = group / (len(rules) + 1.5)
    for i, mix in enumerate(mixes):
        x = LEFT + i * group + 0.75 * wide
        for j, rule in enumerate(rules):
            high = height(counts[mix, rule])
            out += (f'  <rect x="{x + j * wide:.1f}" y="{BOTTOM - high:.1f}" '
                    f'width="{wide - 2:.1f}" height="{high:.1f}" '
                    f'fill="{COLOURS[j]}"/>\n')
            if not high:
                out += _text(x + (j + 0.5) * wide - 1, BOTTOM - 3, '0')
        out += _text(LEFT + (i + 0.5) * group, BOTTOM + 18, mix)
    out += (f'  <line x1="{LEFT}" x2="{RIGHT}" y1="{BOTTOM}" y2="{BOTTOM}" '
            f'stroke="#222"/>\n')
    out += _text((LEFT + RIGHT) / 2, BOTTOM + 36,
                 'guests : containers, percent of the memory they want')
    x = LEFT
    for rule, colour in zip(rules, COLOURS):
        out += f'  <rect x="{x}" y="14" width="12" height="12" ' \
               f'fill="{colour}"/>\n'
        out += _text(x + 17, 25, rule, 'start')
        x += 36 + 8 * len(rule)
    return out + '</svg>\n'


def week(samples):
    """The boundary of one node.

    :param samples: (hour, guests, their pod, containers), shares of the node
    """
    end = samples[-1][0]

    def at(hour, share):
        return '%.1f,%.1f' % (LEFT + (RIGHT - LEFT) * hour / end,
                              BOTTOM - (BOTTOM - TOP) * share)

    def area(points, colour):
        return f'  <polygon points="{" ".join(points)}" fill="{colour}"/>\n'

    out = HEAD.format(height=330, title='The boundary of one node in a week')
    out += (f'  <rect x="{LEFT}" y="{TOP}" width="{RIGHT - LEFT}" '
            f'height="{BOTTOM - TOP}" fill="#f2f2f2"/>\n')
    pod = [at(hour, share) for hour, _, share, _ in samples]
    out += area([at(0, 0), *pod, at(end, 0)], COLOURS[3])
    out += area([at(0, 0), *(at(hour, share)
                             for hour, share, _, _ in samples), at(end, 0)],
                COLOURS[4])
    out += area([at(0, 1), *(at(hour, 1 - share)
                             for hour, _, _, share in samples), at(end, 1)],
                COLOURS[1])
    out += (f'  <polyline points="{" ".join(pod)}" fill="none" '
            f'stroke="#163a61" stroke-width="1.5"/>\n')
    for percent in range(0, 101, 25):
        y = BOTTOM - (BOTTOM - TOP) * percent / 100
        out += _text(LEFT - 6, y + 4, f'{percent} %', 'end')
    for day in range(int(end / 24) + 1):
        x = LEFT + (RIGHT - LEFT) * day * 24 / end
        out += (f'  <line x1="{x:.1f}" x2="{x:.1f}" y1="{BOTTOM}" '
                f'y2="{BOTTOM + 5}" stroke="#222"/>\n')
        out += _text(x, BOTTOM + 20, str(day))
    out += _text((LEFT + RIGHT) / 2, BOTTOM + 40, 'day')
    x = LEFT
    for words, colour in (('guests', COLOURS[4]),
                          ('their pod beyond: headroom', COLOURS[3]),
                          ('nobody', '#f2f2f2'), ('containers', COLOURS[1])):
        out += f'  <rect x="{x}" y="14" width="12" height="12" ' \
               f'fill="{colour}" stroke="#888"/>\n'
        out += _text(x + 17, 25, words, 'start')
        x += 40 + 7 * len(words)
    return out + '</svg>\n'
