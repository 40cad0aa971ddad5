"""Keyring from a file: created once, read again when it changes, replaced as a whole."""

from __future__ import annotations

import base64
import errno
import itertools
import json
import multiprocessing
import os
import stat
import threading

import pytest

from conformance.keyring import KeyringSourceTests
from cryostore.chunks.keyring import EditableKeyring, MasterKey, create_keyring, open_or_create_keyring, sources, unwrap
from cryostore.chunks.keyring.master_keys import KeyringDocument, decode
from cryostore.chunks.keyring.sources import FileKeyring
from cryostore.core.errors import (
    BlobExistsError,
    BlobNotFoundError,
    ConfigurationError,
    CryostoreError,
    KeyUnavailableError,
    StorageFullError,
    StorageUnavailableError,
)
from cryostore.core.ids import counting_ids, random_id
from support.stores.keyrings import BOTH, NEW, OLD, OLD_ALONE, write_keyring

COVERS = ("chunks/keyring/sources.py",)


class TestFileKeyring(KeyringSourceTests):
    @pytest.fixture
    def document(self):
        return BOTH

    @pytest.fixture
    def ring(self, tmp_path, document):
        return create_keyring(tmp_path / "keyring", random_id, document)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keyring"


def test_no_repr_or_message_shows_a_secret(path):
    create_keyring(path, counting_ids())
    secret = next(iter(json.loads(path.read_text())["keys"].values()))
    ring = FileKeyring(path)
    texts = [repr(ring.active()), str(ring.active()), repr(ring), repr(vars(ring))]
    for broken in (path.read_text()[:-20], path.read_text().replace(secret, secret[:-2])):
        write_keyring(path, broken)
        with pytest.raises(CryostoreError) as caught:
            FileKeyring(path)
        texts += [repr(caught.value), caught.value.message, caught.value.hint, repr(caught.value.__cause__)]
    for text in texts:
        assert secret[:10] not in text
        assert repr(base64.b64decode(secret))[2:12] not in text


def test_a_new_keyring_has_a_comment_and_only_its_owner_may_read_it(path):
    previous = os.umask(0)
    try:
        ring = create_keyring(path, counting_ids())
    finally:
        os.umask(previous)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    document = json.loads(path.read_text())
    assert "no backup can be restored" in document["comment"]
    assert document["active"] == ring.active().key_id == counting_ids()()
    assert list(path.parent.iterdir()) == [path]


def test_two_keyrings_have_different_secrets(tmp_path):
    one, two = (create_keyring(tmp_path / name, counting_ids()) for name in "ab")
    with pytest.raises(KeyUnavailableError):
        two.active().unwrap(one.active().wrap(b"x", b""), b"")


def test_a_keyring_is_never_overwritten(path):
    create_keyring(path, counting_ids())
    before = path.read_bytes()
    with pytest.raises(BlobExistsError):
        create_keyring(path, counting_ids(7))
    assert path.read_bytes() == before
    made = []
    assert open_or_create_keyring(path, counting_ids(7), made.append).active().key_id == counting_ids()()
    assert path.read_bytes() == before
    assert made == []


def test_the_process_that_creates_a_keyring_is_called_back(path):
    made = []
    open_or_create_keyring(path, counting_ids(), made.append)
    assert made == [path]


def test_a_broken_keyring_is_never_replaced(path):
    write_keyring(path, "")
    with pytest.raises(ConfigurationError, match="not a keyring") as caught:
        open_or_create_keyring(path, counting_ids())
    assert "do not make a new one" in caught.value.hint
    assert path.read_bytes() == b""


def test_a_missing_directory_is_an_error(tmp_path):
    with pytest.raises(BlobNotFoundError):
        create_keyring(tmp_path / "nowhere" / "keyring", counting_ids())


def test_a_keyring_that_cannot_be_written_durably_is_an_error(path, monkeypatch):
    def failing(_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(StorageUnavailableError):
        create_keyring(path, counting_ids())
    assert not path.exists()


def race(path, start, results):
    """Act as one of several processes that start a server on a new directory."""
    start.wait()
    ring = open_or_create_keyring(path, random_id)
    results.put((ring.active().key_id, ring.active().wrap(b"data key", b"")))


def test_exactly_one_of_racing_processes_creates_the_keyring(path):
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(4), context.SimpleQueue()
    processes = [context.Process(target=race, args=(path, start, results)) for _ in range(4)]
    for process in processes:
        process.start()
    outcomes = [results.get() for _ in processes]
    for process in processes:
        process.join()
    assert len({key_id for key_id, _ in outcomes}) == 1
    ring = FileKeyring(path)
    assert [unwrap(ring, wrapped, b"") for _, wrapped in outcomes] == [b"data key"] * 4


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o620, 0o601, 0o777])
def test_a_file_that_others_may_read_is_refused_with_a_hint(path, mode):
    create_keyring(path, counting_ids())
    path.chmod(mode)
    with pytest.raises(ConfigurationError) as caught:
        FileKeyring(path)
    assert caught.value.hint == f"Run: chmod 600 {path}"


def test_a_read_only_file_is_accepted(path):
    create_keyring(path, counting_ids())
    path.chmod(0o400)
    FileKeyring(path)


def test_a_missing_file_is_a_configuration_error(path):
    with pytest.raises(ConfigurationError, match="cannot be read"):
        FileKeyring(path)


def test_a_directory_is_a_configuration_error(path):
    path.mkdir()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        FileKeyring(path)


# --- a file that other processes change while it is in use


def test_old_keys_stay_valid_and_new_ones_are_found(path):
    """An operator adds a key to the file while a server runs, for a rotation."""
    write_keyring(path, OLD_ALONE)
    ring = FileKeyring(path)
    old = ring.active().wrap(b"data key", b"")
    write_keyring(path, BOTH)
    assert unwrap(ring, NEW.wrap(b"other key", b""), b"") == b"other key"
    assert unwrap(ring, old, b"") == b"data key"
    assert ring.active().key_id == "new"


def test_a_new_active_key_is_found_without_a_request_for_it(path):
    write_keyring(path, OLD_ALONE)
    ring = FileKeyring(path)
    write_keyring(path, BOTH)
    assert ring.active().key_id == "new"


def test_a_corrected_key_replaces_a_wrong_one(path):
    """Both have the same id, so the id alone would not cause another read of the file."""
    wrong = MasterKey("old", bytes(32))
    write_keyring(path, KeyringDocument(NEW, {"old": wrong, "new": NEW}))
    ring, wrapped = FileKeyring(path), OLD.wrap(b"data key", b"")
    with pytest.raises(KeyUnavailableError):
        unwrap(ring, wrapped, b"")
    write_keyring(path, BOTH)
    assert unwrap(ring, wrapped, b"") == b"data key"


@pytest.mark.parametrize("trouble", ["gone", "open", "torn", "empty"])
def test_known_keys_stay_valid_while_the_file_is_unusable(path, trouble):
    write_keyring(path, OLD_ALONE)
    ring = FileKeyring(path)
    wrapped = ring.active().wrap(b"data key", b"")
    if trouble == "gone":
        path.unlink()
    else:
        content = {"open": BOTH, "torn": BOTH.encode().decode()[:-30], "empty": ""}[trouble]
        write_keyring(path, content, 0o644 if trouble == "open" else 0o600)
    with pytest.raises(KeyUnavailableError, match="no master key new, and ") as caught:
        ring.key("new")
    assert str(path) in caught.value.hint
    assert unwrap(ring, wrapped, b"") == b"data key"
    with pytest.raises(ConfigurationError):
        ring.document()
    write_keyring(path, BOTH)
    assert ring.key("new").is_same(NEW)
    with pytest.raises(KeyUnavailableError, match="no master key third$"):
        ring.key("third")


# --- changes


def test_an_added_key_becomes_active_and_all_others_are_kept(path):
    write_keyring(path, BOTH, 0o400)
    ring, other = FileKeyring(path), FileKeyring(path)
    assert isinstance(ring, EditableKeyring)
    key = ring.add(counting_ids())
    assert ring.active().is_same(key)
    assert other.active().is_same(key)
    assert decode(path.read_bytes()).is_same(KeyringDocument(key, {**BOTH.keys, key.key_id: key}))
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    assert list(path.parent.iterdir()) == [path]


def test_a_key_is_removed(path):
    write_keyring(path, BOTH)
    ring = FileKeyring(path)
    ring.remove("old")
    assert ring.document().keys.keys() == {"new"}
    with pytest.raises(KeyUnavailableError):
        ring.key("old")
    ring.remove("old")


def test_missing_keys_are_merged_and_the_active_key_is_unchanged(path):
    write_keyring(path, OLD_ALONE)
    ring = FileKeyring(path)
    assert ring.merge(BOTH) == ["new"]
    assert ring.document().is_same(KeyringDocument(OLD, BOTH.keys))
    version = path.stat().st_mtime_ns
    assert ring.merge(BOTH) == []
    assert path.stat().st_mtime_ns == version


def test_a_key_with_the_same_id_and_another_secret_is_not_merged(path):
    write_keyring(path, OLD_ALONE)
    with pytest.raises(ConfigurationError, match="differs from the given key"):
        FileKeyring(path).merge(KeyringDocument(NEW, {"new": NEW, "old": MasterKey("old", bytes(32))}))
    assert decode(path.read_bytes()).is_same(OLD_ALONE)


def test_a_symbolic_link_to_the_file_is_kept(path):
    target = path.with_name("target")
    write_keyring(target, OLD_ALONE)
    path.symlink_to(target)
    key = FileKeyring(path).add(counting_ids())
    assert path.is_symlink()
    assert decode(target.read_bytes()).active.is_same(key)


def test_simultaneous_changes_are_all_kept(path):
    write_keyring(path, OLD_ALONE)
    start, added = threading.Barrier(6), []

    def add(number):
        start.wait()
        added.append(FileKeyring(path).add(counting_ids(number * 100)))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert decode(path.read_bytes()).keys.keys() == {"old", *(key.key_id for key in added)}
    assert len(added) == 6


def test_leftovers_of_a_dead_process_do_not_prevent_a_change(path):
    write_keyring(path, OLD_ALONE)
    path.with_name("~keyring").write_text("half a keyring")
    FileKeyring(path).add(counting_ids())
    assert list(path.parent.iterdir()) == [path]


CALLS = ["open", "fchmod", "pwritev", "fsync", "replace"]


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("call", CALLS)
def test_after_any_failure_the_old_or_the_new_file_exists(path, monkeypatch, call, code):
    """Each of the system calls fails in turn. The repeated change succeeds."""
    for at in itertools.count(1):
        write_keyring(path, OLD_ALONE)
        ring, numbers, real = FileKeyring(path), itertools.count(1), getattr(os, call)

        def failing(*arguments, at=at, numbers=numbers, real=real, **more):
            if next(numbers) == at:
                raise OSError(code, os.strerror(code))
            return real(*arguments, **more)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, failing)
            try:
                ring.add(counting_ids())
                failed = False
            except StorageUnavailableError as error:
                failed = True
                assert isinstance(error, StorageFullError) is (code == errno.ENOSPC)
        found = decode(path.read_bytes())
        assert found.keys["old"].is_same(OLD)
        assert len(found.keys) <= 2
        if not failed:
            break
        key = ring.add(counting_ids(1000))
        assert FileKeyring(path).active().is_same(key)
        assert list(path.parent.iterdir()) == [path]
    assert at > 1


def test_a_file_is_replaced_only_after_the_new_one_is_durable(path, monkeypatch):
    """The new name is durable, too, before the change returns."""
    write_keyring(path, OLD_ALONE)
    steps = []
    for name in ("pwritev", "fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, name=name, real=real: (steps.append(name), real(*a))[1])
    FileKeyring(path).add(counting_ids())
    assert steps == ["pwritev", "fsync", "replace", "fsync"]
    steps.clear()
    FileKeyring(path).sync()
    assert steps == ["fsync", "fsync"]


def test_a_file_keeps_its_owner_when_another_user_changes_it(path, monkeypatch):
    """For example, root rotates the key of a server that runs as another user."""
    write_keyring(path, OLD_ALONE)
    owners = []
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    monkeypatch.setattr(os, "fchown", lambda _, *owner: owners.append(owner))
    FileKeyring(path).add(counting_ids())
    assert owners == [(path.stat().st_uid, path.stat().st_gid)]


def test_the_size_of_the_file_is_bounded(path, monkeypatch):
    monkeypatch.setattr(sources, "DOCUMENT_BYTES_MAX", 100)
    write_keyring(path, BOTH)
    with pytest.raises(ConfigurationError, match="not a keyring"):
        FileKeyring(path)
