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
import contextlib
import importlib
import logging
import os
import sys
import textwrap
import warnings

from oslo_config import cfg

from nova_k8s import errors

# The modules are loaded when they are needed: most load Nova, which `config
# run` keeps out of a process that lives as long as a service.
COMMANDS = ('report', 'check', 'flavors', 'guests_pod', 'status', 'drain',
            'evacuate', 'config')


def main(argv=None):
    """Run a command; return its exit status.

    Of a problem there is one line on stderr.
    """
    parser = argparse.ArgumentParser(
        prog='nova-k8s',
        description='Look at a compute node that runs as a Kubernetes pod.')
    commands = parser.add_subparsers(metavar='COMMAND', required=True)
    first = (sys.argv[1:] if argv is None else argv)[:1]
    for name in first if first and first[0] in COMMANDS else COMMANDS:
        module = importlib.import_module(f'nova_k8s.cmd.{name}')
        module.add_parser(commands).set_defaults(
            run=module.run, failure=getattr(module, 'FAILURE', 1))
    args = parser.parse_args(argv)
    with warnings.catch_warnings(), _listening() as heard:
        warnings.simplefilter('ignore')
        status, problem = _run(args)
    if problem is None:
        return status
    line = '; '.join([' '.join(problem.split()), *heard])
    print(f'nova-k8s: {line}', file=sys.stderr)
    return status


def _run(args):
    """Run a command; return (its exit status, what went wrong or None)."""
    if sys.stdout is None:
        return args.failure, 'stdout is closed'
    try:
        status = args.run(args) or 0
        # Python itself does it too late for an exit status.
        sys.stdout.flush()
    except (errors.LimitsError, cfg.Error) as exc:
        # Options are checked where they are first looked at, too.
        return args.failure, str(exc)
    except UnicodeEncodeError as exc:
        return args.failure, (
            f'stdout: {exc.object[exc.start:exc.end]!a} cannot be '
            f'written in {exc.encoding}; set PYTHONIOENCODING=utf-8')
    except OSError as exc:
        _forget_output()
        return (args.failure,
                f'{exc.filename or "stdout"}: {exc.strerror or exc}')
    return status, None


@contextlib.contextmanager
def _listening():
    """Keep what is logged from stderr; yield a list of what may matter.

    Of a failing plugin of a kubeconfig the client only logs, and the API
    server then says no more than 401.
    """
    heard = []
    handler = _Listener(heard)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield heard
    finally:
        root.removeHandler(handler)


class _Listener(logging.Handler):

    def __init__(self, heard):
        super().__init__(logging.WARNING)
        self._heard = heard

    def emit(self, record):
        if record.name == 'root' or record.name.startswith('nova_k8s.'):
            text = textwrap.shorten(record.getMessage(), 300)
            if text not in self._heard:
                self._heard.append(text)


def _forget_output():
    """Have nothing to flush: Python does it at its end, and complains."""
    with contextlib.suppress(OSError), open(os.devnull, 'wb') as nothing:
        os.dup2(nothing.fileno(), sys.stdout.fileno())


if __name__ == '__main__':
    sys.exit(main())
