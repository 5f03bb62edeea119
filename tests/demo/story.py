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

"""The demo itself: what a pod's limits do to Nova.

Started by ``python -m tests.demo``, which cleans up behind it. Every figure
is asked for when it is shown: limits of the manifest, the machine and guests
of libvirt, inventory and usage of Placement, servers of Nova.
"""

import json
import logging
import os
import pathlib
import shutil
import sys
import traceback
import unittest

import testtools
import yaml

import nova.conf
from nova_k8s import conf as k8s_conf
from tests.demo import screen
from tests.functional import real_libvirt
from tests import waiting

CONTAINER = 'libvirt'
MANIFEST = pathlib.Path(__file__).with_name('pod.yaml')
# What a guest gets. Small: a TCG guest that does nothing needs no more.
FLAVOR = {'vcpu': 1, 'memory_mb': 256, 'disk': 0, 'ephemeral': 0}
RAISED = {'cpu': '2', 'memory': '1Gi'}
LOWERED = {'cpu': '1', 'memory': '512Mi'}
# More than any of the limits has room for.
TOO_MANY = 16
RESOURCES = {'VCPU': 'cpu', 'MEMORY_MB': 'memory'}


class Failure(Exception):
    """The demo did not show what it promised; the text says what."""


EXPECTED = (Failure, waiting.TooLong, unittest.SkipTest)


class Manifest:
    """The file that the driver reads."""

    def __init__(self, path):
        self.path = path
        shutil.copy(MANIFEST, path)

    def _find(self, pod):
        containers = pod['spec']['template']['spec']['containers']
        return next(c for c in containers if c['name'] == CONTAINER)

    @property
    def limits(self):
        pod = yaml.safe_load(self.path.read_text())
        return self._find(pod)['resources']['limits']

    @limits.setter
    def limits(self, limits):
        pod = yaml.safe_load(self.path.read_text())
        self._find(pod)['resources']['limits'] = limits
        new = self.path.with_suffix('.new')
        new.write_text(yaml.safe_dump(pod))
        new.rename(self.path)  # never half of a file


class Demo(real_libvirt.RealLibvirtTestCase):

    def __init__(self, directory, screen, shown):
        super().__init__('runTest')
        self._directory = directory
        self._screen = screen
        self._shown = shown

    def setUp(self):
        self.manifest = Manifest(self._directory / 'pod.yaml')
        k8s_conf.register_opts(nova.conf.CONF)
        self.flags(limits_from='manifest', manifest=str(self.manifest.path),
                   container=CONTAINER, group='kubernetes')
        # The limit that is read is that of the guests' container: nothing in
        # it is for the host. What QEMU costs is another story: without it,
        # the figures are round.
        self.flags(reserved_host_memory_mb=0)
        self.flags(overhead_factor=0.0, group='kubernetes')
        super().setUp()
        handler = logging.StreamHandler()
        handler.setLevel(logging.INFO)
        handler.setFormatter(logging.Formatter(
            '%(asctime)s %(levelname)s %(name)s %(message)s'))
        logging.getLogger().addHandler(handler)
        self.addCleanup(logging.getLogger().removeHandler, handler)

    def runTest(self):
        say = self._screen.say
        self.flavor = self._create_flavor(**FLAVOR)

        self._step('start', 'Nova starts on a node whose pod has limits')
        say('The manifest of the pod says:')
        self._say_limits()
        self.start_compute()
        say("nova-compute runs. Its inventory, as Placement (Nova's "
            'book-keeper) has it:')
        self._show()
        say(f'Bars: {self._screen.legend}.')

        self._step('fill', 'Boot guests until Nova refuses')
        for number in range(1, TOO_MANY):
            if not self._boot(f'guest-{number}'):
                break
        else:
            raise Failure(f'Nova placed {TOO_MANY - 1} guests and never '
                          'refused: the limit does not count')
        self._show()
        memory = self._shown[-1]['resources']['MEMORY_MB']
        if memory['machine'] > memory['used'] + FLAVOR['memory_mb']:
            say('The machine has room for more, the pod has not.')

        self._step('raise', 'Raise the limit in the manifest')
        self._change(RAISED)
        if not self._boot(f'guest-{number}'):
            raise Failure('Nova refused although the limit was raised')
        self._show()

        self._step('lower', 'Lower it below what is in use')
        self._change(LOWERED)
        if self._boot(f'guest-{number + 1}'):
            raise Failure('Nova placed a guest above the limit')
        self._show()
        before, now = (shown['guests'] for shown in self._shown[-2:])
        if before != now:
            raise Failure(f'The guests are not what they were: {before}')
        say('Guests stay, also beyond the limit; none is added.')

        self._step('end', 'Delete the guests')
        for server in self._servers():
            self._delete_server(server)
        self._show()
        left = len(self.embed.guests())
        if left:
            raise Failure(f'{left} guests are left in libvirt')
        say('No guest is left.')

    def _step(self, name, title):
        self._name = name
        self._screen.step(f'{len(self._shown) + 1}. {title}')

    def _say_limits(self):
        limits = self.manifest.limits
        self._screen.say(
            f'    container {CONTAINER}: limits: cpu: {limits["cpu"]}, '
            f'memory: {limits["memory"]}', 'cyan')

    def _change(self, limits):
        self._say_limits()
        before = self._totals()
        self.manifest.limits = limits
        self._screen.say('becomes')
        self._say_limits()
        # No service is restarted and no periodic task runs here: what
        # changes the inventory is the driver, on its own.
        waiting.until(lambda: self._totals() != before,
                      f"Placement's inventory is still {before}")

    def _totals(self):
        return {name: record['total']
                for name, record in self.inventories().items()
                if name in RESOURCES}

    def _boot(self, name):
        """True when Nova made it, False when it says there is no room."""
        server = self.boot(self.flavor, name)
        if server['status'] == 'ACTIVE':
            self._screen.say(f'{name}: booted', 'green')
            return True
        answer = server['fault']['message'].strip()
        self._delete_server(server)
        if not answer.startswith('No valid host'):
            raise Failure(f'{name} did not boot: {answer}')
        self._screen.say(f'{name}: refused: {answer}', 'yellow')
        return False

    def _servers(self):
        servers = self.api.get_servers(detail=True)
        return sorted(servers, key=lambda server: server['name'])

    def _show(self):
        snapshot = {'step': self._name, 'resources': self._resources(),
                    'guests': self._guests()}
        self._shown.append(snapshot)
        self._screen.show(snapshot)

    def _resources(self):
        limits = self.manifest.limits
        usages = self.usages()
        inventories = self.inventories()
        _, memory, cpus, *_ = self.embed.conn.getInfo()
        machine = {'VCPU': cpus, 'MEMORY_MB': memory}
        rows = {}
        for name, limit in RESOURCES.items():
            record = inventories[name]
            rows[name] = {
                'machine': machine[name],
                'limit': limits[limit],
                'total': record['total'],
                'reserved': record['reserved'],
                'allocation_ratio': record['allocation_ratio'],
                'capacity': ((record['total'] - record['reserved']) *
                             record['allocation_ratio']),
                'used': usages[name],
            }
        return rows

    def _guests(self):
        domains = self.embed.guests()
        rows = []
        for server in self._servers():
            domain = domains.pop(server['id'], {})
            rows.append({
                'name': server['name'],
                'vcpus': server['flavor']['vcpus'],
                'memory_mb': server['flavor']['ram'],
                'nova': server['status'],
                'libvirt': domain.get('state'),
                'pid': domain.get('pid'),
            })
        if domains:
            raise Failure(f'libvirt has guests that Nova does not know: '
                          f'{sorted(domains)}')
        return rows


class Reason:
    """Why the demo ended early, in a line; all of it is in the log."""

    def __init__(self):
        self.text = None

    def __call__(self, exc_info):
        traceback.print_exception(*exc_info)
        if self.text is None:
            kind, error, _ = exc_info
            if issubclass(kind, SystemExit):
                self.text = 'nova-compute does not start'
            elif issubclass(kind, EXPECTED):
                self.text = str(error)
            else:
                self.text = f'{kind.__name__}: {error}'


def main():
    directory, shown_json = sys.argv[1:]
    # Stderr is a log file. Nova writes to stdout as well what nobody asked to
    # see.
    out = os.fdopen(os.dup(1), 'w', encoding=sys.stdout.encoding)
    os.dup2(2, 1)
    real_libvirt.ROOT_IN = directory

    shown = []
    reason = Reason()
    view = screen.Screen(out)
    demo = Demo(pathlib.Path(directory), view, shown)
    demo.addOnException(reason)
    view.say('Starting libvirt, Nova and Placement ...')
    try:
        demo.run(testtools.TestResult())
    except SystemExit:
        pass  # Nova's way out; Reason has seen it
    if shown_json:
        pathlib.Path(shown_json).write_text(json.dumps(shown, indent=2))
    if reason.text:
        view.say(reason.text, 'bold red')
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
