"""Faults of networks and cloud services: every kind of request with every fault, on a real S3 service.

No acknowledged blob is missing or wrong, no process takes its own blob for one of another, and no request hangs.
"""

from __future__ import annotations

import random
import re
import threading

import pytest

from cryostore.chunks.blobs.cloud import Backoff, CloudBlobs
from cryostore.chunks.blobs.cloud_url import CloudUrl
from cryostore.chunks.cipher import DataKey
from cryostore.chunks.store import ChunkStore
from cryostore.core.digest import Payload, sha256
from cryostore.core.errors import BlobExistsError, BlobNotFoundError, DamagedDataError, StorageUnavailableError
from cryostore.core.ids import random_id
from support.faults.http_proxy import Fault, HttpProxy
from support.services import s3

KEY = DataKey(b"k" * 16, bytes(range(32)))
NOISE = random.Random(6).randbytes(300_000)
KINDS = ("put", "get", "stat", "list", "delete")
SILENT = {Fault.SILENT_BEFORE, Fault.SILENT_AFTER}
OF_BYTES = {Fault.TORN, Fault.SHORTENED}
"""Faults that do not affect an answer without a body."""
TRANSIENT = [fault for fault in Fault if fault not in {Fault.NOT_HERE, Fault.ELSEWHERE, *SILENT}]
REQUEST_SECONDS_MAX = 4
"""Long enough for a request without a fault on a busy machine."""


@pytest.fixture
def proxy(monkeypatch):
    for name, value in s3.CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with HttpProxy(s3.endpoint()) as proxy:
        yield proxy


@pytest.fixture
def url(proxy):
    return s3.fresh_url(endpoint=proxy.address, timeout=REQUEST_SECONDS_MAX)


@pytest.fixture
def back_door(url):
    return s3.BackDoor(url)


def through(url, begin_seconds_max=REQUEST_SECONDS_MAX * 1.2):
    """The store behind the proxy, with short waits between attempts."""
    return CloudBlobs(CloudUrl.parse(url), backoff=Backoff(begin_seconds_max, delay_first_seconds=0.01))


def impatient(url):
    """The store behind the proxy, with short time-outs for each request and for all attempts."""
    place = CloudUrl.parse(url.replace(f"timeout={REQUEST_SECONDS_MAX}", "timeout=0.2"))
    return CloudBlobs(place, backoff=Backoff(0.3, delay_first_seconds=0.01))


def at_once(*calls, seconds_max=60):
    """Make all calls at the same time. Returns their answers or errors."""
    answers = [None] * len(calls)

    def work(place):
        try:
            answers[place] = calls[place]()
        except Exception as error:  # noqa: BLE001 - the test compares it
            answers[place] = error

    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds_max)
        assert not thread.is_alive()
    return answers


def calls_on(store):
    """Return a call of each kind. `prepare` makes the blobs that they read."""
    return (
        lambda: store.put("new", NOISE),
        lambda: store.get("old", 1000, 200_000),
        lambda: store.stat("old"),
        lambda: list(store.list("folder/")),
        lambda: store.delete("doomed"),
        lambda: store.get("old"),
    )


def prepare(back_door):
    back_door.plant("old", NOISE)
    back_door.plant("doomed", b"x")
    for number in range(3):
        back_door.plant(f"folder/{number}", b"x")


WANTED = [None, NOISE[1000:201_000], len(NOISE), ["folder/0", "folder/1", "folder/2"], None, NOISE]


@pytest.mark.parametrize("fault", TRANSIENT)
def test_a_temporary_fault_is_not_noticed(proxy, url, back_door, fault):
    """Each kind of request has the fault once or twice."""
    meet(proxy, url, back_door, fault, 1 if fault in OF_BYTES else 2)


def test_a_silent_connection_is_noticed(url):
    """The request or its answer is lost, and the connection stays open. Both cases run at once: they are slow."""

    def silent(fault):
        with HttpProxy(s3.endpoint()) as proxy:
            place = s3.fresh_url(endpoint=proxy.address, timeout=REQUEST_SECONDS_MAX)
            meet(proxy, place, s3.BackDoor(place), fault, 1)

    assert at_once(*[lambda fault=fault: silent(fault) for fault in SILENT]) == [None, None]


def meet(proxy, url, back_door, fault, times):
    """Inject the fault into every kind of request. No caller notices it."""
    prepare(back_door)
    for kind in KINDS:
        proxy.fail(kind, fault, times)
    assert at_once(*calls_on(through(url))) == WANTED
    assert not any(proxy.faults.values()), "no request had the fault"
    assert back_door.peek("new") == NOISE
    assert back_door.peek("doomed") is None
    assert back_door.unfinished_uploads() == []


@pytest.mark.parametrize("fault", Fault)
def test_a_lasting_fault_is_an_outage_but_not_a_loss(proxy, url, back_door, fault):
    """No caller learns that a blob is missing, exists or is damaged. Old blobs are kept."""
    prepare(back_door)
    for kind in KINDS:
        proxy.fail(kind, fault, 10_000)
    answers = at_once(*calls_on(impatient(url)))
    for kind, answer, wanted in zip((*KINDS, "get"), answers, WANTED, strict=True):
        if kind in {"put", "stat", "delete"} and fault in OF_BYTES:
            assert answer == wanted, "an answer without a body cannot be cut short"
        else:
            assert type(answer) is StorageUnavailableError, (kind, answer)
            assert fault is not Fault.ELSEWHERE or "region" in answer.hint
    for kind in KINDS:
        proxy.fail(kind, fault, 0)
    assert back_door.peek("new") in {None, NOISE}
    assert back_door.peek("old") == NOISE
    assert back_door.unfinished_uploads() == []


@pytest.mark.parametrize("fault", [Fault.CUT_AFTER, Fault.THROTTLED_AFTER, Fault.TORN])
def test_own_bytes_are_distinguished_from_those_of_others(proxy, url, back_door, fault):
    """After a lost answer, our own bytes under the key are a success, and those of others are a conflict."""
    store = through(url)
    proxy.fail("put", fault)
    store.put("ours", NOISE)
    back_door.plant("theirs", NOISE[:-1] + bytes([NOISE[-1] ^ 1]))
    proxy.fail("put", fault)
    with pytest.raises(BlobExistsError):
        store.put("theirs", NOISE)
    assert back_door.peek("ours") == NOISE
    assert back_door.peek("theirs") != NOISE


def test_own_bytes_are_recognised_after_failed_reads(proxy, url, back_door):
    store = through(url)
    proxy.fail("put", Fault.CUT_AFTER, 2)
    proxy.fail("get", Fault.TORN, 2)
    store.put("ours", NOISE)
    assert back_door.peek("ours") == NOISE
    assert proxy.seen.count("put") == 5, "two lost answers, and a fault before each read"


@pytest.mark.parametrize("fault", [Fault.CUT_BEFORE, Fault.THROTTLED])
def test_a_missing_blob_is_missing_after_a_fault(proxy, url, fault):
    store = through(url)
    for kind in ("get", "stat"):
        proxy.fail(kind, fault)
    assert store.stat("absent") is None
    for kind in ("get", "stat"):
        proxy.fail(kind, fault)
    with pytest.raises(BlobNotFoundError):
        store.get("absent", 5, 5)


def test_an_answer_of_another_server_is_not_trusted(proxy, url, back_door):
    """A 404 from a proxy says nothing about the blob, for any request. After one 404 to HEAD, the client asks again."""
    prepare(back_door)
    store = impatient(url)
    with proxy.failing("get", Fault.NOT_HERE), proxy.failing("stat", Fault.NOT_HERE):
        for call in (lambda: store.get("old"), lambda: store.get("old", 1, 2), lambda: store.stat("old")):
            with pytest.raises(StorageUnavailableError, match="404"):
                call()
    with proxy.failing("stat", Fault.NOT_HERE):
        assert through(url).stat("old") == len(NOISE)


def pages_of(count):
    """Return a filter that shortens the pages of a listing and marks them as truncated."""

    def shorten(body):
        entries = re.findall(rb"<Contents>.*?</Contents>", body, re.DOTALL)
        if len(entries) <= count:
            return body
        for entry in entries[count:]:
            body = body.replace(entry, b"")
        last = re.search(rb"<Key>(.*?)</Key>", entries[count - 1])[1]
        more = b"<IsTruncated>true</IsTruncated><NextContinuationToken>" + last + b"</NextContinuationToken>"
        return body.replace(b"<IsTruncated>false</IsTruncated>", more)

    return shorten


@pytest.mark.parametrize("fault", [Fault.CUT_BEFORE, Fault.CUT_AFTER, Fault.TORN, Fault.THROTTLED])
def test_a_listing_continues_where_it_was_cut(proxy, url, back_door, monkeypatch, fault):
    """Every page is cut once and then complete. Each key is listed once."""
    monkeypatch.setattr("cryostore.chunks.blobs.cloud.KEYS_PER_PAGE", 5)
    proxy.answers["list"] = pages_of(5)
    keys = [f"folder/{number:02}" for number in range(17)]
    for key in keys:
        back_door.plant(key, b"")
    proxy.faults["list"] = [None, fault] * 10
    assert list(through(url).list("folder/")) == keys
    assert proxy.seen.count("list") >= 8
    proxy.faults["list"] = [None, fault] * 10
    assert list(through(url).list("folder/0", "folder/03")) == keys[4:10]


def test_a_throttled_chunk_store_loses_nothing(proxy, url, back_door):
    """Every third put of a busy store is throttled, cut or lost. All puts are acknowledged and stored."""
    store = ChunkStore(through(url), random_id)
    chance = random.Random(7)
    faults = [Fault.THROTTLED, Fault.THROTTLED_AFTER, Fault.CUT_AFTER, Fault.CUT_BEFORE, Fault.TORN]
    proxy.faults["put"] = [chance.choice(faults) if chance.random() < 0.34 else None for _ in range(60)]
    payloads = [NOISE[number : number + (280_000 if number % 4 == 0 else 900)] for number in range(24)]
    locations = at_once(*[lambda data=data: store.put(Payload(data), KEY) for data in payloads])
    for data, location in zip(payloads, locations, strict=True):
        assert store.get(location, KEY, sha256(data), len(data)) == data
    assert {location.pack_id for location in locations} == set(store.pack_ids())
    assert back_door.unfinished_uploads() == []


def flipped(data):
    """Return the bytes with a flipped bit in the middle."""
    data = bytearray(data)
    data[len(data) // 2] ^= 1
    return bytes(data)


def test_a_bit_that_flips_in_a_request_is_refused_and_sent_again(proxy, url, back_door):
    """The service compares the bytes with the signed digest."""
    turns = [flipped, flipped]
    proxy.requests["put"] = lambda body: turns.pop()(body) if turns else body
    through(url).put("a", NOISE)
    assert back_door.peek("a") == NOISE
    assert proxy.seen.count("put") == 3


def test_a_bit_that_flips_in_an_answer_is_damage_and_reaches_no_caller(proxy, url):
    """The blob store cannot notice it. The envelope does not open, and the next read is right."""
    store = ChunkStore(through(url), random_id)
    location = store.put(Payload(NOISE), KEY)
    proxy.answers["get"] = flipped
    with pytest.raises(DamagedDataError, match=location.pack_id):
        store.get(location, KEY, sha256(NOISE), len(NOISE))
    del proxy.answers["get"]
    assert store.get(location, KEY, sha256(NOISE), len(NOISE)) == NOISE


def test_an_unsorted_listing_is_refused(proxy, url, back_door):
    """A listing continues after the last key, so it could miss unsorted keys."""
    prepare(back_door)

    def reverse(body):
        entries = re.findall(rb"<Contents>.*?</Contents>", body, re.DOTALL)
        for entry in entries:
            body = body.replace(entry, b"")
        return body.replace(b"</ListBucketResult>", b"".join(reversed(entries)) + b"</ListBucketResult>")

    proxy.answers["list"] = reverse
    with pytest.raises(StorageUnavailableError, match="order"):
        list(through(url).list("folder/"))


@pytest.mark.stress
@pytest.mark.parametrize("seed", range(5))
def test_each_thread_finds_its_acknowledged_blobs_under_all_faults(proxy, url, back_door, seed):
    """Eight threads write, read, list and delete while a third of all requests has a fault."""
    store = through(url, begin_seconds_max=120)
    chance = random.Random(seed)
    faults = [*TRANSIENT, *[None] * (2 * len(TRANSIENT))]
    for kind in KINDS:
        proxy.faults[kind] = [chance.choice(faults) for _ in range(5000)]

    def work(number):
        own = random.Random(seed * 100 + number)
        there, counter = {}, 0
        for _ in range(60):
            act = own.choice(["put", "put", "get", "list", "delete", "conflict", "stat"])
            key = own.choice(sorted(there)) if there else None
            if act == "put" or key is None:
                key = f"{number}/{counter:04}"
                counter += 1
                there[key] = NOISE[: own.randrange(0, 50_000)] + key.encode()
                store.put(key, there[key])
            elif act == "get":
                offset = own.randrange(len(there[key]))
                assert store.get(key, offset, 1) == there[key][offset : offset + 1]
                assert store.get(key) == there[key]
            elif act == "list":
                assert list(store.list(f"{number}/")) == sorted(there)
            elif act == "delete":
                store.delete(key)
                del there[key]
                assert store.stat(key) is None
            elif act == "conflict":
                with pytest.raises(BlobExistsError):
                    store.put(key, b"another's")
            else:
                assert store.stat(key) == len(there[key])
        return there

    outcomes = at_once(*[lambda number=number: work(number) for number in range(8)], seconds_max=300)
    assert [outcome for outcome in outcomes if isinstance(outcome, Exception)] == []
    there = {key: data for found in outcomes for key, data in found.items()}
    assert {key: back_door.peek(key) for key in back_door.names()} == there
    assert back_door.unfinished_uploads() == []
