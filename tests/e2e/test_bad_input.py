"""Limits of requests over HTTP: the limit itself is accepted; one more is refused early and leaves nothing."""

from __future__ import annotations

import json

import pytest

from cryostore.client.client import Client
from cryostore.client.retry import Retry
from cryostore.core.limits import KIB, MIB, Limits
from support.requests.api import Api, hex_of, summary_hex
from support.requests.raw_http import head_bytes, signed
from support.requests.scrutiny import Watched, check_answer, stored, watched, watched_with

UNSIGNED = "UNSIGNED-PAYLOAD"
CHUNK = "length={}&checksum={}&checksum-algorithm=SHA256"
COMPLETE = f"checksum={summary_hex(b'x')}&checksum-algorithm=SUMMARY"
BAD_NAMES = [
    "", ".", "..", "%2E", "%2e%2E", "%00", "a%0Ab", "%7f", "%C2%80", "%ff", "%ed%a0%80", "%c0%af", "%", "%zz", "\xff",
]  # fmt: skip
JULIA = ("content-type", "application/json")


class JobRequests:
    """Raw requests to a server about one job, signed by its root key."""

    def __init__(self, server: Watched, client: Client) -> None:
        self.server = server
        self.api = Api(client, server.data_dir)
        self.job = self.api.running_job()
        self.upload = self.api.start(self.job, "upload")

    def head(self, method, path, query="", *headers, payload_hash=UNSIGNED, unsigned_headers=()):
        """Return a signed head. `{job}` and `{upload}` in the path stand for those of the test."""
        path = path.format(job=self.job, upload=self.upload)
        credentials = self.server.running.settings.credentials
        request = signed(method, path, query, *headers, credentials=credentials, payload_hash=payload_hash)
        return head_bytes(request, *unsigned_headers)

    def answer(self, *pieces):
        """Send these bytes and return the response, while the connection stays open."""
        with self.server.connect() as connection:
            connection.send(*pieces)
            answer = connection.answer()
        check_answer(answer.status, answer.headers, answer.body)
        return answer

    def request(self, method, path, query, body, *headers, payload_hash):
        """Return a complete request. If `payload_hash` is None, the body is signed."""
        length = ("content-length", str(len(body)))
        payload_hash = payload_hash or hex_of(body)
        return self.head(method, path, query, *headers, payload_hash=payload_hash, unsigned_headers=[length]) + body

    def ask(self, method, path, query="", body=b"", *headers, payload_hash=UNSIGNED):
        """Send a complete request and return the response."""
        return self.answer(self.request(method, path, query, body, *headers, payload_hash=payload_hash))

    def refused(self, *pieces, status=400, error="IllegalArgumentException"):
        """Assert that these bytes are refused and nothing is stored. Returns the message."""
        before = stored(self.server.data_dir)
        answer = self.answer(*pieces)
        assert (answer.status, answer.error) == (status, error)
        assert stored(self.server.data_dir) == before
        return answer.message

    def refuses(self, method, path, query="", body=b"", *headers, payload_hash=UNSIGNED):
        """Like `refused`, for a complete request."""
        return self.refused(self.request(method, path, query, body, *headers, payload_hash=payload_hash))

    def check_that_a_chunk_is_accepted(self):
        """Assert that a correct request is accepted, so that only the error in a refused one explains its refusal."""
        assert self.ask("PUT", "/backup-jobs/{job}/chunk/{upload}/3", CHUNK.format(1, hex_of(b"x")), b"x").status == 200


@pytest.fixture(scope="module")
def watched_server(tmp_path_factory):
    """A server for this file alone, so that no other test stores anything."""
    with watched(tmp_path_factory.mktemp("limits")) as server:
        yield server


def client_of(server):
    settings = server.running.settings
    return Client(settings.endpoint_url, settings.region, settings.credentials, retry=Retry(attempts_max=1))


@pytest.fixture(scope="module")
def client(watched_server):
    with client_of(watched_server) as client:
        yield client


@pytest.fixture
def requests(watched_server, client):
    """Requests about a job and an open upload of the test's own."""
    return JobRequests(watched_server, client)


def test_a_head_of_32_kib(requests):
    """Signed, and correct except for its length."""
    for more, accepted in ((0, True), (1, False)):
        path = f"/backup-jobs/{{job}}/object/head-{more}/put-object"
        length = len(requests.head("PUT", path, unsigned_headers=[("content-length", "0"), ("x-pad", "")]))
        padding = ("x-pad", "p" * (32 * KIB - length + more))
        request = requests.head("PUT", path, unsigned_headers=[("content-length", "0"), padding])
        if accepted:
            assert requests.answer(request).status == 200
        else:
            assert "32768" in requests.refused(request, status=431)


@pytest.mark.parametrize("by", ["chunk/{upload}/7", "object/large/put-object"])
def test_64_mib_in_one_request(requests, by):
    """One byte more in the headers or in the query is refused before any body is sent."""
    data = bytes(range(256)) * (256 * KIB)
    path = f"/backup-jobs/{{job}}/{by}"
    assert requests.ask("PUT", path, CHUNK.format(len(data), hex_of(data)), data).status == 200
    path = path.replace("/7", "/8").replace("large", "larger")
    for length in (len(data) + 1, 2**40, 2**63):
        for query in (CHUNK.format(len(data), hex_of(data)), CHUNK.format(length, hex_of(data))):
            head = requests.head("PUT", path, query, unsigned_headers=[("content-length", str(length))])
            requests.refused(head)
    announced = CHUNK.format(len(data) + 1, hex_of(data))
    requests.refused(requests.head("PUT", path, announced, unsigned_headers=[("transfer-encoding", "chunked")]))


def test_64_mib_and_a_byte_in_chunked_framing(requests):
    """The length is in no header, so the body is refused after it has arrived."""
    data = bytes(64 * MIB)
    head = requests.head(
        "PUT",
        "/backup-jobs/{job}/object/chunked/put-object",
        unsigned_headers=[("transfer-encoding", "chunked")],
    )
    framed = b"%x\r\n%b\r\n" % (len(data), data)
    requests.refused(head, framed, b"1\r\nx\r\n0\r\n\r\n")
    assert requests.answer(head, framed, b"0\r\n\r\n").status == 200


def test_a_metadata_blob_of_4_mib(requests):
    blob = bytes(4 * MIB)
    for length, accepted in ((4 * MIB, True), (4 * MIB + 1, False)):
        requests.upload = requests.api.start(requests.job, "blob")
        requests.api.chunk(requests.job, requests.upload, 0, b"x")
        path = "/backup-jobs/{job}/object/{upload}/complete"
        if accepted:
            assert requests.ask("PUT", path, COMPLETE, blob).status == 200
        else:
            requests.refused(requests.head("PUT", path, COMPLETE, unsigned_headers=[("content-length", str(length))]))
            query = f"{COMPLETE}&metadata-blob-length={length}"
            requests.refused(requests.head("PUT", path, query, unsigned_headers=[("content-length", "1")]))
            framed = b"%x\r\n%bx\r\n0\r\n\r\n" % (length, blob)
            requests.refused(
                requests.head("PUT", path, COMPLETE, unsigned_headers=[("transfer-encoding", "chunked")]), framed
            )


@pytest.mark.parametrize("character", ["a", "%C3%A9", "%F0%9F%A7%8A"])
def test_metadata_strings(requests, character):
    """256 bytes with NotifyObjectComplete and 1,024 with PutObject, for characters of any length."""
    size = character.count("%") or 1
    requests.upload = requests.api.start(requests.job, "metadata")
    requests.api.chunk(requests.job, requests.upload, 0, b"x")
    complete = "/backup-jobs/{job}/object/{upload}/complete"
    put = "/backup-jobs/{job}/object/metadata/put-object"
    for beyond in (character * (256 // size) + "a", character * (256 // size + 1), "", "%0A", "%7F", "%C2%85", "%ff"):
        requests.refuses("PUT", complete, f"{COMPLETE}&metadata-string={beyond}")
    for beyond in (character * (1024 // size) + "a", character * (1024 // size + 1), "%0D%0Ax-amz-forged:1", "%00"):
        requests.refuses("PUT", put, f"metadata-string={beyond}")
    assert requests.ask("PUT", complete, f"{COMPLETE}&metadata-string={character * (256 // size)}").status == 200
    assert requests.ask("PUT", put, f"metadata-string={character * (1024 // size)}").status == 200


@pytest.mark.parametrize("character", ["a", "%C3%A9", "%F0%9F%A7%8A"])
def test_object_names(requests, character):
    size = character.count("%") or 1
    name = character * (1024 // size)
    long = [name + "a", "a" + name, character * (1024 // size + 1)]
    for one in [*long, *BAD_NAMES]:
        requests.refuses("PUT", f"/backup-jobs/{{job}}/object/{one}/put-object")
        requests.refuses("PUT", f"/backup-jobs/{{job}}/object/{one}", payload_hash=None)
        requests.refuses("DELETE", f"/backup-jobs/{{job}}/object/{one}", payload_hash=None)
    for one in long:
        requests.refuses("GET", "/restore-jobs/{job}/objects/list", f"starting-object-name={one}", payload_hash=None)
        requests.refuses("GET", "/restore-jobs/{job}/objects/list", f"starting-object-prefix={one}", payload_hash=None)
    assert requests.ask("PUT", f"/backup-jobs/{{job}}/object/{name}/put-object").status == 200
    assert requests.ask("PUT", f"/backup-jobs/{{job}}/object/{name}", payload_hash=None).status == 200
    query = f"starting-object-name={name}&starting-object-prefix={name}"
    answer = requests.ask("GET", "/restore-jobs/{job}/objects/list", query, payload_hash=None)
    assert len(json.loads(answer.body)["ObjectList"]) == 1
    assert requests.ask("DELETE", f"/backup-jobs/{{job}}/object/{name}", payload_hash=None).status == 200


@pytest.mark.parametrize(
    "query",
    [
        *(f"max-results={text}" for text in ("0", "101", "-1", "1.0", "+1", "", "%31%30%31", "x", "9" * 30)),
        *("max-results=1&max-results=1", "max-results=1&max%2Dresults=1", "created-after=yesterday", "created-after="),
        *("created-after=1e99", "created-after=99999999999999999999", "created-before=-1e99", "created-before=inf"),
        *("created-before=2026-13-01", "next-token=%ff", "next-token=x", "starting-object-name=%f", "max-results"),
    ],
)
def test_an_invalid_query_of_a_list_is_refused(requests, query):
    requests.api.put(requests.job, "listed", b"x")
    requests.refuses("GET", "/restore-jobs/{job}/objects/list", query, payload_hash=None)
    if "objec" not in query and "created" not in query:
        token = requests.api.found(requests.job, "listed").object_token
        requests.refuses("GET", f"/restore-jobs/{{job}}/chunks/{token}/list", query, payload_hash=None)


def test_the_largest_page(requests):
    """100 objects at most."""
    for number in range(101):
        requests.api.put(requests.job, f"{number:03}")
    answer = requests.ask("GET", "/restore-jobs/{job}/objects/list", "max-results=100", payload_hash=None)
    document = json.loads(answer.body)
    assert (len(document["ObjectList"]), "NextToken" in document) == (100, True)


@pytest.mark.parametrize("index", ["-1", str(2**63), "9" * 30, "0x1", "1.0", "+1", "%2B1", "", "a", "%00", "%31%20"])
def test_an_invalid_chunk_index_is_refused(requests, index):
    requests.refuses("PUT", f"/backup-jobs/{{job}}/chunk/{{upload}}/{index}", CHUNK.format(1, hex_of(b"x")), b"x")
    requests.check_that_a_chunk_is_accepted()


@pytest.mark.parametrize(
    "query",
    [
        "",
        *(f"checksum={hex_of(b'x')}&checksum-algorithm=SHA256", f"length=1&checksum={hex_of(b'x')}"),
        *("length=1&checksum-algorithm=SHA256", CHUNK.format(1, hex_of(b"x")) + "&length=1"),
        *(CHUNK.format(text, hex_of(b"x")) for text in ("", "-1", "one", "1e0", "1%2C1", "2", "0", "67108865")),
        *(
            CHUNK.format(1, text)
            for text in ("", "0" * 63, "0" * 64, hex_of(b"y"), hex_of(b"x") + "0", "%ff", "A" * 44)
        ),
        CHUNK.format(1, hex_of(b"x")).replace("SHA256", "MD5"),
        CHUNK.format(1, hex_of(b"x")).replace("&", ";"),
    ],
)
def test_a_chunk_needs_length_and_checksum(requests, query):
    """Each missing, repeated, malformed or wrong."""
    requests.refuses("PUT", "/backup-jobs/{job}/chunk/{upload}/3", query, b"x")
    requests.check_that_a_chunk_is_accepted()


def test_a_document_of_1_mib(requests):
    """For an operation with a JSON document. Others accept up to 1 KiB, because AWS.jl sends a document with each."""
    path = "/backup-jobs/{job}/object/document"
    document = b'{"Unknown":"' + b"x" * (MIB - 14) + b'"}'
    assert requests.ask("PUT", path, "", document, payload_hash=None).status == 200
    head = requests.head("PUT", path, payload_hash="0" * 64, unsigned_headers=[("content-length", str(MIB + 1))])
    assert str(MIB) in requests.refused(head)
    path = "/restore-jobs/{job}/chunk/token"
    for length, said in ((KIB, "ChunkToken"), (KIB + 1, "1024 bytes")):
        head = requests.head(
            "GET", path, payload_hash=hex_of(bytes(length)), unsigned_headers=[("content-length", str(length))]
        )
        assert said in requests.refused(head, bytes(length))


def test_a_document_with_a_blob(requests):
    """The form of AWS.jl. A Content-Length beyond the limit is refused before the body is sent."""
    path = "/backup-jobs/{job}/object/julia/put-object"
    head = requests.head("PUT", path, "", JULIA, unsigned_headers=[("content-length", str(96 * MIB + 1))])
    assert str(96 * MIB) in requests.refused(head)
    assert requests.ask("PUT", path, "", b'{"InlineChunk":"text","length":"4"}', JULIA).status == 200
    requests.refuses("PUT", path, "", b'{"InlineChunk":"text","length":"5"}', JULIA)


def test_linked_chunks(requests):
    """1,000 absent chunks are accepted at once; 1,001 are refused."""
    for count, accepted in ((1000, True), (1001, False), (0, False)):
        entry = {"Length": 1, "Checksum": hex_of(b"absent"), "ChecksumAlgorithm": "SHA256"}
        document = json.dumps({"Chunks": [entry | {"Index": index} for index in range(count)]}).encode()
        path = "/backup-jobs/{job}/chunk/{upload}"
        if accepted:
            assert requests.ask("PUT", path, "", document, JULIA, payload_hash=None).status == 200
        else:
            requests.refuses("PUT", path, "", document, JULIA, payload_hash=None)


def test_chunks_per_object(tmp_path):
    """The limit is lowered, because ten million chunks are too many for a test."""
    with watched_with(tmp_path, limits=Limits(chunks_per_object_max=3)) as server, client_of(server) as client:
        requests = JobRequests(server, client)
        path = "/backup-jobs/{job}/chunk/{upload}"
        for index in (5, 2**63 - 1, 0, 5):
            assert requests.ask("PUT", f"{path}/{index}", CHUNK.format(1, hex_of(b"x")), b"x").status == 200
        message = requests.refuses("PUT", f"{path}/1", CHUNK.format(1, hex_of(b"x")), b"x")
        assert "3" in message
        requests.api.complete(requests.job, requests.upload, [b"x"] * 3)
        assert requests.api.read(requests.job) == {"upload": b"xxx"}
