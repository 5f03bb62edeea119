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

"""What a guest costs, as arithmetic."""

import hypothesis
from hypothesis import strategies as st

from nova_k8s.accounting import overhead
from tests.unit import base

PAGE_SIZES_KB = (overhead.ANY_HUGE, 2048, 2 ** 20)

GUESTS = st.builds(
    overhead.Guest, memory_mb=st.integers(1, 2 ** 22),
    vcpus=st.integers(1, 512),
    huge=st.just(()) | st.tuples(st.tuples(
        st.sampled_from(PAGE_SIZES_KB), st.integers(1, 2 ** 22))),
    graphics=st.booleans(), video_mb=st.integers(0, 64), uefi=st.booleans(),
    vtpm=st.booleans(), sev=st.booleans(), vfio=st.booleans(),
    arm64=st.booleans(), translated_mb=st.integers(0, 1024),
    allocated_mb=st.none() | st.integers(0, 2 ** 23))


def guest(specs=None, properties=None, memory_mb=4096, vcpus=2, devices=0,
          pages=None, **settings):
    return overhead.guest(memory_mb, vcpus, specs or {}, properties or {},
                          overhead.Settings(**settings), devices, pages=pages)


class CostTest(base.TestCase):

    def test_sum(self):
        # 38 + 2 * 3 + 16 and twice 4096 / 512
        self.assertEqual(76, overhead.cost_mb(guest()))

    def test_what_each_thing_adds(self):
        plain = overhead.cost_mb(guest())
        for expected, other in (
                (-16, guest(graphics=False)),
                (-16, guest(properties={'hw_video_model': 'none'})),
                (0, guest(properties={'hw_video_model': 'vga'})),
                (0, guest(graphics=False,
                          properties={'hw_video_model': 'vga'})),
                (32, guest({'hw_video:ram_max_mb': '64'},
                           {'hw_video_ram': 32})),
                (0, guest(properties={'hw_video_ram': 32})),
                (16, guest(properties={'hw_firmware_type': 'uefi'})),
                (0, guest(properties={'hw_firmware_type': 'bios'})),
                (16, guest({'os:secure_boot': 'required'})),
                (0, guest({'os:secure_boot': 'disabled'})),
                (16, guest(properties={'os_secure_boot': 'required'})),
                (24, guest({'hw:tpm_version': '2.0'})),
                (24, guest(properties={'hw_tpm_model': 'tpm-crb'})),
                (256, guest({'hw:mem_encryption': 'True'})),
                (0, guest({'hw:mem_encryption': 'False'})),
                (256, guest(properties={'hw_mem_encryption': True})),
                (1024, guest({'pci_passthrough:alias': 'a1:2'})),
                (1024, guest(devices=1)),
                (1024, guest({'resources:VGPU': '1'})),
                (1024, guest({'resources_gpu-1:VGPU': '1'})),
                (1024, guest({'resources1:CUSTOM_M10': '1'},
                             mdev_classes={'CUSTOM_M10'})),
                (0, guest({'resources1:CUSTOM_M10': '1'})),
                (1024, guest({'accel:device_profile': 'gpu'})),
                (0, guest({'resources:VCPU': '1'})),
                (128, guest(arm64=True)),
                (128, guest(properties={'hw_architecture': 'aarch64'})),
                (-16, guest({'hw:mem_page_size': '1GB'})),
                (8192 // 256, guest(memory_mb=4096 + 8192)),
                (6, guest(vcpus=4)),
                (64, guest(translated_mb=64))):
            self.assertEqual(expected, overhead.cost_mb(other) - plain, other)

    def test_factor_and_addition(self):
        plain = guest()
        self.assertEqual(152, overhead.cost_mb(plain, 2.0))
        self.assertEqual(38 + 7, overhead.cost_mb(plain, 0.5, 7))
        self.assertEqual(0, overhead.cost_mb(plain, 0))

    def test_huge_pages(self):
        for size, size_kb in (
                (None, None), ('small', None), ('any', None), ('4', None),
                ('4KB', None), ('64KB', None), ('nonsense', None),
                ('large', overhead.ANY_HUGE), ('2048', 2048), ('2MB', 2048),
                ('1GB', 2 ** 20)):
            self.assertEqual(
                () if size_kb is None else ((size_kb, 4096),),
                guest({'hw:mem_page_size': size}).huge, size)
        self.assertEqual((), guest({'hw:mem_page_size': 'large'},
                                   {'hw_mem_page_size': '4KB'}).huge)

    def test_pages_that_nova_has_chosen(self):
        for size in (None, 'any', 'large'):
            for pages, expected in (
                    (((4, 2048), (4, 2048)), ()),
                    (((2048, 2048), (2048, 2048)), ((2048, 4096),)),
                    (((2 ** 20, 1024), (2048, 3072)),
                     ((2048, 3072), (2 ** 20, 1024)))):
                self.assertEqual(expected, guest(
                    {'hw:mem_page_size': size}, pages=pages).huge)

    def test_only_ordinary_pages_have_page_tables(self):
        self.assertEqual(60, overhead.cost_mb(guest(
            pages=((2048, 4096),))))
        self.assertEqual(68, overhead.cost_mb(guest(
            pages=((2048, 2048), (4, 2048)))))

    @hypothesis.given(GUESTS, st.floats(0, 10), st.integers(0, 1000))
    def test_more_never_costs_less(self, some, factor, addition):
        cost = overhead.cost_mb(some, factor, addition)
        self.assertIsInstance(cost, int)
        self.assertGreaterEqual(cost, addition)
        more = overhead.Guest(
            some.memory_mb + 1, some.vcpus + 1, some.huge, True,
            some.video_mb, True, True, True, True, True, some.translated_mb,
            rbd_images=some.rbd_images + 1)
        self.assertGreaterEqual(
            overhead.cost_mb(more, factor, addition), cost)


class NeedTest(base.TestCase):

    settings = overhead.Settings()

    def test_plain(self):
        need = overhead.need(guest(), self.settings)
        self.assertEqual(overhead.Need(4096, 76, 4096, 2), need)
        self.assertEqual((4172, 76), (need.total_mb, need.reserved_mb))

    def test_the_larger_of_estimate_and_measurement(self):
        for measured, overhead_mb in ((75, 76), (76, 76), (77, 77)):
            self.assertEqual(overhead_mb, overhead.need(
                guest(), self.settings, measured).overhead_mb)

    def test_placement_knows_all_of_it(self):
        for amount, reserved in (('4172', 0), ('5000', 0), ('4100', 72),
                                 ('0', 4172), ('nonsense', 76)):
            need = overhead.need(
                guest({'resources:MEMORY_MB': amount}), self.settings)
            self.assertEqual((4172, reserved),
                             (need.total_mb, need.reserved_mb), amount)
        self.assertEqual('resources:MEMORY_MB=4172',
                         overhead.placement_property(guest(), self.settings))

    def test_huge_pages(self):
        # Of the memory limit it takes what QEMU costs. MEMORY_MB, of which
        # Placement allocates the flavor's, has huge pages too.
        some = guest({'hw:mem_page_size': '2MB'})
        need = overhead.need(some, self.settings)
        self.assertEqual((60, 4096, 60), (
            need.total_mb, need.huge_mb, need.reserved_mb))
        self.assertEqual('resources:MEMORY_MB=4156',
                         overhead.placement_property(some, self.settings))

    @hypothesis.given(GUESTS)
    def test_allocated_and_reserved_are_enough(self, some):
        need = overhead.need(some, self.settings)
        self.assertGreaterEqual(need.allocated_mb + need.reserved_mb,
                                need.total_mb + need.huge_mb)
        # Each MiB of its memory is of one of the two.
        self.assertEqual(max(some.memory_mb, need.huge_mb),
                         need.memory_mb + need.huge_mb)
