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

"""oslo.config's own tests for files, with the files served from the cluster.

Each test that reads files is run twice: as it is, and with a ConfigMap in
place of the files it names on its command line.
"""

import contextlib
import functools
import inspect
import io
import logging
import os
import unittest
from unittest import mock

from oslo_config import cfg
from oslo_config.tests import test_cfg
import testtools

from tests.functional import control_plane

# What is so of every source of oslo.config, and the tests that say otherwise
# of files.
DIFFERENCES = {
    'the command line wins, wherever the files stand in it': """
        ChoicesTestCase.test_conf_file_choice_value_override
        ConfigFileOptsTestCase.test_conf_file_bool_cli_inverse_override
        ConfigFileOptsTestCase.test_conf_file_bool_cli_value_override
        ConfigFileOptsTestCase.test_conf_file_dict_value_override
        ConfigFileOptsTestCase.test_conf_file_dict_values_override_deprecated
        ConfigFileOptsTestCase.test_conf_file_float_value_override
        ConfigFileOptsTestCase.test_conf_file_int_value_override
        ConfigFileOptsTestCase.test_conf_file_list_value_override
        ConfigFileOptsTestCase.test_conf_file_multistr_values_append
        ConfigFileOptsTestCase.test_conf_file_multistr_values_append_deprecated
        ConfigFileOptsTestCase.test_conf_file_str_value_override
        ConfigFileOptsTestCase.test_conf_file_str_value_override_use_deprecated
        PortChoicesTestCase.test_conf_file_choice_value_override
        """,
    'it stays, when the configuration is loaded again': """
        MultipleDeprecatedCliOptionsTestCase.\
test_conf_file_common_deprecated_group
        ReparseTestCase.test_reparse
        """,
    'a file wins': """
        ConfigDirTestCase.test_config_dir_file_precedence
        """,
    'it is read once': """
        ConfigFileMutateTestCase.test_conf_files_mutate_foo
        ConfigFileMutateTestCase.test_conf_files_mutate_group
        ConfigFileMutateTestCase.test_diff
        ConfigFileMutateTestCase.test_hooks_see_new_values
        ConfigFileMutateTestCase.test_warn_immutability
        ConfigFileReloadTestCase.test_conf_files_reload
        """,
    'there is no file to be named, or to look beside': """
        CliSpecialOptsTestCase.test_config_file
        DefaultConfigFilesTestCase.test_do_not_use_default_multi_arg
        DefaultConfigFilesTestCase.test_do_not_use_default_single_arg
        FindFileTestCase.test_find_policy_file_with_config_file
        """,
    'what cannot be read ends the service': """
        SadPathTestCase.test_conf_file_broken
        """,
}


class Served:
    """ConfigOpts that take the files of the command line from a ConfigMap."""

    def __init__(self, plane):
        self._plane = plane
        self._namespace = plane.create_namespace()
        self._call = cfg.ConfigOpts.__call__
        self.count = 0

    def __enter__(self):
        served = self

        def call(conf, args=None, **kwargs):
            files, rest = served._split(args or [])
            if not files:
                return served._call(conf, args, **kwargs)
            with mock.patch.dict(os.environ, served._environ(files)):
                return served._call(conf, rest, **kwargs)
        # Not with mock: the tests stop all that it has patched.
        cfg.ConfigOpts.__call__ = call
        return self

    def __exit__(self, *args):
        cfg.ConfigOpts.__call__ = self._call

    def _split(self, args):
        """Return the files of a command line that exist, and the rest."""
        files, rest = [], []
        args = list(args)
        while args:
            word = args.pop(0)
            name, equals, path = word.partition('=')
            if name != '--config-file':
                rest.append(word)
                continue
            path = path if equals else args.pop(0)
            if os.path.isfile(path):
                files.append(path)
            else:
                rest += [name, path]
        return files, rest

    def _environ(self, paths):
        self.count += 1
        data = {}
        for i, path in enumerate(paths):
            with open(path, encoding='utf-8') as f:
                data[f'{i:02}.conf'] = f.read()
        name = f'files-{self.count}'
        self._plane.core.create_namespaced_config_map(
            self._namespace, {'metadata': {'name': name}, 'data': data})
        return {'OS_DEFAULT__CONFIG_SOURCE': 'cluster',
                'OS_CLUSTER__DRIVER': 'kubernetes',
                'OS_CLUSTER__NAMESPACE': self._namespace,
                'OS_CLUSTER__CONFIG_MAPS': name,
                'OS_CLUSTER__KUBECONFIG': self._plane.admin_kubeconfig}


def tests_of(suite):
    for each in suite:
        if isinstance(each, unittest.TestSuite):
            yield from tests_of(each)
        elif reads_files(type(each)):
            yield each


@functools.cache
def reads_files(kind):
    # Those of serialization start processes, and sources cannot go there.
    return ('Serialization' not in kind.__name__ and
            'config-file' in inspect.getsource(kind))


def load():
    """Return the tests of all classes that read files."""
    suite = unittest.defaultTestLoader.loadTestsFromModule(test_cfg)
    return list(tests_of(suite))


def short(test):
    return test.id().partition('test_cfg.')[2]


def run(test):
    """Return whether a test passes."""
    result = unittest.TestResult()
    # argparse writes there, and ends in tests that expect it to.
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            test(result)
        except SystemExit:
            return False
    return result.wasSuccessful()


class ConformanceTest(testtools.TestCase):

    def test_files_of_oslo_config(self):
        # It says so, once for each source, and some tests look at all that is
        # logged.
        log = logging.getLogger('oslo_config.cfg')
        log.addFilter(unremarked)
        self.addCleanup(log.removeFilter, unremarked)
        tests = {short(each): each for each in load()}
        read, failed = set(), set()
        with Served(control_plane.shared()) as served:
            for name, each in tests.items():
                before = served.count
                passed = run(each)
                if served.count > before:
                    read.add(name)
                    if not passed:
                        failed.add(name)
        # Otherwise this looks at nothing.
        self.assertGreater(len(read), 150)
        expected = {name for names in DIFFERENCES.values()
                    for name in names.split()}
        # A release of oslo.config may have fewer tests.
        self.assertEqual(expected & read, {
            name for name in failed if name in expected or run(fresh(name))})


def unremarked(record):
    return not record.getMessage().startswith('loading configuration from')


def fresh(name):
    """Return a test that has not run yet."""
    return {short(each): each for each in load()}[name]
