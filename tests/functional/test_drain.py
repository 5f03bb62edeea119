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

"""Guests leave a node: real Nova, over HTTP, with openstacksdk."""

import json
import os
import subprocess
import sys
import threading

import fixtures

from nova_k8s.drain import nova_api
from nova_k8s.drain import plan
from tests.functional import compute_nodes


class DrainTest(compute_nodes.ComputeNodesTestBase):

    def setUp(self):
        super().setUp()
        for name, seconds in (('FIRST_RETRY', 0.2), ('LAST_RETRY', 0.5)):
            self.useFixture(fixtures.MonkeyPatch(
                f'nova_k8s.drain.plan.{name}', seconds))
        self.useFixture(fixtures.MockPatch(
            'nova.virt.libvirt.driver.LibvirtDriver.'
            'migrate_disk_and_power_off', return_value='{}'))

    def left(self, state):
        return {each.guest.name: (each.what, each.why)
                for each in state.verdicts}

    def act(self, server, status, **action):
        self.admin_api.post_server_action(server['id'], action)
        self._wait_for_state_change(server, status)

    def say(self, server, what):
        self.admin_api.api_put(
            f'/servers/{server["id"]}/tags/nova-k8s:drain={what}', {},
            check_response_status=[201])

    def test_each_state(self):
        self.flags(cpu_allocation_ratio=4.0)
        self.start_nodes()
        names = ('runs', 'paused', 'shut-off', 'suspended', 'locked',
                 'skipped', 'stopped')
        guests = {name: self.boot_on('compute1', name, memory_mb=128)
                  for name in names}
        self.act(guests['paused'], 'PAUSED', pause=None)
        self.act(guests['suspended'], 'SUSPENDED', suspend=None)
        self.act(guests['shut-off'], 'SHUTOFF', **{'os-stop': None})
        self.act(guests['locked'], 'ACTIVE', lock=None)
        self.say(guests['skipped'], 'skip')
        self.say(guests['stopped'], 'stop')
        self.disable('compute1')
        state, _ = self.drain('compute1')
        self.assertEqual({'runs', 'paused', 'locked'},
                         {each.guest.name for each in state.moved})
        left = self.left(state)
        self.assertEqual(
            {name: plan.STAYS for name in
             ('shut-off', 'suspended', 'skipped', 'stopped')},
            {name: what for name, (what, _) in left.items()})
        self.assertIn('resume it', left['suspended'][1])
        self.assertIn('says skip', left['skipped'][1])
        found = {name: self.admin_api.get_server(each['id'])['status']
                 for name, each in guests.items()}
        self.assertEqual(
            {'runs': 'ACTIVE', 'paused': 'PAUSED', 'shut-off': 'SHUTOFF',
             'suspended': 'SUSPENDED', 'locked': 'ACTIVE',
             'skipped': 'ACTIVE', 'stopped': 'SHUTOFF'}, found)
        # What tenants say, and an operator who wants none of it.
        state, _ = self.drain('compute1', self.nova(tenants_decide=False))
        self.assertEqual({'skipped'},
                         {each.guest.name for each in state.moved})

    def test_cold_where_asked(self):
        self.start_nodes()
        off, runs = [self.boot_on('compute1', name)
                     for name in ('off', 'runs')]
        self.act(off, 'SHUTOFF', **{'os-stop': None})
        self.say(runs, 'cold')
        self.disable('compute1')
        state, _ = self.drain('compute1', shut_off=plan.COLD)
        self.assertTrue(state.empty, state)
        self.assertNotIn('compute1', self.hosts_of(off, runs))
        self._wait_for_state_change(off, 'SHUTOFF')
        self._wait_for_state_change(runs, 'ACTIVE')
        self.assertEqual({'confirmed'}, {
            each['status'] for each in self.admin_api.api_get(
                '/os-migrations').body['migrations']})

    def test_one_that_cannot_move(self):
        self.start_nodes()
        broken, other = [self.boot_on('compute1', name)
                         for name in ('broken', 'other')]
        self.failing.add(broken['id'])
        self.disable('compute1')
        state, _ = self.drain('compute1', attempts=2)
        self.assertEqual({'other'}, {each.guest.name for each in state.moved})
        self.assertEqual({'broken'}, set(self.left(state)))
        # Nova takes what it did not expect for an error of the guest, which
        # runs on; so it is not tried again.
        records = self.admin_api.api_get(
            f'/os-migrations?instance_uuid={broken["id"]}').body['migrations']
        self.assertEqual(['error'], [each['status'] for each in records])

    def test_nova_says_why(self):
        self.start_nodes()
        self.boot_on('compute1', 'lonely')
        for host in self.HOSTS:
            self.disable(host)
        state, _ = self.drain('compute1', attempts=2)
        what, why = self.left(state)['lonely']
        self.assertEqual(plan.FAILED, what)
        self.assertIn('No valid host was found', why)
        self.assertEqual(2, len(self.admin_api.api_get(
            '/os-migrations').body['migrations']))

    def test_one_that_takes_too_long(self):
        self.start_nodes()
        # Until the fake of libvirt has forgotten the job before.
        self.useFixture(fixtures.MonkeyPatch(
            'nova_k8s.drain.plan.FIRST_RETRY', 2))
        self.useFixture(fixtures.MonkeyPatch(
            'nova_k8s.drain.plan.LAST_RETRY', 2))
        self.boot_on('compute1', 'busy')
        self.disable('compute1')
        self.going.clear()
        state, _ = self.drain('compute1', attempts=2, timeout=1)
        self.assertEqual(
            (plan.FAILED, 'aborted, because it was not done after 1 s'),
            self.left(state)['busy'])
        self.assertEqual(['cancelled'] * 2, [
            each['status'] for each in self.admin_api.api_get(
                '/os-migrations').body['migrations']])
        self.going.set()
        self.assertTrue(self.drain('compute1')[0].empty)

    def test_a_role_is_missing(self):
        self.start_nodes()
        self.boot_on('compute1')
        exc = self.assertRaises(nova_api.Forbidden, self.nova('member').check,
                                'compute1')
        self.assertIn('needs the role admin', str(exc))
        self.assertRaises(nova_api.Forbidden, self.nova('nobody').check,
                          'compute1')
        self.nova().check('compute1')

    def test_nova_is_away_for_a_while(self):
        self.start_nodes()
        self.boot_on('compute1')
        self.disable('compute1')
        self.length = 2
        nova = self.nova()
        act = nova.act

        def act_and_break(verdict):
            act(verdict)
            self.http.broken.set()
            threading.Timer(4, self.http.broken.clear).start()

        nova.act = act_and_break
        state, states = self.drain('compute1', nova)
        self.assertTrue(any(each.problem for each in states))
        self.assertTrue(state.empty, state)
        self.assertEqual(1, len(self.migrated))

    def test_requests(self):
        self.start_nodes()
        for _ in range(2):
            self.boot_on('compute1')
        self.disable('compute1')
        nova = self.nova()
        nova.look('compute1')
        self.http.requests.clear()
        nova.look('compute1')
        self.assertEqual(
            [('GET', '/v2.1/os-migrations'), ('GET', '/v2.1/servers/detail')],
            self.http.requests)

    def test_progress(self):
        self.start_nodes()
        server = self.boot_on('compute1')
        self.disable('compute1')
        self.going.clear()
        self.admin_api.post_server_action(server['id'], {'os-migrateLive': {
            'host': None, 'block_migration': 'auto'}})
        self._wait_for_migration_status(server, ['running'])
        # The fake of libvirt counts no bytes.
        self.assertIsNone(self.nova().progress(server['id']))
        migration, = self.nova().look('compute1').migrations
        self.assertEqual('running', migration.status)
        self.going.set()
        self._wait_for_migration_status(server, ['completed'])


class CommandTest(compute_nodes.ComputeNodesTestBase):

    def setUp(self):
        super().setUp()
        self.folder = self.useFixture(fixtures.TempDir()).path

    def start_command(self, *arguments, token='operator'):
        path = os.path.join(self.folder, 'nova.conf')
        with open(path, 'w', encoding='utf-8') as f:
            f.write(f'[kubernetes_drain]\nauth_type = admin_token\n'
                    f'token = {token}\nendpoint = {self.http.url}\n'
                    f'endpoint_override = {self.http.url}\n')
        return subprocess.Popen(
            [sys.executable, '-m', 'nova_k8s.cmd.main', *arguments,
             '--config-file', path], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True)

    def command(self, *arguments, **options):
        """Return (exit status, stdout, stderr)."""
        process = self.start_command(*arguments, **options)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err


class DrainCommandTest(CommandTest):

    def test_drain(self):
        self.start_nodes()
        servers = [self.boot_on('compute1', f'web-{each}')
                   for each in range(2)]
        status, out, err = self.command('drain', '--host', 'compute1',
                                        '--dry-run')
        self.assertEqual((0, ''), (status, err))
        self.assertIn('2 guests, 0 would stay', out)
        self.assertIn('live', out)
        self.assertEqual(['compute1'] * 2, self.hosts_of(*servers))
        self.assertEqual(2, len([
            each for each in self.http.requests if each[0] == 'GET' and
            each[1] in ('/v2.1/servers/detail', '/v2.1/os-migrations')]))
        status, out, err = self.command('drain', '--host', 'compute1')
        self.assertEqual((0, ''), (status, err))
        for line in ('web-0: moves', 'web-0: left for ',
                     'web-1: left for ',
                     'compute1 is empty: 2 guests have left'):
            self.assertIn(line, out)
        self.assertNotIn('compute1', self.hosts_of(*servers))
        service, = self.admin_api.get_services('nova-compute', 'compute1')
        self.assertEqual(('disabled', 'nova-k8s drain'),
                         (service['status'], service['disabled_reason']))

    def test_guests_are_left(self):
        self.start_nodes()
        server = self.boot_on('compute1', 'web')
        self.admin_api.post_server_action(server['id'], {'os-stop': None})
        self._wait_for_state_change(server, 'SHUTOFF')
        status, out, err = self.command('drain', '--host', 'compute1',
                                        '--format', 'json')
        self.assertEqual(1, status, err)
        found = json.loads(out)
        self.assertFalse(found['empty'])
        self.assertEqual(['web'], [each['name'] for each in found['left']])
        self.assertIn('web: stays: it is shut off', err)
        status, out, _ = self.command('drain', '--host', 'compute1',
                                      '--shut-off', 'ignore')
        self.assertEqual(0, status, out)

    def test_it_could_not_be_tried(self):
        self.start_nodes()
        for arguments, token, text in (
                (('--host', 'compute9'), 'operator',
                 'Nova knows no compute service on a host compute9'),
                (('--host', 'compute1'), 'member', 'role admin')):
            status, out, err = self.command('drain', *arguments, token=token)
            self.assertEqual((2, ''), (status, out))
            self.assertIn(text, err)
            self.assertEqual(1, len(err.splitlines()), err)

    def test_killed_and_started_again(self):
        self.start_nodes()
        servers = [self.boot_on('compute1') for _ in range(2)]
        self.going.clear()
        process = self.start_command('drain', '--host', 'compute1')
        self.wait_for(True, lambda: bool(self.admin_api.api_get(
            '/os-migrations').body['migrations']))
        process.kill()
        process.communicate()
        self.going.set()
        status, out, _ = self.command('drain', '--host', 'compute1')
        self.assertEqual(0, status, out)
        self.assertNotIn('compute1', self.hosts_of(*servers))
        # None was asked for twice.
        self.assertEqual(2, len(self.admin_api.api_get(
            '/os-migrations').body['migrations']))


class EvacuateCommandTest(CommandTest):

    def test_evacuate(self):
        self.start_nodes()
        servers = [self.boot_on('compute1', f'web-{each}')
                   for each in range(2)]
        status, out, err = self.command(
            'evacuate', '--host', 'compute1', '--dry-run', '--format', 'json')
        self.assertEqual((0, ''), (status, err))
        for each in json.loads(out)['guests']:
            self.assertEqual('evacuate', each['what'])
            self.assertIn('local disk is made anew', each['note'])
            self.assertIn('stays shut off', each['note'])
        self.computes['compute1'].stop()
        status, out, err = self.command(
            'evacuate', '--host', 'compute1')
        self.assertEqual(2, status, out)
        self.assertIn('--i-know-it-is-off', err)
        self.assertEqual(['compute1'] * 2, self.hosts_of(*servers))
        status, out, err = self.command(
            'evacuate', '--host', 'compute1', '--i-know-it-is-off')
        self.assertEqual(0, status, err)
        self.assertIn('compute1 is empty: 2 guests have left', out)
        self.assertNotIn('compute1', self.hosts_of(*servers))
        for each in servers:
            self.assertEqual('SHUTOFF',
                             self.admin_api.get_server(each['id'])['status'])
        service, = self.admin_api.get_services('nova-compute', 'compute1')
        self.assertEqual(('disabled', True),
                         (service['status'], service['forced_down']))
        # It is enabled once nothing of them is left there.
        status, out, err = self.command(
            'evacuate', '--host', 'compute1', '--enable')
        self.assertEqual(2, status)
        self.assertIn(servers[0]['id'], err)
        self.restart_compute_service('compute1')
        status, out, err = self.command(
            'evacuate', '--host', 'compute1', '--enable')
        self.assertEqual(0, status, err)
        service, = self.admin_api.get_services('nova-compute', 'compute1')
        self.assertEqual(('enabled', False),
                         (service['status'], service['forced_down']))

    def test_start(self):
        self.start_nodes()
        server = self.boot_on('compute1')
        self.computes['compute1'].stop()
        status, _, err = self.command(
            'evacuate', '--host', 'compute1', '--i-know-it-is-off', '--start')
        self.assertEqual(0, status, err)
        self._wait_for_state_change(server, 'ACTIVE')
        self.assertNotIn('compute1', self.hosts_of(server))

    def test_most_nodes_are_down(self):
        self.start_nodes()
        for host in ('compute1', 'compute2'):
            service, = self.admin_api.get_services('nova-compute', host)
            self.admin_api.put_service_force_down(service['id'], True)
        status, _, err = self.command(
            'evacuate', '--host', 'compute1', '--i-know-it-is-off')
        self.assertEqual(2, status)
        self.assertIn('2 of 3 compute services are down', err)
