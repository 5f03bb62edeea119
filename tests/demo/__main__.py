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

"""``python -m tests.demo``: run the demo, and leave nothing behind.

The demo is one process, a child of this one, so that whatever becomes of it
somebody is there to end its guests and to remove its files.
"""

import argparse
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

# Far more than it takes, also where two slow cores do everything.
TIMEOUT = 600
# for the kernel to end processes that were killed
GRACE = 20

INTRODUCTION = """\
Nova with K8sLibvirtDriver: what the limits of its pod do to a compute node.

Nova's API, scheduler, conductor and compute, and Placement, run in one process
on SQLite; libvirt and QEMU are real (TCG, no daemon). It takes about a minute.
"""


def _environment(directory):
    env = dict(os.environ)
    env.update({
        # Nova's threading mode: libvirt is in this process
        'OS_NOVA_DISABLE_EVENTLET_PATCHING': '1',
        'LIBVIRT_LOG_OUTPUTS': '3:stderr',
        'PYTHONUNBUFFERED': '1',
        'PYTHONWARNINGS': 'ignore',
        'TMPDIR': str(directory),
    })
    # of whoever starts it: proxies, and options that oslo.config would read
    for name in list(env):
        if name.lower().endswith('_proxy') or (
                name.startswith('OS_') and '__' in name):
            del env[name]
    return env


class Interrupted(Exception):
    pass


def _interrupt(signum, frame):
    raise Interrupted


def _left(directory):
    """Processes that were started for directory: the demo, and guests."""
    pids = []
    for proc in pathlib.Path('/proc').glob('[0-9]*'):
        try:
            command = (proc / 'cmdline').read_bytes()
        except OSError:
            continue  # gone meanwhile
        if os.fsencode(directory) in command:
            pids.append(int(proc.name))
    return [pid for pid in pids if pid != os.getpid()]


def _clean(directory):
    """End what is left, in whatever state, and remove its files.

    Where the demo ended by itself, nothing is.
    """
    deadline = time.monotonic() + GRACE
    while time.monotonic() < deadline:
        left = _left(directory)
        if not left:
            break
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.1)
    shutil.rmtree(directory, ignore_errors=True)


def _wait(child):
    """Exit status of the demo."""
    try:
        status = child.wait(TIMEOUT)
        if status < 0:
            print(f'The demo was ended by signal {-status}.')
            return 1
        return status
    except subprocess.TimeoutExpired:
        print(f'The demo did not end within {TIMEOUT} s.')
        return 1
    except Interrupted:
        print('\nInterrupted: cleaning up.', flush=True)
        return 130


def main():
    parser = argparse.ArgumentParser(
        prog='python -m tests.demo', description=INTRODUCTION,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--json', default='', metavar='FILE',
        help='also write the figures that were shown to FILE')
    args = parser.parse_args()

    started = time.monotonic()
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, _interrupt)
    # A short path: libvirt's sockets lie below it.
    directory = tempfile.mkdtemp(prefix='nova-k8s-demo-', dir='/tmp')
    fd, log = tempfile.mkstemp(prefix='nova-k8s-demo-', suffix='.log')
    status = 1
    try:
        print(INTRODUCTION, flush=True)
        # In a session of its own: Ctrl-C reaches it through this process.
        child = subprocess.Popen(
            [sys.executable, '-m', 'tests.demo.story', directory,
             args.json and os.path.abspath(args.json)],
            env=_environment(directory), stdin=subprocess.DEVNULL, stderr=fd,
            start_new_session=True)
        status = _wait(child)
    except Interrupted:
        status = 130
    finally:
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, signal.SIG_IGN)
        _clean(directory)
        if status in (0, 130):
            os.unlink(log)
        else:
            print('The demo failed. The log of Nova, Placement and libvirt '
                  f'is {log}')
    if status == 0:
        print(f'\nDone in {time.monotonic() - started:.0f} s; nothing is left '
              'running, nothing is left on disk.')
    return status


if __name__ == '__main__':
    sys.exit(main())
