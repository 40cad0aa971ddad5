"""Blobs in a cloud: the contract on a real S3 service, retries, and features of clouds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from conformance.blobstore import BlobStoreTests
from cryostore.chunks.blobs import Appendable, Gathering, Versioning, open_blobs
from cryostore.chunks.blobs.cloud import KEYS_PER_PAGE, Backoff, CloudBlobs
from cryostore.chunks.blobs.cloud_url import CloudUrl
from cryostore.chunks.blobs.self_test import check_blob_store
from cryostore.core.errors import BlobExistsError, BlobNotFoundError, StorageFullError, StorageUnavailableError
from support.services import s3


@pytest.fixture
def url(monkeypatch):
    for name, value in s3.CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    return s3.fresh_url()


@pytest.fixture
def store(url):
    store = open_blobs(url)
    store.back_door = s3.BackDoor(url)
    return store


class TestCloudBlobs(BlobStoreTests):
    LISTED_ONE_IN = 4

    @pytest.fixture
    def store(self, url):
        store = open_blobs(url)
        store.back_door = s3.BackDoor(url)
        return store

    def peek(self, store, key):
        return store.back_door.peek(key)

    def plant(self, store, key, data):
        store.back_door.plant(key, data)


def test_cloud_blobs_are_not_appendable(store):
    assert isinstance(store, CloudBlobs)
    assert not isinstance(store, Appendable)


def test_a_bucket_with_versioning_is_recognised(store):
    assert isinstance(store, Versioning)
    store.put("a", b"plain")
    assert not store.has_versions("a")
    versioned = open_blobs(s3.versioned_bucket())
    versioned.put("a", b"kept")
    assert versioned.has_versions("a")
    versioned.delete("a")
    assert versioned.stat("a") is None


def test_two_prefixes_of_one_bucket_are_separate(url):
    inner, outer = open_blobs(url.replace("?", "/inner?")), open_blobs(url)
    beside = open_blobs(url.replace("?", "2?"))
    inner.put("a", b"inner")
    outer.put("a", b"outer")
    beside.put("a", b"beside")
    assert list(inner.list()) == ["a"]
    assert list(outer.list()) == ["a", "inner/a"]
    assert list(beside.list()) == ["a"]
    outer.delete("a")
    assert (inner.get("a"), beside.get("a")) == (b"inner", b"beside")


def test_a_listing_spans_many_pages(store, monkeypatch):
    """The keys fill three pages, both of the library and of the service."""
    monkeypatch.setattr("cryostore.chunks.blobs.cloud.KEYS_PER_PAGE", 7)
    keys = sorted(f"packs/{number % 3}/{number:03}" for number in range(20))
    for key in keys:
        store.put(key, b"")
    assert list(store.list("packs/")) == keys
    assert list(store.list("packs/1/", "packs/1/007")) == [
        key for key in keys if key.startswith("packs/1/") and key > "packs/1/007"
    ]
    assert KEYS_PER_PAGE == 1000


def test_foreign_objects_in_the_bucket_are_ignored(store):
    store.put("a/b", b"x")
    for name in ("a/~temporary", "a/b/", "name with spaces", "a/%41", "é"):
        store.back_door.plant(name, b"foreign")
    assert list(store.list()) == ["a/b"]
    assert list(store.list("a/")) == ["a/b"]


@pytest.mark.parametrize("bytes_count", [0, 1, 6 * 1024 * 1024])
def test_multipart_uploads_are_never_used(store, bytes_count):
    """Six MiB exceed the default part size of the library."""
    store.put("a", bytes(bytes_count))
    assert store.stat("a") == bytes_count
    found = store.back_door.client.head_object(Bucket=store.back_door.bucket, Key=store.back_door.prefix + "a")
    assert "-" not in found["ETag"], "the tag of a multipart object has the number of its parts"
    assert store.back_door.unfinished_uploads() == []


WRITER = """
import sys, threading
from cryostore.chunks.blobs import open_blobs
store = open_blobs(sys.argv[1])
lock = threading.Lock()
def work(base):
    for number in range(base, 10_000, 4):
        store.put(f"{number:05}", b"%05d" % number * 1_000_000)
        with lock:
            print(f"{number:05}", flush=True)
for base in range(4):
    threading.Thread(target=work, args=(base,)).start()
"""


def test_after_sigkill_each_blob_is_whole_or_absent(url):
    """A process that puts blobs of 5 MB from four threads is killed. No partial blob is left."""
    writer = subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True)
    lines = [writer.stdout.readline().strip() for _ in range(6)]
    os.kill(writer.pid, signal.SIGKILL)
    lines += [line.strip() for line in writer.stdout if line.endswith("\n")]
    writer.stdout.close()
    writer.wait()
    store, back_door = open_blobs(url), s3.BackDoor(url)
    there = list(store.list())
    assert set(lines) <= set(there)
    assert len(there) <= len(lines) + 4
    for key in there:
        assert store.get(key) == key.encode() * 1_000_000
    assert back_door.unfinished_uploads() == []


def test_a_missing_bucket_is_an_outage_and_not_a_loss(url):
    """No blob counts as missing, and a listing raises instead of being empty."""
    store = open_blobs("s3://no-such-bucket" + url[url.index("?") :])
    for call in (
        lambda: store.get("a"),
        lambda: store.get("a", 1, 2),
        lambda: store.get("a", 1),
        lambda: store.stat("a"),
        lambda: list(store.list()),
        lambda: store.put("a", b"x"),
        lambda: store.delete("a"),
    ):
        with pytest.raises(StorageUnavailableError) as caught:
            call()
        assert "NoSuchBucket" in caught.value.message
        assert "bucket" in caught.value.hint


def test_wrong_credentials_are_an_outage_with_a_hint(url, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    store = open_blobs(url)
    for call in (
        lambda: store.put("a", b"x"),
        lambda: store.get("a"),
        lambda: store.stat("a"),
        lambda: list(store.list()),
    ):
        with pytest.raises(StorageUnavailableError) as caught:
            call()
        assert "credentials" in caught.value.hint
        assert "wrong" not in caught.value.message


def test_an_unreachable_service_is_an_outage_within_the_time_limit(monkeypatch):
    for name, value in s3.CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    store = CloudBlobs(CloudUrl.parse("s3://bucket?endpoint=http://127.0.0.1:9&timeout=0.3"))
    for call in (lambda: store.put("a", b"x"), lambda: store.get("a"), lambda: list(store.list())):
        with pytest.raises(StorageUnavailableError) as caught:
            call()
        assert "reached" in caught.value.hint


def test_a_put_of_the_same_bytes_is_a_conflict(store):
    """Equal bytes are a success only after an own attempt that may have arrived."""
    store.put("a", b"same")
    with pytest.raises(BlobExistsError):
        store.put("a", b"same")


def test_a_range_of_a_missing_blob_raises(store):
    for offset, length in ((0, 5), (5, 5), (5, None), (5, 0)):
        with pytest.raises(BlobNotFoundError):
            store.get("a", offset, length)


def test_several_buffers_make_one_blob(store):
    assert isinstance(store, Gathering)
    buffers = [b"one", bytearray(b"two"), memoryview(b"three"), b"", b"x" * 3_000_000]
    store.put_all("a", buffers)
    assert store.get("a") == b"".join(buffers)
    with pytest.raises(BlobExistsError):
        store.put_all("a", buffers)


def test_the_service_passes_the_self_test(store):
    check_blob_store(store, "a")
    assert list(store.list()) == []


def test_a_full_bucket_refuses_puts_until_blobs_are_deleted(url):
    store = open_blobs(s3.small_bucket(1_000_000))
    store.put("a", bytes(600_000))
    with pytest.raises(StorageFullError) as caught:
        store.put("b", bytes(600_000))
    assert "quota" in caught.value.hint
    assert list(store.list()) == ["a"]
    store.delete("a")
    store.put("b", bytes(600_000))
    assert store.stat("b") == 600_000


class Time:
    """A clock that advances only by `sleep`."""

    def __init__(self):
        self.now = 0.0
        self.slept = []

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


def backoff(time, **options):
    return Backoff(monotonic=time.monotonic, sleep=time.sleep, **options)


def test_no_attempt_begins_after_the_end_and_the_last_one_is_marked():
    time = Time()
    tries = list(backoff(time, begin_seconds_max=10).tries("a"))
    assert tries[-1]
    assert not any(tries[:-1])
    assert time.now <= 10 < time.now + 5
    assert len(tries) == len(time.slept) + 1


def test_after_a_long_attempt_another_one_may_begin():
    time = Time()
    tries = backoff(time, begin_seconds_max=30).tries("a")
    assert next(tries) is False
    time.now = 25
    assert next(tries) is False
    time.now = 50
    assert list(tries) == [True]


def test_delays_double_up_to_a_limit_and_vary_by_name():
    some = backoff(Time(), begin_seconds_max=1, delay_first_seconds=1, delay_seconds_max=8)
    delays = [some.delay_seconds("a", number) for number in range(100)]
    assert all(2**number / 2 <= delay <= 2**number for number, delay in enumerate(delays[:4]))
    assert all(4 <= delay <= 8 for delay in delays[3:])
    assert len({some.delay_seconds(f"blob {name}", 0) for name in range(100)}) > 90


def test_the_first_attempt_does_not_wait():
    time = Time()
    next(backoff(time, begin_seconds_max=10).tries("a"))
    assert time.slept == []
