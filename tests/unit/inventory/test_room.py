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

"""What room is left on a node with guests."""

import hypothesis
from hypothesis import strategies as st

from nova_k8s.accounting import ledger
from nova_k8s.accounting import overhead
from nova_k8s.accounting import summary
from nova_k8s.inventory import capacity
from nova_k8s.inventory import room
from tests.unit import base

NEEDS = st.builds(
    lambda memory_mb, overhead_mb, vcpus: overhead.Need(
        memory_mb, overhead_mb, memory_mb, vcpus),
    st.integers(64, 4096), st.integers(0, 300), st.integers(1, 8))


def record(total, reserved=0, ratio=1.0):
    return {'total': total, 'reserved': reserved, 'allocation_ratio': ratio}


def node(total, others, needs, ahead):
    """What Placement and the accounts say of a node with these guests."""
    found = summary.make(needs, others, ahead)
    return ({'VCPU': record(10 ** 6), 'MEMORY_MB': record(
        total, min(total, found.reserved_mb))},
        {'MEMORY_MB': sum(need.allocated_mb for need in needs)}, found)


class RoomTest(base.TestCase):

    def test_describe(self):
        needs = [overhead.Need(512, 60, 512, 1), overhead.Need(1024, 70, 1024)]
        inventory, usages, found = node(4096, 100, needs, 1)
        self.assertEqual({
            'total_mb': 4096, 'reserved_mb': 300, 'reserved_for': {
                'others_mb': 100, 'guests_mb': 130, 'ahead_mb': 70,
                'guests': 2},
            'used_mb': 1536, 'free_mb': 4096 - 300 - 1536,
            'huge_pages': {'total_mb': 0, 'used_mb': 0},
            'ordinary': {'total_mb': 4096, 'used_mb': 1536 + 130 + 100},
        }, room.describe(inventory, usages, found))
        line, = room.words(room.describe(inventory, usages, found))
        for figure in ('4096', '300 reserved', '130 for what 2 guests',
                       '1536 used', '2260 free'):
            self.assertIn(figure, line)
        self.assertIsNone(room.describe({}, {}, None))
        line, = room.words(room.describe(inventory, usages, None))
        self.assertIn('300 reserved, 1536 used', line)

    def test_disk(self):
        self.assertIsNone(room.describe_disk({}, {}))
        disk = room.describe_disk({'DISK_GB': record(100, 10)},
                                  {'DISK_GB': 30})
        self.assertEqual(
            'Local disk in Placement: 100 GiB, 10 reserved, 30 used.',
            room.words_of_disk(disk))

    def test_both_kinds_of_memory(self):
        needs = [overhead.Need(512, 60, 512, 1),
                 overhead.Need(0, 50, 1024, 1, huge=((2048, 1024),))]
        inventory, usages, _found = node(4096, 100, needs, 1)
        found = summary.make(needs, 100, 1, {2048: 2048})
        first, second = room.words(room.describe(inventory, usages, found))
        self.assertIn('4096 MiB', first)
        self.assertEqual(
            'Of it, 2048 MiB are huge pages, 1024 used, and 2048 MiB are '
            'other memory, 722 used.', second)
        # What huge pages were counted for is nothing for others.
        need = overhead.Need(64, 0, 64, 1)
        self.assertEqual((2048 - 722) // 64, room.count_more(
            inventory, usages, found, need, 0))

    @hypothesis.given(st.integers(1, 2 ** 15), st.integers(0, 512), NEEDS,
                      st.integers(0, 2))
    def test_empty_node_is_that_of_the_report(self, total, others, need,
                                              ahead):
        inventory, usages, found = node(total, others, [], ahead)
        self.assertEqual(
            0 if others >= total else
            capacity.count_guests(total, others, need, ahead),
            room.count_more(inventory, usages, found, need, ahead))

    @hypothesis.given(st.integers(1, 2 ** 15), st.integers(0, 512),
                      st.lists(NEEDS, max_size=4), NEEDS, st.integers(0, 2))
    def test_one_more_is_one_less(self, total, others, needs, need, ahead):
        more = room.count_more(*node(total, others, needs, ahead), need, ahead)
        if more:
            self.assertEqual(more - 1, room.count_more(
                *node(total, others, [*needs, need], ahead), need, ahead))
            self.assertLessEqual(
                others + ledger.used_mb([*needs, *[need] * more]), total)

    def test_bounded_by_cpus(self):
        inventory, usages, found = node(4096, 0, [], 0)
        inventory['VCPU'] = record(4, ratio=2.0)
        need = overhead.Need(64, 0, 64, 3)
        self.assertEqual(2, room.count_more(
            inventory, usages, found, need, 0))
        usages['VCPU'] = 6
        self.assertEqual(0, room.count_more(
            inventory, usages, found, need, 0))
        self.assertEqual(0, room.count_more(
            {'MEMORY_MB': inventory['MEMORY_MB']}, {}, found, need, 0))

    def test_closed(self):
        inventory, usages, found = node(4096, 0, [], 0)
        inventory['MEMORY_MB']['reserved'] = 4096
        self.assertEqual(0, room.count_more(
            inventory, usages, found, overhead.Need(64, 0, 64, 1), 0))
