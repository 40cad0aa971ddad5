"""Random bytes and malformed heads against a real server: they are refused and do no harm."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.processes.fake_process import wait_for
from support.requests.api import Api
from support.requests.scrutiny import HEALTH, check_log, stored

TARGETS = [
    b"/", b"*", b"", b"//", b"/%", b"/%zz", b"/%00", b"/-/health", b"/-/health/", b"http://server/-/health",
    b"server:80", b"http://", b"http://[::1", b"http://server:99999999/", b"https://x@y:1/backup-vaults",
    b"/backup-vaults/", b"/..", b"/backup-jobs/J/object/N/put-object", b"/backup-jobs/J/object/a/../b",
    b"/backup-jobs/J/object/%2e%2e", b"/restore-jobs/J/objects/list?max-results=1&max-results=2",
    b"/restore-jobs/J/objects/list?max-results=9" + b"9" * 99, b"/restore-jobs/J/chunk/%ff%fe",
    b"/?X-Amz-Signature=x&X-Amz-Signature=y", b"/?X-Amz-Credential=%zz", b"\xff\xfe",
]  # fmt: skip
NAMES = [
    b"host", b"Host", b"content-length", b"Content-Length", b"transfer-encoding", b"expect", b"connection", b"upgrade",
    b"authorization", b"x-amz-date", b"date", b"x-amz-content-sha256", b"x-amz-security-token", b"content-type", b"te",
    b"content-encoding", b"x-amzn-requestid", b"trailer", b"proxy-connection", b"range", b"", b" ", b"a b", b"a:b",
    b"\xff",
]  # fmt: skip
VALUES = [
    b"", b"0", b"1", b"-1", b"+1", b"1, 1", b"0x10", b"1e3", b"18446744073709551616", b"9" * 400, b"chunked", b"gzip",
    b"chunked, chunked", b"identity", b"100-continue", b"close", b"keep-alive, upgrade", b"h2c", b"server", b"AWS4",
    b"AWS4-HMAC-SHA256", b"AWS4-HMAC-SHA256 Credential=a/20260101/r/s/aws4_request,SignedHeaders=host,Signature=0",
    b"AWS4-HMAC-SHA256 Credential=a/b/c/d/e/f/g/aws4_request, SignedHeaders=;;, Signature=" + b"0" * 64,
    b"20260101T000000Z", b"20269999T999999Z", b"Thu, 01 Jan 1970 00:00:00 GMT", b"UNSIGNED-PAYLOAD", b"STREAMING-X",
    b"a\r\n b", b"a\r\n\tb", b"a\nb", b"a\rb", b"a\x00b", b"\xff\xfe", b'{"level":"error"}\n{"event":"forged"}',
    b"\x1b[2J",
]  # fmt: skip

raw = st.binary(max_size=60)
methods = st.sampled_from(
    [b"GET", b"PUT", b"POST", b"DELETE", b"HEAD", b"PATCH", b"OPTIONS", b"CONNECT", b"get", b"PRI"]
)
versions = st.sampled_from([b"HTTP/1.1"] * 5 + [b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/9.9", b"http/1.1", b""])
targets = st.sampled_from(TARGETS) | raw.map(lambda data: b"/" + data) | raw
ends = st.sampled_from([b"\r\n"] * 8 + [b"\n", b"\r", b"", b"\r\n\r\n"])
names = st.sampled_from(NAMES) | st.binary(max_size=12)
values = st.sampled_from(VALUES) | raw
colons = st.sampled_from([b": "] * 6 + [b":", b" : ", b"", b"\t:\t"])
bodies = st.sampled_from([b"", b"{}", b"5\r\nabcde\r\n0\r\n\r\n", b"a" * 5000, HEALTH]) | raw


@st.composite
def heads(draw):
    """Return an unsigned request, perhaps malformed."""
    pieces = [draw(methods | raw), draw(st.sampled_from([b" "] * 6 + [b"", b"\t", b"  "])), draw(targets), b" "]
    pieces += [draw(versions), draw(ends)]
    for _ in range(draw(st.integers(0, 6))):
        pieces += [draw(names), draw(colons), draw(values), draw(ends)]
    return b"".join([*pieces, draw(ends), draw(bodies)])


@pytest.fixture(scope="module")
def job(client, server):
    """A running job with one object."""
    api = Api(client, server.data_dir)
    job = api.running_job()
    api.put(job, "before", b"data")
    return job


@pytest.fixture(scope="module", autouse=True)
def log_while_it_runs(server):
    """Check the log after each test, too, so that a failure is close to its cause."""
    yield
    check_log(server.running.log)


@given(request=heads())
def test_an_unsigned_request_is_refused(server, job, request):
    """Without a signature the server answers only health checks."""
    before = stored(server.data_dir)
    for answer in server.talk(request):
        assert answer.status in (100, 200, 400, 403, 431)
        if answer.status == 200:
            assert answer.body[:15] in (b"", b'{"status":"ok",')
    assert server.is_well()
    assert stored(server.data_dir) == before


@given(data=st.binary(max_size=300) | st.lists(st.binary(max_size=40), max_size=6).map(b"\r\n".join))
def test_bytes_are_refused(server, job, data):
    answers = server.talk(data)
    assert [answer.status for answer in answers] in ([], [400])
    assert server.is_well()


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60).map(lambda text: "\n" + text))
def test_no_line_of_the_log_comes_from_outside(server, text):
    """A claimed access key is logged: escaped, and cut to the length of an access key."""
    forged = quote(f'AK{text}"}}\n{{"event":"forged"}}\r\n' + "x" * 20_000, safe="")
    query = f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={forged}/20260101/r/s/aws4_request&X-Amz-Expires=1"
    query += f"&X-Amz-Date=20260101T000000Z&X-Amz-SignedHeaders=host&X-Amz-Signature={'0' * 64}"
    (answer,) = server.talk(f"GET /backup-vaults/?{query} HTTP/1.1\r\nhost: server\r\n\r\n".encode())
    assert answer.error == "UnrecognizedClientException"


def test_the_log_has_a_line_for_each_request(server):
    """No log line comes from a request, and each is short."""
    before = len(check_log(server.running.log))
    for _ in range(10):
        server.talk(HEALTH)
    wait_for(lambda: check_log(server.running.log)[before + 9 :])
    events = [line["event"] for line in check_log(server.running.log)]
    assert events.count("request") >= 10
    assert "forged" not in events
    assert max(map(len, server.running.log.read_text().splitlines())) < 2000
