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

"""Calls that are waited for only so long."""

import threading


class NoAnswer(TimeoutError):
    """It was waited for long enough; a TimeoutError of the function is not."""


def call(function, seconds, who):
    """Return what a function returns.

    It runs in a thread of its own, which cannot be ended: a function that is
    given up may still act later. It has to look at the event that it is given.

    :param function: called with an event that is set when it is given up
    :param seconds: how long to wait for it
    :param who: does not answer, for the message
    :raises NoAnswer: when that is over; and whatever the function raises
    """
    given_up = threading.Event()
    answer = []

    def run():
        try:
            answer.append((function(given_up), None))
        except Exception as exc:
            answer.append((None, exc))

    thread = threading.Thread(target=run, daemon=True, name='nova-k8s-call')
    thread.start()
    thread.join(seconds)
    if not answer:
        given_up.set()
        raise NoAnswer(f'{who} does not answer within {seconds} s')
    found, problem = answer[0]
    if problem:
        raise problem
    return found
