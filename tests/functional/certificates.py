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

"""Certificates for the control plane and the proxies of the tests."""

import datetime
import ipaddress
import os

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization
from cryptography import x509
from cryptography.x509 import oid

_VALID = datetime.timedelta(days=2)


def new_key():
    # RSA keys would take a good part of the start-up time.
    return ec.generate_private_key(ec.SECP256R1())


def private_pem(key):
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption())


def public_pem(key):
    return key.public_key().public_bytes(
        serialization.Encoding.PEM,
        serialization.PublicFormat.SubjectPublicKeyInfo)


def write(path, content):
    """Write bytes that only the owner may read."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
              'wb') as file:
        file.write(content)


class Authority:
    """A certificate authority whose files lie in one directory.

    :ivar path: file with the authority's certificate
    """

    def __init__(self, directory, name='ca'):
        self.directory = directory
        self.path = os.path.join(directory, name + '.crt')
        self._key = new_key()
        self._name = x509.Name(
            [x509.NameAttribute(oid.NameOID.COMMON_NAME, name)])
        usage = x509.KeyUsage(
            digital_signature=True, content_commitment=False,
            key_encipherment=False, data_encipherment=False,
            key_agreement=False, key_cert_sign=True, crl_sign=True,
            encipher_only=False, decipher_only=False)
        certificate = self._builder(self._name, self._key).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        ).add_extension(usage, critical=True).add_extension(
            x509.SubjectKeyIdentifier.from_public_key(
                self._key.public_key()), critical=False
        ).sign(self._key, hashes.SHA256())
        write(self.path, certificate.public_bytes(serialization.Encoding.PEM))

    def _builder(self, subject, key, valid=_VALID):
        now = datetime.datetime.now(datetime.timezone.utc)
        return (x509.CertificateBuilder()
                .subject_name(subject)
                .issuer_name(self._name)
                .public_key(key.public_key())
                .serial_number(x509.random_serial_number())
                # Machines whose clock is a little behind are not refused.
                .not_valid_before(now - datetime.timedelta(hours=1))
                .not_valid_after(now + valid))

    def issue(self, file_name, common_name, organization=None,
              addresses=(), valid=_VALID):
        """Issue a certificate for a client, or for a server on loopback.

        :param file_name: name of the files, without extension
        :param addresses: further ones of the server
        :param common_name: None for a certificate without one
        :param valid: for how long from now, a timedelta; it may be over
        :returns: the paths of the certificate and of its key
        """
        key = new_key()
        names = []
        if common_name:
            names.append(x509.NameAttribute(
                oid.NameOID.COMMON_NAME, common_name))
        if organization:
            names.append(x509.NameAttribute(
                oid.NameOID.ORGANIZATION_NAME, organization))
        certificate = self._builder(
            x509.Name(names), key, valid
        ).add_extension(
            x509.SubjectAlternativeName([
                x509.DNSName('localhost'),
                *(x509.IPAddress(ipaddress.ip_address(address))
                  for address in ('127.0.0.1', *addresses))]),
            critical=False
        ).add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(
                self._key.public_key()), critical=False
        ).add_extension(
            x509.ExtendedKeyUsage([
                oid.ExtendedKeyUsageOID.SERVER_AUTH,
                oid.ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        ).sign(self._key, hashes.SHA256())
        certificate_path = os.path.join(self.directory, file_name + '.crt')
        key_path = os.path.join(self.directory, file_name + '.key')
        write(certificate_path,
              certificate.public_bytes(serialization.Encoding.PEM))
        write(key_path, private_pem(key))
        return certificate_path, key_path
