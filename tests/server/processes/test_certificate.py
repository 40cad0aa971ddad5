"""The TLS certificate of a server: a new one is served without a restart."""

from __future__ import annotations

import datetime as dt
import signal
import socket
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from support.processes.fake_process import fake_server, wait_for
from support.requests.raw_http import PUT_OBJECT, put_object, to_bytes

HEALTH = b"GET /-/health HTTP/1.1\r\nhost: server\r\n\r\n"


@pytest.fixture
def certificate(tmp_path):
    """A self-signed certificate for localhost, and its key."""
    return make_certificate(tmp_path, serial=1)


def make_certificate(tmp_path, *, serial):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    start = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(start)
        .not_valid_after(start.replace(year=2120))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert_path, key_path = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert_path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    key_path.chmod(0o600)
    return cert_path, key_path


def encrypted(server, certificate):
    context = ssl.create_default_context(cafile=str(certificate))
    return context.wrap_socket(socket.create_connection(server.address, timeout=20), server_hostname="localhost")


def test_tls(tmp_path, certificate):
    with fake_server(tmp_path, tls_cert=certificate[0], tls_key=certificate[1]) as server:
        assert server.first_line.startswith("listening on https://127.0.0.1:")
        body = b"a" * 2_000_000
        with encrypted(server, certificate[0]) as connection:
            connection.sendall(HEALTH + to_bytes(put_object("encrypted", body), ("connection", "close")))
            with connection.makefile("rb") as file:
                assert file.read().count(b"HTTP/1.1 200 OK") == 2
        with pytest.raises((AssertionError, ConnectionResetError)):
            server.exchange(HEALTH)
        with encrypted(server, certificate[0]) as connection:
            connection.sendall(HEALTH)
            assert connection.recv(12) == b"HTTP/1.1 200"


def serial_served(server):
    """The serial number of the certificate that a new connection gets."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with context.wrap_socket(socket.create_connection(server.address, timeout=20)) as connection:
        return x509.load_der_x509_certificate(connection.getpeercert(binary_form=True)).serial_number


@pytest.mark.parametrize("workers", [1, 2])
def test_a_new_certificate_is_served_without_a_restart(tmp_path, certificate, workers):
    with fake_server(tmp_path, tls_cert=certificate[0], tls_key=certificate[1], workers=workers) as server:
        with encrypted(server, certificate[0]) as before:
            make_certificate(tmp_path, serial=2)
            wait_for(lambda: {serial_served(server) for _ in range(8)} == {2})
            before.sendall(HEALTH)
            assert before.recv(12) == b"HTTP/1.1 200"
        chain, key = certificate[0].read_bytes(), certificate[1].read_bytes()
        make_certificate(tmp_path, serial=3)
        certificate[1].write_bytes(key)  # not a pair
        server.logged(event="certificate not loaded")
        assert serial_served(server) == 2
        certificate[0].write_bytes(chain)
        wait_for(
            lambda: len([line for line in server.log_lines() if line["event"] == "certificate loaded"]) >= 2 * workers
        )
        assert serial_served(server) == 2
        loaded = len([line for line in server.log_lines() if line["event"] == "certificate loaded"])
        server.process.send_signal(signal.SIGHUP)
        wait_for(
            lambda: (
                len([line for line in server.log_lines() if line["event"] == "certificate loaded"]) == loaded + workers
            )
        )
        assert serial_served(server) == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_a_hangup_does_not_end_the_server(tmp_path, workers):
    with fake_server(tmp_path, workers=workers) as server:
        server.process.send_signal(signal.SIGHUP)
        assert server.exchange(HEALTH).status == 200


def test_paths_of_this_file_are_those_of_the_api():
    assert PUT_OBJECT.startswith("/backup-jobs/")
