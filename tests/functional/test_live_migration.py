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

"""Live migration between two libvirtd that the manifests configure.

Guests move as Nova moves them: with its flags and to its URIs, which it makes
of the manifests' nova.conf and environment.
"""

import contextlib
import datetime
import pathlib
import shlex
import shutil
import socket
import ssl
import subprocess
import tempfile
from unittest import mock

import nova.conf
from nova.virt.libvirt import driver
from nova.virt.libvirt import guest as nova_guest
import testtools
from testtools import matchers
import yaml

from tests.functional import certificates
from tests.functional import libvirtds
from tests.functional import real_libvirt
from tests import waiting

CONF = nova.conf.CONF
libvirt = real_libvirt.libvirt

BASE = libvirtds.BASE
TCP = BASE.parent / 'overlays' / 'live-migration-tcp'
ADDRESSES = libvirtds.ADDRESSES
OVER = datetime.timedelta(minutes=-10)


def containers(path):
    spec = next(yaml.safe_load_all(path.read_text()))['spec']
    return spec['template']['spec']['containers']


def secrets():
    """What the pod has of Secrets in /etc/pki: {name: items}."""
    spec = next(yaml.safe_load_all((BASE / 'libvirt.yaml').read_text()))
    volume, = [each for each in spec['spec']['template']['spec']['volumes']
               if each['name'] == 'certificates']
    return {source['secret']['name']: source['secret']['items']
            for source in volume['projected']['sources']}


class Authorities:
    """That of libvirtd, that of QEMU, and one that has no business here."""

    def __init__(self, folder):
        self._number = 0
        for name in ('libvirt', 'qemu', 'other'):
            place = pathlib.Path(folder, name)
            place.mkdir()
            setattr(self, name, certificates.Authority(str(place)))

    def issue(self, authority, addresses=ADDRESSES, name='libvirt', **kwargs):
        """A Secret in cert-manager's layout, as {key: file}."""
        self._number += 1
        certificate, key = authority.issue(
            f'issued-{self._number}', name, addresses=addresses, **kwargs)
        return {'ca.crt': authority.path, 'tls.crt': certificate,
                'tls.key': key}


def mount(node, name, secret):
    """Have a Secret in the node's /etc/pki, as the kubelet does."""
    for item in secrets()[name]:
        path = node.pki / item['path']
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(path.name + '.new')
        shutil.copy(secret[item['key']], fresh)
        fresh.chmod(item.get('mode', 0o644))
        # At once, as the kubelet does.
        fresh.rename(path)


class Nodes:
    """What a test case has that has nodes.

    :ivar folder: a folder that all of them see
    :ivar authorities: Authorities
    """

    def make_folder(self):
        """Make what the nodes need; skips where there can be none."""
        reason = libvirtds.missing()
        if reason:
            self.skipTest(reason)
        self.folder = pathlib.Path(tempfile.mkdtemp(
            prefix='libvirtds-', dir=real_libvirt.ROOT_IN))
        self.addCleanup(shutil.rmtree, self.folder)
        # QEMU, which is not root, has to get to its files.
        self.folder.chmod(0o755)
        self.authorities = Authorities(self.folder)

    def node(self, address, libvirtd_conf=BASE / 'libvirtd.conf'):
        found = libvirtds.Node(self.folder / address, address, libvirtd_conf)
        self.addCleanup(found.close)
        return found

    def with_certificates(self, address):
        node = self.node(address)
        issue, issuers = self.authorities.issue, self.authorities
        mount(node, 'libvirt-tls', issue(issuers.libvirt))
        mount(node, 'qemu-tls', issue(issuers.qemu))
        node.start()
        return node


@contextlib.contextmanager
def configured(manifest, address):
    """Nova is configured as on this node, by the manifests."""
    environment = {}
    for path in (BASE / 'nova-compute.yaml', manifest):
        for each in containers(path)[0].get('env', ()):
            if each['name'].startswith('OS_LIBVIRT__'):
                environment[each['name']] = each.get('value', address)
    with mock.patch.dict('os.environ', environment):
        CONF([], project='nova', default_config_files=[
            str(BASE / 'nova.conf')])
        try:
            yield
        finally:
            CONF.reset()


class TestCase(Nodes, testtools.TestCase):

    def setUp(self):
        super().setUp()
        self.make_folder()

    def migrate(self, domain, target, manifest=BASE / 'nova-compute.yaml'):
        """Move a guest, with its disk; the guest over there.

        :raises libvirt.libvirtError: where it stays
        """
        target.make_disk()
        with configured(manifest, target.address):
            # What Nova's destination tells its source.
            where = CONF.libvirt.live_migration_inbound_addr
            self.assertEqual(target.address, where)
            # As far as it decides how a guest moves.
            decides = object.__new__(driver.LibvirtDriver)
            decides._parse_migration_flags()
            nova_guest.Guest(domain).migrate(
                decides._live_migration_uri(where),
                migrate_uri=decides._migrate_uri(where),
                flags=decides._block_migration_flags,
                migrate_disks=['hda'],
                bandwidth=CONF.libvirt.live_migration_bandwidth)
        return target.connection().lookupByName('counter')

    def assertCounts(self, domain, more_than):
        """It has not begun anew, and goes on; how far it is."""
        first = libvirtds.count(domain)
        self.assertThat(first, matchers.GreaterThan(more_than))
        waiting.until(lambda: libvirtds.count(domain) > first,
                      'the guest counts')
        return first

    def boot(self, node):
        domain = node.boot()
        # More than a guest has counted that began anew in the target.
        waiting.until(lambda: libvirtds.count(domain) > 100,
                      'the guest counts')
        return domain

    def reach(self, secret=None, address=ADDRESSES[1]):
        """What a libvirtd says to whom it has shaken hands with.

        One byte where it takes him; nothing, and the end, where not.
        """
        context = ssl.create_default_context(
            cafile=self.authorities.libvirt.path)
        if secret:
            context.load_cert_chain(secret['tls.crt'], secret['tls.key'])
        with socket.create_connection((address, 16514), 10) as plain:
            with context.wrap_socket(plain, server_hostname=address) as tls:
                self.shown = tls.getpeercert()['serialNumber']
                try:
                    return tls.recv(1)
                except (ssl.SSLError, ConnectionResetError):
                    return b''


class TLSTest(TestCase):

    def setUp(self):
        super().setUp()
        self.source, self.target = (
            self.with_certificates(each) for each in ADDRESSES)
        self.issue = self.authorities.issue

    def refused(self, domain):
        """Why a guest does not get to the target; it goes on here."""
        before = libvirtds.count(domain)
        error = self.assertRaises(
            libvirt.libvirtError, self.migrate, domain, self.target)
        self.assertCounts(domain, before)
        self.assertEqual([], self.target.connection().listAllDomains())
        return str(error)

    def test_a_guest_moves_and_lives_on(self):
        domain = self.boot(self.source)
        before = libvirtds.count(domain)
        domain = self.migrate(domain, self.target)
        self.assertEqual([], self.source.connection().listAllDomains())
        before = self.assertCounts(domain, before)
        # And back.
        domain = self.migrate(domain, self.source)
        self.assertCounts(domain, before)
        # Who reads certificates: QEMU its own, and nothing of libvirtd's.
        pid = int((self.source.root / 'run/libvirt/qemu/counter.pid'
                   ).read_text())
        uids = [line.split()[1:] for line in pathlib.Path(
            f'/proc/{pid}/status').read_text().splitlines()
            if line.startswith('Uid:')]
        self.assertEqual([['42425'] * 4], uids)
        for name, expected in (('libvirt-tls', 0o400), ('qemu-tls', 0o444)):
            for item in secrets()[name]:
                if item['key'] == 'tls.key':
                    self.assertEqual(expected, item['mode'])

    def test_qemu_is_asked_for_certificates(self):
        domain = self.boot(self.source)
        # The pod knows them by these addresses, and only by these.
        mount(self.target, 'qemu-tls', self.issue(
            self.authorities.qemu, addresses=['127.0.0.9']))
        self.assertIn(
            f'Certificate does not match the hostname {ADDRESSES[1]}',
            self.refused(domain))
        mount(self.target, 'qemu-tls', self.issue(self.authorities.other))
        self.assertIn("The certificate hasn't got a known issuer",
                      self.refused(domain))
        shutil.rmtree(self.target.pki / 'qemu')
        self.assertIn('Unable to access credentials /etc/pki/qemu/ca-cert.pem',
                      self.refused(domain))
        # The other way around: who comes to the target has to have one, too.
        mount(self.target, 'qemu-tls', self.issue(self.authorities.qemu))
        mount(self.source, 'qemu-tls', {
            **self.issue(self.authorities.other),
            'ca.crt': self.authorities.qemu.path})
        self.assertIn('certificate', self.refused(domain))

    def test_a_target_with_another_certificate(self):
        domain = self.boot(self.source)
        for authority, addresses, log in (
                (self.authorities.libvirt, ['127.0.0.9'],
                 f'owner does not match the hostname {ADDRESSES[1]}'),
                (self.authorities.other, ADDRESSES,
                 "The certificate hasn't got a known issuer")):
            mount(self.target, 'libvirt-tls', self.issue(
                authority, addresses=addresses))
            self.target.enter('virt-admin', '--connect', 'libvirtd:///system',
                              'server-update-tls', 'libvirtd')
            self.assertIn("Failed to verify peer's certificate",
                          self.refused(domain))
            self.assertIn(log, self.source.log())

    def test_who_is_let_in(self):
        issuers = self.authorities
        self.assertEqual(b'\1', self.reach(self.issue(issuers.libvirt)))
        self.assertEqual(b'', self.reach())
        # libvirt wants a name, whatever it is.
        self.assertEqual(b'', self.reach(self.issue(
            issuers.libvirt, name=None)))
        self.assertIn('Failed to get certificate [session] distinguished name',
                      self.target.log())
        self.assertEqual(b'', self.reach(self.issue(issuers.other)))
        # What a guest has that broke out.
        self.assertEqual(b'', self.reach(self.issue(issuers.qemu)))
        self.assertEqual(b'', self.reach(self.issue(
            issuers.libvirt, valid=OVER)))
        self.assertEqual(b'\1', self.reach(self.issue(issuers.libvirt)))

    def test_an_authority_is_followed_by_another(self):
        issuers = self.authorities
        both = self.folder / 'both'
        both.write_text(''.join(pathlib.Path(each.path).read_text() for each
                                in (issuers.libvirt, issuers.other)))
        for node in self.source, self.target:
            mount(node, 'libvirt-tls', {
                **self.issue(issuers.libvirt), 'ca.crt': both})
        # One has come to the other one, and each believes both.
        for name in 'libvirt-tls', 'qemu-tls':
            mount(self.source, name, {
                **self.issue(issuers.other), 'ca.crt': both})
        mount(self.target, 'qemu-tls', {
            **self.issue(issuers.libvirt), 'ca.crt': both})
        self.target.enter('virt-admin', '--connect', 'libvirtd:///system',
                          'server-update-tls', 'libvirtd')
        domain = self.boot(self.source)
        before = libvirtds.count(domain)
        self.assertCounts(self.migrate(domain, self.target), before)

    def test_nothing_else_listens(self):
        for address, port in ((ADDRESSES[1], 16509), ('127.0.0.1', 16514),
                              ('127.0.0.1', 16509)):
            self.assertRaises(ConnectionRefusedError,
                              socket.create_connection, (address, port), 10)
        error = self.assertRaises(libvirt.libvirtError, libvirt.open,
                                  f'qemu+tcp://{ADDRESSES[1]}:16514/system')
        self.assertIn('Cannot recv data', str(error))

    def test_new_certificates(self):
        mine = self.issue(self.authorities.libvirt)
        self.assertEqual(b'\1', self.reach(mine))
        before, pid = self.shown, self.target.pid
        domain = self.target.boot()
        mount(self.target, 'libvirt-tls', self.issue(
            self.authorities.libvirt))

        def shows_another():
            # Who comes in the very moment may have to come again.
            return self.reach(mine) == b'\1' and self.shown != before

        waiting.until(shows_another, 'the target shows the new one')
        self.assertEqual(pid, self.target.pid)
        # Who has libvirtd read them says so when that is done.
        waiting.until(
            lambda: 'libvirtd has the new certificates' in self.target.log(),
            lambda: 'A word of the new certificates in %s' % self.target.log())
        self.assertTrue(domain.isActive())

    def test_an_expired_certificate_keeps_no_guest_from_libvirt(self):
        domain = self.boot(self.source)
        expired = self.issue(self.authorities.libvirt, valid=OVER)
        mount(self.target, 'libvirt-tls', expired)
        self.target.stop()
        self.target.start()
        self.assertEqual([], self.target.connection().listAllDomains())
        self.assertIn("Failed to verify peer's certificate",
                      self.refused(domain))
        mount(self.source, 'libvirt-tls', expired)
        self.assertIn('The client certificate /etc/pki/libvirt/clientcert.pem '
                      'has expired', self.refused(domain))


class NoCertificatesTest(TestCase):

    def test_libvirtd_serves_its_node_until_they_come(self):
        node = self.node(ADDRESSES[1])
        node.start()
        domain = node.boot()
        self.assertRaises(ConnectionRefusedError, self.reach)
        self.assertIn('no certificates (/etc/pki/CA/cacert.pem', node.log())
        self.assertIn('libvirtd does not listen', node.log())
        mount(node, 'libvirt-tls',
              self.authorities.issue(self.authorities.libvirt))
        # So that the kubelet starts it anew.
        self.assertEqual(0, node.wait(60))
        self.assertIn('there are certificates now', node.log())
        node.start()
        self.assertEqual(b'\1', self.reach(
            self.authorities.issue(self.authorities.libvirt)))
        self.assertIn('no certificates in /etc/pki/qemu', node.log())
        self.assertTrue(
            node.connection().lookupByName(domain.name()).isActive())

    def test_a_sidecar_is_not_restarted(self):
        spec = next(yaml.safe_load_all(
            (libvirtds.SIDECAR / 'nova-compute.yaml').read_text()))
        sidecar, = spec['spec']['template']['spec']['initContainers']
        command = 'exec ' + shlex.join(sidecar['command'])
        node = self.node(ADDRESSES[1])
        node.start(command)
        mine = self.authorities.issue(self.authorities.libvirt)
        mount(node, 'libvirt-tls', mine)
        waiting.until(
            lambda: 'there are certificates now' in node.log(),
            'the script says so')
        self.assertTrue(node.connection().isAlive())
        self.assertRaises(ConnectionRefusedError, self.reach)
        # You have said when.
        node.stop()
        node.start(command)
        self.assertEqual(b'\1', self.reach(mine))
        mount(node, 'libvirt-tls',
              self.authorities.issue(self.authorities.libvirt))
        waiting.until(
            lambda: 'libvirtd has the new certificates' in node.log(),
            'libvirtd is told')
        self.assertTrue(node.connection().isAlive())


class TCPTest(TestCase):
    """The overlay live-migration-tcp."""

    def test_a_guest_moves_and_lives_on(self):
        source, target = (self.node(each, TCP / 'libvirtd.conf')
                          for each in ADDRESSES)
        source.start()
        target.start()
        domain = self.boot(source)
        before = libvirtds.count(domain)
        domain = self.migrate(domain, target, TCP / 'nova-compute.yaml')
        self.assertCounts(domain, before)
        self.assertRaises(ConnectionRefusedError, self.reach)
        self.assertRaises(ConnectionRefusedError, socket.create_connection,
                          ('127.0.0.1', 16509), 10)

    def _in_a_network(self, script, network):
        """What a script says on a node that has an address in 10.1.2.0/24."""
        return subprocess.run(
            ['unshare', '--net', '--', 'bash', '-c',
             'ip link set lo up\n'
             'ip address add 10.0.0.3/24 dev lo\n'
             'ip address add 10.1.2.3/24 dev lo\n'
             'ip address add fd00:7::3/64 dev lo\n' + script],
            env={'PATH': '/usr/sbin:/usr/bin:/sbin:/bin',
                 'LISTEN_ADDR': '10.0.0.3', 'LISTEN_NETWORK': network,
                 'MIGRATION_NETWORK': network},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, timeout=30)

    def test_both_find_the_address_in_the_network(self):
        command = containers(TCP / 'nova-compute.yaml')[0]['command']
        self.assertEqual(['bash', '-c'], command[:2])
        base = containers(BASE / 'nova-compute.yaml')[0]['command']
        self.assertEqual(base, command[4:])
        nova_compute = command[2].replace(
            'exec "$@"', 'echo $OS_LIBVIRT__LIVE_MIGRATION_INBOUND_ADDR')
        libvirtd = f'. {BASE}/libvirtd.sh --functions\naddress'
        for script in (nova_compute, libvirtd):
            for network, expected in (('10.1.2.0/24', '10.1.2.3'),
                                      ('fd00:7::/64', 'fd00:7::3')):
                done = self._in_a_network(script, network)
                self.assertEqual((0, expected),
                                 (done.returncode, done.stdout.strip()))
            done = self._in_a_network(script, '192.0.2.0/24')
            self.assertEqual((1, ''), (done.returncode, done.stdout))
            self.assertIn('this node has no address in 192.0.2.0/24',
                          done.stderr)
        # Where it is not asked for a network.
        done = self._in_a_network(libvirtd, '')
        self.assertEqual('10.0.0.3', done.stdout.strip())

    def test_a_node_without_an_address_starts_no_libvirtd(self):
        done = self._in_a_network(
            f'LIBVIRTD_CONF={TCP}/libvirtd.conf bash {BASE}/libvirtd.sh',
            '192.0.2.0/24')
        self.assertEqual(1, done.returncode)
        self.assertIn('this node has no address', done.stderr)
