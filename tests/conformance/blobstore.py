"""Conformance suite of every BlobStore. A subclass provides the store, and a back door that bypasses it.

Reads are tested without trusting writes, and writes without trusting reads, through `peek` and `plant`.
"""

from __future__ import annotations

import itertools
import threading

import pytest

from cryostore.chunks.blobs import Appendable
from cryostore.core.errors import BlobExistsError, BlobNotFoundError, DamagedDataError

HOSTILE_KEYS = [
    "", "/", ".", "..", "a/", "/a", "a//b", "a/./b", "a/../b", "../a", "a/..", "./a", "a\\b", "a b", "a\n", "a\0b",
    "é", "~a", "a/~b", "%2e%2e/a", "a:b", "*", "x" * 256, "/".join(["x" * 200] * 6),
]  # fmt: skip
HONEST_KEYS = ["a", "a.b", "-", "_", "...", "..a", "a..", ".hidden", "x" * 255, "packs/0a/0123-ABC.pack", "a-/b_/c.c"]


class BlobStoreTests:
    """Subclass, name it Test..., and give `store`, `peek` and `plant`."""

    LISTED_ONE_IN = 1
    """Stores with slow listings make one of so many listings of a test."""

    @pytest.fixture
    def store(self):
        """An empty store."""
        raise NotImplementedError

    def peek(self, store, key):
        """Return the bytes under the key, None if there are none, without the methods of the store."""
        raise NotImplementedError

    def plant(self, store, key, data):
        """Put bytes under the key without the methods of the store."""
        raise NotImplementedError

    def test_a_new_store_is_empty(self, store):
        assert list(store.list()) == []
        assert store.stat("a") is None

    @pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 1000], ids=["nothing", "a byte", "256 KB"])
    @pytest.mark.parametrize("form", [bytes, bytearray, memoryview])
    def test_put_stores_the_bytes_unchanged(self, store, data, form):
        store.put("some/key", form(data))
        assert self.peek(store, "some/key") == data

    def test_put_never_replaces(self, store):
        self.plant(store, "a/b", b"old")
        with pytest.raises(BlobExistsError):
            store.put("a/b", b"new")
        assert self.peek(store, "a/b") == b"old"

    def test_one_of_concurrent_puts_succeeds_completely(self, store):
        """Eight threads put different contents under one key: one succeeds, seven raise."""
        outcomes = []
        start = threading.Barrier(8)

        def put(number):
            start.wait()
            try:
                store.put("contested", bytes([number]) * 100_000)
                outcomes.append(number)
            except BlobExistsError:
                outcomes.append(None)

        threads = [threading.Thread(target=put, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (winner,) = [number for number in outcomes if number is not None]
        assert self.peek(store, "contested") == bytes([winner]) * 100_000

    def test_put_keeps_no_reference_to_the_buffer(self, store):
        buffer = bytearray(b"before")
        store.put("a", buffer)
        buffer[:] = b"after!"
        assert store.get("a") == b"before"

    @pytest.mark.parametrize(
        ("offset", "length", "wanted"),
        [(0, None, b"0123456789"), (3, None, b"3456789"), (10, None, b""), (0, 0, b""), (2, 3, b"234"), (9, 1, b"9"),
         (10, 0, b""), (0, 10, b"0123456789")],
    )  # fmt: skip
    def test_get_reads_the_range(self, store, offset, length, wanted):
        self.plant(store, "packs/a", b"0123456789")
        assert store.get("packs/a", offset, length) == wanted

    @pytest.mark.parametrize(("offset", "length"), [(11, None), (11, 0), (0, 11), (5, 6), (10, 1), (1 << 40, 1)])
    def test_get_never_returns_fewer_bytes_than_requested(self, store, offset, length):
        self.plant(store, "packs/a", b"0123456789")
        with pytest.raises(DamagedDataError, match=f"packs/a.*{offset}"):
            store.get("packs/a", offset, length)

    @pytest.mark.parametrize(("offset", "length"), [(-1, None), (0, -1), (-5, 2)])
    def test_get_refuses_negative_ranges(self, store, offset, length):
        self.plant(store, "a", b"0123456789")
        with pytest.raises(ValueError, match="negative"):
            store.get("a", offset, length)

    def test_methods_on_a_missing_blob(self, store):
        self.plant(store, "folder/a", b"x")
        for key in ("b", "folder/b", "folder", "other/b"):
            with pytest.raises(BlobNotFoundError):
                store.get(key)
            assert store.stat(key) is None
            store.delete(key)

    def test_stat_returns_the_size(self, store):
        self.plant(store, "a", b"12345")
        self.plant(store, "b/c", b"")
        assert (store.stat("a"), store.stat("b/c")) == (5, 0)

    def test_delete_removes_only_its_blob(self, store):
        self.plant(store, "a/b", b"1")
        self.plant(store, "a/c", b"2")
        assert store.get("a/b") == b"1"
        store.delete("a/b")
        store.delete("a/b")
        assert (self.peek(store, "a/b"), self.peek(store, "a/c")) == (None, b"2")
        with pytest.raises(BlobNotFoundError):
            store.get("a/b")

    def test_a_key_can_be_used_again_after_delete(self, store):
        store.put("a", b"first")
        assert store.get("a") == b"first"
        store.delete("a")
        store.put("a", b"second, and longer")
        assert store.get("a") == b"second, and longer"

    def test_a_blob_replaced_by_another_process_is_read_again(self, store):
        """Another process deletes a blob and puts a new one."""
        self.plant(store, "a", b"first")
        assert store.get("a") == b"first"
        self.plant(store, "a", b"second")
        assert store.get("a") == b"second"

    def test_list_is_sorted_by_key_and_resumes_at_any_key(self, store):
        keys = sorted(["a", "a-b", "a.b", "b/c", "b/c.d", "b-/c", "b.x", "b/d/e", "c", "packs/00/x", "packs/0a/x"])
        for key in reversed(keys):
            self.plant(store, key, b"")
        assert list(store.list()) == keys
        places = itertools.product(["", "a", "a-", "b", "b/", "b/d", "packs/0", "zz"], ["", *keys, "b/", "0", "zz"])
        for prefix, after in itertools.islice(places, None, None, self.LISTED_ONE_IN):
            wanted = [key for key in keys if key.startswith(prefix) and key > after]
            assert list(store.list(prefix, after)) == wanted, (prefix, after)

    @pytest.mark.parametrize("key", HOSTILE_KEYS)
    def test_hostile_keys_are_refused_by_every_method(self, store, key):
        for call in (
            lambda: store.put(key, b""), lambda: store.get(key), lambda: store.stat(key), lambda: store.delete(key),
        ):  # fmt: skip
            with pytest.raises(ValueError, match="key"):
                call()
        assert list(store.list()) == []

    @pytest.mark.parametrize("key", HONEST_KEYS)
    def test_valid_keys_work(self, store, key):
        store.put(key, key.encode())
        assert store.get(key) == key.encode()
        assert list(store.list()) == [key]

    def test_close_may_be_called_twice(self, store):
        store.put("a", b"x")
        assert store.get("a") == b"x"
        store.close()
        store.close()


class AppendableTests:
    """For stores that can append to blobs. Mix it in with BlobStoreTests."""

    def test_the_store_declares_it(self, store):
        assert isinstance(store, Appendable)

    def test_appended_bytes_are_readable_at_once(self, store):
        appender = store.open_append("packs/a")
        assert appender.size == 0
        assert appender.append([b"one", bytearray(b"two")]) == 0
        assert store.get("packs/a", 3, 3) == b"two"
        assert appender.append([memoryview(b"three"), b""]) == 6
        appender.sync()
        assert appender.size == 11
        assert store.get("packs/a") == b"onetwothree"
        assert self.peek(store, "packs/a") == b"onetwothree"
        assert store.stat("packs/a") == 11
        appender.close()
        appender.close()

    def test_many_buffers_in_one_append(self, store):
        appender = store.open_append("a")
        buffers = [bytes([number % 256]) * (number % 7) for number in range(3000)]
        appender.append(buffers)
        assert self.peek(store, "a") == b"".join(buffers)
        appender.close()

    def test_an_existing_blob_does_not_grow(self, store):
        self.plant(store, "a", b"whole")
        with pytest.raises(BlobExistsError):
            store.open_append("a")
        store.open_append("b").close()
        with pytest.raises(BlobExistsError):
            store.open_append("b")
        assert self.peek(store, "a") == b"whole"

    def test_a_blob_has_an_owner_until_it_is_closed(self, store):
        appender = store.open_append("a")
        appender.append([b"0123456789"])
        assert store.owned("a")
        assert not store.cut("a", 5)
        assert self.peek(store, "a") == b"0123456789"
        appender.close()
        assert not store.owned("a")
        assert store.cut("a", 5)
        assert self.peek(store, "a") == b"01234"

    def test_cut_never_grows_a_blob(self, store):
        self.plant(store, "a", b"0123")
        assert store.cut("a", 100)
        assert self.peek(store, "a") == b"0123"

    def test_absent_blobs_have_no_owner_and_cannot_be_cut(self, store):
        for call in (lambda: store.owned("a"), lambda: store.cut("a", 0)):
            with pytest.raises(BlobNotFoundError):
                call()

    @pytest.mark.parametrize("key", HOSTILE_KEYS)
    def test_hostile_keys_cannot_grow(self, store, key):
        for call in (lambda: store.open_append(key), lambda: store.owned(key), lambda: store.cut(key, 0)):
            with pytest.raises(ValueError, match="key"):
                call()
