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

"""etc/nova-k8s.conf.sample is what the options say now."""

import os
import tempfile
import unittest

from oslo_config import generator

TOP = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))


class SampleConfigTest(unittest.TestCase):

    maxDiff = None

    def test_sample_is_not_stale(self):
        with open(os.path.join(TOP, 'etc/nova-k8s.conf.sample')) as sample:
            kept = sample.read()
        with tempfile.TemporaryDirectory() as directory:
            output = os.path.join(directory, 'sample')
            generator.main([
                '--config-file',
                os.path.join(TOP, 'etc/nova-k8s-config-generator.conf'),
                '--output-file', output])
            with open(output) as sample:
                generated = sample.read()
        self.assertEqual(
            generated, kept, 'etc/nova-k8s.conf.sample is stale: write it '
            'anew with `tox -e genconfig` and commit it')
