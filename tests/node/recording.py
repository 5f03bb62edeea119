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

"""Records what a kubelet does to a pod: its object, and its cgroup.

A recording has the form of tests/unit/limits/data, whose README tells what is
in it: a list of steps, each with the pod as the API server shows it from then
on, or with what the kernel enforces from then on.
"""

import json
import pathlib
import re
import threading
import time
import uuid

from kubernetes import watch

from tests.functional import control_plane

# More than any limit here: where a level of the cgroup has none.
UNLIMITED = 1 << 60

# Writes the time and the least limits over the levels of a cgroup, whenever
# they change, until a file is there. Its first line is as good as any other
# to tell the time by.
SAMPLER = '''\
import os, sys, time
stop, *levels = sys.argv[1:]

def read(path):
    try:
        with open(path) as file:
            return file.read().split()
    except OSError:
        return []

def least():
    cpu = memory = %d
    for level in levels:
        quota = read(level + '/cpu.max')
        if quota and quota[0] != 'max':
            cpu = min(cpu, int(quota[0]) * 1000 // int(quota[1]))
        limit = read(level + '/memory.max')
        if limit and limit[0] != 'max':
            memory = min(memory, int(limit[0]))
    return cpu, memory

last = None
while not os.path.exists(stop):
    now = least()
    if now != last:
        last = now
        print(time.time(), *now, flush=True)
    time.sleep(0.05)
''' % UNLIMITED


class Recording:
    """Records one pod from its start until stop().

    :param pod: a pod with one container, which runs
    """

    def __init__(self, cluster, pods, name):
        self._cluster = cluster
        self._vm = cluster.vm
        self._name = name
        self._namespace = pods.namespace
        running = pods.read(name)
        status = running.status.container_statuses[0]
        self._container = status.name
        level = pods.cgroup(running.metadata.uid)
        container = self._vm.run('ls -d {0}/*{1}*'.format(
            level, status.container_id.rpartition('/')[2])).split()[0]
        self._stop_file = '/run/stop-' + uuid.uuid4().hex
        self._offset = self._clock_offset()
        self._objects = []
        self._watch = watch.Watch()
        self._threads = [
            threading.Thread(target=target, daemon=True) for target in (
                self._follow, lambda: self._sample(level, container))]
        for thread in self._threads:
            thread.start()

    def _clock_offset(self):
        """Return how far the VM's clock is ahead of this machine's."""
        best = None
        for _each in range(5):
            before = time.time()
            told = float(self._vm.run('date +%s.%N'))
            after = time.time()
            if best is None or after - before < best[0]:
                best = after - before, told - (before + after) / 2
        return best[1]

    def _follow(self):
        for event in self._watch.stream(
                self._cluster.plane.core.list_namespaced_pod,
                self._namespace,
                field_selector='metadata.name=' + self._name):
            self._objects.append((time.time(), event['raw_object']))

    def _sample(self, *levels):
        self._samples = self._vm.run(
            'python3 -I - %s %s' % (self._stop_file, ' '.join(levels)),
            SAMPLER, timeout=1800)

    def stop(self):
        """Return the steps, in the order of time."""
        self._vm.run('touch ' + self._stop_file)
        self._watch.stop()
        # The watch ends with the next event.
        self._cluster.plane.core.patch_namespaced_pod(
            self._name, self._namespace,
            {'metadata': {'annotations': {'test/recorded': 'yes'}}},
            _content_type=control_plane.STRATEGIC)
        for thread in self._threads:
            thread.join(120)
        steps = [(float(at) - self._offset, {'enforced': {
            'cpu_millicores': int(cpu), 'memory_bytes': int(memory)}})
            for at, cpu, memory in re.findall(
                r'^([0-9.]+) ([0-9]+) ([0-9]+)$', self._samples,
                re.MULTILINE)]
        # What was there at first was there before.
        first = steps.pop(0)[1]
        shown = [(at, {'pod': pod}) for at, pod in self._objects
                 if 'test/recorded' not in
                 pod['metadata'].get('annotations', {})]
        shown[0][1].update(first)
        began = shown[0][0]
        ordered = sorted(shown + steps, key=lambda step: step[0])
        return [{'seconds': round(at - began, 2), **step}
                for at, step in ordered]


def essence(pod):
    """Return what limits are read from, of a pod as the API server has it."""
    metadata, spec, status = pod['metadata'], pod['spec'], pod['status']
    return {
        'apiVersion': 'v1', 'kind': 'Pod',
        'metadata': {key: metadata[key] for key in (
            'namespace', 'name', 'uid', 'generation', 'deletionTimestamp')
            if key in metadata},
        'spec': {'nodeName': spec['nodeName'], 'containers': [
            {key: each[key] for key in ('name', 'image', 'resources',
                                        'resizePolicy')}
            for each in spec['containers']]},
        'status': {
            **{key: status[key] for key in (
                'phase', 'observedGeneration', 'conditions', 'resources',
                'allocatedResources') if key in status},
            'containerStatuses': [
                {key: each[key] for key in (
                    'name', 'state', 'resources', 'allocatedResources')
                 if key in each}
                for each in status.get('containerStatuses', ())]}}


def save(folder, name, what, origin, container, steps):
    """Write a recording as a file of tests/unit/limits/data."""
    steps = [{**step, 'pod': essence(step['pod'])} if 'pod' in step else step
             for step in steps]
    last = [step['enforced'] for step in steps if 'enforced' in step][-1]
    pathlib.Path(folder, name + '.json').write_text(json.dumps({
        'what': what, 'origin': origin, 'container': container,
        'steps': steps, 'end': last}, indent=1) + '\n')
