"""One worker: TLS, the line to the parent, and what it does with all it holds when it ends."""

from __future__ import annotations

import datetime as dt
import os
import signal
import socket
import ssl
import subprocess
import sys

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cryostore.core import open_files
from cryostore.core.open_files import raise_open_file_limit
from cryostore.options.configuration import Configuration, to_json
from cryostore.server import worker
from cryostore.server.watching.metrics import Page, create_page
from cryostore.server.worker import Report
from support.fake_process import environment, fake_server, wait_for
from support.raw_http import PUT_OBJECT, put_object, to_bytes
from support.stores import opened

HEALTH = b"GET /-/health HTTP/1.1\r\nhost: server\r\n\r\n"
END_SECONDS_MAX = 20


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
def test_a_hangup_ends_no_server(tmp_path, workers):
    with fake_server(tmp_path, workers=workers) as server:
        server.process.send_signal(signal.SIGHUP)
        assert server.exchange(HEALTH).status == 200


class ChildWorker:
    """A worker process with a listening socket, begun as the supervisor begins it."""

    def __init__(self, data_dir, **settings):
        configuration = Configuration(data_dir=data_dir, port=0, **settings)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.address = listener.getsockname()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "support.fake_server", "worker", str(listener.fileno())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=(listener.fileno(),),
                env=environment(),
            )
        self.tell(to_json(configuration) + b"\n")

    def tell(self, line):
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def report(self):
        return msgspec.json.decode(self.process.stdout.readline(), type=Report)

    def end(self):
        return self.process.wait(END_SECONDS_MAX)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def test_a_worker_says_when_it_is_ready_and_stops_when_told(tmp_path):
    with ChildWorker(tmp_path) as child:
        assert child.report() == Report(ready=True)
        child.tell(b"stop\n")
        child.tell(b"stop\n")
        assert child.end() == 0
        assert (tmp_path / "closed").exists()


def test_a_worker_whose_parent_is_gone_ends_at_once(tmp_path):
    with ChildWorker(tmp_path) as child, socket.socket() as busy:
        child.report()
        busy.connect(child.address)
        busy.sendall(to_bytes(put_object("slow", b"abc")))
        wait_for((tmp_path / "slow").exists)
        child.process.stdin.close()
        assert child.end() == 1
        assert not (tmp_path / "closed").exists()


def test_a_worker_that_cannot_open_its_service_says_why(tmp_path):
    with ChildWorker(tmp_path / "missing") as child:
        assert child.report() == Report(ready=False, message=f"{tmp_path}/missing is no directory", hint="make one")
        assert child.end() == 2


def test_as_many_files_may_be_open_as_the_system_allows(monkeypatch):
    limits = []
    monkeypatch.setattr(open_files.resource, "getrlimit", lambda _: (10, 20))
    monkeypatch.setattr(open_files.resource, "setrlimit", lambda _, both: limits.append(both))
    raise_open_file_limit()
    assert limits == [(20, 20)]


def test_paths_of_this_file_are_those_of_the_api():
    assert PUT_OBJECT.startswith("/backup-jobs/")


def test_a_worker_publishes_what_its_service_counts_and_lets_go_of_what_others_delete(tmp_path):
    with opened(tmp_path / "store") as store:
        api = store.api()
        service = worker.OwnService(store.service)
        arn = api.backup({"a": b"1" * 100, "b": b"1" * 100, "c": b"22"})
        descriptor = create_page(1)
        page = Page(descriptor)
        service.maintain()
        service.publish(page.meter(0))
        service.publish(page.meter(0))
        (slot,) = page.slots
        totals = {name: slot.value(name) for name in worker.TALLIED}
        assert totals == {"chunks_stored": 2, "bytes_stored": 102, "chunks_shared": 1, "bytes_shared": 100}
        assert slot.value("recovery_points") == 1
        os.close(descriptor)
        assert service.takes_writes
        api.restored(arn)
        files = store.service._blobs._inner._files._files
        for path in (tmp_path / "store" / "packs").rglob("*.pack"):
            path.unlink()
        assert files
        service.recover()
        assert not files
