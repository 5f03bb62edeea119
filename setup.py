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

"""Everything but nova_k8s.pth is declared in setup.cfg.

Python reads a .pth file only at the top of site-packages, beside the package,
and setuptools has no declaration for a file there.
"""

import os

import setuptools
from setuptools.command import editable_wheel
from setuptools.command import install_lib

PTH = 'nova_k8s.pth'


class InstallLib(install_lib.install_lib):

    def install(self):
        outfiles = super().install() or []
        target = os.path.join(self.install_dir, PTH)
        self.copy_file(PTH, target)
        return outfiles + [target]


class EditableWheel(editable_wheel.editable_wheel):

    def _run_build_commands(self, dist_name, unpacked_wheel, *args):
        # An editable wheel holds no purelib of its own, so install_lib does
        # not run; this is the last step before the directory is zipped.
        result = super()._run_build_commands(
            dist_name, unpacked_wheel, *args)
        self.copy_file(PTH, os.path.join(str(unpacked_wheel), PTH))
        return result


setuptools.setup(
    cmdclass={'install_lib': InstallLib, 'editable_wheel': EditableWheel})
