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

"""tools/kubernetes/build, with a go that builds nothing; and build-node."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import fixtures
import testtools

from tests.functional import control_plane
from tests.node import machine

NAMES = {'etcd', 'kube-apiserver', 'kube-controller-manager', 'kwok',
         'kwok-stages.yaml', 'built-from'}
NODE = {'kubelet', 'kube-scheduler', 'containerd', 'containerd-shim-runc-v2',
        'ctr', 'built-from-node'}

GO = '''\
    #!%(python)s
    import os, pathlib, sys, time
    if sys.argv[1] == 'env':
        print(os.environ.get('STUB_VERSION', 'go1.26.9'))
    elif sys.argv[1] == 'list':
        print(%(kwok)r)
    else:
        output = pathlib.Path(sys.argv[sys.argv.index('-o') + 1])
        with open(%(built)r, 'a') as built:
            built.write(output.name + chr(10))
        if output.name == os.environ.get('STUB_FAIL'):
            sys.exit('stub failure')
        if output.name == os.environ.get('STUB_HANG'):
            parent = os.getppid()
            while os.getppid() == parent:
                time.sleep(0.1)
            # As go, which does not notice.
            time.sleep(1)
            sys.exit('orphaned')
        time.sleep(0.1)
        cache = pathlib.Path(os.environ['GOCACHE'])
        cache.mkdir(parents=True, exist_ok=True)
        (cache / output.name).write_text('x')
        output.write_text('x')
    '''


class BuildTest(testtools.TestCase):

    def setUp(self):
        super().setUp()
        root = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        kwok = root / 'kwok'
        for stage in ('node/fast/node-initialize', 'pod/fast/pod-ready',
                      'pod/fast/pod-complete', 'pod/fast/pod-delete'):
            path = kwok / 'kustomize' / 'stage' / (stage + '.yaml')
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text('kind: %s\n' % path.stem)
        self.built = root / 'built'
        self.built.write_text('')
        go = root / 'bin' / 'go'
        go.parent.mkdir()
        go.write_text(textwrap.dedent(GO) % {
            'python': sys.executable, 'kwok': str(kwok),
            'built': str(self.built)})
        go.chmod(0o755)
        self.environment = {
            **os.environ, 'XDG_CACHE_HOME': str(root / 'cache'),
            'PATH': '%s:%s' % (go.parent, os.environ['PATH'])}
        for name in ('KUBEBUILDER_ASSETS', 'NOVA_K8S_BUILD_NODE'):
            self.environment.pop(name, None)
        self.cache = root / 'cache' / 'nova-k8s'

    def start(self, *arguments, **environment):
        return subprocess.Popen(
            [sys.executable, str(control_plane.BUILD), *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**self.environment, **environment})

    def run_build(self, *arguments, **environment):
        process = self.start(*arguments, **environment)
        output, log = process.communicate(timeout=300)
        return process.returncode, output.strip(), log

    def assertWhole(self, folder, names=NAMES):
        self.assertEqual(names, set(os.listdir(folder)))
        self.assertEqual({os.path.basename(folder),
                          os.path.basename(folder) + '.lock'},
                         set(os.listdir(self.cache)))

    def test_once(self):
        self.assertEqual(1, self.run_build('--check')[0])
        code, folder, log = self.run_build()
        self.assertEqual(0, code, log)
        self.assertEqual(str(self.cache), os.path.dirname(folder))
        self.assertWhole(folder)
        for number, name in enumerate(
                ('kube-apiserver', 'kube-controller-manager', 'etcd', 'kwok'),
                1):
            self.assertRegex(log, r'\[%d/4\] %s [\d.]+\n' % (number, name))
            self.assertRegex(log, r'\[%d/4\] %s [\d.]+ done' % (number, name))
        self.assertIn('GB of disk', log)
        stages = pathlib.Path(folder, 'kwok-stages.yaml').read_text()
        self.assertEqual(3, stages.count('---\n'))
        self.assertEqual((0, folder, ''), self.run_build('--check'))
        self.assertEqual((0, folder, ''), self.run_build())
        self.assertEqual(4, len(self.built.read_text().split()))

    def test_two_at_once(self):
        first, second = self.start(), self.start()
        outputs = [process.communicate(timeout=300)[0].strip()
                   for process in (first, second)]
        self.assertEqual([0, 0], [first.returncode, second.returncode])
        self.assertEqual(outputs[0], outputs[1])
        self.assertWhole(outputs[0])
        self.assertEqual(4, len(self.built.read_text().split()))

    def test_a_node_in_the_same_run(self):
        code, folder, log = self.run_build(NOVA_K8S_BUILD_NODE='1')
        self.assertEqual(0, code, log)
        self.assertWhole(folder, NAMES | NODE)
        self.assertIn('[9/9] ctr', log)
        for arguments in (), ('--node',), ('--check', '--node'):
            self.assertEqual((0, folder, ''), self.run_build(*arguments))

    def test_a_node_later(self):
        folder = self.run_build()[1]
        self.assertEqual(1, self.run_build('--check', '--node')[0])
        self.built.write_text('')
        self.assertEqual(1, self.run_build('--node', STUB_FAIL='ctr')[0])
        # What was there before is not lost by it.
        self.assertEqual(0, self.run_build('--check')[0])
        code, same, log = self.run_build('--node')
        self.assertEqual((0, folder), (code, same), log)
        self.assertWhole(folder, NAMES | NODE)
        self.assertNotIn('etcd', self.built.read_text())

    def test_half_a_build_is_none(self):
        code, output, log = self.run_build(STUB_FAIL='etcd')
        self.assertEqual((1, ''), (code, output))
        self.assertIn('stub failure', log)
        self.assertIn('etcd could not be built', log)
        self.assertEqual(1, self.run_build('--check')[0])
        self.assertWhole(self.run_build()[1])

    def test_a_killed_build_is_none(self):
        for number in (signal.SIGTERM, signal.SIGKILL):
            self.built.write_text('')
            process = self.start(STUB_HANG='kwok')
            while 'kwok' not in self.built.read_text():
                self.assertIsNone(process.poll())
                time.sleep(0.05)
            process.send_signal(number)
            process.wait(10)
            process.stdout.close()
            process.stderr.close()
            self.assertEqual(1, self.run_build('--check')[0])
        # Its go works on a little, which is waited for.
        code, folder, log = self.run_build()
        self.assertIn('waiting for it', log)
        self.assertWhole(folder)

    def test_another_version_is_built_anew(self):
        folder = self.run_build()[1]
        pathlib.Path(folder, 'built-from').write_text('another go.mod')
        self.assertEqual(1, self.run_build('--check')[0])
        self.assertEqual(folder, self.run_build()[1])
        self.assertEqual(8, len(self.built.read_text().split()))

    def test_an_old_go_is_not_taken(self):
        # And where no package index answers either, it says so.
        code, _output, log = self.run_build(
            STUB_VERSION='go1.25.3', PIP_NO_INDEX='1', PIP_FIND_LINKS='',
            PIP_CONFIG_FILE=os.devnull)
        self.assertEqual(1, code)
        self.assertIn('no Go 1.26.0 or newer on the PATH', log)
        self.assertIn('could not be installed from PyPI', log)

    def test_a_node_may_want_a_newer_go(self):
        code, _output, log = self.run_build(
            '--node', STUB_VERSION='go1.26.0', PIP_NO_INDEX='1',
            PIP_FIND_LINKS='', PIP_CONFIG_FILE=os.devnull)
        self.assertEqual(1, code)
        self.assertIn('no Go 1.26.6 or newer on the PATH', log)

    def test_assets_are_taken_as_they_are(self):
        self.assertEqual((0, '/assets'), self.run_build(
            KUBEBUILDER_ASSETS='/assets')[:2])
        self.assertFalse(self.cache.exists())


class BuildNodeTest(testtools.TestCase):
    """On a machine that cannot run a node, which has no apt-get."""

    def run_build(self, *arguments, **environment):
        empty = self.useFixture(fixtures.TempDir()).path
        variables = {**os.environ, 'PATH': empty, 'XDG_CACHE_HOME': empty,
                     'CI': '', **environment}
        done = subprocess.run(
            [sys.executable, str(machine.BUILD), *arguments], text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60,
            env=variables)
        self.assertEqual(('', []), (done.stdout, os.listdir(empty)))
        # Whoever is not root is told that first.
        self.assertRegex(done.stderr, r'\AThis machine cannot run the node '
                         r'tests: (apt-get is missing|only root can).*\n\Z')
        return done.returncode

    def test_it_is_said_and_passes(self):
        self.assertEqual(0, self.run_build())
        self.assertEqual(1, self.run_build('--check'))

    def test_never_in_ci(self):
        self.assertEqual(1, self.run_build(CI='true'))

    def test_tests_skip_and_never_in_ci(self):
        missing = self.useFixture(fixtures.TempDir()).join('build-node')
        with open(missing, 'w') as script:
            script.write('import sys; sys.exit("not built: here")')
        self.useFixture(fixtures.MonkeyPatch(
            'tests.node.machine.BUILD', missing))
        self.useFixture(fixtures.EnvironmentVariable('CI', None))
        skipped = self.assertRaises(self.skipException, machine.built)
        self.assertIn('not built: here', str(skipped))
        self.useFixture(fixtures.EnvironmentVariable('CI', 'true'))
        self.assertRaises(AssertionError, machine.built)
