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

"""The operator's settings: options, and the annotations of the node."""

import dataclasses
import decimal

from nova_k8s.accounting import overhead
from nova_k8s.elastic import observed
from nova_k8s.elastic import values
from nova_k8s import errors
from nova_k8s.limits import quantity

PREFIX = 'nova-k8s/elastic'

# What one of our units is of Kubernetes'.
MIB, MILLI = 1024 * 1024, decimal.Decimal('0.001')


def from_conf(options, guest_settings):
    """Return the values.Settings of nova.conf.

    :param options: [kubernetes] of nova.conf.CONF
    :param guest_settings: overhead.Settings
    :raises errors.Refused: where they contradict each other
    """
    if not options.elastic_max:
        raise errors.Refused(
            '[kubernetes] elastic is on and elastic_max is not set; set it to '
            'the most that the pod may have, for instance 262144:64')
    headroom = values.Room(*options.elastic_headroom)
    for memory_mb, millicores in options.elastic_flavors:
        need = overhead.need(
            overhead.Guest(memory_mb, millicores // 1000), guest_settings)
        headroom = headroom.most(values.Room(need.total_mb, millicores))
    step = values.Room(*options.elastic_step)
    if not all(step):
        raise errors.Refused(
            '[kubernetes] elastic_step has a 0; the least is 1:1')
    return check(values.Settings(
        smallest=values.Room(*options.elastic_min),
        largest=values.Room(*options.elastic_max),
        headroom=headroom, spare=values.Room(*options.elastic_spare),
        step=step, idle=options.elastic_idle),
        '[kubernetes] elastic_max', 'elastic_min')


def check(settings, larger, smaller):
    """:raises errors.Refused: where the most is less than the least"""
    if not settings.largest.covers(settings.smallest):
        raise errors.Refused(
            f'{larger} is {shown(settings.largest)}, below {smaller} of '
            f'{shown(settings.smallest)}')
    return settings


def for_node(settings, node):
    """Return the Settings with what a node's annotations say.

    What is more than the node has is never wished: Kubernetes refuses it.

    :param node: kube.node.Node
    :returns: None where they turn it off
    :raises errors.Unreadable: of an annotation that is no amount
    """
    annotations, name = node.annotations, node.name
    if annotations.get(PREFIX) == 'off':
        return None
    changed = {}
    for field, word in (('smallest', 'min'), ('largest', 'max'),
                        ('headroom', 'headroom')):
        room = getattr(settings, field)
        changed[field] = values.Room(
            _amount(annotations, f'{PREFIX}-{word}-memory', name, MIB,
                    room.memory_mb),
            _amount(annotations, f'{PREFIX}-{word}-cpu', name, MILLI,
                    room.cpu_millicores))
    has = observed.room({'limits': node.allocatable}, 'limits',
                        f'Node {name}: allocatable')
    if has:
        changed['largest'] = changed['largest'].least(has)
    return check(dataclasses.replace(settings, **changed),
                 f'Node {name}: the most that the pod may have',
                 'the least')


def _amount(annotations, key, name, unit, otherwise):
    text = annotations.get(key)
    if text is None:
        return otherwise
    return int(quantity.parse(text, f'Node {name}: annotation {key}') / unit)


def shown(room):
    """A Room in words."""
    return f'{room.memory_mb} MiB and {room.cpu_millicores} millicores'
