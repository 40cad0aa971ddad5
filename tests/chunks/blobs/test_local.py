"""Local blobs: the contract, file modes, leftovers of crashes, descriptors, and system errors."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from conformance.blobstore import AppendableTests, BlobStoreTests
from cryostore.chunks.blobs import local
from cryostore.chunks.blobs.local import STAGING, LocalBlobs
from cryostore.core.errors import BlobExistsError, BlobNotFoundError, StorageFullError, StorageUnavailableError


class TestLocalBlobs(BlobStoreTests, AppendableTests):
    @pytest.fixture
    def store(self, tmp_path):
        store = LocalBlobs(tmp_path / "blobs")
        yield store
        store.close()

    def peek(self, store, key):
        path = store._root / key
        return path.read_bytes() if path.is_file() else None

    def plant(self, store, key, data):
        path = store._root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(data)


@pytest.fixture
def store(tmp_path):
    store = LocalBlobs(tmp_path / "blobs")
    yield store
    store.close()


def open_descriptors():
    """Return the number of files that this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def name_of(descriptor):
    """Return the name of the file of a descriptor."""
    return Path(f"/proc/self/fd/{descriptor}").readlink().name


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def failing(error_number):
    """Return a system call that fails."""

    def call(*_):
        raise OSError(error_number, os.strerror(error_number))

    return call


def test_only_the_owner_may_access_the_files(tmp_path):
    previous = os.umask(0)
    try:
        store = LocalBlobs(tmp_path / "deep" / "blobs")
        store.put("a/b/c", b"x")
        store.open_append("packs/d").close()
    finally:
        os.umask(previous)
    paths = [tmp_path / "deep", *(tmp_path / "deep").rglob("*")]
    assert {mode(path) for path in paths if path.is_dir()} == {0o700}
    assert [mode(path) for path in paths if path.is_file()] == [0o600, 0o600]


def test_nothing_is_left_in_staging(store, tmp_path):
    store.put("a", b"x")
    with pytest.raises(BlobExistsError):
        store.put("a", b"y")
    assert list((tmp_path / "blobs" / STAGING).iterdir()) == []


def test_opening_sweeps_leftovers_of_dead_processes_only(store, tmp_path):
    """The temporary file of a dead process is removed; that of a live process is kept."""
    staging = tmp_path / "blobs" / STAGING
    (staging / "~dead").write_bytes(b"half a blob")
    (staging / "foreign").write_bytes(b"not ours")
    living = store.open_append("living")
    os.link(tmp_path / "blobs" / "living", staging / "~living")
    LocalBlobs(tmp_path / "blobs").close()
    assert sorted(path.name for path in staging.iterdir()) == ["foreign", "~living"]
    living.close()


def test_foreign_names_are_not_listed(store, tmp_path):
    store.put("a", b"x")
    (tmp_path / "blobs" / "lost+found").mkdir(mode=0)
    (tmp_path / "blobs" / "a~").write_bytes(b"")
    assert list(store.list()) == ["a"]


def test_a_resumed_listing_opens_only_the_remaining_folders(store, monkeypatch):
    """A store with many packs is listed in steps, and each step reads only its own part."""
    for folder in "abcd":
        store.put(f"packs/{folder}/x", b"")
    opened = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: (opened.append(path.name), scandir(path))[1])
    assert list(store.list("packs/", "packs/b/x")) == ["packs/c/x", "packs/d/x"]
    assert opened == ["blobs", "packs", "b", "c", "d"]
    opened.clear()
    assert list(store.list("packs/c/")) == ["packs/c/x"]
    assert opened == ["blobs", "packs", "c"]


def test_a_cut_is_durable(store, tmp_path, monkeypatch):
    store.put("a", b"0123456789")
    flushed = []
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: (flushed.append(os.fstat(descriptor).st_size), fsync(descriptor))
    )
    assert store.cut("a", 4)
    assert flushed == [4]


def test_a_listing_that_cannot_be_completed_raises(store, tmp_path):
    store.put("a/b", b"x")
    (tmp_path / "blobs").rename(tmp_path / "elsewhere")
    with pytest.raises(BlobNotFoundError):
        list(store.list())


@pytest.mark.parametrize(
    ("error_number", "kind"),
    [(errno.ENOSPC, StorageFullError), (errno.EDQUOT, StorageFullError), (errno.EIO, StorageUnavailableError),
     (errno.EROFS, StorageUnavailableError), (errno.EMFILE, StorageUnavailableError)],
)  # fmt: skip
@pytest.mark.parametrize("call", ["pwritev", "fsync", "link"])
def test_a_failed_put_leaves_nothing_and_can_be_repeated(store, tmp_path, monkeypatch, call, error_number, kind):
    store.put("folder/other", b"")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing(error_number))
        with pytest.raises(kind) as caught:
            store.put("folder/a", b"x" * 1000)
    assert type(caught.value) is kind
    assert store.stat("folder/a") is None
    assert list((tmp_path / "blobs" / STAGING).iterdir()) == []
    store.put("folder/a", b"x" * 1000)
    assert store.get("folder/a") == b"x" * 1000


def test_put_flushes_the_file_then_every_new_directory_entry(store, monkeypatch):
    """System calls show the order of a durable put: content before name, name before return."""
    seen = []
    fsync, link = os.fsync, os.link

    def watch_fsync(descriptor):
        seen.append(name_of(descriptor).partition("~")[0] or "content")
        fsync(descriptor)

    def watch_link(source, target):
        seen.append("link")
        link(source, target)

    monkeypatch.setattr(os, "fsync", watch_fsync)
    monkeypatch.setattr(os, "link", watch_link)
    store.put("a/b/c", b"x")
    assert seen == ["blobs", "a", "content", "link", "b"]
    seen.clear()
    store.put("a/b/d", b"x")
    assert seen == ["content", "link", "b"]


def test_the_name_of_a_new_pack_is_durable(store, monkeypatch):
    seen = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (seen.append(name_of(descriptor)), fsync(descriptor)))
    store.open_append("packs/0a/x.pack").close()
    assert seen == ["blobs", "packs", "0a"]


def test_a_pack_without_a_durable_name_is_removed(store, tmp_path, monkeypatch):
    store.open_append("packs/a").close()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing(errno.EIO))
        with pytest.raises(StorageUnavailableError):
            store.open_append("packs/b")
    assert not (tmp_path / "blobs" / "packs" / "b").exists()


@pytest.mark.parametrize("first", [0, 1, 5, 8, 12])
def test_a_short_write_is_continued(store, monkeypatch, first):
    """pwritev may write only a part of its buffers."""
    pwritev = os.pwritev
    limits = iter([first or 1, 3])

    def short(descriptor, buffers, offset):
        limit = next(limits, None)
        return pwritev(descriptor, [b"".join(buffers)[:limit]], offset)

    monkeypatch.setattr(os, "pwritev", short)
    appender = store.open_append("a")
    appender.append([b"01234", b"567", b"89abcdef"])
    assert store.get("a") == b"0123456789abcdef"
    appender.close()


def test_an_append_on_a_full_disk_is_cut_off_and_can_be_repeated(store, tmp_path, monkeypatch):
    appender = store.open_append("a")
    appender.append([b"good"])
    pwritev = os.pwritev
    with monkeypatch.context() as patch:
        room = iter([3])

        def full(descriptor, buffers, offset):
            if (limit := next(room, None)) is None:
                raise OSError(errno.ENOSPC, "No space left on device")
            return pwritev(descriptor, [b"".join(buffers)[:limit]], offset)

        patch.setattr(os, "pwritev", full)
        with pytest.raises(StorageFullError):
            appender.append([b"too much"])
    assert (tmp_path / "blobs" / "a").read_bytes() == b"good"
    assert appender.append([b"again"]) == 4
    appender.sync()
    assert store.get("a") == b"goodagain"
    appender.close()


def test_a_write_of_zero_bytes_counts_as_a_full_disk(store, monkeypatch):
    appender = store.open_append("a")
    monkeypatch.setattr(os, "pwritev", lambda *_: 0)
    with pytest.raises(StorageFullError):
        appender.append([b"x"])
    appender.close()


def test_an_appender_that_cannot_truncate_is_not_used_again(store, monkeypatch):
    appender = store.open_append("a")
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", failing(errno.ENOSPC))
        patch.setattr(os, "ftruncate", failing(errno.EIO))
        with pytest.raises(StorageUnavailableError) as caught:
            appender.append([b"x"])
    assert type(caught.value) is StorageUnavailableError
    for call in (lambda: appender.append([b"y"]), appender.sync):
        with pytest.raises(StorageUnavailableError):
            call()
    appender.close()


def test_a_failed_flush_is_never_retried(store, monkeypatch):
    """The kernel forgets a failed flush, so a second one would succeed without the bytes."""
    appender = store.open_append("a")
    appender.append([b"x"])
    with monkeypatch.context() as patch:
        patch.setattr("cryostore.chunks.blobs.local._sync_data", failing(errno.EIO))
        with pytest.raises(StorageUnavailableError):
            appender.sync()
    for call in (lambda: appender.append([b"y"]), appender.sync):
        with pytest.raises(StorageUnavailableError):
            call()
    appender.close()


def test_a_closed_appender_refuses_to_write(store):
    appender = store.open_append("a")
    appender.close()
    for call in (lambda: appender.append([b"y"]), appender.sync):
        with pytest.raises(StorageUnavailableError):
            call()
    assert store.get("a") == b""


def test_ownership_ends_with_the_process(store):
    """A process that died owns nothing, even if it closed nothing."""
    program = (
        "import os, sys; from pathlib import Path; from cryostore.chunks.blobs.local import LocalBlobs;"
        "LocalBlobs(Path(sys.argv[1])).open_append('a').append([b'0123456789']); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", program, store._root], check=True)
    assert not store.owned("a")
    assert store.cut("a", 3)
    assert store.get("a") == b"012"


def test_reading_keeps_few_descriptors_open(store, monkeypatch):
    monkeypatch.setattr(local, "OPEN_FILES_MAX", 4)
    for number in range(20):
        store.put(f"blob-{number}", bytes([number]))
    before = open_descriptors()
    for _ in range(3):
        for number in range(20):
            assert store.get(f"blob-{number}") == bytes([number])
    assert open_descriptors() - before <= 4
    store.close()
    assert open_descriptors() <= before


def test_deleting_frees_the_space_of_a_blob_that_was_read(store):
    store.put("a", b"x")
    assert store.get("a") == b"x"
    before = open_descriptors()
    store.delete("a")
    assert open_descriptors() == before - 1


def test_descriptors_do_not_close_under_a_reader(store, monkeypatch):
    """Many threads read more blobs than may stay open, while another thread deletes and recreates them."""
    monkeypatch.setattr(local, "OPEN_FILES_MAX", 2)
    for number in range(8):
        store.put(f"blob-{number}", bytes([number]) * 1000)
    wrong = []

    def read():
        for number in list(range(8)) * 40:
            try:
                if store.get(f"blob-{number}") != bytes([number]) * 1000:
                    wrong.append(number)
            except BlobNotFoundError:
                pass  # between delete and put
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is wrong
                wrong.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in list(range(8)) * 10:
        store.delete(f"blob-{number}")
        store.put(f"blob-{number}", bytes([number]) * 1000)
    for thread in threads:
        thread.join()
    assert wrong == []


def test_system_errors_of_reads_are_translated(store, monkeypatch):
    store.put("a", b"x")
    monkeypatch.setattr(os, "pread", failing(errno.EIO))
    with pytest.raises(StorageUnavailableError):
        store.get("a")
