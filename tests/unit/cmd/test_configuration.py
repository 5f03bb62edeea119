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

"""The configuration that a command has."""

import argparse
import contextlib
import io
import os
from unittest import mock

import nova.conf

from nova_k8s.cmd import configuration
from nova_k8s.cmd import files
from nova_k8s.cmd import main
from nova_k8s.cmd import report
from nova_k8s.config import documents
from nova_k8s.config import folder
from nova_k8s import errors
from tests.unit import base

CONF = nova.conf.CONF


class LoadTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.addCleanup(CONF.reset)
        self.addCleanup(CONF.clear)

    def load(self, *args, **environ):
        parser = argparse.ArgumentParser()
        report.add_parser(parser.add_subparsers())
        with mock.patch.dict(os.environ, environ):
            configuration.load(parser.parse_args(['report', *args]))

    def test_config_run(self):
        """As in the container of a service, which has no nova.conf."""
        written = folder.Folder(self.folder() + '/config')
        found = [
            documents.Document('ConfigMap a/b', 'nova.conf',
                               '[DEFAULT]\nreserved_host_memory_mb = 7\n'),
            documents.Document('Secret a/b', 'x.conf',
                               '[kubernetes]\ncontainer = x\n', True)]
        written.start(found, ['nova-compute', '--debug', '--config-dir',
                              '{config_dir}'])
        self.load(**{files.RUN_DIR: written.path})
        self.assertEqual((7, 'x'), (CONF.reserved_host_memory_mb,
                                    CONF.kubernetes.container))
        self.load('--config-dir', written.config_dir)
        self.assertEqual(7, CONF.reserved_host_memory_mb)
        # Who looks at a manifest looks at nothing else.
        self.load('--manifest', '/m', **{files.RUN_DIR: written.path})
        self.assertEqual((512, None), (CONF.reserved_host_memory_mb,
                                       CONF.kubernetes.container))
        self.load('--manifest', '/m', '--config-dir', written.config_dir)
        self.assertEqual(7, CONF.reserved_host_memory_mb)

    def test_no_such_folder(self):
        self.assertIn('/none/x', str(self.assertRaises(
            errors.Refused, self.load, '--config-dir', '/none/x')))

    def test_a_source_that_cannot_be_read_ends_no_process(self):
        exc = self.assertRaises(
            errors.Refused, self.load, OS_DEFAULT__CONFIG_SOURCE='c',
            OS_C__DRIVER='kubernetes', OS_C__NAMESPACE='n')
        self.assertIn('[c] neither config_maps nor secrets is set', str(exc))

    def test_its_exit_status_is_that_of_a_failure(self):
        # That of 1 says of a drain that guests are left.
        err = io.StringIO()
        with contextlib.redirect_stderr(err), mock.patch.dict(
                os.environ, OS_DEFAULT__CONFIG_SOURCE='c',
                OS_C__DRIVER='kubernetes', OS_C__NAMESPACE='n'):
            self.assertEqual(2, main.main(
                ['drain', '--host', 'compute1']))
        self.assertIn('does not start: [c] ', err.getvalue())

    def test_what_python_says_of_a_file(self):
        path = self.folder()
        self.assertEqual(
            f'--config-file {path}: Is a directory', str(self.assertRaises(
                errors.Refused, self.load, '--config-file', path)))
