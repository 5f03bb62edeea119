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


"""Small files under Nova's state_path, for what must survive a restart."""

import json
import os
import tempfile

import jsonschema
from oslo_log import log as logging

LOG = logging.getLogger(__name__)


def write(path, record, mode=None):
    """Write a record, so that a crash leaves the old one or the new one.

    :param mode: who may read it; by default its owner alone
    :raises OSError: when it cannot be written
    """
    # In the same folder, so that the renaming is atomic.
    with tempfile.NamedTemporaryFile(
            'w', dir=os.path.dirname(path), prefix=os.path.basename(path),
            delete=False, encoding='utf-8') as f:
        try:
            json.dump(record, f)
            f.flush()
            os.fsync(f.fileno())
            if mode is not None:
                os.fchmod(f.fileno(), mode)
            os.replace(f.name, path)
        except BaseException:
            os.unlink(f.name)
            raise


def read_plain(path):
    """Return what is in the file; None where that is nothing."""
    try:
        with open(path, encoding='utf-8') as f:
            return json.load(f)
    except (OSError, ValueError, RecursionError):
        return None


def read(path, schema, key):
    """Return the record, or None.

    None also for what is damaged, or belongs to something else.

    :param key: what the record must have as its key
    """
    problem = None
    try:
        with open(path, encoding='utf-8') as f:
            record = json.load(f)
        jsonschema.validate(record, schema)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError,
            jsonschema.ValidationError) as exc:
        problem = str(exc).splitlines()[0]
    if not problem and record['key'] != key:
        problem = f'it belongs to {record["key"]}'
    # Not in the handler: there, oslo.log says the problem a second time.
    if problem:
        LOG.warning('%s is ignored: %s', path, problem)
        return None
    return record
