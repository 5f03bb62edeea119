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

"""A node of dicts: API server, kubelet, kernel, Placement and guests.

Everything happens one after the other, in the order that a test says: events
of the watch come late, the kubelet allocates, does and tells in steps of its
own, and an answer may be lost.
"""

import copy
import types

from nova_k8s.accounting import accounts
from nova_k8s.accounting import overhead
from nova_k8s.confinement import guests_pod
from nova_k8s.elastic import values
from nova_k8s import errors
from nova_k8s.kube import resize
from nova_k8s.limits import growth
from nova_k8s.limits import pod_spec

Room = values.Room

MIB = 1024 * 1024


def amounts(room):
    return {'cpu': f'{room.cpu_millicores}m', 'memory': f'{room.memory_mb}Mi'}


def parsed(resources, before):
    """A Room of quantities, some of which may not be there."""
    return Room(int(resources.get('memory', f'{before.memory_mb}Mi')[:-2]),
                int(resources.get('cpu', f'{before.cpu_millicores}m')[:-1]))


class Node:
    """What is true, and what is known of it.

    :param has: the values.Room that pods may have on it
    :param room: what the pod of the guests has at first
    :param others: called whenever somebody waits for something
    """

    def __init__(self, has, room, others):
        self.others = others
        self.has, self.containers = has, Room()
        self.spec = self.allocated = self.kernel = room
        self.generation = self.observed = self.version = 1
        # Of the generation that was allocated, and done.
        self.answer, self.begun = None, 1
        self.shown = (room, room)
        self.annotations, self.deleted = {}, False
        self.queue = []
        # What the watch has brought, and what is followed of it.
        self.delivered = self.body()
        self.budget = self.follow()
        self.told = None
        self.drained = None
        # Whether an answer was ever lost.
        self.unanswered = False
        self.resizes = []
        self.guests, self.coming, self.number = {}, {}, 0
        self.accounts = accounts.Accounts(
            None, None, types.SimpleNamespace(mb=0), self.claim_limit_mb,
            None)
        self.cap = self.claim_cap = lambda: None
        self.calm()

    def calm(self):
        """Have nothing go wrong from now on."""
        self.has_no_answer = self.loses_answers = False
        self.drained = None
        self.accounts._ledger.complete = True

    def away(self):
        self.has_no_answer = not self.has_no_answer

    def lost(self):
        self.loses_answers = not self.loses_answers

    def drain(self):
        self.drained = None if self.drained else 'it is drained'

    def audit(self):
        """Nova has started, and not counted yet; or it has by now."""
        ledger = self.accounts._ledger
        ledger.complete = not ledger.complete

    def contain(self, room):
        """Containers take what the pod of the guests leaves."""
        self.containers = room.least(self.has.minus(
            self.spec.most(self.allocated)))

    # The API server

    def body(self):
        allocated, kernel = self.shown
        conditions = []
        if self.answer and self.observed == self.generation:
            conditions.append({
                'type': 'PodResizePending', 'status': 'True', 'message': '-',
                'reason': self.answer, 'observedGeneration': self.observed})
        if allocated != kernel:
            conditions.append({'type': 'PodResizeInProgress',
                               'status': 'True'})
        metadata = {
            'name': 'guests-a', 'namespace': 'n', 'uid': 'u',
            'generation': self.generation, 'annotations': dict(
                self.annotations), 'resourceVersion': str(self.version)}
        if self.deleted:
            metadata['deletionTimestamp'] = '2026-01-01T00:00:00Z'
        return {
            'kind': 'Pod', 'metadata': metadata,
            'spec': {'containers': [{'name': 'guests', 'resources': {
                'limits': amounts(self.spec),
                'requests': amounts(self.spec)}}]},
            'status': {
                'phase': 'Running', 'observedGeneration': self.observed,
                'conditions': conditions, 'containerStatuses': [{
                    'name': 'guests', 'state': {'running': {}},
                    'resources': {'limits': amounts(kernel),
                                  'requests': amounts(allocated)},
                    'allocatedResources': amounts(allocated)}]}}

    def wrote(self):
        self.version += 1
        self.queue.append(self.body())

    def pod(self):
        """As limits.sources.api.Source."""
        if self.has_no_answer:
            raise errors.Unreadable('away')
        return copy.deepcopy(self.delivered)

    def resize(self, _connect, pod, _container, resources, timeout=None):
        """As kube.resize.wish()."""
        self.others()
        if self.has_no_answer:
            raise errors.Unreadable('away')
        if pod['metadata']['resourceVersion'] != str(self.version):
            raise resize.Changed('409')
        room = parsed(resources, self.spec)
        held = int(self.annotations.get(guests_pod.HELD) or 0)
        if held and room.memory_mb * MIB < held and (
                room.memory_mb < self.spec.memory_mb):
            # guests-policy.yaml.
            raise resize.Refusal('Policy', 'guests hold')
        self.resizes.append((self.spec, room, self.told, self.usages()))
        self.spec, self.generation = room, self.generation + 1
        self.answer = None
        self.wrote()
        if self.loses_answers:
            self.unanswered = True
            raise errors.Unreadable('timed out')
        return self.generation

    def annotate(self, _uid, annotations):
        """As kube.pods.Pod."""
        self.others()
        if self.has_no_answer:
            raise errors.Unreadable('away')
        self.annotations.update(annotations)
        self.wrote()
        return self.body()

    def delete(self):
        if not self.deleted:
            self.deleted = True
            self.wrote()

    # The kubelet

    def allocate(self):
        """Take the wish, where there is room for it."""
        if self.deleted:
            return
        self.answer = None
        if not self.has.minus(self.containers).covers(self.spec):
            self.answer = (values.DEFERRED if self.has.covers(self.spec)
                           else values.INFEASIBLE)
        else:
            self.allocated = self.spec
        self.begun = self.generation

    def enforce(self):
        self.kernel = self.allocated

    def tell(self):
        self.observed = self.begun
        self.shown = (self.allocated, self.kernel)
        self.wrote()

    # The watch, and who follows it

    def deliver(self):
        if self.queue:
            self.delivered = self.queue.pop(0)
            self.seen = self.follow()

    def follow(self):
        """As limits.watcher."""
        said = pod_spec.parse(self.delivered, '*', running=True)
        try:
            self.seen = growth.follow(getattr(self, 'seen', None), said)
        except errors.Refused:
            self.seen = None
        return self.seen

    def catch_up(self):
        self.budget = self.seen

    # Nova and Placement

    def bounded(self, most):
        if not self.budget:
            return Room()
        limit = Room(self.budget.memory_mb, self.budget.cpu_millicores)
        return limit if most is None else limit.least(most)

    def publish(self):
        self.told = self.bounded(self.cap())

    def is_told(self):
        """As inventory.reported.Reported; here, asking is enough."""
        self.others()
        self.publish()
        self.others()
        return True

    def ratio(self, _resource_class):
        return 1.0

    def claim_limit_mb(self):
        return self.bounded(self.claim_cap()).memory_mb

    def usages(self):
        """What Placement has allocated."""
        found = self.used()
        for each in self.coming.values():
            found = found.plus(each)
        return found

    def asked_for_usages(self):
        self.others()
        found = self.usages()
        self.others()
        return found

    def used(self):
        """What guests have that are here."""
        found = Room()
        for each in self.guests.values():
            found = found.plus(each)
        return found

    @property
    def vcpus_used(self):
        return sum(each.cpu_millicores for each in self.guests.values()
                   ) // 1000

    uuid = 'u'

    def schedule(self, room):
        """Have Placement allocate, where it has the room."""
        if self.told.covers(self.usages().plus(room)):
            self.number += 1
            self.coming[str(self.number)] = room

    def claim(self):
        """Have a guest come that was sent here; return why it may not."""
        if not self.coming:
            return None
        name, room = next(iter(self.coming.items()))
        del self.coming[name]
        need = overhead.Need(room.memory_mb, 0, room.memory_mb)
        reason = self.accounts._find_refusal(need, name)
        if not reason:
            self.guests[name] = room
            self.accounts._ledger.add(name, need)
        return reason

    def leave(self):
        if self.guests:
            name, room = self.guests.popitem()
            self.accounts._ledger.remove(
                name, overhead.Need(room.memory_mb, 0, room.memory_mb))
