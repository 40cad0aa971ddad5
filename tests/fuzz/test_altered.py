"""Altered requests, and correctly signed requests without a valid meaning, against a real server."""

from __future__ import annotations

import pytest
from hypothesis import event, given, note
from hypothesis import strategies as st

from cryostore.core.digest import Payload
from cryostore.core.time import wall_clock
from cryostore.model import OPERATIONS
from cryostore.model.operation import Label, Query
from cryostore.wire.message import Request
from cryostore.wire.sigv4 import presign
from support.requests.api import Api, hex_of
from support.requests.belongings import Belongings
from support.requests.raw_http import signed, to_bytes
from support.requests.scrutiny import stored

BODY = b"what was signed"
QUERY = f"checksum={hex_of(BODY)}&checksum-algorithm=SHA256&length={len(BODY)}"
BEFORE = {"before": b"data"}
JULIA = ("content-type", "application/json")


@pytest.fixture(scope="module")
def job(server, client):
    """A running job with one object."""
    api = Api(client, server.data_dir)
    job = api.running_job()
    api.put(job, "before", b"data")
    return job


@pytest.fixture(scope="module")
def belongings(server, client):
    """Existing resources, created again after a request has deleted them."""
    found = Belongings(server.data_dir, client)

    def alive():
        nonlocal found
        found = found.alive()
        return found

    return alive


# --- altered after it was signed --------------------------------------------------------------------------------------


def flipped(data, message):
    line = message.index(b"\r\n")  # the first line and the body matter most
    places = st.integers(0, line - 12) | st.integers(0, len(message) - 1) | st.integers(1, len(BODY)).map(int.__neg__)
    at, bit = data.draw(places) % len(message), data.draw(st.integers(0, 7))
    return message[:at] + bytes([message[at] ^ 1 << bit]) + message[at + 1 :]


def spliced(data, message):
    """Drop, repeat or replace a slice."""
    start = data.draw(st.integers(0, 200) | st.integers(0, len(message)))
    end = data.draw(st.integers(start, min(len(message), start + 40)))
    return message[:start] + data.draw(st.sampled_from([b"", message[start:end] * 2]) | st.binary()) + message[end:]


def lines_moved(data, message):
    """Drop, repeat or reorder lines of the head."""
    head, _, body = message.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    chosen = data.draw(st.lists(st.sampled_from(lines), max_size=len(lines) + 2))
    return b"\r\n".join([first, *chosen]) + b"\r\n\r\n" + body


def line_added(data, message):
    """Add an unsigned header, before or after all others."""
    name = data.draw(
        st.sampled_from([b"content-length", b"transfer-encoding", b"host", b"x-amz-date", b"x-amz-x", b"te"])
    )
    line = b"%s: %s\r\n" % (name, data.draw(st.sampled_from([b"0", b"15", b"chunked", b"server", b"other", b"\xff"])))
    before, separator, after = message.partition(data.draw(st.sampled_from([b"\r\n", b"\r\nauthorization"])))
    return before + b"\r\n" + line + separator[2:] + after


def made(server, job, form):
    """Return a signed PutObject: with its body signed, unsigned, or in the query."""
    credentials = server.running.settings.credentials
    path = f"/backup-jobs/{job}/object/target/put-object"
    if form == "presigned":
        request = Request("PUT", path, QUERY, [("host", "server")], Payload(BODY))
        request = presign(
            request,
            credentials,
            region="local-1",
            service="backup-storage",
            now_ms=wall_clock(),
            payload_hash="UNSIGNED-PAYLOAD",
        )
        return to_bytes(request)
    payload_hash = "UNSIGNED-PAYLOAD" if form == "unsigned body" else None
    return to_bytes(signed("PUT", path, QUERY, body=BODY, credentials=credentials, payload_hash=payload_hash))


@pytest.mark.parametrize("form", ["signed body", "unsigned body", "presigned"])
@pytest.mark.parametrize(
    ("part", "other"),
    [
        (b"PUT ", b"DELETE "),
        (b"/target/", b"/tarqet/"),
        (b"/put-object", b""),
        (b"length=15", b"length=14"),
        (b"&length=15", b""),
        (b"&length=15", b"&length=15&throwOnDuplicate=false"),
        (b"host: server", b"host: other"),
        (BODY, BODY.upper()),
        (b"local-1", b"local-2"),
        (b"backup-storage", b"backup"),
    ],
)
def test_every_relevant_part_is_signed(server, job, form, part, other):
    before = stored(server.data_dir)
    message = made(server, job, form)
    if (altered := message.replace(part, other)) == message:
        altered = message.replace(part.replace(b"/", b"%2F"), other)
    assert altered != message
    assert 200 not in [answer.status for answer in server.talk(altered)]
    assert stored(server.data_dir) == before


@given(
    data=st.data(),
    form=st.sampled_from(["signed body", "unsigned body", "presigned"]),
    alter=st.sampled_from([flipped, spliced, lines_moved, line_added]),
)
def test_an_altered_request_is_carried_out_as_signed_or_not_at_all(server, client, job, data, form, alter):
    """For any alteration of the request."""
    api = Api(client, server.data_dir)
    if "target" in api.names(job):
        api.delete(job, "target")
    before = stored(server.data_dir)
    answers = server.talk(alter(data, made(server, job, form)))
    note([answer.status for answer in answers])
    accepted = 200 in [answer.status for answer in answers]
    assert api.read(job) == BEFORE | ({"target": BODY} if accepted else {})
    assert accepted or stored(server.data_dir) == before
    assert server.is_well()


# --- signed, but invalid ----------------------------------------------------------------------------------------------

SPELLINGS = [
    "", "0", "1", "-1", "+1", " 1", "1.0", "1e2", "0x1", "\xd9\xa1", "101", "2147483648", "9223372036854775808",
    "9" * 19, "9" * 20, "-" + "9" * 30, "9" * 5000, "nan", "inf", "true", "TRUE", "null", "none", "%", "%2", "%zz",
    "%00", "%0a", "%ff", "%c0%80", "%ed%a0%80", "%f4%90%80%80", "%F0%9F%A7%8A", "+", "%2B", "a=b", "=", "\xff",
    "\xe2\x82", "SHA256", "SUMMARY", "MD5", "sha256", "0" * 64, "A" * 43 + "%3D", "a" * 257, "a" * 1025, "a" * 9000,
    "2026-01-01T00:00:00Z", "2026-13-45", "0000-00-00", "9999-12-31T23:59:59.999999999Z",
    "0001-01-01T00:00:00%2B23:59", "1e99", "-1e11", "1e11", "2026-01-01T00:00:00%2B99:99", "253402300799.9996",
    "-62135596800.5", "99999999999999999999", ".", "..", "%2e%2e",
]  # fmt: skip
DOCUMENTS = [
    b"", b"{}", b"[]", b"null", b"0", b'""', b"{", b'{"a":', b"\xff", b"\x00", b'{"a":1}garbage', b"[" * 5000,
    b'{"a":' * 5000, b'{"length":NaN}', b'{"length":1e400}', b'{"length":-0}', b'{"length":1.5}', b'{"length":"1"}',
    b'{"length":true}', b'{"checksum":"\\ud800"}', b'{"Data":[256]}', b'{"Data":[-1]}', b'{"Data":[1.5]}',
    b'{"Data":{}}', b'{"Data":null}', b'{"ThrowOnDuplicate":"maybe"}', b'{"ThrowOnDuplicate":[]}', b'{"Chunks":[{}]}',
    b'{"Chunks":[[]]}', b'{"Chunks":{}}',
    b'{"Chunks":[{"Index":1e30,"Length":1,"Checksum":"","ChecksumAlgorithm":""}]}', b'{"Data":"\xff\xfe"}',
    b'{"a":1,"a":2}', b'{"max-results":"' + b"9" * 5000 + b'"}', b'{"max-results":' + b"9" * 5000 + b"}",
    b"\xef\xbb\xbf{}", b"{}" * 600, b'{"RestoreMetadata":{"\\u0000":"\\u0000"}}', b'{"RestoreMetadata":{"a":1}}',
    b'{"StatusMessage":"\\u0000"}', b'{"Outcome":""}',
]  # fmt: skip


RIGHT = {
    "length": "6",
    "checksum": hex_of(b"second"),
    "checksum-algorithm": "SHA256",
    "max-results": "1",
    "starting-object-name": "b",
    "starting-object-prefix": "w",
    "created-before": "2100-01-01T00:00:00Z",
    "created-after": "0",
    "throwOnDuplicate": "false",
    "metadata-string": "text",
}


@st.composite
def wrong_requests(draw, belongings):
    """Return a request of an operation with a few defects."""
    declaration = draw(st.sampled_from(list(OPERATIONS.values())))
    path = declaration.path
    for member in declaration.at(Label):
        existing = st.sampled_from(belongings.by_label[member.wire_name])
        wrong = st.sampled_from(SPELLINGS)
        path = path.replace(f"{{{member.wire_name}}}", draw(existing | existing | existing | existing | wrong))
    right = RIGHT
    if declaration.name == "NotifyObjectComplete":
        right = RIGHT | {"checksum": belongings.summary, "checksum-algorithm": "SUMMARY"}
    known = [member.wire_name for member in declaration.at(Query)]
    given = [member.wire_name for member in declaration.at(Query) if member.required or draw(st.booleans())]
    pairs = [f"{name}={right[name]}" for name in given if name in right]
    names = st.sampled_from([*known * 5, "unknown", "", "%", "X-Amz-Date", "x-amz-date", "%6cength"])
    values = st.sampled_from(SPELLINGS) | st.sampled_from(belongings.tokens)
    wrong_pairs = st.tuples(names, st.sampled_from(["=", "=", "=", "", "=="]), values).map("".join)
    pairs = draw(st.permutations(pairs + draw(st.lists(wrong_pairs, max_size=2))))
    query = draw(st.sampled_from(["&", "&", "&", "&&", ";"])).join(pairs)
    body = draw(st.sampled_from([b"second", b"", *DOCUMENTS]) | st.just(b"second") | st.binary(max_size=40))
    headers = draw(st.sampled_from([[], [JULIA], [("content-type", "application/json; charset=utf-8")]]))
    return declaration, path, query, headers, body


@given(data=st.data())
def test_a_refused_request_stores_nothing(server, belongings, data):
    """Parts are repeated, missing, misspelt or huge. The response gives a reason, and nothing is stored."""
    declaration, path, query, headers, body = data.draw(wrong_requests(belongings()))
    credentials = server.running.settings.credentials
    request = signed(
        declaration.method, path, query, *headers, body=body, credentials=credentials, service=declaration.api.value
    )
    before = stored(server.data_dir)
    (answer,) = server.talk(to_bytes(request))
    note((answer.status, answer.body[:300]))
    event(f"{answer.status}")
    if answer.status >= 400:
        assert stored(server.data_dir) == before
