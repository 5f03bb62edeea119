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


"""The nova-k8s command."""

import argparse
import sys

from oslo_config import cfg

from nova_k8s.cmd import flavors
from nova_k8s.cmd import report
from nova_k8s.cmd import status
from nova_k8s import errors

COMMANDS = (report, flavors, status)


def main(argv=None):
    """Run a command; return 0, or 1 after one line on stderr."""
    parser = argparse.ArgumentParser(
        prog='nova-k8s',
        description='Look at a compute node that runs as a Kubernetes pod.')
    commands = parser.add_subparsers(metavar='COMMAND', required=True)
    for module in COMMANDS:
        module.add_parser(commands).set_defaults(run=module.run)
    args = parser.parse_args(argv)
    try:
        args.run(args)
    except (errors.LimitsError, cfg.Error) as exc:
        # Options are checked where they are first looked at, too.
        print(f'nova-k8s: {" ".join(str(exc).split())}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
