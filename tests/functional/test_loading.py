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

"""A real nova-compute finds the driver, however the two are installed.

Each class has a virtual environment that holds Nova, from its wheel or as an
editable install of its sdist, and to which tests add this package and remove
it again. What both depend on comes from the environment that runs the tests.
"""

import glob
import importlib.metadata
import importlib.util
import json
import os
import resource
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import unittest
import zipfile

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))

NOVA_VERSION = importlib.metadata.version('nova')
# Up to Nova 33, nova-compute knows eventlet only.
THREADS = importlib.util.find_spec('nova.thread_pool_factory') is not None

# Kept beside the installed packages, so that only the first run downloads.
DOWNLOADS = os.path.join(sys.prefix, 'share', 'nova-k8s-tests')

NOVA_CONF = """\
[DEFAULT]
compute_driver = k8s.K8sLibvirtDriver
host = compute1
my_ip = 127.0.0.1
state_path = {directory}
transport_url = fake://

[kubernetes]
limits_from = manifest
manifest = {directory}/pod.yaml

[libvirt]
connection_uri = test:///default

[upgrade_levels]
compute = 6.0
"""

POD = """\
apiVersion: v1
kind: Pod
metadata: {name: compute, namespace: openstack}
spec:
  nodeName: compute1
  containers:
  - name: libvirt
    resources: {limits: {cpu: "2", memory: 4Gi}}
"""


def run(*command, cwd, **env):
    """Run a command to its end and return what it wrote to stdout."""
    environ = {name: value for name, value in os.environ.items()
               # What the tests themselves run with.
               if not name.startswith(('PYTHON', 'OS_'))}
    environ.update(env)
    done = subprocess.run(command, cwd=cwd, env=environ, text=True,
                          timeout=180, capture_output=True)
    if done.returncode:
        raise AssertionError(
            f'{" ".join(command)}: exit status {done.returncode}\n'
            f'{done.stdout}\n{done.stderr}')
    return done.stdout


def download_nova(kind):
    """The path of Nova's wheel or sdist, of the version that is installed."""
    pattern = os.path.join(DOWNLOADS, f'nova-{NOVA_VERSION}' + {
        'wheel': '-*.whl', 'sdist': '.tar.gz'}[kind])
    if not glob.glob(pattern):
        os.makedirs(DOWNLOADS, exist_ok=True)
        run(sys.executable, '-m', 'pip', 'download', '--quiet', '--no-deps',
            '--no-build-isolation', '--dest', DOWNLOADS,
            '--only-binary' if kind == 'wheel' else '--no-binary', 'nova',
            f'nova=={NOVA_VERSION}', cwd=DOWNLOADS, PBR_VERSION=NOVA_VERSION)
    return glob.glob(pattern)[0]


def extract(sdist, directory):
    with tarfile.open(sdist) as archive:
        top = archive.getnames()[0].split('/')[0]
        archive.extractall(directory)
    return os.path.join(directory, top)


class Environment:
    """A virtual environment in a directory."""

    def __init__(self, directory):
        self.directory = directory
        self.root = os.path.join(directory, 'venv')
        self.python = os.path.join(self.root, 'bin', 'python')
        run(sys.executable, '-m', 'venv', '--without-pip', self.root,
            cwd=directory)
        self.site_packages = run(
            self.python, '-c',
            'import sysconfig; print(sysconfig.get_path("purelib"))',
            cwd=directory).strip()
        self._add_dependencies()

    def _add_dependencies(self):
        """Offer what the tests run with, but for what is under test.

        A folder of links, because Python has no way to hide the Nova that is
        beside its dependencies. Python does not execute .pth files there.
        """
        links = os.path.join(self.directory, 'dependencies')
        os.mkdir(links)
        for kind in ('purelib', 'platlib'):
            found = sysconfig.get_path(kind)
            for name in os.listdir(found):
                link = os.path.join(links, name)
                if not (name == 'nova' or name.endswith('.pth') or
                        name.startswith(('nova-', 'nova_k8s', '__'))
                        or os.path.lexists(link)):
                    os.symlink(os.path.join(found, name), link)
        with open(os.path.join(self.site_packages, 'dependencies.pth'),
                  'w') as pth:
            pth.write(links + '\n')

    def pip(self, *args):
        run(sys.executable, '-m', 'pip', '--python', self.python, '--quiet',
            *args, cwd=self.directory, PBR_VERSION=NOVA_VERSION)

    def install(self, *args):
        self.pip('install', '--no-deps', '--no-index', '--no-build-isolation',
                 '--no-compile', *args)

    def run(self, *args, **env):
        return run(self.python, *args, cwd=self.directory, **env)

    def files(self):
        """Every file and folder but what Python itself caches."""
        return {
            os.path.join(folder, name)
            for folder, folders, names in os.walk(self.root)
            for name in folders + names
            if '__pycache__' not in os.path.join(folder, name)}


class Base(unittest.TestCase):
    """Builds what is installed."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.directory = cls._folder()
        cls.sdist, cls.source, cls.wheel = cls._build()

    @classmethod
    def _folder(cls):
        folder = tempfile.TemporaryDirectory(prefix='nova-k8s-')
        cls.addClassCleanup(folder.cleanup)
        return os.path.realpath(folder.name)

    @classmethod
    def _build(cls):
        """Our sdist, the source extracted from it, and the wheel from that.

        Not in the tree itself, where setuptools finds what earlier builds
        left, and ships it.
        """
        tree = os.path.join(cls.directory, 'tree')
        shutil.copytree(TOP, tree, ignore=shutil.ignore_patterns(
            '.*', '__pycache__', '*.egg-info', 'build', 'cover', 'dist'))
        build = ('import sys; from setuptools import build_meta; '
                 'getattr(build_meta, sys.argv[1])(sys.argv[2])')
        run(sys.executable, '-c', build, 'build_sdist', cls.directory,
            cwd=tree)
        # Before setuptools 69.3, the name in it has a hyphen.
        sdist = glob.glob(os.path.join(cls.directory, 'nova?k8s-*.tar.gz'))[0]
        source = extract(sdist, cls.directory)
        run(sys.executable, '-c', build, 'build_wheel', cls.directory,
            cwd=source)
        # setuptools leaves it, and would take its modules from there again.
        shutil.rmtree(os.path.join(source, 'build'), ignore_errors=True)
        wheel = glob.glob(os.path.join(cls.directory, 'nova_k8s-*.whl'))[0]
        return sdist, source, wheel


class PackagesTest(Base):

    def test_wheel_holds_nothing_of_nova(self):
        with zipfile.ZipFile(self.wheel) as wheel:
            names = wheel.namelist()
        self.assertIn('nova_k8s.pth', names)
        self.assertIn('nova_k8s/driver.py', names)
        self.assertEqual([], [
            name for name in names if name != 'nova_k8s.pth' and
            not name.startswith(('nova_k8s/', 'nova_k8s-'))])

    def test_sdist_holds_nothing_of_nova(self):
        with tarfile.open(self.sdist) as sdist:
            names = [name.split('/', 1)[-1] for name in sdist.getnames()]
        self.assertIn('nova_k8s.pth', names)
        self.assertEqual([], [
            name for name in names if 'nova' in name.split('/')])


class LoadingTestBase(Base):
    """Makes an environment that holds Nova and not yet this package."""

    nova = 'wheel'

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.env = Environment(cls.directory)
        if cls.nova == 'wheel':
            cls.env.install(download_nova('wheel'))
            cls.nova_path = cls.env.site_packages
        else:
            cls.nova_path = extract(download_nova('sdist'), cls.directory)
            cls.env.install('--editable', cls.nova_path)
        for name, text in (
                ('nova.conf', NOVA_CONF.format(directory=cls.directory)),
                ('pod.yaml', POD)):
            with open(os.path.join(cls.directory, name), 'w') as out:
                out.write(text)
        cls.without = cls.env.files()

    def _install(self):
        """Install this package where it is not; the path of its modules."""
        if self.env.files() == self.without:
            if self.editable:
                self.env.install('--editable', self.source)
            else:
                self.env.install(self.wheel)
        return os.path.join(
            self.source if self.editable else self.env.site_packages,
            'nova_k8s')

    def _test_loads(self, eventlet):
        package = self._install()
        stdout = self.env.run(
            os.path.join(HERE, 'nova_compute.py'),
            '--config-file', os.path.join(self.directory, 'nova.conf'),
            OS_NOVA_DISABLE_EVENTLET_PATCHING='0' if eventlet else '1')
        self.assertEqual({
            'driver': 'nova_k8s.driver.K8sLibvirtDriver',
            # Not before init_host().
            'node': None,
            'libvirt': True,
            'module': os.path.join(package, 'virt.py'),
            'nova': os.path.join(self.nova_path, 'nova', '__init__.py'),
            'nova_k8s': os.path.join(package, '__init__.py'),
            'eventlet': eventlet,
        }, json.loads(stdout.splitlines()[-1]))

    def _test_uninstall(self):
        self._install()
        self.assertNotEqual(self.without, self.env.files())
        self.env.pip('uninstall', '--yes', 'nova-k8s')
        self.assertEqual(set(), self.env.files() ^ self.without)
        self.assertEqual(
            os.path.join(self.nova_path, 'nova', 'virt', '__init__.py'),
            self.env.run(
                '-c', 'import importlib.util, sys\n'
                'import nova.virt.libvirt.driver\n'
                'assert importlib.util.find_spec("nova.virt.k8s") is None\n'
                'print(sys.modules["nova.virt"].__file__)').strip())


class LoadingTests:
    """The tests, for each way to install."""

    @unittest.skipUnless(THREADS, 'This nova-compute knows eventlet only')
    def test_loads_on_threads(self):
        self._test_loads(eventlet=False)

    def test_loads_on_eventlet(self):
        self._test_loads(eventlet=True)

    def test_uninstall_leaves_nova_whole(self):
        self._test_uninstall()


class WheelTest(LoadingTests, LoadingTestBase):
    """Our wheel beside Nova's wheel."""

    editable = False


class EditableTest(LoadingTests, LoadingTestBase):
    """An editable install of ours beside Nova's wheel."""

    editable = True


class EditableNovaTest(LoadingTests, LoadingTestBase):
    """An editable install of ours beside one of Nova, as in DevStack."""

    editable = True
    nova = 'sdist'


class StartTest(Base):
    """What interpreters pay that have nothing to do with Nova."""

    def setUp(self):
        super().setUp()
        self.folder = tempfile.mkdtemp(dir=self.directory)
        self.env = Environment(self.folder)

    def _start(self):
        """Seconds of CPU that the start of an interpreter takes.

        The least of many, and no wall clock: whatever else runs on the machine
        only adds to it.
        """
        seconds = []
        for _ in range(20):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            self.env.run('-c', '')
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds.append(after.ru_utime + after.ru_stime -
                           before.ru_utime - before.ru_stime)
        return min(seconds)

    def _test_start(self, *install):
        without = self._start()
        self.env.install(*install)
        self.assertIn('nova_k8s.importer', self.env.run(
            '-c', 'import sys; print(*sys.modules)').split())
        # Or as much as the interpreter, where the machine is a slow one.
        self.assertLessEqual(self._start() - without, max(0.05, without))

    def test_start_with_wheel(self):
        self._test_start(self.wheel)

    def test_start_with_editable(self):
        self._test_start('--editable', self.source)

    def test_start_when_package_is_gone(self):
        self.env.install(self.wheel)
        shutil.rmtree(os.path.join(self.env.site_packages, 'nova_k8s'))
        done = subprocess.run([self.env.python, '-c', ''], cwd=self.folder,
                              capture_output=True, text=True)
        self.assertEqual((0, ''), (done.returncode, done.stderr))
