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

"""Guests that are really there, and the demo, which shows some."""

import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import time
import uuid

import fixtures
import nova.conf
import testtools
import yaml

from nova_k8s.accounting import usage
from nova_k8s import conf
from tests.functional import real_libvirt
from tests import waiting

conf.register_opts(nova.conf.CONF)

TOP = pathlib.Path(__file__).parents[2]


# The memory of a guest, untouched, and 100 MiB beside it.
COSTLY = """
import mmap, sys
memory = mmap.mmap(-1, 128 << 20)
own = b'x' * (100 << 20)
sys.stdout.write('ready')
sys.stdout.flush()
sys.stdin.read()
"""


class GuestTestBase(real_libvirt.RealLibvirtTestCase):

    memory = None

    def setUp(self):
        manifest = self.useFixture(fixtures.TempDir()).join('pod.yaml')
        with open(manifest, 'w', encoding='utf-8') as f:
            yaml.safe_dump({
                'apiVersion': 'v1', 'kind': 'Pod',
                'metadata': {'name': 'compute'},
                'spec': {'nodeName': 'node-1', 'containers': [
                    {'name': 'libvirt', 'resources': {
                        'limits': {'cpu': '1500m',
                                   'memory': self.memory}}}]}}, f)
        self.flags(limits_from='manifest', manifest=manifest,
                   group='kubernetes')
        self.flags(reserved_host_memory_mb=0)
        self.flags(overhead_factor=0.0, group='kubernetes')
        super().setUp()


class GuestTest(GuestTestBase):

    memory = '256Mi'

    def test_guest_is_a_process_until_it_is_deleted(self):
        self.start_compute()
        inventories = self.inventories()
        self.assertEqual(1, inventories['VCPU']['total'])
        self.assertEqual(256, inventories['MEMORY_MB']['total'])
        flavor = self._create_flavor(memory_mb=256, vcpu=1, disk=0,
                                     ephemeral=0)

        server = self.boot(flavor, 'guest')

        self.assertEqual('ACTIVE', server['status'])
        self.assertEqual('node-1',
                         server['OS-EXT-SRV-ATTR:hypervisor_hostname'])
        guest = self.embed.guests()[server['id']]
        self.assertEqual('running', guest['state'])
        self.assertEqual(256, guest['memory_mb'])
        qemu = command(guest['pid'])
        self.assertIn(b'qemu-system', qemu)
        self.assertIn(server['id'].encode(), qemu)
        self.assertEqual(256, self.usages()['MEMORY_MB'])

        refused = self.boot(flavor, 'one-too-many')
        self.assertEqual('ERROR', refused['status'])
        self.assertIn('No valid host', refused['fault']['message'])
        self.assertEqual([server['id']], list(self.embed.guests()))

        self._delete_server(server)
        self.assertEqual({}, self.embed.guests())
        waiting.until(
            lambda: b'qemu' not in command(guest['pid']),
            f'process {guest["pid"]} is still there')
        self.assertEqual(0, self.usages()['MEMORY_MB'])


class CostTest(GuestTestBase):
    """What guests cost while they run."""

    memory = '512Mi'

    def setUp(self):
        # No guest costs as little as is estimated here.
        self.flags(overhead_addition_mb=1, reserve_ahead=0, group='kubernetes')
        for module in ('inventory.publisher', 'accounting.accounts'):
            self.useFixture(fixtures.MonkeyPatch(
                f'nova_k8s.{module}.MEASURE_EVERY', 1))
        super().setUp()
        self.seen_mb = []

        def used(process, proc):
            found = measured(process, proc)
            if found:
                self.seen_mb.append(math.ceil(
                    (found.overhead_kb + found.translated_kb) / 1024))
            return found

        measured = usage.Process.used
        self.useFixture(fixtures.MonkeyPatch(
            'nova_k8s.accounting.usage.Process.used', used))

    def start_another(self):
        """Start what looks like a guest that costs much, and is not ours."""
        identifier = str(uuid.uuid4())
        process = subprocess.Popen(
            ['qemu-system-x86_64', '-c', COSTLY, '-uuid', identifier,
             '-m', '128', '-nographic'],
            executable=sys.executable, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE)
        self.addCleanup(process.communicate)
        self.assertEqual(b'ready', process.stdout.read(5))
        self.assertEqual(process.pid, usage.guests()[identifier].pid)

    def reserved(self):
        return self.inventories()['MEMORY_MB']['reserved']

    def warnings(self):
        return self.stdlog.logger.output.count('1 MiB were estimated')

    def test_what_a_guest_is_seen_to_cost_counts(self):
        self.start_another()
        self.start_compute()
        flavor = self._create_flavor(memory_mb=128, vcpu=1, disk=0,
                                     ephemeral=0)
        server = self.boot(flavor, 'guest')
        self.assertEqual('ACTIVE', server['status'])
        reserved = waiting.until(
            lambda: self.reserved() > 1 and self.reserved(),
            'what it costs is not reserved')
        # What QEMU is known to need at least, and far from the memory of the
        # guest itself.
        pid = self.embed.guests()[server['id']]['pid']
        self.assertEqual(pid, usage.guests()[server['id']].pid)
        self.assertGreater(reserved, 10)
        self.assertLess(reserved, 128)
        # The most that was seen: QEMU gives back some of it after the boot.
        waiting.until(lambda: self.reserved() == max(self.seen_mb),
                      'not what was measured is reserved')
        waiting.until(self.warnings, 'nobody is told')
        # It is looked at again, and told once.
        time.sleep(3)
        self.assertEqual(1, self.warnings())
        self._delete_server(server)
        waiting.until(lambda: self.reserved() == 0,
                      'it is still reserved')


class DemoTest(testtools.TestCase):
    """The program of ``make demo``."""

    def setUp(self):
        super().setUp()
        reason = real_libvirt.missing()
        if reason:
            self.skipTest(reason)
        self.shown = self.useFixture(fixtures.TempDir()).join('shown.json')
        # only a log is ever left, and only in here
        self.log_dir = pathlib.Path(self.useFixture(fixtures.TempDir()).path)

    def start(self, **env):
        env = dict(os.environ, TMPDIR=str(self.log_dir), COLUMNS='80', **env)
        demo = subprocess.Popen(
            [sys.executable, '-m', 'tests.demo', '--json', self.shown],
            cwd=TOP, env=env, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.addCleanup(demo.wait)
        self.addCleanup(demo.terminate)
        # the child that is the demo itself, and its working directory
        children = pathlib.Path(f'/proc/{demo.pid}/task/{demo.pid}/children')
        child = waiting.until(children.read_text).split()[0]
        arguments = waiting.until(
            lambda: [word for word in command(child).split(b'\0')
                     if word.startswith(b'/tmp/nova-k8s-demo-')])
        self.directory = arguments[0]
        return demo

    def processes(self, word=b''):
        return [path.name for path in pathlib.Path('/proc').glob('[0-9]*')
                if self.directory in command(path.name) and
                word in command(path.name)]

    def assertNothingIsLeft(self):
        self.assertEqual([], self.processes())
        self.assertFalse(os.path.exists(self.directory))

    def test_story(self):
        demo = self.start()
        text, _ = demo.communicate(timeout=300)

        self.assertEqual(0, demo.returncode, text)
        self.assertNothingIsLeft()
        self.assertEqual([], list(self.log_dir.iterdir()))
        # nothing of Nova's log, and it fits a terminal
        self.assertNotIn('INFO', text)
        self.assertLessEqual(max(map(len, text.splitlines())), 80)
        self.assertEqual(2, text.count('refused: No valid host was found'))

        with open(self.shown, encoding='utf-8') as f:
            steps = {shown['step']: shown for shown in json.load(f)}
        cpus = steps['start']['resources']['VCPU']['machine']
        figures = {
            name: [(row['limit'], row['total'], row['used'])
                   for row in shown['resources'].values()]
            for name, shown in steps.items()}
        self.assertEqual({
            'start': [('1500m', 1, 0), ('768Mi', 768, 0)],
            'fill': [('1500m', 1, 3), ('768Mi', 768, 768)],
            'raise': [('2', min(2, cpus), 4), ('1Gi', 1024, 1024)],
            'lower': [('1', 1, 4), ('512Mi', 512, 1024)],
            'end': [('1', 1, 0), ('512Mi', 512, 0)],
        }, figures)
        pids = {name: [guest['pid'] for guest in shown['guests']]
                for name, shown in steps.items()}
        self.assertEqual(3, len(set(pids['fill'])))
        self.assertEqual(pids['fill'], pids['raise'][:3])
        self.assertEqual(4, len(set(pids['raise'])))
        self.assertEqual(pids['raise'], pids['lower'])
        self.assertEqual([], pids['end'])
        for shown in steps.values():
            for guest in shown['guests']:
                self.assertEqual(('ACTIVE', 'running'),
                                 (guest['nova'], guest['libvirt']))
                self.assertIsInstance(guest['pid'], int)

    def test_interrupted(self):
        demo = self.start()
        waiting.until(lambda: self.processes(b'guest=instance'))
        demo.send_signal(signal.SIGINT)
        text, _ = demo.communicate(timeout=300)

        self.assertEqual(130, demo.returncode, text)
        self.assertNotIn('Traceback', text)
        self.assertNothingIsLeft()
        self.assertEqual([], list(self.log_dir.iterdir()))

    def test_failed(self):
        programs = self.useFixture(fixtures.TempDir()).path
        for folder in os.get_exec_path():
            for path in pathlib.Path(folder).glob('*'):
                link = pathlib.Path(programs, path.name)
                if not (path.name.startswith('qemu-') or
                        os.path.lexists(link)):
                    link.symlink_to(path)
        demo = self.start(PATH=programs)
        text, _ = demo.communicate(timeout=300)

        self.assertEqual(1, demo.returncode, text)
        self.assertNotIn('Traceback', text)
        self.assertIn('qemu-system-x86_64 is not installed', text)
        log, = self.log_dir.iterdir()
        self.assertIn(str(log), text)
        self.assertNothingIsLeft()


def command(pid):
    """Command line of a process; empty if there is none."""
    try:
        return pathlib.Path(f'/proc/{pid}/cmdline').read_bytes()
    except OSError:
        return b''
