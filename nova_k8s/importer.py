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

"""Make ``compute_driver = k8s.K8sLibvirtDriver`` importable.

Nova loads its driver from below ``nova.virt``. A ``nova/`` directory of ours
would overwrite Nova's files, or hide them from a Nova installed with
``pip install --editable``; a finder for that one name does neither.

``nova_k8s.pth`` installs the finder in every interpreter that starts, Nova or
not. So nothing here, nor in the package's ``__init__``, imports anything.
"""

import os
import sys

NAME = 'nova.virt.k8s'


class Finder:
    """Finds the module nova.virt.k8s, and nothing else."""

    @staticmethod
    def find_spec(fullname, path=None, target=None):
        if fullname != NAME:
            return None
        from importlib import util
        return util.spec_from_file_location(
            fullname, os.path.join(os.path.dirname(__file__), 'virt.py'))


def install():
    """Append the finder to sys.meta_path, where it is not there already.

    The last place: a module that Nova itself brings under this name wins.
    """
    if Finder not in sys.meta_path:
        sys.meta_path.append(Finder)
