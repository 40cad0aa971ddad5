"""The keyring file, and master keys beyond the contract of every keyring."""

from __future__ import annotations

import base64
import json
import multiprocessing
import os
import stat

import pytest

from conformance.keyring import KeyringTests
from cryostore.chunks.keyring import (
    FileKeyring,
    MasterKey,
    create_keyring,
    open_or_create_keyring,
    unwrap,
    wrapped_key_id,
)
from cryostore.core.errors import (
    BlobExistsError,
    BlobNotFoundError,
    ConfigurationError,
    CryostoreError,
    KeyUnavailableError,
    StorageUnavailableError,
)
from cryostore.core.ids import counting_ids, random_id


class MemoryKeyring:
    def __init__(self):
        self._key = MasterKey("in memory", bytes(range(32)))

    def active(self):
        return self._key

    def key(self, key_id):
        if key_id != self._key.key_id:
            raise KeyUnavailableError("unknown")
        return self._key


class TestMemoryKeyring(KeyringTests):
    @pytest.fixture
    def ring(self):
        return MemoryKeyring()


class TestFileKeyring(KeyringTests):
    @pytest.fixture
    def ring(self, tmp_path):
        return create_keyring(tmp_path / "keyring", random_id)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keyring"


def write(path, document, mode=0o600):
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    path.chmod(mode)


def text_of(number):
    return base64.b64encode(bytes([number]) * 32).decode()


def test_no_repr_or_message_shows_a_secret(path):
    create_keyring(path, counting_ids())
    secret = next(iter(json.loads(path.read_text())["keys"].values()))
    ring = FileKeyring(path)
    texts = [repr(ring.active()), str(ring.active()), repr(ring), repr(vars(ring))]
    for broken in (path.read_text()[:-20], path.read_text().replace(secret, secret[:-2])):
        write(path, broken)
        with pytest.raises(CryostoreError) as caught:
            FileKeyring(path)
        texts += [repr(caught.value), caught.value.message, caught.value.hint, repr(caught.value.__cause__)]
    for text in texts:
        assert secret[:10] not in text
        assert repr(base64.b64decode(secret))[2:12] not in text


def test_a_new_keyring_explains_itself_and_is_for_its_owner_alone(path):
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
    assert open_or_create_keyring(path, counting_ids(7)).active().key_id == counting_ids()()
    assert path.read_bytes() == before


def test_a_broken_keyring_is_not_replaced_by_a_new_one(path):
    write(path, "")
    with pytest.raises(ConfigurationError, match="not a keyring") as caught:
        open_or_create_keyring(path, counting_ids())
    assert "do not make a new one" in caught.value.hint
    assert path.read_bytes() == b""


def test_a_keyring_without_a_directory_is_an_error(tmp_path):
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
    """One of several processes that start a server on a new directory."""
    start.wait()
    ring = open_or_create_keyring(path, random_id)
    results.put((ring.active().key_id, ring.active().wrap(b"data key", b"")))


def test_of_racing_processes_exactly_one_makes_the_keyring(path):
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
def test_a_file_open_to_others_is_refused_with_a_hint(path, mode):
    create_keyring(path, counting_ids())
    path.chmod(mode)
    with pytest.raises(ConfigurationError) as caught:
        FileKeyring(path)
    assert caught.value.hint == f"Run: chmod 600 {path}"


def test_a_read_only_file_is_fine(path):
    create_keyring(path, counting_ids())
    path.chmod(0o400)
    FileKeyring(path)


@pytest.mark.parametrize(
    "document",
    ["", "{", "[]", "null", "7", {}, {"keys": {}}, {"active": "a", "keys": {}}, {"active": "a", "keys": []},
     {"active": "b", "keys": {"a": text_of(1)}}, {"active": "a", "keys": {"a": "short"}}, {"keys": {"a": text_of(1)}},
     {"active": "a", "keys": {"a": 7}}, {"active": "a", "keys": {"a": text_of(1) + "!"}}, {"active": [], "keys": {}},
     {"active": "", "keys": {"": text_of(1)}}, {"active": "x" * 256, "keys": {"x" * 256: text_of(1)}}],
    ids=repr,
)  # fmt: skip
def test_what_is_not_a_keyring_is_refused(path, document):
    write(path, document)
    with pytest.raises(ConfigurationError, match="not a keyring"):
        FileKeyring(path)


def test_bytes_that_are_no_text_are_refused(path):
    path.write_bytes(b"\xff\xfe\x00")
    path.chmod(0o600)
    with pytest.raises(ConfigurationError):
        FileKeyring(path)


def test_a_missing_file_is_an_error_of_configuration(path):
    with pytest.raises(ConfigurationError, match="cannot be read"):
        FileKeyring(path)


def test_old_keys_keep_opening_and_new_ones_are_picked_up(path):
    """Rotation: somebody adds a key to the file while a server runs."""
    write(path, {"active": "old", "keys": {"old": text_of(1)}})
    ring = FileKeyring(path)
    old = ring.active().wrap(b"data key", b"")
    write(path, {"active": "new", "keys": {"old": text_of(1), "new": text_of(2)}})
    new = MasterKey("new", bytes([2]) * 32).wrap(b"other key", b"")
    assert unwrap(ring, new, b"") == b"other key"
    assert unwrap(ring, old, b"") == b"data key"
    assert ring.active().key_id == "new"


def test_a_file_that_vanishes_takes_no_known_key_away(path):
    ring = create_keyring(path, counting_ids())
    wrapped = ring.active().wrap(b"data key", b"")
    path.unlink()
    with pytest.raises(KeyUnavailableError, match="no master key") as caught:
        ring.key("unknown")
    assert str(path) in caught.value.hint
    assert unwrap(ring, wrapped, b"") == b"data key"


def test_ids_of_any_language_are_carried(path):
    key = MasterKey("schlüssel-☃", bytes(32))
    assert wrapped_key_id(key.wrap(b"", b"")) == "schlüssel-☃"


@pytest.mark.parametrize("wrapped", [b"", b"CRYW", b"CRYW\1", b"CRYW\2\1a", b"CRYE\1\1a", b"CRYW\1\1\xff"])
def test_what_is_no_wrapped_key_names_no_key(wrapped):
    with pytest.raises(KeyUnavailableError):
        wrapped_key_id(wrapped)


def test_a_wrapped_key_cut_in_its_name_opens_with_no_key():
    with pytest.raises(KeyUnavailableError):
        unwrap(MemoryKeyring(), b"CRYW\1\x09in mem", b"")
    with pytest.raises(KeyUnavailableError):
        unwrap(MemoryKeyring(), b"CRYW\1\xffin memory", b"")


@pytest.mark.parametrize(("key_id", "secret"), [("", 32), ("x" * 256, 32), ("a", 31), ("a", 33)])
def test_master_keys_have_an_id_and_an_exact_size(key_id, secret):
    with pytest.raises(ValueError, match="master key"):
        MasterKey(key_id, bytes(secret))
