#!/bin/sh
# Installs Nova and this package into a new virtual environment:
#
#     tools/install.sh /opt/nova-k8s
#
# The Containerfile runs it, and a test does. It needs Python with venv, a C
# compiler, and the headers of Python and libvirt (see bindep.txt).

set -eu

# One release of Nova, so that an image can be built again next year.
NOVA_VERSION=${NOVA_VERSION:-34.0.0}
PYTHON=${PYTHON:-python3}

venv=$1
source=$(cd "$(dirname "$0")/.." && pwd)

"$PYTHON" -m venv "$venv"
# PyMySQL is for nova-manage, which the Job that maps compute nodes runs.
# SQLAlchemy 2.1 deprecates what this Nova calls.
"$venv/bin/pip" install "nova==$NOVA_VERSION" 'SQLAlchemy<2.1' PyMySQL \
    "$source"

# Better here than on a compute node.
"$venv/bin/pip" check
"$venv/bin/python" -W ignore -c 'import nova.cmd.compute, nova.virt.k8s'
