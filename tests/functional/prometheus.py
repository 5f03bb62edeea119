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

"""A real Prometheus on loopback, and its promtool."""

import json
import os
import pathlib
import subprocess
import time
import urllib.parse
import urllib.request

import fixtures
import yaml

from tests.functional import control_plane
from tests import waiting

FETCH = (pathlib.Path(__file__).resolve().parents[2] /
         'tools' / 'prometheus' / 'fetch')


def binaries():
    """Return the folder of prometheus and promtool.

    :raises unittest.SkipTest: where they are not to be had; in CI (CI=true)
        an AssertionError instead
    """
    found = subprocess.run([FETCH], stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, text=True)
    if found.returncode:
        control_plane._unavailable(found.stderr.strip())
    return found.stdout.strip()


def promtool(*args, stdin=None):
    """Run promtool; return the CompletedProcess with text."""
    return subprocess.run(
        [os.path.join(binaries(), 'promtool'), *args], input=stdin,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


class Prometheus(fixtures.Fixture):
    """Scrapes one target each second.

    :param target: host:port
    """

    def __init__(self, target):
        super().__init__()
        self._target = target

    def _setUp(self):
        folder = self.useFixture(fixtures.TempDir()).path
        config = os.path.join(folder, 'prometheus.yml')
        with open(config, 'w') as f:
            yaml.safe_dump({
                'global': {'scrape_interval': '1s'},
                'scrape_configs': [{
                    'job_name': 'nova-k8s', 'static_configs': [
                        {'targets': [self._target]}]}]}, f)
        holder = control_plane.reserve_port()
        address = '127.0.0.1:%d' % holder.getsockname()[1]
        self.url = f'http://{address}'
        holder.close()
        with open(os.path.join(folder, 'log'), 'w') as log:
            self._process = subprocess.Popen(
                [os.path.join(binaries(), 'prometheus'),
                 '--config.file', config,
                 '--storage.tsdb.path', os.path.join(folder, 'data'),
                 '--web.listen-address', address],
                stdout=log, stderr=subprocess.STDOUT)
        self.addCleanup(self._process.wait)
        self.addCleanup(self._process.terminate)

    def query(self, expression):
        """Return the samples of an expression, as (labels, number).

        :raises AssertionError: where Prometheus does not take it
        """
        query = urllib.parse.urlencode({'query': expression})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f'{self.url}/api/v1/query?{query}',
                             timeout=10) as answer:
                body = json.load(answer)
        except urllib.error.HTTPError as exc:
            raise AssertionError(f'{expression}: {exc.read().decode()}')
        return [(each['metric'], float(each['value'][1]))
                for each in body['data']['result']]

    def wait_for(self, expression, timeout=waiting.PATIENCE):
        """Return the samples as soon as there are some."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                found = self.query(expression)
            except OSError:
                found = []
            if found or time.monotonic() > deadline:
                return found
            time.sleep(0.2)
