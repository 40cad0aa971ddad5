"""Framing of bodies against a real server: wrong lengths, broken chunks, pipelined valid and invalid requests."""

from __future__ import annotations

import socket
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryostore.options.configuration import ConnectionSettings
from support.processes.fake_process import wait_for
from support.requests.api import Api
from support.requests.raw_http import head_bytes, signed, to_bytes
from support.requests.scrutiny import HEALTH, stored, watched_with

QUICK = ConnectionSettings(
    head_seconds_max=0.1,
    body_idle_seconds_max=0.1,
    body_progress_bytes_min=1000,
    write_idle_seconds_max=0.5,
    drain_bytes_max=100_000,
    drain_seconds_max=0.1,
)
BODY = b"0123456789" * 30


@pytest.fixture(scope="module")
def hasty_server(tmp_path_factory):
    """A server with short time-outs."""
    with watched_with(tmp_path_factory.mktemp("hasty"), connection=QUICK) as server:
        yield server


@pytest.fixture(scope="module")
def job(server, client):
    """A running job, which is emptied before every example."""
    return Api(client, server.data_dir).running_job()


def put(server, job, *headers, name="target"):
    """Return the signed head of a PutObject with an unsigned body, followed by these headers."""
    path = f"/backup-jobs/{job}/object/{name}/put-object"
    credentials = server.running.settings.credentials
    return head_bytes(signed("PUT", path, credentials=credentials, payload_hash="UNSIGNED-PAYLOAD"), *headers)


def emptied(client, server, job):
    api = Api(client, server.data_dir)
    for name in api.names(job):
        api.delete(job, name)
    return api


@given(declared=st.integers(0, 320) | st.sampled_from([2**26, 2**26 + 1, 2**31, 2**63 - 1, 2**64 - 1]))
def test_a_body_has_the_declared_length_or_is_refused(server, client, job, declared):
    """A shorter body is refused. The rest of a longer one is read as the next request, which is invalid."""
    api = emptied(client, server, job)
    before = stored(server.data_dir)
    first, *rest = server.talk(put(server, job, ("content-length", str(declared))), BODY)
    assert [answer.status for answer in rest] in ([], [400])
    if declared > len(BODY):
        beyond = declared > 2**26
        assert first.error == ("IllegalArgumentException" if beyond else "NotReadableInputStreamException")
        assert stored(server.data_dir) == before
    else:
        assert first.status == 200
        assert api.read(job) == {"target": BODY[:declared]} if declared else api.names(job) == ["target"]


chunk_sizes = st.lists(st.integers(1, 200), max_size=5)
defects = st.sampled_from(
    [
        b"\n", b"g\r\n", b"-1\r\n", b"0x5\r\nabcde\r\n", b"5\r\nabcdeX\r\n", b"5;\x00\r\nabcde\r\n", b"5\r\rabcde\r\n",
        b"f" * 17 + b"\r\n", b"5\r\nabc", b"5", b"", b"5\r\nabcde", b"4000001\r\n", b"0\r\nx\x00: y\r\n\r\n", b" \r\n",
    ]
)  # fmt: skip


def framed(sizes):
    """Return the body in chunks of these sizes."""
    pieces, start = [], 0
    for size in sizes:
        piece = BODY[start : start + size]
        start += len(piece)
        if piece:
            pieces.append(b"%X\r\n%s\r\n" % (len(piece), piece))
    return b"".join(pieces), BODY[:start]


@given(sizes=chunk_sizes, defect=st.none() | defects, after=chunk_sizes)
def test_chunks_arrive_complete_or_nothing_is_stored(server, client, job, sizes, defect, after):
    api = emptied(client, server, job)
    before = stored(server.data_dir)
    pieces, data = framed(sizes)
    if defect is None:
        (answer,) = server.talk(put(server, job, ("transfer-encoding", "chunked")), pieces, b"0\r\n\r\n")
        assert answer.status == 200
        assert api.read(job) == {"target": data} if data else api.names(job) == ["target"]
        return
    ended = b"" if defect in (b"5", b"", b"5\r\nabcde") else framed(after)[0] + b"0\r\n\r\n"
    (answer,) = server.talk(put(server, job, ("transfer-encoding", "chunked")), pieces, defect, ended)
    assert answer.error in ("NotReadableInputStreamException", "IllegalArgumentException")
    assert stored(server.data_dir) == before


@given(
    row=st.lists(st.sampled_from(["good", "health", "unsigned", "wrong key", "no such job", "garbage"]), max_size=12)
)
def test_pipelined_valid_and_invalid_requests(server, client, job, row):
    """Each gets its own response, in order, and only valid ones have an effect. Garbage ends the connection."""
    api = emptied(client, server, job)
    credentials = server.running.settings.credentials
    good = [f"good-{number}" for number, kind in enumerate(row) if kind == "good" and "garbage" not in row[:number]]
    made = {
        "health": HEALTH,
        "unsigned": f"PUT /backup-jobs/{job}/object/bad/put-object HTTP/1.1\r\nhost: server\r\n".encode()
        + b"content-length: 4\r\n\r\nGET ",
        "wrong key": put(server, job, ("content-length", "4")).replace(
            credentials.access_key_id.encode(), b"AKSTRANGER"
        )
        + b"GET ",
        "no such job": to_bytes(signed("GET", "/restore-jobs/none/objects/list", credentials=credentials)),
        "garbage": b"\x00\r\n\r\n",
    }
    requests = [
        put(server, job, ("content-length", "4"), name=f"good-{number}") + b"PUT " if kind == "good" else made[kind]
        for number, kind in enumerate(row)
    ]
    statuses = {"good": 200, "health": 200, "unsigned": 403, "wrong key": 403, "no such job": 404, "garbage": 400}
    expected = [statuses[kind] for kind in row]
    if "garbage" in row:
        del expected[row.index("garbage") + 1 :]
    answers = [answer.status for answer in server.talk(*requests)]
    if "garbage" in row and len(expected) > 1:  # the response before it may be the last one
        expected = expected[: max(len(answers), len(expected) - 1)]
    assert answers == expected
    assert api.read(job) == dict.fromkeys(sorted(good), b"PUT ")


@settings(max_examples=max(25, settings.default.max_examples // 10))
@given(data=st.data(), size=st.sampled_from([0, 3, 65_535, 65_536, 65_537, 300_000, 1_000_001]))
def test_a_request_may_arrive_in_any_pieces(server, client, job, data, size):
    """With non-ASCII bytes in the path, as AWS.jl sends them, a body of any length, and another request after it."""
    api = emptied(client, server, job)
    credentials = server.running.settings.credentials
    name, body = "größe/雪/🧊", BODY * (size // len(BODY) + 1)
    path = f"/backup-jobs/{job}/object/{name.encode().decode('latin-1')}/put-object"
    request = to_bytes(signed("PUT", path, body=body[:size], credentials=credentials))
    whole = request + put(server, job, ("content-length", "4"), name="next") + b"PUT "
    cuts = data.draw(st.lists(st.integers(0, len(whole)) | st.integers(0, 900), max_size=6).map(sorted), label="cuts")
    with server.connect() as connection:
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start, end in pairwise([0, *cuts, len(whole)]):
            connection.send(whole[start:end])
            assert server.is_well()  # gives the server time to read what was sent
        assert [connection.answer().status, connection.answer().status] == [200, 200]
    assert api.read(job) == ({name: body[:size]} if size else {name: b""}) | {"next": b"PUT "}


ENDLESS = {
    "extension": (b"3;extension=", b"a" * 60_000),
    "size": (b"0", b"0" * 60_000),
    "trailer": (b"3\r\nabc\r\n0\r\nname: ", b"a" * 60_000),
    "trailers": (b"3\r\nabc\r\n0\r\n", b"name: value\r\n" * 5_000),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_the_framing_of_chunks_is_limited(server, job, kind):
    """The parser keeps a trailer in memory: without a bound, one request could fill it."""
    start, more = ENDLESS[kind]
    before = stored(server.data_dir)
    with server.connect() as connection:
        connection.send(put(server, job, ("transfer-encoding", "chunked")), start)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            connection.send(more * 1000)
    assert stored(server.data_dir) == before
    assert server.is_well()


@settings(max_examples=max(25, settings.default.max_examples // 10))
@given(data=st.binary(max_size=40) | st.integers(0, 120), size=st.integers(1, 400))
def test_a_client_that_stops_in_the_middle_times_out(hasty_server, data, size):
    """The client sends a part of a request, of any length, and then nothing, without closing the connection."""
    whole = b"PUT /backup-jobs/J/object/N/put-object HTTP/1.1\r\nhost: server\r\ncontent-length: 300\r\n\r\n" + BODY
    sent = data if isinstance(data, bytes) else whole[: min(size, len(whole) - 1)]
    answers = hasty_server.talk(sent, end=False)
    assert len(answers) <= 1
    assert all(answer.status in (400, 403) for answer in answers)
    wait_for(hasty_server.is_well)  # a slow machine may exceed its short time-outs
