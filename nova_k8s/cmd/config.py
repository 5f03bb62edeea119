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

"""nova-k8s config: options that live in the cluster."""

import contextlib
import dataclasses
import json
import logging
import os
import sys

import yaml

from nova_k8s.cmd import files
from nova_k8s.config import api
from nova_k8s.config import cache
from nova_k8s.config import command_line
from nova_k8s.config import convert
from nova_k8s.config import definitions
from nova_k8s.config import effective
from nova_k8s.config import errors as config_errors
from nova_k8s.config import folder
from nova_k8s.config import follower
from nova_k8s.config import kubernetes_driver
from nova_k8s.config import running
from nova_k8s import errors

PROGRAM = 'nova-compute'


def add_parser(commands):
    parser = commands.add_parser(
        'config', help='options of a service that live in the cluster',
        description='Run, show, compare and import the options of an '
                    'OpenStack service that live in ConfigMaps and Secrets.')
    actions = parser.add_subparsers(metavar='ACTION', required=True)
    _add_run(actions)
    _add_show(actions)
    _add_diff(actions)
    _add_import(actions)
    return parser


def _add_run(actions):
    parser = actions.add_parser(
        'run', help='run a service whose files follow objects',
        description='Write ConfigMaps and Secrets into a --config-dir, start '
                    'the service with it, rewrite it when they change and '
                    'send the service SIGHUP.')
    parser.add_argument(
        '--config-map', metavar='NAME', action='append', default=[],
        help='a ConfigMap; may be repeated, the later wins')
    parser.add_argument(
        '--secret', metavar='NAME', action='append', default=[],
        help='a Secret; may be repeated, wins over all ConfigMaps')
    parser.add_argument(
        '--namespace', metavar='NAME',
        help="of the objects; default: the pod's")
    parser.add_argument(
        '--kubeconfig', metavar='FILE',
        help='default: the service account of the pod')
    parser.add_argument(
        '--timeout', metavar='SECONDS', type=int, default=10,
        help='to wait for an answer of the API server (10)')
    parser.add_argument(
        '--dir', metavar='DIR', default=os.environ.get(files.RUN_DIR),
        help='where to write, a folder for this alone; the service is given '
             f'DIR/current. Default: {files.RUN_DIR} in the environment, '
             'otherwise a temporary folder')
    parser.add_argument(
        '--cache-dir', metavar='DIR',
        help='where to keep what was last read, for a start while the API '
             'server is away')
    parser.add_argument(
        '--cache-secrets', action='store_true',
        help='keep Secrets there, too')
    _add_program(parser, None)
    parser.add_argument(
        'command', nargs='+', metavar='-- COMMAND',
        help='the service and its arguments. --config-dir DIR/current is '
             f'added at the end, or stands for {command_line.PLACE} where '
             'that is in an argument')
    parser.set_defaults(action=run_service)


def _add_show(actions):
    parser = actions.add_parser(
        'show', help='the options that are set, and where each is from',
        description='Show the options of a service as it would start now, '
                    'and where each is from. Secrets are masked.')
    _add_program(parser, PROGRAM)
    files.add_arguments(parser)
    parser.add_argument('--all', action='store_true',
                        help='options that have their default, too')
    _add_format(parser)
    parser.set_defaults(action=show)


def _add_diff(actions):
    parser = actions.add_parser(
        'diff', help='what a restart of the service would change',
        description='Show what a restart would change: of a service under '
                    'nova-k8s config run with --dir, of others with what '
                    'cache_dir holds of their last start.')
    _add_program(parser, PROGRAM)
    parser.add_argument('--dir', metavar='DIR',
                        default=os.environ.get(files.RUN_DIR),
                        help='the --dir of nova-k8s config run; default: '
                             f'{files.RUN_DIR} in the environment')
    files.add_arguments(parser)
    _add_format(parser)
    parser.set_defaults(action=diff)


def _add_import(actions):
    parser = actions.add_parser(
        'import', help='print files as a ConfigMap and a Secret',
        description='Print files in the style of nova.conf as a ConfigMap '
                    'and a Secret. Options that are marked secret, and those '
                    'that no list of options has, go into the Secret.')
    _add_program(parser, PROGRAM)
    parser.add_argument('--name', default='nova',
                        help='of the ConfigMap; the Secret is called '
                             'NAME-credentials (nova)')
    parser.add_argument('--namespace', metavar='NAME')
    parser.add_argument('file', nargs='+', metavar='FILE',
                        help='the later wins')
    parser.set_defaults(action=import_files)


def _add_program(parser, default):
    parser.add_argument(
        '--program', metavar='NAME', default=default,
        help='the script of the service, which tells what options it has '
             f'({default or "the command"})')


def _add_format(parser):
    parser.add_argument('--format', choices=('text', 'json', 'yaml'),
                        default='text')


def run(args):
    try:
        args.action(args)
    except config_errors.ConfigError as exc:
        raise errors.Refused(str(exc)) from None


def run_service(args):
    # For as long as the service lives: nothing is collected for a last line.
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, force=True,
        format='%(asctime)s.%(msecs)03d %(process)d %(levelname)s %(name)s '
               '%(message)s', datefmt='%Y-%m-%d %H:%M:%S')
    if not args.config_map and not args.secret:
        raise errors.Refused('config run: neither --config-map nor --secret')
    objects = follower.Objects(
        api.namespace(args.namespace, os.environ), tuple(args.config_map),
        tuple(args.secret))
    sys.exit(running.run(
        args.command, objects, args.kubeconfig, args.timeout, args.dir,
        args.program, args.cache_dir, args.cache_secrets))


def _load(args, known, words, reading=contextlib.nullcontext):
    """Return effective.Loaded, as the service would have it."""
    project = os.path.basename(args.program).partition('-')[0]

    def call():
        with reading():
            return effective.load(known, project, args.program, words)
    return files.load(call, words)


def show(args):
    known = definitions.for_service(args.program)
    loaded = _load(args, known, files.words(args))
    found = [each for each in effective.settings(loaded)
             if args.all or each.where]
    if args.format == 'text':
        _print_by_group(
            found, lambda each: f'{each.name} = {_text(each.value)}',
            lambda each: each.where or 'default')
    else:
        _print_data(found, args.format)


def diff(args):
    known = definitions.for_service(args.program)
    written = args.dir and folder.Folder(args.dir)
    if written and not args.config_file and not args.config_dir:
        # What can change in a running service has changed by now.
        found = [each for each in effective.changes(
            *(_load(args, known, written.words(which))
              for which in (folder.STARTED, folder.CURRENT)))
            if each.restart]
    else:
        found = effective.changes(*_last_and_next(args, known))
    if args.format == 'text':
        _print_by_group(
            found, lambda each: f'{each.name}: {_text(each.old)} -> '
            f'{_text(each.new)}', lambda each: each.where or 'default')
    else:
        _print_data(found, args.format)


def _last_and_next(args, known):
    """Return what the last start was told by its sources, and one now."""
    words = command_line.of_files(args.config_file, args.config_dir)
    after = _load(args, known, words)
    conf = after.conf
    compared = 0
    for group in conf.config_source:
        if conf[group].driver != 'kubernetes':
            print(f'[{group}]: not compared, as what it said at the last '
                  f'start is not known', file=sys.stderr)
            continue
        compared += 1
        kept = kubernetes_driver.KubernetesDriver().cache(conf, group)
        if kept.load() is None:
            raise errors.Refused(
                f'[{group}]: what {args.program} was started with is not '
                f'known; set cache_dir, or run it with nova-k8s config run')
        if not kept.keeps_secrets and conf[group].secrets:
            print(f'[{group}]: Secrets are not compared (cache_secrets)',
                  file=sys.stderr)
    if not compared:
        raise errors.Refused('no config_source with driver = kubernetes')
    return _load(args, known, words, cache.of_last_start), after


def import_files(args):
    known = definitions.for_service(args.program)
    config_map, secret, unknown = convert.from_files(
        args.file, known, args.name, args.namespace)
    print(yaml.dump_all([each for each in (config_map, secret) if each],
                        Dumper=_Dumper, sort_keys=False), end='')
    if unknown:
        print(f'nova-k8s: in the Secret, as {args.program} does not know '
              f'them: {", ".join(unknown)}', file=sys.stderr)


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines so that people can edit them."""


_Dumper.add_representer(str, lambda dumper, text: dumper.represent_scalar(
    'tag:yaml.org,2002:str', text, style='|' if '\n' in text else None))


def _text(value):
    if isinstance(value, (list, tuple)):
        return ', '.join(map(str, value))
    if isinstance(value, dict):
        return ', '.join(f'{key}:{each}' for key, each in value.items())
    return '' if value is None else str(value)


def _print_by_group(found, line, where):
    group = ''
    for each in sorted(found, key=lambda each: (each.group or '', each.name)):
        if each.group != group:
            print(f'{"" if group == "" else chr(10)}'
                  f'[{each.group or "DEFAULT"}]')
            group = each.group
        print(f'{line(each)}  # {where(each)}')


def _print_data(found, form):
    data = [{**dataclasses.asdict(each), 'group': each.group or 'DEFAULT'}
            for each in found]
    if form == 'json':
        print(json.dumps(data, indent=2, default=str))
    else:
        print(yaml.safe_dump(json.loads(json.dumps(data, default=str)),
                             sort_keys=False), end='')
