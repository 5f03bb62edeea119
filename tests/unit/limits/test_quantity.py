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

"""Quantities, against what k8s.io/apimachinery's ParseQuantity says."""

import decimal

import hypothesis
from hypothesis import strategies as st
import testscenarios

from nova_k8s import errors
from nova_k8s.limits import quantity
from tests.unit import base

load_tests = testscenarios.load_tests_apply_scenarios

MAX = 2 ** 63 - 1

# What stands in the object, and what the API server makes of it.
ACCEPTED = [
    ('0', '0'),
    ('-0', '0'),
    ('0.0', '0'),
    ('1', '1'),
    ('+1', '1'),
    ('00010', '10'),
    ('0.5', '0.5'),
    ('.5', '0.5'),
    ('5.', '5'),
    ('7500m', '7.5'),
    ('100u', '0.0001'),
    ('100n', '0.0000001'),
    ('0.1m', '0.0001'),
    ('1k', '1000'),
    ('1M', '1000000'),
    ('1G', '1000000000'),
    ('1T', '1000000000000'),
    ('1P', '1000000000000000'),
    ('1E', '1000000000000000000'),
    ('1Ki', '1024'),
    ('1Mi', '1048576'),
    ('1.5Gi', '1610612736'),
    ('1Ti', '1099511627776'),
    ('1Pi', '1125899906842624'),
    ('1Ei', '1152921504606846976'),
    ('1e3', '1000'),
    ('1E3', '1000'),
    ('1e+05', '100000'),
    ('1E-3', '0.001'),
    ('12e6', '12000000'),
    ('5.e1', '50'),
    # YAML and JSON have numbers.
    (4, '4'),
    (0, '0'),
    (0.5, '0.5'),
    (1e22, MAX),
    (1e-05, '0.00001'),
    # The cap.
    ('9223372036854775807', MAX),
    ('9223372036854775808', MAX),
    ('8Ei', MAX),
    ('1e30', MAX),
    ('1e999999999', MAX),
]

REFUSED = [
    '', ' ', ' 1', '1 ', '1 Gi', '1Mi\n', '\t1',
    '1_000', '1,5', '1.1.1', '--1', '+-1', '1e', '1E+', '1e1.5', '1e 3',
    '1e3Ki', '1e3k', '1K', '1ki', '1mi', '1i', '1B', '1GB', '1Gb', '1GiB',
    '1KI', '1MiB', '0x10', 'NaN', 'nan', 'sNaN', 'Infinity', 'inf', '-inf',
    'True', 'true', 'None', 'null', 'max', '~',
    # ParseQuantity takes these for 0, which as a limit is none at all.
    '+', '-', '.', 'm', 'Ki',
    # Digits for Python, but not for Kubernetes.
    '١', '1²', '½', '１',
    True, False, None, float('inf'), float('-inf'), float('nan'),
    [], ['1'], {}, {'value': 1}, b'1', (), object,
]

NEGATIVE = ['-1', '-1m', '-.5', '-1Gi', '-1e3', -1, -0.5, '-1e-999999']


class AcceptedTest(base.TestCase):

    scenarios = [(repr(value), {'value': value, 'expected': expected})
                 for value, expected in ACCEPTED]

    def test_accepted(self):
        self.assertEqual(decimal.Decimal(self.expected),
                         quantity.parse(self.value, 'x'))


class RefusedTest(base.TestCase):

    scenarios = [(repr(value), {'value': value})
                 for value in REFUSED + NEGATIVE]

    def test_refused(self):
        exc = self.assertRaises(errors.Unreadable, quantity.parse,
                                self.value, 'spec.resources.limits.cpu')
        self.assertIn('spec.resources.limits.cpu', str(exc))
        self.assertIn(repr(self.value), str(exc))
        self.assertTrue(base.one_line(exc))


class QuantityTest(base.TestCase):

    def test_negative_is_refused_as_such(self):
        exc = self.assertRaises(errors.Unreadable, quantity.parse, '-1', 'x')
        self.assertIn('negative', str(exc))

    def test_is_exact(self):
        # A float would make 1.0000000000000000055 of it.
        self.assertEqual(decimal.Decimal('1.000000000000000001'),
                         quantity.parse('1.000000000000000001', 'x'))
        self.assertEqual(MAX - 1, quantity.parse(str(MAX - 1), 'x'))

    @hypothesis.given(st.integers(0, MAX))
    def test_integers_are_themselves(self, value):
        self.assertEqual(value, quantity.parse(value, 'x'))
        self.assertEqual(value, quantity.parse(str(value), 'x'))

    @hypothesis.given(
        st.integers(0, 10 ** 6),
        st.sampled_from([('m', '0.001'), ('k', 1000), ('M', 10 ** 6),
                         ('Ki', 1024), ('Mi', 2 ** 20), ('Gi', 2 ** 30)]))
    def test_suffixes_multiply(self, number, suffix):
        name, factor = suffix
        self.assertEqual(number * decimal.Decimal(factor),
                         quantity.parse(f'{number}{name}', 'x'))

    @hypothesis.given(st.one_of(
        st.text(), st.text('0123456789.+-eEinumkKMGTP', max_size=12),
        st.integers(), st.floats(), st.booleans(), st.none(), st.binary()))
    def test_a_number_within_bounds_or_refused(self, value):
        try:
            found = quantity.parse(value, 'x')
        except errors.Unreadable as exc:
            self.assertTrue(base.one_line(exc))
        else:
            self.assertIsInstance(found, decimal.Decimal)
            self.assertTrue(0 <= found <= MAX)
