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

"""What an image is made of, installed into a clean virtual environment."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import fixtures
import testtools

TOP = pathlib.Path(__file__).resolve().parents[2]


class InstallTest(testtools.TestCase):

    def run_in(self, directory, *command, **env):
        # Nothing of the environment that the tests run in.
        environ = {name: value for name, value in os.environ.items()
                   if not name.startswith(('PYTHON', 'OS_', 'VIRTUAL_ENV'))}
        done = subprocess.run(command, cwd=directory, text=True, timeout=600,
                              capture_output=True, env={**environ, **env})
        if done.returncode:
            raise AssertionError(f'{command}: {done.returncode}\n'
                                 f'{done.stdout}\n{done.stderr}')
        return done.stdout

    def test_install(self):
        directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        source = directory / 'src'
        # As .dockerignore has it; the build leaves files there.
        shutil.copytree(TOP, source, ignore=shutil.ignore_patterns(
            '.*', '__pycache__', '*.egg-info', 'build', 'cover', 'dist'))
        venv = directory / 'venv'
        # Bytecode would cost half a minute, and is not what is tested.
        self.run_in(source, source / 'tools' / 'install.sh', str(venv),
                    PYTHON=sys.executable, PIP_NO_COMPILE='1')
        self.assertEqual('34.0.0', self.run_in(
            directory, venv / 'bin' / 'nova-compute', '--version').strip())
        for name in ('nova-manage', 'privsep-helper'):
            self.assertTrue((venv / 'bin' / name).exists())
        report = json.loads(self.run_in(
            directory, venv / 'bin' / 'nova-k8s', 'report', '--manifest',
            source / 'etc' / 'kubernetes' / 'base' / 'guests-pod.yaml',
            '--machine', 'cpus=64,memory=256Gi', '--format', 'json'))
        self.assertEqual(8, report['inventory']['VCPU']['total'])
