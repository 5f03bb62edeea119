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

"""Write overrides.yaml: which of upstream's tests meet an override."""

import unittest

from nova import version
import yaml

from tests.conformance import test_libvirt_driver as conformance


def main():
    met = {name: [] for name in conformance.OVERRIDES}
    for test in conformance.conformance_tests(unittest.defaultTestLoader):
        for name in test.meet():
            met[name].append(test.name)
    with conformance.MET.open('w', encoding='utf-8') as file:
        file.write(conformance.MET_HEAD)
        yaml.safe_dump({'nova': version.version_string(),
                        'overrides': met}, file)
    for name, tests in met.items():
        print(f'{name}: {len(tests)}')


if __name__ == '__main__':
    main()
