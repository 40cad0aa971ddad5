"""Every limit of B.11 over HTTP: its edge is accepted; one more is refused as early as possible and leaves nothing."""

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


class Asking:
    """Raw requests to a server about one job, signed by its root key."""

    def __init__(self, server: Watched, client: Client) -> None:
        self.server = server
        self.api = Api(client, server.data_dir)
        self.job = self.api.running_job()
        self.upload = self.api.start(self.job, "upload")

    def head(self, method, path, query="", *headers, payload_hash=UNSIGNED, unsigned_headers=()):
        """A signed head; `{job}` and `{upload}` in the path stand for the test's own."""
        path = path.format(job=self.job, upload=self.upload)
        credentials = self.server.running.settings.credentials
        request = signed(method, path, query, *headers, credentials=credentials, payload_hash=payload_hash)
        return head_bytes(request, *unsigned_headers)

    def answer(self, *pieces):
        """What is answered to these bytes while the connection stays open."""
        with self.server.connect() as connection:
            connection.send(*pieces)
            answer = connection.answer()
        check_answer(answer.status, answer.headers, answer.body)
        return answer

    def whole(self, method, path, query, body, *headers, payload_hash):
        """A whole request; `payload_hash` None: the body is signed."""
        length = ("content-length", str(len(body)))
        payload_hash = payload_hash or hex_of(body)
        return self.head(method, path, query, *headers, payload_hash=payload_hash, unsigned_headers=[length]) + body

    def ask(self, method, path, query="", body=b"", *headers, payload_hash=UNSIGNED):
        """The answer to a whole request."""
        return self.answer(self.whole(method, path, query, body, *headers, payload_hash=payload_hash))

    def refused(self, *pieces, status=400, error="IllegalArgumentException"):
        """Assert that these bytes are refused and nothing is stored. Returns the message."""
        before = stored(self.server.data_dir)
        answer = self.answer(*pieces)
        assert (answer.status, answer.error) == (status, error)
        assert stored(self.server.data_dir) == before
        return answer.message

    def refuses(self, method, path, query="", body=b"", *headers, payload_hash=UNSIGNED):
        """As `refused`, of a whole request."""
        return self.refused(self.whole(method, path, query, body, *headers, payload_hash=payload_hash))

    def takes_a_chunk(self):
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
def asking(watched_server, client):
    """Requests about a job and an open upload of the test's own."""
    return Asking(watched_server, client)


def test_a_head_of_32_kib(asking):
    """Signed, and correct except for its length."""
    for more, accepted in ((0, True), (1, False)):
        path = f"/backup-jobs/{{job}}/object/head-{more}/put-object"
        length = len(asking.head("PUT", path, unsigned_headers=[("content-length", "0"), ("x-pad", "")]))
        padding = ("x-pad", "p" * (32 * KIB - length + more))
        request = asking.head("PUT", path, unsigned_headers=[("content-length", "0"), padding])
        if accepted:
            assert asking.answer(request).status == 200
        else:
            assert "32768" in asking.refused(request, status=431)


@pytest.mark.parametrize("by", ["chunk/{upload}/7", "object/large/put-object"])
def test_64_mib_in_one_request(asking, by):
    """A byte more is refused on its announcement: nothing of it is sent here. Likewise if only the query says so."""
    data = bytes(range(256)) * (256 * KIB)
    path = f"/backup-jobs/{{job}}/{by}"
    assert asking.ask("PUT", path, CHUNK.format(len(data), hex_of(data)), data).status == 200
    path = path.replace("/7", "/8").replace("large", "larger")
    for length in (len(data) + 1, 2**40, 2**63):
        for query in (CHUNK.format(len(data), hex_of(data)), CHUNK.format(length, hex_of(data))):
            head = asking.head("PUT", path, query, unsigned_headers=[("content-length", str(length))])
            asking.refused(head)
    announced = CHUNK.format(len(data) + 1, hex_of(data))
    asking.refused(asking.head("PUT", path, announced, unsigned_headers=[("transfer-encoding", "chunked")]))


def test_64_mib_and_a_byte_in_chunked_framing(asking):
    """Its length is not announced: it is refused after it has arrived."""
    data = bytes(64 * MIB)
    head = asking.head(
        "PUT",
        "/backup-jobs/{job}/object/chunked/put-object",
        unsigned_headers=[("transfer-encoding", "chunked")],
    )
    framed = b"%x\r\n%b\r\n" % (len(data), data)
    asking.refused(head, framed, b"1\r\nx\r\n0\r\n\r\n")
    assert asking.answer(head, framed, b"0\r\n\r\n").status == 200


def test_a_metadata_blob_of_4_mib(asking):
    blob = bytes(4 * MIB)
    for length, accepted in ((4 * MIB, True), (4 * MIB + 1, False)):
        asking.upload = asking.api.start(asking.job, "blob")
        asking.api.chunk(asking.job, asking.upload, 0, b"x")
        path = "/backup-jobs/{job}/object/{upload}/complete"
        if accepted:
            assert asking.ask("PUT", path, COMPLETE, blob).status == 200
        else:
            asking.refused(asking.head("PUT", path, COMPLETE, unsigned_headers=[("content-length", str(length))]))
            query = f"{COMPLETE}&metadata-blob-length={length}"
            asking.refused(asking.head("PUT", path, query, unsigned_headers=[("content-length", "1")]))
            framed = b"%x\r\n%bx\r\n0\r\n\r\n" % (length, blob)
            asking.refused(
                asking.head("PUT", path, COMPLETE, unsigned_headers=[("transfer-encoding", "chunked")]), framed
            )


@pytest.mark.parametrize("character", ["a", "%C3%A9", "%F0%9F%A7%8A"])
def test_metadata_strings(asking, character):
    """256 bytes with NotifyObjectComplete, 1,024 with PutObject, however many bytes a character has."""
    size = character.count("%") or 1
    asking.upload = asking.api.start(asking.job, "metadata")
    asking.api.chunk(asking.job, asking.upload, 0, b"x")
    complete = "/backup-jobs/{job}/object/{upload}/complete"
    put = "/backup-jobs/{job}/object/metadata/put-object"
    for beyond in (character * (256 // size) + "a", character * (256 // size + 1), "", "%0A", "%7F", "%C2%85", "%ff"):
        asking.refuses("PUT", complete, f"{COMPLETE}&metadata-string={beyond}")
    for beyond in (character * (1024 // size) + "a", character * (1024 // size + 1), "%0D%0Ax-amz-forged:1", "%00"):
        asking.refuses("PUT", put, f"metadata-string={beyond}")
    assert asking.ask("PUT", complete, f"{COMPLETE}&metadata-string={character * (256 // size)}").status == 200
    assert asking.ask("PUT", put, f"metadata-string={character * (1024 // size)}").status == 200


@pytest.mark.parametrize("character", ["a", "%C3%A9", "%F0%9F%A7%8A"])
def test_object_names(asking, character):
    size = character.count("%") or 1
    name = character * (1024 // size)
    long = [name + "a", "a" + name, character * (1024 // size + 1)]
    for one in [*long, *BAD_NAMES]:
        asking.refuses("PUT", f"/backup-jobs/{{job}}/object/{one}/put-object")
        asking.refuses("PUT", f"/backup-jobs/{{job}}/object/{one}", payload_hash=None)
        asking.refuses("DELETE", f"/backup-jobs/{{job}}/object/{one}", payload_hash=None)
    for one in long:
        asking.refuses("GET", "/restore-jobs/{job}/objects/list", f"starting-object-name={one}", payload_hash=None)
        asking.refuses("GET", "/restore-jobs/{job}/objects/list", f"starting-object-prefix={one}", payload_hash=None)
    assert asking.ask("PUT", f"/backup-jobs/{{job}}/object/{name}/put-object").status == 200
    assert asking.ask("PUT", f"/backup-jobs/{{job}}/object/{name}", payload_hash=None).status == 200
    query = f"starting-object-name={name}&starting-object-prefix={name}"
    answer = asking.ask("GET", "/restore-jobs/{job}/objects/list", query, payload_hash=None)
    assert len(json.loads(answer.body)["ObjectList"]) == 1
    assert asking.ask("DELETE", f"/backup-jobs/{{job}}/object/{name}", payload_hash=None).status == 200


@pytest.mark.parametrize(
    "query",
    [
        *(f"max-results={text}" for text in ("0", "101", "-1", "1.0", "+1", "", "%31%30%31", "x", "9" * 30)),
        *("max-results=1&max-results=1", "max-results=1&max%2Dresults=1", "created-after=yesterday", "created-after="),
        *("created-after=1e99", "created-after=99999999999999999999", "created-before=-1e99", "created-before=inf"),
        *("created-before=2026-13-01", "next-token=%ff", "next-token=x", "starting-object-name=%f", "max-results"),
    ],
)
def test_lists_are_asked_for_properly(asking, query):
    asking.api.put(asking.job, "listed", b"x")
    asking.refuses("GET", "/restore-jobs/{job}/objects/list", query, payload_hash=None)
    if "objec" not in query and "created" not in query:
        token = asking.api.found(asking.job, "listed").object_token
        asking.refuses("GET", f"/restore-jobs/{{job}}/chunks/{token}/list", query, payload_hash=None)


def test_the_largest_page(asking):
    """100 objects, and not one more."""
    for number in range(101):
        asking.api.put(asking.job, f"{number:03}")
    answer = asking.ask("GET", "/restore-jobs/{job}/objects/list", "max-results=100", payload_hash=None)
    document = json.loads(answer.body)
    assert (len(document["ObjectList"]), "NextToken" in document) == (100, True)


@pytest.mark.parametrize("index", ["-1", str(2**63), "9" * 30, "0x1", "1.0", "+1", "%2B1", "", "a", "%00", "%31%20"])
def test_other_chunk_indexes(asking, index):
    asking.refuses("PUT", f"/backup-jobs/{{job}}/chunk/{{upload}}/{index}", CHUNK.format(1, hex_of(b"x")), b"x")
    asking.takes_a_chunk()


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
def test_a_chunk_comes_with_what_it_needs(asking, query):
    """Missing, doubled, not a number, and wrong length and checksum."""
    asking.refuses("PUT", "/backup-jobs/{job}/chunk/{upload}/3", query, b"x")
    asking.takes_a_chunk()


def test_a_document_of_1_mib(asking):
    """Of an operation with a JSON document; a little is allowed on those without, as AWS.jl sends it."""
    path = "/backup-jobs/{job}/object/document"
    document = b'{"Unknown":"' + b"x" * (MIB - 14) + b'"}'
    assert asking.ask("PUT", path, "", document, payload_hash=None).status == 200
    head = asking.head("PUT", path, payload_hash="0" * 64, unsigned_headers=[("content-length", str(MIB + 1))])
    assert str(MIB) in asking.refused(head)
    path = "/restore-jobs/{job}/chunk/token"
    for length, said in ((KIB, "ChunkToken"), (KIB + 1, "1024 bytes")):
        head = asking.head(
            "GET", path, payload_hash=hex_of(bytes(length)), unsigned_headers=[("content-length", str(length))]
        )
        assert said in asking.refused(head, bytes(length))


def test_a_document_with_a_blob(asking):
    """AWS.jl's form: what is longer than the limit is refused on its announcement."""
    path = "/backup-jobs/{job}/object/julia/put-object"
    head = asking.head("PUT", path, "", JULIA, unsigned_headers=[("content-length", str(96 * MIB + 1))])
    assert str(96 * MIB) in asking.refused(head)
    assert asking.ask("PUT", path, "", b'{"InlineChunk":"text","length":"4"}', JULIA).status == 200
    asking.refuses("PUT", path, "", b'{"InlineChunk":"text","length":"5"}', JULIA)


def test_linked_chunks(asking):
    """1,000 at once, of which none is there; one more is refused."""
    for count, accepted in ((1000, True), (1001, False), (0, False)):
        entry = {"Length": 1, "Checksum": hex_of(b"absent"), "ChecksumAlgorithm": "SHA256"}
        document = json.dumps({"Chunks": [entry | {"Index": index} for index in range(count)]}).encode()
        path = "/backup-jobs/{job}/chunk/{upload}"
        if accepted:
            assert asking.ask("PUT", path, "", document, JULIA, payload_hash=None).status == 200
        else:
            asking.refuses("PUT", path, "", document, JULIA, payload_hash=None)


def test_chunks_per_object(tmp_path):
    """Ten million are too many for a test: the limit is lowered."""
    with watched_with(tmp_path, limits=Limits(chunks_per_object_max=3)) as server, client_of(server) as client:
        asking = Asking(server, client)
        path = "/backup-jobs/{job}/chunk/{upload}"
        for index in (5, 2**63 - 1, 0, 5):
            assert asking.ask("PUT", f"{path}/{index}", CHUNK.format(1, hex_of(b"x")), b"x").status == 200
        message = asking.refuses("PUT", f"{path}/1", CHUNK.format(1, hex_of(b"x")), b"x")
        assert "3" in message
        asking.api.complete(asking.job, asking.upload, [b"x"] * 3)
        assert asking.api.read(asking.job) == {"upload": b"xxx"}
