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

"""Limits from a manifest: the file that the pod is, or could be, made of."""

import yaml

from nova_k8s import errors
from nova_k8s.limits import pod_spec
from nova_k8s.limits.sources import files

_NUMBERS = ('tag:yaml.org,2002:int', 'tag:yaml.org,2002:float')

# Kinds that hold a pod in spec.template.
_WORKLOADS = ('Deployment', 'StatefulSet', 'DaemonSet', 'ReplicaSet')


class _Loader(yaml.SafeLoader):
    """YAML as Kubernetes reads it.

    Not with yaml.CSafeLoader: what is nested deep ends the whole process.
    """

    def resolve(self, kind, value, implicit):
        tag = super().resolve(kind, value, implicit)
        # For YAML 1.1, and for nobody else, 1:30 is 90.
        if tag in _NUMBERS and ':' in value:
            return self.DEFAULT_SCALAR_TAG
        return tag

    def compose_mapping_node(self, anchor):
        # Here, << has not brought in yet what may be there twice.
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value == '<<':
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f'the key {errors.named(key.value)} is there '
                    f'twice', key.start_mark)
            seen.add(key.value)
        return node


class Source:
    """Reads a YAML file with one or more documents.

    :param path: of the file
    :param container: [kubernetes] container
    :param name: metadata.name of the Pod or workload, to tell several apart
    """

    def __init__(self, path, container=None, name=None):
        self._path = path
        self._container = container
        self._name = name

    def read(self):
        return pod_spec.parse(
            choose(load(self._path), self._path, self._container, self._name),
            self._container, read_from=self._path)

    def watch(self, changed, stop):
        files.watch([self._path], changed, stop)


def load(path):
    """Return the pods in the file, a workload's under the workload's name.

    :raises errors.Unreadable: when it is not a file of Kubernetes objects
    """
    try:
        with open(path, encoding='utf-8') as f:
            documents = list(yaml.load_all(f, _Loader))
    except (OSError, UnicodeDecodeError, ValueError) as exc:
        raise errors.Unreadable(
            f'[kubernetes] manifest {path}: '
            f'{getattr(exc, "strerror", None) or exc}') from None
    except yaml.YAMLError as exc:
        raise errors.Unreadable(
            f'[kubernetes] manifest {path}: not YAML: '
            f'{" ".join(str(exc).split())}') from None
    except Exception as exc:
        # PyYAML leaves to Python what it makes of a tag that does not fit its
        # value, and of what is nested too deep.
        raise errors.Unreadable(
            f'[kubernetes] manifest {path}: not YAML: '
            f'{type(exc).__name__}') from None
    objects = []
    for document in documents:
        if document is None:
            continue
        if not isinstance(document, dict):
            raise errors.Unreadable(
                f'[kubernetes] manifest {path}: {errors.shown(document)} is '
                f'not a Kubernetes object')
        if document.get('kind') == 'List':
            objects += _objects(document.get('items'))
        else:
            objects.append(document)
    pods = [pod for pod in (_pod(each, path) for each in objects) if pod]
    if not pods:
        raise errors.Unreadable(
            f'[kubernetes] manifest {path}: holds no Pod, '
            f'{", ".join(_WORKLOADS)}')
    return pods


def choose(pods, path, container=None, name=None):
    """Return the one pod that is meant.

    :raises errors.Refused: when there is not exactly one
    """
    found = [pod for pod in pods
             if not name or pod['metadata'].get('name') == name]
    if len(found) > 1 and container and container != pod_spec.WHOLE_POD:
        found = [pod for pod in found
                 if container in _container_names(pod)] or found
    if len(found) == 1:
        return found[0]
    listed = errors.listed(pod_spec.describe(pod) for pod in found or pods)
    if found:
        raise errors.Refused(
            f'[kubernetes] manifest {path}: several objects match ({listed});'
            f' set [kubernetes] pod_name to the name of one, or container')
    raise errors.Refused(
        f'[kubernetes] manifest {path}: no object is called {name} '
        f'([kubernetes] pod_name); there are {listed}')


def _pod(obj, path):
    kind = obj.get('kind')
    if kind not in ('Pod', *_WORKLOADS):
        return None
    metadata = _mapping(obj.get('metadata'), f'{path}: {kind}: metadata')
    if kind == 'Pod':
        return dict(obj, metadata=metadata)
    who = pod_spec.describe(obj)
    spec = _mapping(obj.get('spec'), f'{path}: {who}: spec')
    template = _mapping(spec.get('template'), f'{path}: {who}: spec.template')
    return {'kind': kind, 'metadata': metadata, 'spec': template.get('spec')}


def _container_names(pod):
    spec = pod.get('spec')
    if not isinstance(spec, dict):
        return []
    return [each.get('name')
            for field in ('containers', 'initContainers')
            for each in _objects(spec.get(field))]


def _objects(value):
    """The objects of a list, and none where it is not a list."""
    if not isinstance(value, list):
        return []
    return [each for each in value if isinstance(each, dict)]


def _mapping(value, path):
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise errors.Unreadable(
            f'[kubernetes] manifest {path}: {errors.shown(value)} is not an '
            f'object')
    return value
