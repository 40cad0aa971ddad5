"""The transport over TCP, against a faulty server."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cryostore.client import transport as transport_module
from cryostore.client.transport import ConnectionFailedError, Endpoint, HttpTransport, Timeouts
from cryostore.core.digest import Payload
from cryostore.core.errors import ConfigurationError
from cryostore.core.limits import MIB
from cryostore.wire.message import Request
from support.faults.faulty_server import answer, cut, cut_in_body, faulty_server, garbage, stall
from support.waiting import until

COVERS = ("client/transport.py",)


def get(path="/x", query="", **more):
    return Request("GET", path, query, [("host", "test")], **more)


def put(data):
    return Request("PUT", "/x", "", [("host", "test")], Payload(data))


@pytest.fixture
def transport_to():
    opened = []

    def make(server, **options):
        transport = HttpTransport(Endpoint.parse(server.url), **options)
        opened.append(transport)
        return transport

    yield make
    for transport in opened:
        transport.close()


def test_request_and_answer_arrive_unchanged(transport_to):
    with faulty_server(answer(202, b"\x00\xffdata", X_Amz_Thing="b\xe4r")) as server:
        response = transport_to(server).send(
            Request("PUT", "/a%2Fb/%20", "q=%C3%A4&r", [("host", "h"), ("x-a", "1")], Payload(b"body"))
        )
    assert (response.status, bytes(response.body.data)) == (202, b"\x00\xffdata")
    assert ("x-amz-thing", "b\xe4r") in response.headers
    ((method, target, headers, body),) = server.received
    assert (method, target, body) == ("PUT", "/a%2Fb/%20?q=%C3%A4&r", b"body")
    assert headers == {"host": "h", "x-a": "1", "content-length": "4"}


def test_get_has_no_body_headers_and_empty_put_has_length_zero(transport_to):
    with faulty_server(answer(), answer()) as server:
        transport = transport_to(server)
        transport.send(get())
        transport.send(Request("PUT", "/x", "", [("host", "h")]))
    assert "content-length" not in server.received[0][2]
    assert server.received[1][2]["content-length"] == "0"


@pytest.mark.parametrize("data", [b"bytes", bytearray(b"array"), memoryview(b"view"), bytes(3_000_000)])
def test_every_kind_of_buffer_is_sent(transport_to, data):
    with faulty_server(answer()) as server:
        transport_to(server).send(put(data))
    assert server.received[0][3] == bytes(data)


def test_a_connection_is_reused(transport_to):
    with faulty_server(*[answer()] * 5) as server:
        transport = transport_to(server)
        for _ in range(5):
            transport.send(get())
        transport.close()
    assert server.connections == 1


def test_a_connection_that_the_server_closes_is_not_reused(transport_to):
    with faulty_server(answer(say_close=True), answer()) as server:
        transport = transport_to(server)
        transport.send(get())
        transport.send(get())
        transport.close()
    assert server.connections == 2


def test_an_idle_connection_that_the_server_closed_is_detected_before_its_use(transport_to):
    with faulty_server(answer(keep=False), answer()) as server:
        transport = transport_to(server)
        transport.send(get())
        assert server.closed.acquire(timeout=10)
        assert transport.send(put(b"body")).status == 200
        transport.close()
    assert [request[0] for request in server.received] == ["GET", "PUT"]


def test_an_idle_connection_that_breaks_during_the_request_is_replaced_once(transport_to, monkeypatch):
    monkeypatch.setattr(transport_module, "_is_readable", lambda _: False)
    with faulty_server(answer(keep=False), answer()) as server:
        transport = transport_to(server)
        transport.send(get())
        assert server.closed.acquire(timeout=10)
        assert transport.send(put(bytes(2_000_000))).status == 200
        transport.close()


def test_an_idle_connection_cut_after_the_request_is_replaced_only_once(transport_to):
    with faulty_server(answer(), cut, cut) as server:
        transport = transport_to(server)
        transport.send(get())
        with pytest.raises(ConnectionFailedError):
            transport.send(get())
    assert server.connections == 2


@pytest.mark.parametrize("fault", [cut, cut_in_body, garbage])
def test_a_broken_answer_is_a_failed_connection(transport_to, fault):
    with faulty_server(fault, answer()) as server:
        transport = transport_to(server)
        with pytest.raises(ConnectionFailedError) as raised:
            transport.send(get())
        assert raised.value.retryable
        assert transport.send(get()).status == 200, "the pool must not return the broken connection"
        transport.close()


def test_a_slow_head_times_out(transport_to):
    with faulty_server(stall) as server:
        transport = transport_to(server, timeouts=Timeouts(read_seconds=0.05))
        with pytest.raises(ConnectionFailedError, match="timed out waiting for an answer"):
            transport.send(get())


def test_cut_off_aborts_requests_in_flight_and_limits_later_ones(transport_to):
    def silent(handler):
        handler.server.released.wait()
        handler.close_connection = True

    with faulty_server(answer(), silent, silent) as server, ThreadPoolExecutor(1) as pool:
        transport = transport_to(server)
        transport.send(get())
        waiting = pool.submit(
            transport.send, get()
        )  # on the idle connection: the transport does not repeat it on a new one
        until(lambda: len(server.received) == 2)
        transport.cut_off(1.0)
        with pytest.raises(ConnectionFailedError):
            waiting.result(10)
        with pytest.raises(ConnectionFailedError, match="timed out waiting for an answer"):
            transport.send(get())


def test_an_answer_beyond_the_limit_is_not_read(transport_to):
    with faulty_server(answer(body=b"12345678901"), answer(body=b"1234567890")) as server:
        transport = transport_to(server)
        with pytest.raises(ConnectionFailedError, match="11 bytes is too long"):
            transport.send(get(answer_bytes_max=10))
        assert len(transport.send(get(answer_bytes_max=10)).body) == 10
        transport.close()


@pytest.mark.parametrize("kind", ["chunked", "chunked in one piece", "until the end"])
def test_an_answer_without_a_length_is_read_up_to_the_limit(kind):
    """An endless answer must not fill the memory of the client, and the request is not repeated."""
    sent = []

    def serve(listener):
        accepted, _ = listener.accept()
        with accepted, contextlib.suppress(OSError):
            accepted.recv(65536)
            form = b"transfer-encoding: chunked" if "chunked" in kind else b"x: y"
            accepted.sendall(b"HTTP/1.1 200 OK\r\n" + form + b"\r\n\r\n")
            piece = b" " * 2**16
            if kind == "chunked":
                piece = b"10000\r\n" + piece + b"\r\n"
            elif kind == "chunked in one piece":
                accepted.sendall(b"ffffffffff\r\n")
            while True:
                accepted.sendall(piece)
                sent.append(len(piece))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        transport = HttpTransport(Endpoint("http", "127.0.0.1", listener.getsockname()[1]))
        with pytest.raises(ConnectionFailedError, match="too long") as refused:
            transport.send(get(answer_bytes_max=MIB))
        thread.join(30)
        assert not thread.is_alive()
    assert not refused.value.retryable
    assert sum(sent) < 16 * MIB


ENDLESS = {
    "100 Continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "100 Continue with headers": (b"", b"HTTP/1.1 100 Continue\r\na: b\r\n\r\n"),
    "extensions of chunks": (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        b"1;" + b"x" * 9000 + b"\r\n1\r\n",
    ),
    "trailers": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n"),
}


@contextmanager
def endless(begin, more, pause=lambda: None):
    """A server that sends `begin`, then `more` without end. Yields its port and the lengths of the sent parts."""
    sent = []

    def serve(listener):
        accepted, _ = listener.accept()
        with accepted, contextlib.suppress(OSError):
            accepted.recv(65536)
            accepted.sendall(begin)
            while True:
                accepted.sendall(more)
                sent.append(len(more))
                pause()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        yield listener.getsockname()[1], sent
        thread.join(30)
        assert not thread.is_alive()


@pytest.mark.parametrize("kind", ENDLESS)
def test_endless_headers_and_trailers_are_refused(kind):
    begin, more = ENDLESS[kind]
    with endless(begin, more * (1 + 65536 // len(more))) as (port, sent):
        transport = HttpTransport(Endpoint("http", "127.0.0.1", port))
        with pytest.raises(ConnectionFailedError, match=r"too long|chunk|more than|LineTooLong") as refused:
            transport.send(get(answer_bytes_max=MIB))
    assert sum(sent) < 32 * MIB
    assert refused.value.message


@pytest.mark.parametrize("begin", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n"], ids=["head", "body"])
def test_an_answer_that_arrives_byte_by_byte_times_out(begin, monkeypatch):
    """Each byte arrives in time, but the whole answer does not."""
    clock = [0.0]
    monkeypatch.setattr(transport_module.time, "monotonic", lambda: clock[0])

    def an_hour_a_kilobyte():
        clock[0] += 3.6

    with endless(begin, b"H", an_hour_a_kilobyte) as (port, sent):
        transport = HttpTransport(Endpoint("http", "127.0.0.1", port))
        with pytest.raises(ConnectionFailedError, match="was not complete after 900 seconds") as refused:
            transport.send(get())
    assert not refused.value.retryable
    assert sent


def test_an_answer_before_the_end_of_the_request_is_returned():
    """A server that refuses a large upload answers at once and closes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def refuse():
        accepted, _ = listener.accept()
        with accepted:
            accepted.recv(1000)
            accepted.sendall(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno")
            accepted.shutdown(socket.SHUT_WR)
            while accepted.recv(1 << 20):
                pass

    thread = threading.Thread(target=refuse)
    thread.start()
    transport = HttpTransport(Endpoint.parse(f"http://127.0.0.1:{listener.getsockname()[1]}"))
    response = transport.send(put(bytes(20_000_000)))
    thread.join()
    listener.close()
    assert (response.status, bytes(response.body.data)) == (403, b"no")


def test_a_refused_connection_is_retryable_and_has_a_hint():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ConnectionFailedError, match=f"http://127.0.0.1:{port}: .*refused") as raised:
        HttpTransport(Endpoint.parse(f"http://127.0.0.1:{port}")).send(get())
    assert raised.value.retryable
    assert "running" in raised.value.hint


def test_concurrent_requests_have_their_own_connections_and_later_ones_reuse_them(transport_to):
    """The server answers the eight requests only when all have arrived, which takes eight connections."""
    barrier = threading.Barrier(8)

    def together(handler):
        barrier.wait(10)
        answer()(handler)

    with faulty_server(*[together] * 8, *[answer()] * 8) as server:
        transport = transport_to(server)
        with ThreadPoolExecutor(8) as pool:
            assert [one.status for one in pool.map(lambda _: transport.send(get()), range(8))] == [200] * 8
        for _ in range(8):
            transport.send(get())
        transport.close()
    assert server.connections == 8


def test_the_number_of_idle_connections_is_limited(transport_to, monkeypatch):
    monkeypatch.setattr(transport_module, "CONNECTIONS_IDLE_MAX", 0)
    with faulty_server(answer(), answer()) as server:
        transport = transport_to(server)
        transport.send(get())
        transport.send(get())
    assert server.connections == 2


def test_a_child_process_does_not_use_its_parents_connections(transport_to):
    with faulty_server(*[answer()] * 3) as server:
        transport = transport_to(server)
        transport.send(get("/parent"))
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = 0 if transport.send(get("/child")).status == 200 else 1
                transport.close()
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        transport.send(get("/parent"))
        transport.close()
    assert [request[1] for request in server.received] == ["/parent", "/child", "/parent"]
    assert server.connections == 2, "one of the parent, still open after the end of the child, and one of the child"


def test_a_closed_transport_opens_new_connections(transport_to):
    with faulty_server(answer(), answer()) as server:
        transport = transport_to(server)
        transport.send(get())
        transport.close()
        transport.send(get())
        transport.close()
    assert server.connections == 2


def test_a_missing_certificate_bundle_is_a_configuration_error(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot read the certificate bundle"):
        HttpTransport(Endpoint.parse("https://localhost"), ca_bundle=str(tmp_path / "absent.pem"))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A self-signed certificate for 127.0.0.1 and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "cryostore test")])
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2120, 1, 1, tzinfo=UTC))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    form = serialization.PrivateFormat.PKCS8
    file = tmp_path_factory.mktemp("tls") / "certificate.pem"
    file.write_bytes(built.public_bytes(pem) + key.private_bytes(pem, form, serialization.NoEncryption()))
    return file


@contextmanager
def faulty_tls_server(certificate, *steps):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with faulty_server(*steps) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.endpoint = Endpoint("https", "127.0.0.1", server.server_address[1])
        yield server


@pytest.mark.parametrize("as_folder", [False, True])
def test_requests_over_tls_with_a_certificate_bundle(certificate, as_folder, tmp_path):
    bundle = certificate
    if as_folder:  # OpenSSL finds a certificate in a folder by the hash of its subject
        if shutil.which("openssl") is None:
            pytest.skip("needs the program openssl")
        bundle = tmp_path
        digest = subprocess.run(
            ["openssl", "x509", "-noout", "-hash", "-in", certificate], capture_output=True, text=True, check=True
        ).stdout.strip()
        (tmp_path / f"{digest}.0").write_bytes(certificate.read_bytes())
    with faulty_tls_server(certificate, *[answer(body=b"x" * 100_000)] * 3) as server:
        transport = HttpTransport(server.endpoint, ca_bundle=str(bundle))
        for _ in range(3):
            assert len(transport.send(put(bytes(100_000))).body) == 100_000
        transport.close()
    assert server.connections == 1


def test_an_untrusted_certificate_is_not_retried(certificate):
    with faulty_tls_server(certificate) as server:
        with pytest.raises(ConnectionFailedError, match="certificate") as raised:
            HttpTransport(server.endpoint).send(get())
        assert not raised.value.retryable
        assert "ca_bundle" in raised.value.hint


def test_plain_http_to_a_tls_port_and_tls_to_a_plain_port_fail(certificate):
    with faulty_tls_server(certificate) as server, pytest.raises(ConnectionFailedError):
        HttpTransport(Endpoint.parse(server.url)).send(get())
    with faulty_server() as server, pytest.raises(ConnectionFailedError):
        HttpTransport(Endpoint("https", "127.0.0.1", server.server_address[1])).send(get())
