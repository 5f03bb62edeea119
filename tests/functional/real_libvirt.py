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

"""Nova and Placement in one process, with real libvirt and real QEMU.

Nova's API, scheduler, conductor and compute and Placement run as in Nova's
own functional tests. What they do without, a hypervisor, is here: libvirt's
QEMU driver runs inside this process (``qemu:///embed``), so no daemon is
needed, and guests are QEMU processes under TCG, so no /dev/kvm is either.
"""

import atexit
import functools
import os
import pathlib
import shutil
import sys
import tempfile
import threading
from unittest import mock

import fixtures
import nova
from nova.tests.functional import integrated_helpers
from nova import utils
from nova.virt.libvirt import host as libvirt_host
from oslo_utils import importutils

from tests.functional import pools
from tests import waiting

# libvirt reads it once, when it is loaded. What it has to say it also raises.
os.environ.setdefault('LIBVIRT_LOG_OUTPUTS', '4:file:/dev/null')
# Nova's tests forbid the import while they run, and do not notice this one.
libvirt = importutils.try_import('libvirt')

# Imported before it, Nova's fixtures would load eventlet.
nova_fixtures = integrated_helpers.nova_fixtures

# Without a daemon no virtlogd answers. Without cgroups it works also where
# they may not be written, and leaves none behind.
QEMU_CONF = """\
security_driver = "none"
stdio_handler = "file"
max_core = 0
cgroup_controllers = []
"""
QEMU_CONF_ROOT = """\
user = "root"
group = "root"
"""

# Where libvirt's root directory is made. A short path: sockets lie below it,
# and the path of a socket has 107 characters at most.
ROOT_IN = '/tmp'

# QEMU boots it, finds nothing and idles: cheaper than any real system.
DISK = bytes(1024 * 1024)


class NotHere(Exception):
    """This machine cannot run guests; the text says what is missing."""


def missing():
    """What this machine lacks to run guests, or None."""
    threads = getattr(utils, 'concurrency_mode_threading', None)
    if not (threads and threads()):
        return ("real libvirt needs Nova's threading mode: Nova 34 or later "
                "and OS_NOVA_DISABLE_EVENTLET_PATCHING=1")
    if libvirt is None:
        return "the Python package libvirt-python is not installed"
    return missing_program(('qemu-system-x86_64', 'qemu-system-x86'),
                           ('qemu-img', 'qemu-utils'))


def missing_program(*programs):
    """Which of (program, Debian's package) is not installed, or None."""
    for program, package in programs:
        if shutil.which(program) is None:
            return f'{program} is not installed (package {package})'
    return None


class Embed:
    """libvirt's QEMU driver inside this process.

    libvirt allows one root directory a process, and its first connection
    takes seconds: it is opened once, and kept until the process ends.
    """

    def __init__(self):
        reason = missing()
        if reason:
            raise NotHere(reason)
        self.root = pathlib.Path(
            tempfile.mkdtemp(prefix='libvirt-', dir=ROOT_IN))
        self.owner = os.getpid()
        atexit.register(self.close)
        conf = self.root / 'etc' / 'qemu.conf'
        conf.parent.mkdir()
        if os.geteuid() == 0:
            conf.write_text(QEMU_CONF + QEMU_CONF_ROOT)
        else:
            conf.write_text(QEMU_CONF)
            # Some of what it writes ignores the root directory.
            for name in ('XDG_RUNTIME_DIR', 'XDG_CACHE_HOME'):
                os.environ[name] = str(self.root)
        self.uri = f'qemu:///embed?root={self.root}'

        libvirt.registerErrorHandler(lambda *args: None, None)
        # The driver waits for events of its own: the loop must run before.
        libvirt.virEventRegisterDefaultImpl()
        threading.Thread(target=self._events, daemon=True).start()
        try:
            self.conn = libvirt.open(self.uri)
        except libvirt.libvirtError as e:
            raise NotHere(
                f"libvirt's QEMU driver does not start: {e} (package "
                "libvirt-daemon-driver-qemu)") from e

    @staticmethod
    def _events():
        while True:
            libvirt.virEventRunDefaultImpl()

    def guests(self):
        """Guests as libvirt and the kernel know them, by UUID.

        Values are dicts of name, state, pid of QEMU and memory in MiB, in the
        order of libvirt's ids.
        """
        found = {}
        domains = self.conn.listAllDomains()
        for domain in sorted(domains, key=lambda d: d.ID()):
            try:
                state = domain.state()[0]
                name = domain.name()
                memory = domain.info()[1] // 1024
            except libvirt.libvirtError:
                continue  # gone meanwhile
            found[domain.UUIDString()] = {
                'name': name,
                'state': ('running' if state == libvirt.VIR_DOMAIN_RUNNING
                          else 'not running'),
                'pid': self._pid(name),
                'memory_mb': memory,
            }
        return found

    def _pid(self, name):
        path = self.root / 'run' / 'qemu' / f'{name}.pid'
        try:
            pid = int(path.read_text())
            os.kill(pid, 0)
        except (OSError, ValueError):
            return None
        return pid

    def destroy_guests(self):
        for domain in self.conn.listAllDomains():
            for end in (domain.destroy, domain.undefine):
                try:
                    end()
                except libvirt.libvirtError:
                    pass  # it is not running, or gone altogether

    def close(self):
        if os.getpid() != self.owner:
            return  # a fork of the process that owns the guests
        try:
            if getattr(self, 'conn', None):
                self.destroy_guests()
        finally:
            shutil.rmtree(self.root, ignore_errors=True)


@functools.cache
def embed():
    """The one Embed of this process."""
    return Embed()


def etc_nova(name):
    """Path of a file that Nova installs below etc/nova.

    A wheel puts it under the prefix, an editable Nova has it beside the
    package.
    """
    package = pathlib.Path(nova.__file__).parent
    for prefix in (pathlib.Path(sys.prefix), package.parents[3],
                   package.parent):
        path = prefix / 'etc' / 'nova' / name
        if path.exists():
            return str(path)
    raise NotHere(f"Nova's {name} is not installed")


def _in_daemon(function):
    @functools.wraps(function)
    def start(*args):
        threading.Thread(target=function, args=args, daemon=True).start()
    return start


class RealLibvirtTestCase(integrated_helpers._IntegratedTestBase):
    """Base of what needs guests that are really there.

    self.embed is libvirt, self.api and self.placement are the APIs. The
    compute service starts in start_compute(), after configure().
    """

    microversion = 'latest'
    ADMIN_API = True
    CAST_AS_CALL = False
    compute_driver = 'k8s.K8sLibvirtDriver'

    def setUp(self):
        pools.keep(self)
        try:
            self.embed = embed()
            paste = etc_nova('api-paste.ini')
        except NotHere as e:
            self.skipTest(str(e))
        self._allow_the_host()
        self.flags(api_paste_config=paste, group='wsgi')
        self.flags(
            compute_driver=self.compute_driver,
            instances_path=self.useFixture(fixtures.TempDir()).path,
            # A guest without a system ignores the power button.
            shutdown_timeout=1,
            force_raw_images=False)
        self.flags(
            connection_uri=self.embed.uri, virt_type='qemu', cpu_mode='none',
            images_type='raw', sysinfo_serial='none', group='libvirt')
        self.flags(enabled=False, group='vnc')
        super().setUp()
        # after Nova's own, which forbids the privileged helper
        self.useFixture(nova_fixtures.PrivsepFixture())
        self.addCleanup(self.embed.destroy_guests)
        self.image = self._bootable_image()

    def _allow_the_host(self):
        """Undo what keeps Nova's tests away from the host."""
        for name in ('PoisonFunctions', 'SysFsPoisonFixture',
                     'GenericPoisonFixture'):
            patch = mock.patch.object(nova_fixtures, name, fixtures.Fixture)
            patch.start()
            self.addCleanup(patch.stop)
        # One loop serves the process, see Embed; Nova's would never end, and
        # each test would add one.
        self.useFixture(fixtures.MonkeyPatch(
            'nova.virt.libvirt.host._ThreadingLibvirtEventHandler.'
            '_native_thread', lambda handler: None))
        # It never ends, and the end of a test waits for Nova's executors.
        self.useFixture(fixtures.MonkeyPatch(
            'nova.virt.libvirt.host.Host._conn_event_thread',
            _in_daemon(libvirt_host.Host._conn_event_thread)))

    def _setup_compute_service(self):
        """Nothing yet: tests configure first, then start_compute()."""

    def _bootable_image(self):
        image = self.glance.create(None, {
            'name': 'nothing', 'status': 'active', 'visibility': 'public',
            'container_format': 'bare', 'disk_format': 'raw',
            'size': len(DISK), 'min_disk': 0, 'min_ram': 0, 'properties': {}})
        self.glance._imagedata[image['id']] = DISK
        return image['id']

    def start_compute(self):
        self.compute = self._start_compute('compute')
        return self.compute

    def provider(self):
        """UUID of the compute node's resource provider."""
        hypervisors = self.admin_api.api_get('/os-hypervisors').body
        return hypervisors['hypervisors'][0]['id']

    def inventories(self):
        """Placement's inventory records by resource class."""
        return self.placement.get(
            f'/resource_providers/{self.provider()}/inventories'
        ).body['inventories']

    def usages(self):
        """Placement's usage by resource class."""
        return self.placement.get(
            f'/resource_providers/{self.provider()}/usages').body['usages']

    def boot(self, flavor, name, timeout=waiting.PATIENCE):
        """Ask Nova for a server; the server once it is ACTIVE or ERROR."""
        server = self.api.post_server({'server': {
            'name': name, 'imageRef': self.image, 'flavorRef': flavor,
            'networks': 'none'}})

        def decided():
            now = self.api.get_server(server['id'])
            return now if now['status'] in ('ACTIVE', 'ERROR') else None

        return waiting.until(decided, f'server {name} is still building',
                             timeout)
