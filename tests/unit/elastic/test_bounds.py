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

"""The operator's settings."""

from oslo_config import cfg

from nova_k8s.accounting import overhead
from nova_k8s.elastic import bounds
from nova_k8s.elastic import values
from nova_k8s import errors
from nova_k8s.kube import node as kube_node
from tests.unit import base

Room = values.Room


def node(annotations, **allocatable):
    return kube_node.Node('node1', 'u', annotations=annotations,
                          allocatable=allocatable)


class BoundsTest(base.TestCase):

    def settings(self, **options):
        options.setdefault('elastic_max', '262144:64')
        conf = self.conf(**options)
        return bounds.from_conf(conf.kubernetes, overhead.Settings())

    def test_defaults(self):
        found = self.settings()
        self.assertEqual(values.Settings(
            smallest=Room(4096, 2000), largest=Room(262144, 64000),
            headroom=Room(16384, 4000), spare=Room(16384, 4000),
            step=Room(2048, 1000), idle=600), found)

    def test_no_maximum(self):
        conf = self.conf()
        exc = self.assertRaises(errors.Refused, bounds.from_conf,
                                conf.kubernetes, overhead.Settings())
        self.assertIn('elastic_max is not set', str(exc))

    def test_maximum_below_minimum(self):
        exc = self.assertRaises(errors.Refused, self.settings,
                                elastic_max='1024:64')
        self.assertEqual(
            '[kubernetes] elastic_max is 1024 MiB and 64000 millicores, '
            'below elastic_min of 4096 MiB and 2000 millicores', str(exc))

    def test_no_step(self):
        self.assertRaises(errors.Refused, self.settings, elastic_step='0:1')

    def test_flavors_that_must_fit(self):
        found = self.settings(elastic_flavors='65536:2, 1024:16')
        cost = overhead.cost_mb(overhead.Guest(65536, 2))
        self.assertEqual(Room(65536 + cost, 16000), found.headroom)

    def test_what_is_no_size(self):
        for text in ('16Gi:4', '16384', '16384:4:1', '-1:2', '16384:0.5', ''):
            self.assertRaises(
                (ValueError, cfg.ConfigFileValueError), self.settings,
                elastic_headroom=text)

    def test_annotations_win(self):
        found = bounds.for_node(self.settings(), node({
            'nova-k8s/elastic-min-memory': '8Gi',
            'nova-k8s/elastic-max-cpu': '7500m',
            'nova-k8s/elastic-headroom-memory': '65G',
            'other': 'x'}))
        self.assertEqual(Room(8192, 2000), found.smallest)
        self.assertEqual(Room(262144, 7500), found.largest)
        self.assertEqual(Room(61988, 4000), found.headroom)

    def test_never_more_than_the_node_has(self):
        found = bounds.for_node(self.settings(), node(
            {}, cpu='100', memory='128Gi'))
        self.assertEqual(Room(131072, 64000), found.largest)
        exc = self.assertRaises(
            errors.Refused, bounds.for_node, self.settings(),
            node({}, cpu='1', memory='128Gi'))
        self.assertIn('Node node1: the most that the pod may have is',
                      str(exc))

    def test_annotations_turn_it_off(self):
        self.assertIsNone(bounds.for_node(
            self.settings(), node({'nova-k8s/elastic': 'off'})))

    def test_annotations_that_are_wrong(self):
        exc = self.assertRaises(
            errors.Unreadable, bounds.for_node, self.settings(),
            node({'nova-k8s/elastic-max-memory': 'much'}))
        self.assertIn('Node node1: annotation nova-k8s/elastic-max-memory',
                      str(exc))
        self.assertRaises(
            errors.Refused, bounds.for_node, self.settings(),
            node({'nova-k8s/elastic-max-memory': '1Gi'}))
