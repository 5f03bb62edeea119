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


"""A compute pod in a real Kubernetes, with exactly the rights of etc/."""

import os
import time

import fixtures
from kubernetes import client
from oslo_config import cfg
import yaml

from nova_k8s import conf
from tests.functional import control_plane
from tests import waiting

MANIFESTS = os.path.join(os.path.dirname(__file__), '../../etc/kubernetes')

SERVICE_ACCOUNT = 'nova-compute'


def load(name, namespace):
    """Return the objects of a manifest, moved to another namespace."""
    with open(os.path.join(MANIFESTS, name), encoding='utf-8') as f:
        text = f.read()
    text = text.replace('namespace: openstack', f'namespace: {namespace}')
    text = text.replace('system:serviceaccount:openstack:',
                        f'system:serviceaccount:{namespace}:')
    text = text.replace('metadata.name: openstack',
                        f'metadata.name: {namespace}')
    objects = list(yaml.safe_load_all(text))
    for each in objects:
        if 'namespace' not in each['metadata']:
            # What belongs to the whole cluster: tests run side by side.
            each['metadata']['name'] += f'-{namespace}'
            for field in ('roleRef', 'spec'):
                name = each.get(field, {}).get('name')
                if name and each['kind'] == 'ClusterRoleBinding':
                    each[field]['name'] += f'-{namespace}'
            if each['kind'] == 'ValidatingAdmissionPolicyBinding':
                each['spec']['policyName'] += f'-{namespace}'
                if 'namespace' in each['spec'].get('paramRef', ()):
                    each['spec']['paramRef']['namespace'] = namespace
        elif each['metadata']['namespace'] == 'default':
            each['metadata']['name'] += f'-{namespace}'
            if 'roleRef' in each:
                each['roleRef']['name'] += f'-{namespace}'
    return objects


def allowed(plane, namespace, kubeconfig):
    """(verb, resource) of all groups, by the API server's word."""
    authorization = client.AuthorizationV1Api(plane.client(kubeconfig))
    review = authorization.create_self_subject_rules_review(
        {'spec': {'namespace': namespace}})
    return {(verb, resource) for rule in review.status.resource_rules
            for group in rule.api_groups
            # What everybody may: ask about himself.
            if group == 'coordination.k8s.io' or not group.endswith('.k8s.io')
            for verb in rule.verbs for resource in rule.resources}


class ComputePod(fixtures.Fixture):
    """A node and a running compute pod on it.

    :ivar plane: the ControlPlane
    :ivar namespace: of this fixture alone
    :ivar node: name of the node
    :ivar pod: the V1Pod
    """

    LABELS = {'app': 'libvirt'}

    def __init__(self, cpu='4', memory='4Gi', policies=False, labels=None):
        super().__init__()
        self._limits = {'cpu': cpu, 'memory': memory}
        self._policies = policies
        self._labels = labels or self.LABELS

    def _setUp(self):
        self.plane = control_plane.shared()
        self.namespace = self.plane.create_namespace()
        self.node = self.plane.create_node()
        self.apply('base/rbac.yaml')
        if self._policies:
            self.apply('base/admission-policy.yaml')
        self.pod = self.create_pod()

    def apply(self, name):
        objects = load(name, self.namespace)
        text = yaml.safe_dump_all(objects)
        self.plane.kubectl('apply', '-f', '-', stdin=text)

    def apply_elastic(self):
        """Give the rights to resize, bounded, and wait until both hold."""
        self.apply('elastic/rbac.yaml')
        self.apply('elastic/admission-policy.yaml')
        probe = self.create_pod(labels={'nova-k8s/elastic': 'on'})
        api = client.CoreV1Api(self.plane.client(self.kubeconfig()))
        answer, gib = '', 65
        deadline = time.monotonic() + waiting.PATIENCE
        while 'beyond the bounds' not in answer:
            if time.monotonic() > deadline:
                raise AssertionError('No bounds: %s' % answer)
            time.sleep(0.2)
            # What it has already may stay: each time another.
            gib += 1
            wish = {'cpu': '4', 'memory': f'{gib}Gi'}
            try:
                api.patch_namespaced_pod_resize(
                    probe.metadata.name, self.namespace,
                    {'spec': {'containers': [{
                        'name': 'compute', 'resources': {
                            'limits': wish, 'requests': wish}}]}},
                    _content_type=control_plane.STRATEGIC)
            except client.ApiException as exc:
                answer = exc.body
        self.plane.remove_pod(probe)

    def create_pod(self, **fields):
        fields = {'limits': self._limits, 'labels': self._labels, **fields}
        pod = self.plane.create_pod(
            self.namespace, self.node, service_account=SERVICE_ACCOUNT,
            **fields)
        return self.plane.set_pod_status(pod)

    def resize(self, actual=True, **limits):
        """Wish other limits, and let the kubelet make them so."""
        self.pod = self.plane.resize(self.pod, limits=limits,
                                     requests=limits)
        if actual:
            self.pod = self.plane.set_pod_status(self.pod)

    def kubeconfig(self, proxy=None):
        return self.plane.service_account_kubeconfig(
            self.namespace, SERVICE_ACCOUNT, self.pod,
            url=proxy.url if proxy else None,
            ca_file=proxy.ca_file if proxy else None)

    def options(self, proxy=None, **options):
        """[kubernetes] for this pod."""
        return {'kubeconfig': self.kubeconfig(proxy),
                'namespace': self.namespace,
                'pod_name': self.pod.metadata.name,
                'node_name': self.node, 'api_timeout': 5, **options}

    def conf(self, proxy=None, **options):
        """A configuration of its own, with the options of this pod."""
        found = cfg.ConfigOpts()
        conf.register_opts(found)
        found([])
        for name, value in self.options(proxy, **options).items():
            found.set_override(name, value, 'kubernetes')
        return found

    def events(self):
        """(type, reason, message) of the events on the pod, oldest first."""
        found = self.plane.core.list_namespaced_event(self.namespace).items
        ours = [each for each in found
                if each.reporting_component == 'nova-k8s']
        # The names end in the time, finer than the timestamps.
        ours.sort(key=lambda each: int(
            each.metadata.name.rpartition('.')[2], 16))
        return [(each.type, each.reason, each.message) for each in ours]
