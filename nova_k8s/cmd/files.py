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
"""The files of a service that a command looks at.

They are those that the command is given. Where it is given none, they are
those that ``nova-k8s config run`` has written for the service, if the
environment says where, and otherwise those that the service finds by itself.
"""

import os

from oslo_config import cfg

from nova_k8s.config import cache
from nova_k8s.config import command_line
from nova_k8s.config import errors as config_errors
from nova_k8s.config import folder
from nova_k8s import errors

# The --dir of nova-k8s config run, for all that is run beside it: a command in
# the container of the service has none of the service's arguments.
RUN_DIR = 'NOVA_K8S_CONFIG_RUN_DIR'


def add_arguments(parser, what='nova.conf'):
    """Let a command be given files as the service is."""
    parser.add_argument(
        '--config-file', metavar='FILE', action='append',
        help=f'{what}; may be repeated. Default: those that the service has')
    parser.add_argument(
        '--config-dir', metavar='DIR', action='append',
        help='a folder of such files, which are read after the others; may '
             'be repeated')


def words(args, environ=os.environ):
    """Return what the service is told, for oslo.config.

    :raises errors.Refused: when it is not known
    """
    given = command_line.of_files(args.config_file, args.config_dir)
    if given or not environ.get(RUN_DIR):
        return given
    try:
        return folder.Folder(environ[RUN_DIR]).words(folder.CURRENT)
    except config_errors.ConfigError as exc:
        raise errors.Refused(f'{RUN_DIR}: {exc}') from None


def load(call, words):
    """Return call(), which loads a configuration.

    :raises errors.Refused: when it cannot be loaded
    """
    try:
        # What a service keeps of its configuration is its own.
        with cache.untouched():
            return call()
    except cfg.Error as exc:
        raise errors.Refused(str(exc)) from None
    except SystemExit as exc:
        # With which a source ends the service: it is no status of a command.
        raise errors.Refused(str(exc.code)) from None
    except (OSError, ValueError) as exc:
        # What oslo.config leaves to Python: a folder, what is not UTF-8.
        given = ' '.join(
            f'--config-{"dir" if is_folder else "file"} {path}'
            for path, is_folder in command_line.files(words))
        raise errors.Refused(
            f'{given or "the files of the service"}: '
            f'{getattr(exc, "strerror", None) or exc}') from None
