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

"""Nova's API with time of its own: what it answers, seconds after seconds.

It does what Nova does as far as a drain can see it: a request is taken when
the state of the guest allows it, a record appears a little later, so many
migrations run at a time on a host and the others are queued, and the scheduler
takes a host that is up and enabled. The functional tests have the real one.
"""

import dataclasses

from nova_k8s.drain import evacuation
from nova_k8s.drain import guests
from nova_k8s.drain import nova_api
from nova_k8s.drain import plan


class Clock:
    """Time that goes on when somebody waits."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    def wait(self, seconds):
        self.now += seconds


class Nova:
    """Answers like nova_api.Nova.

    :param clock: a Clock
    :param concurrent: max_concurrent_live_migrations
    :param length: seconds that the migration of a guest takes, from the Guest
    :ivar broken: guests whose migrations fail: {id: reason}
    :ivar down: whether it answers at all
    """

    # Seconds until the conductor has made the record.
    conductor = 0.3

    def __init__(self, clock, hosts=('a', 'b', 'c'), concurrent=1,
                 length=lambda guest: 10):
        self._clock = clock
        self._concurrent = concurrent
        self._length = length
        self.hosts = {host: nova_api.Service(host, host) for host in hosts}
        self.guests, self.where = {}, {}
        self.records = {}
        self._due = {}
        self._ends = {}
        self._conductor = {}
        self.broken, self.down, self.forbidden = {}, False, False
        self.asked, self.calls = [], 0
        self.placed = []

    def add(self, guest, host='a'):
        self.guests[guest.id], self.where[guest.id] = guest, host
        return guest

    def change(self, id, **fields):
        self.guests[id] = dataclasses.replace(self.guests[id], **fields)

    def set_host(self, host, **fields):
        self.hosts[host] = dataclasses.replace(self.hosts[host], **fields)

    def on(self, host):
        return {each for each, where in self.where.items() if where == host}

    # What the engine calls

    def look(self, host):
        # One list of servers, and one of migrations.
        self.calls += 1
        self._call()
        here = self.on(host)
        found = [record for record in self.records.values()
                 if host in (record.source, record.dest)]
        elsewhere = {record.guest: self.guests[record.guest]
                     for record in found if record.guest not in here and
                     record.guest in self.guests and
                     (self.guests[record.guest].task or
                      self.guests[record.guest].status == 'VERIFY_RESIZE')}
        return guests.View(
            host, tuple(self.guests[each] for each in sorted(here)),
            tuple(found), elsewhere)

    def services(self):
        self._call()
        return tuple(self.hosts.values())

    def why(self, guest):
        self._call()
        return self.broken.get(guest)

    def act(self, verdict):
        self._call()
        guest, what = self.guests[verdict.guest.id], verdict.what
        self.asked.append((round(self._clock() - 1000, 1), what, guest.id))
        if what == plan.ABORT:
            self._abort(verdict.migration.id)
        elif what == plan.CONFIRM:
            self._confirm(verdict.migration.id, guest)
        elif what == evacuation.EVACUATE:
            self._take(guest, evacuation.POSSIBLE, guests.EVACUATION)
        elif what == plan.STOP:
            self._stop(guest)
        else:
            self._take(guest, plan.POSSIBLE[what],
                       guests.LIVE_MIGRATION if what == plan.LIVE
                       else guests.MIGRATION)

    # How Nova goes on

    def _call(self):
        self.calls += 1
        if self.down:
            raise nova_api.Unreachable('Nova is away')
        if self.forbidden:
            raise nova_api.Forbidden('403')
        self.go_on()

    def _take(self, guest, possible, kind):
        if guest.task or guest.status not in possible:
            raise nova_api.Refused(
                f'cannot do this while {guest.status} {guest.task}')
        self.change(guest.id, task='migrating' if kind ==
                    guests.LIVE_MIGRATION else 'rebuilding' if kind ==
                    guests.EVACUATION else 'resize_migrating')
        self._conductor[guest.id] = (self._clock() + self.conductor, kind)

    def _stop(self, guest):
        if guest.task or guest.status != 'ACTIVE':
            raise nova_api.Refused(f'cannot stop while {guest.status}')
        self.change(guest.id, status='SHUTOFF', powered=False)

    def _confirm(self, id, guest):
        if guest.task or guest.status != 'VERIFY_RESIZE':
            raise nova_api.Refused(f'cannot confirm while {guest.status}')
        self._set(id, status='confirmed')
        self.change(guest.id, status='ACTIVE' if guest.powered
                    else 'SHUTOFF')

    def _abort(self, id):
        record = self.records[id]
        if record.status not in ('queued', 'preparing', 'running'):
            raise nova_api.Refused(f'cannot abort what is {record.status}')
        self._end(record, 'cancelled')

    def restart(self, host):
        """nova-compute of a host starts again: it aborts what goes on."""
        self.go_on()
        for record in list(self.records.values()):
            if record.source == host and record.status in (
                    'queued', 'preparing', 'running'):
                self._end(record, 'error')

    def _set(self, id, **fields):
        self.records[id] = dataclasses.replace(self.records[id], **fields)
        return self.records[id]

    def go_on(self):
        """Do what is due by now."""
        now = self._clock()
        while True:
            times = [(when, 0, guest) for guest, (when, _)
                     in self._conductor.items()]
            times += [(when, 1, id) for id, when in self._ends.items()]
            if not times or min(times)[0] > now:
                return
            when, which, what = min(times)
            if which:
                self._arrive(what, when)
            else:
                self._schedule(what, self._conductor.pop(what)[1], when)

    def _schedule(self, guest, kind, when):
        if guest not in self.where:
            return
        source, id = self.where[guest], len(self.records) + 1
        targets = [host for host, service in self.hosts.items()
                   if service.up and service.enabled and host != source]
        self.records[id] = guests.Migration(
            id, guest, kind, 'accepted', source,
            min(targets, key=lambda host: (len(self.on(host)), host))
            if targets else None)
        if not targets:
            self.broken.setdefault(guest, 'No valid host was found.')
            self._end(self.records[id], 'error')
        else:
            self.placed.append((guest, self.records[id].dest))
            self._set(id, status='queued' if kind == guests.LIVE_MIGRATION
                      else 'migrating')
            self._begin(source, when)

    def _begin(self, host, when):
        running = sum(each.source == host and each.status == 'running'
                      for each in self.records.values())
        for id, each in sorted(self.records.items()):
            if each.source != host or id in self._ends:
                continue
            if each.status == 'queued' and running < self._concurrent:
                running += 1
                each = self._set(id, status='running')
            elif each.status != 'migrating':
                continue
            self._ends[id] = when + self._length(self.guests[each.guest])

    def _arrive(self, id, when):
        record = self.records[id]
        self._ends.pop(id)
        if record.guest in self.broken:
            self._end(record, 'error')
        else:
            self.where[record.guest] = record.dest
            self._end(record, {
                guests.LIVE_MIGRATION: 'completed',
                guests.EVACUATION: 'done'}.get(record.kind, 'finished'))
            if record.kind == guests.MIGRATION:
                self.change(record.guest, status='VERIFY_RESIZE')
            if record.kind == guests.EVACUATION:
                self.change(record.guest, status='SHUTOFF', powered=False)
        self._begin(record.source, when)

    def _end(self, record, status):
        self._ends.pop(record.id, None)
        self._set(record.id, status=status)
        if record.guest in self.guests:
            self.change(record.guest, task=None)
        self._begin(record.source, self._clock())
