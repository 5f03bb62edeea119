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

"""Runs in the VM: whoever asks over HTTP has shell scripts run, as root.

It listens on the VM's one interface, which only the machine that the tests
run on reaches. One request is one script; several may run at once.
"""

import http.server
import json
import subprocess
import sys


class Handler(http.server.BaseHTTPRequestHandler):

    def do_POST(self):
        wish = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
        # Its own session: a script that is killed takes along what it
        # started and has not detached.
        with subprocess.Popen(
                ['/bin/bash', '-c', wish['script']], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                errors='replace', start_new_session=True) as process:
            try:
                output, _none = process.communicate(wish['input'],
                                                    wish['timeout'])
            except subprocess.TimeoutExpired:
                subprocess.run(['pkill', '-KILL', '-s', str(process.pid)])
                output, _none = process.communicate()
                output += '\nkilled after %s s' % wish['timeout']
        answer = json.dumps({'status': process.returncode,
                             'output': output}).encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_arguments):
        # systemd would write it to the console.
        pass


if __name__ == '__main__':
    http.server.ThreadingHTTPServer(
        ('', int(sys.argv[1])), Handler).serve_forever()
