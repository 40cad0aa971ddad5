"""Raw HTTP/1.1 over a socket, for requests that no client library sends, and requests signed by our own signer."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass

from cryostore.core.digest import Payload
from cryostore.core.time import wall_clock
from cryostore.wire.message import Request
from cryostore.wire.sigv4 import Credentials, sign
from support.processes.fake_backend import CREDENTIALS

WAIT_SECONDS_MAX = 20
PUT_OBJECT = "/backup-jobs/job-1/object/{}/put-object"


@dataclass(frozen=True)
class Answer:
    """A response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> str | None:
        """Return the name of the API's error, which must be the same in all three places."""
        name = self.headers.get("x-amzn-errortype")
        if name is not None:
            document = json.loads(self.body)
            assert document["Code"] == document["__type"] == name
        return name

    @property
    def message(self) -> str:
        return json.loads(self.body)["Message"]


class RawConnection:
    """A connection that sends any bytes and reads complete responses."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=WAIT_SECONDS_MAX)
        self._file = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()
        self.socket.close()

    def send(self, *pieces: bytes) -> None:
        self.socket.sendall(b"".join(pieces))

    def answer(self, *, head: bool = False) -> Answer:
        """Read the next response, interim ones included. `head`: the response to HEAD, which has no body."""
        line = self._file.readline()
        assert line.startswith(b"HTTP/1.1 "), f"no answer: {line!r}"
        status = int(line[9:12])
        headers = {}
        while (line := self._file.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode("latin-1").partition(":")
            assert name not in headers, f"{name} comes twice"
            headers[name] = value.strip()
        body = b"" if head or status in (100, 204) else self._file.read(int(headers["content-length"]))
        return Answer(status, headers, body)

    def end_sending(self) -> None:
        """Close the connection for writing; responses can still be read."""
        self.socket.shutdown(socket.SHUT_WR)

    def ended(self) -> bool:
        """Wait for the end of the connection; return whether the server closed it."""
        try:
            return self._file.read(1) == b""
        except ConnectionResetError:
            return True


def signed(
    method: str,
    path: str,
    query: str = "",
    *headers: tuple[str, str],
    body: bytes = b"",
    credentials: Credentials = CREDENTIALS,
    service: str = "backup-storage",
    now_ms: int | None = None,
    payload_hash: str | None = None,
    send_hash: bool = True,
) -> Request:
    """Return a signed request to the server under test."""
    request = Request(method, path, query, [("host", "server"), *headers], Payload(body))
    return sign(
        request,
        credentials,
        region="local-1",
        service=service,
        now_ms=wall_clock() if now_ms is None else now_ms,
        payload_hash=payload_hash,
        send_hash=send_hash,
    )


def put_object(name: str, body: bytes = b"", *headers: tuple[str, str], **how) -> Request:
    """Return a signed PutObject with an unsigned body, as the SDKs send it."""
    how.setdefault("payload_hash", "UNSIGNED-PAYLOAD")
    return signed("PUT", PUT_OBJECT.format(name), "", *headers, body=body, **how)


def head_bytes(request: Request, *more: tuple[str, str]) -> bytes:
    """Return the bytes of a request's head, with additional unsigned headers."""
    target = f"{request.path}?{request.query}" if request.query else request.path
    lines = [f"{request.method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in [*request.headers, *more])]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def to_bytes(request: Request, *more: tuple[str, str]) -> bytes:
    """Return the bytes of a complete request with its length."""
    body = bytes(request.body.data)
    length = [("content-length", str(len(body)))] if body or request.method == "PUT" else []
    return head_bytes(request, *length, *more) + body


def chunked(*pieces: bytes) -> bytes:
    """Return pieces in chunked framing, with the end."""
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (*pieces, b""))
