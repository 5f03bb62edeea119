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

"""What is told of guests that are not where they belong, and how often."""

import json
import pathlib

from nova_k8s.confinement import findings
from nova_k8s.confinement import watching
from nova_k8s import errors
from tests.unit import base

UID = '0f3ad3b2-0a4b-4c62-8a83-1d4f2a8d7c11'
POD = {'metadata': {'name': 'guests-kube-1', 'uid': UID},
       'status': {'phase': 'Running', 'qosClass': 'Guaranteed'}}


class WatchTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.root = pathlib.Path(self.folder())
        self.write('cg/cgroup.controllers')
        self.write(f'cg/kubepods/pod{UID}/cgroup.procs', '42\n')
        self.write('proc/2/comm', 'kthreadd\n')
        self.write('guests-pod.json', json.dumps({'uid': UID}))
        self.told, self.changes, self.guests = [], [], {}
        self.answer = POD

    def write(self, path, text=''):
        path = self.root / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def latest(self):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def watch(self, on_escape='warn'):
        return watching.Watch(
            lambda: self.guests, self.latest, on_escape, self.told.append,
            lambda: self.changes.append(1), str(self.root / 'cg'),
            str(self.root / 'proc'), str(self.root / 'guests-pod.json'))

    def test_once(self):
        found = self.watch()
        self.guests = {'u': 43}
        self.write('proc/43/cgroup', '0::/machine/x\n')
        self.assertIsNone(found.escaped)
        for _ in range(3):
            found.look()
        self.assertEqual(1, found.escaped)
        line, = self.told
        self.assertEqual(('Warning', 'GuestsNotHeld'), line[:2])
        self.assertIn('guest u: it is in the cgroup /machine/x', line.text)
        # It moved on; the next one is news.
        self.guests = {'u': 42}
        found.look()
        self.assertEqual(0, found.escaped)
        self.guests = {'u': 43}
        found.look()
        self.assertEqual(2, len(self.told))
        self.assertEqual((frozenset(), []), (found.reasons, self.changes))

    def test_disable(self):
        found = self.watch('disable')
        self.guests = {'u': 43}
        found.look()
        found.look()
        self.assertEqual(({findings.ESCAPED}, [1]),
                         (found.reasons, self.changes))
        # An API server that is away makes nothing better.
        self.answer, self.guests = errors.Unreadable('away'), {}
        found.look()
        self.assertEqual(({findings.ESCAPED}, 1),
                         (found.reasons, found.escaped))
        self.answer = POD
        found.look()
        self.assertEqual((frozenset(), [1, 1]), (found.reasons, self.changes))

    def test_not_before_the_pod_is_known(self):
        found = self.watch()
        self.answer = errors.Unreadable('not yet connected')
        found.look()
        self.assertEqual([], self.told)
        self.assertEqual(watching.SOON, found._step())
        self.answer = POD
        self.assertEqual(watching.EVERY, found._step())
