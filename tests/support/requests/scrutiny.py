"""Rules for every response and every log line, whatever the request, and a server that is checked for them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from cryostore.model.errors import ERRORS
from cryostore.options.configuration import LOG_LEVELS, Configuration, to_json
from support.processes import serving
from support.project import ROOT
from support.requests.raw_http import WAIT_SECONDS_MAX, Answer, RawConnection

# Parts of tracebacks, paths of the source and messages of the interpreter.
LEAKS = (b"Traceback", b'File "', b"site-packages", b"<frame", b" object at 0x", str(ROOT).encode())
HEAD_TOO_LONG = 431
HEALTH = b"GET /-/health HTTP/1.1\r\nhost: server\r\n\r\n"
WORDS = (
    "import sys; from cryostore.options.configuration import from_json; from cryostore.server.run import serve;"
    "serve(from_json(sys.argv[1].encode()), lambda line: print(line, flush=True))"
)


def check_answer(status: int, headers: dict[str, str], body: bytes | None) -> str | None:
    """Check that a response is no internal error and leaks nothing; return the name of its error.

    Header names are lower case. `body` None: the answer to HEAD, which has none.
    """
    everything = (body or b"") + repr(headers).encode()
    assert status < 500, (status, everything[:1000])
    assert headers["x-amzn-requestid"]
    assert not [leak for leak in LEAKS if leak in everything], everything[:2000]
    if status < 400:
        assert "x-amzn-errortype" not in headers
        return None
    return _check_error(status, headers, body)


def _check_error(status: int, headers: dict[str, str], body: bytes | None) -> str:
    """Check the form of an error (A.3): JSON, one name in three places, the message in both spellings, the status."""
    name = headers["x-amzn-errortype"]
    assert headers["content-type"] == "application/json"
    if body is not None:
        document = json.loads(body)
        assert document["__type"] == document["Code"] == name
        assert document["Message"] == document["message"] != ""
    assert status in (ERRORS[name].status, ERRORS[name].status_control, HEAD_TOO_LONG), (status, name)
    return name


def check_log(path: Path) -> list[dict]:
    """Check that a log is JSON lines without a failure, none of them from a request; return them."""
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    for line in lines:
        assert {"time", "event"} <= line.keys()
        assert LOG_LEVELS[line["level"]] < LOG_LEVELS["warning"], line
        assert line.get("status", 200) < 500, line
        assert "traceback" not in line
    return lines


# The rows that requests write, without those that the server writes by itself: heartbeats, claims, maintenance.
STORED = {
    "vault": "vault_id, name",
    "access_key": "*",
    "backup_job": "job_id, replace(replace(state, 'CREATED', 'RUNNING'), 'PENDING', 'RUNNING'), revision",
    "recovery_point": "point_id, status",
    "restore_job": "job_id, status",
    "object": "*",
    "chunk_list": "*",
    "upload": "*",
    "upload_chunk": "*",
    "chunk": "vault_id, digest, length",
    "idempotency": "*",
}


def stored(data_dir: Path) -> tuple[list[str], int]:
    """Return a digest of each table's rows, and the bytes in packs. A request that stores nothing changes neither."""
    with closing(sqlite3.connect(f"file:{data_dir / 'catalog.sqlite'}?mode=ro", uri=True)) as connection:
        rows = [sorted(map(repr, connection.execute(f"SELECT {what} FROM {table}"))) for table, what in STORED.items()]
    digests = [hashlib.sha256(repr(one).encode()).hexdigest() for one in rows]
    return digests, sum(path.stat().st_size for path in (data_dir / "packs").rglob("*.pack"))


class Watched:
    """A running server with checks of its responses."""

    def __init__(self, running: serving.RunningServer) -> None:
        self.running = running
        self.data_dir = running.data_dir
        split = urlsplit(running.url)
        self.address = (split.hostname, split.port)

    def connect(self) -> RawConnection:
        """Open a connection for any bytes."""
        return RawConnection(self.address)

    def talk(self, *pieces: bytes, end: bool = True) -> list[Answer]:
        """Send bytes on a new connection; check the responses and return them.

        The server must end the connection in time. `end`: say that no more is coming, so that it need not wait.
        """
        sent = b"".join(pieces)
        with socket.create_connection(self.address, timeout=WAIT_SECONDS_MAX) as connection:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(sent)
                if end:
                    connection.shutdown(socket.SHUT_WR)
            received = _everything(connection)
        bodiless = b"HEAD" in sent
        answers = list(_answers(received, bodiless=bodiless))
        for answer in answers:
            if answer.status != 100:
                check_answer(answer.status, answer.headers, answer.body or (None if bodiless else b""))
        return answers

    def is_well(self) -> bool:
        """Return whether the server answers on a new connection."""
        return [answer.status for answer in self.talk(HEALTH)] == [200]


def _everything(connection: socket.socket) -> bytes:
    """Read until the server closes the connection; TimeoutError if it does not."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(1 << 20):
            received += piece
    return received


def _answers(received: bytes, *, bodiless: bool) -> Iterator[Answer]:
    """Parse complete, well-formed responses and nothing else. `bodiless`: some may be for HEAD, without a body."""
    while received:
        head, separator, received = received.partition(b"\r\n\r\n")
        assert separator, f"an answer is cut short: {head[:200]!r}"
        line, *lines = head.decode("latin-1").split("\r\n")
        assert re.fullmatch(r"HTTP/1\.1 [1-5][0-9][0-9] [A-Za-z -]+", line), line
        fields = [one.partition(": ") for one in lines]
        headers = {name: value for name, _, value in fields}
        assert len(headers) == len(lines), f"a header comes twice: {lines}"
        status, body = int(line[9:12]), b""
        if status not in (100, 204) and not (bodiless and received[:9] in (b"", b"HTTP/1.1 ")):
            length = int(headers["content-length"])
            body, received = received[:length], received[length:]
            assert len(body) == length, f"the body of an answer is cut short: {line}"
        yield Answer(status, headers, body)


@contextmanager
def watched(folder: Path, *options: str) -> Iterator[Watched]:
    """Run `cryo serve` on a new data directory; check its log at the end."""
    with serving.serving(folder / "data", *options) as running:
        yield Watched(running)
    check_log(running.log)


@contextmanager
def watched_with(folder: Path, **settings) -> Iterator[Watched]:
    """Like `watched`, with settings that are not on the command line."""
    log, configuration = folder / "data.log", Configuration(data_dir=folder / "data", port=0, **settings)
    with log.open("ab") as log_file:
        process = subprocess.Popen(
            [sys.executable, "-c", WORDS, to_json(configuration).decode()],
            stdout=subprocess.PIPE,
            stderr=log_file,
            text=True,
        )
    try:
        url = serving._address(process, log)
        yield Watched(serving.RunningServer(url, folder / "data", log, process))
        serving.stop(process, log)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    check_log(log)
