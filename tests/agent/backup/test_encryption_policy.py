"""Sealed archives: what the store can see, which keys open them, and attacks by a malicious store."""

from __future__ import annotations

import os
import random
import zlib
from hashlib import sha256

import msgspec
import pytest

from cryostore.agent.archive.open_archive import open_archive
from cryostore.agent.archive.recovery_points import find_point
from cryostore.agent.backup.key_changes import change_access
from cryostore.agent.encryption.agent_key import AgentKey, PublicKey
from cryostore.agent.encryption.archive_key import ArchiveKey
from cryostore.agent.encryption.key_objects import is_key_name
from cryostore.agent.encryption.keyed_call import KeyedCall
from cryostore.agent.errors import ArchiveDamagedError
from cryostore.core.digest import Payload
from cryostore.core.errors import ConfigurationError, KeyUnavailableError
from cryostore.core.limits import KIB, MIB
from cryostore.model.chunks import GetChunk, ListChunks, PutChunk
from cryostore.model.objects import GetObjectMetadata
from support.archives.agent import Runs, seen, write

COVERS = ("agent/backup/key_changes.py", "agent/small_object.py")


def noise(length, seed=1):
    return random.Random(seed).randbytes(length)


def secret_tree(root):
    """A tree whose names and content can be searched for."""
    write(
        root,
        {
            "salaries-of-2026.ods": b"the quick brown fox earns too little, says the lazy dog\n" * 40,
            "a folder of secrets": {f"case-number-{n:04}": noise(3000 + n, n) for n in range(40)},
            "enormous-video.mkv": noise(700 * KIB, 99),
            "text": b"".join(b"line %d of a long report, which compresses well\n" % n for n in range(5_000)),
            "pointer": lambda path: os.symlink("where-it-points-to", path),
        },
    )
    os.setxattr(root / "text", "user.annotation", b"value of the attribute")


class Spy:
    """A store that records everything it receives."""

    def __init__(self, call):
        self.inner = call
        self.received = bytearray()

    def call(self, operation):
        for field in operation.__struct_fields__:
            value = getattr(operation, field)
            self.received += (
                bytes(value.data) if isinstance(value, Payload) else msgspec.json.encode(value, enc_hook=repr)
            )
            self.received += b"\n"
        return self.inner.call(operation)


@pytest.fixture
def key():
    return AgentKey.generate()


@pytest.fixture
def sealed(local_runs, key):
    """Runs in this process with a key."""
    local_runs.key = key
    return local_runs


# --- what the store receives ------------------------------------------------------------------------------------------


def windows(data, length=8):
    return {bytes(data[at : at + length]) for at in range(len(data) - length + 1)}


def test_the_store_receives_no_name_no_content_and_no_digest(sealed, tmp_path):
    root = tmp_path / "source-with-a-telling-name"
    secret_tree(root)
    sealed.resource = sealed.key.opaque_name(f"host:{root}")
    spy = sealed.call = Spy(sealed.call)
    sealed.backup(root)
    write(root, {"text": (root / "text").read_bytes() + b"one more line", "new-file-of-the-second-run": b"new content"})
    sealed.backup(root)
    received = bytes(spy.received)
    assert len(received) > 500 * KIB
    for name in (b"telling", b"salaries", b"secrets", b"case-number", b"enormous", b"pointer", b"where-it"):
        assert name not in received
    assert b"annotation" not in received
    seen_by_store = windows(received)
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            assert seen_by_store.isdisjoint(windows(data[:20_000]) if len(data) < 20_000 else windows(data)), path
            for digest in (sha256(data).digest(), sha256(data).digest()[:16], zlib.crc32(data).to_bytes(4, "little")):
                assert len(digest) < 8 or digest not in received
                assert digest.hex().encode() not in received


def test_the_lengths_of_chunks_reveal_little(sealed, tmp_path):
    write(tmp_path / "source", {f"{n}": noise(n, n) for n in range(1, 3000, 7)})
    lengths = []

    class Lengths:
        inner = sealed.call

        def call(self, operation):
            if isinstance(operation, PutChunk):
                lengths.append(operation.length)
            return self.inner.call(operation)

    sealed.call = Lengths()
    sealed.backup(tmp_path / "source")
    first, lengths[:] = list(lengths), []
    write(tmp_path / "source", {"5": noise(1234), "9": noise(77)})
    sealed.backup(tmp_path / "source")
    second, lengths[:] = list(lengths), []
    write(tmp_path / "source", {"5": noise(2345, 2), "9": noise(11, 2)})
    sealed.backup(tmp_path / "source")
    assert first
    assert sorted(second) == sorted(lengths)
    assert all((length - 36 - 16) % (4 * KIB) == 0 for length in first + second)


def test_archives_of_two_keys_share_no_data(local_runs, tmp_path):
    """Two keys, one tree: the second run finds nothing that the first one stored."""
    secret_tree(tmp_path / "source")
    sent = []
    for number in range(2):
        runs = Runs(local_runs.call, f"{local_runs.resource}-{number}", AgentKey.generate())
        report, _ = runs.backup(tmp_path / "source")
        sent.append(report.sent_bytes)
    assert min(sent) > 700 * KIB
    again = Runs(local_runs.call, f"{local_runs.resource}-plain")
    report, _ = again.backup(tmp_path / "source")
    assert report.sent_bytes > 700 * KIB


def test_a_failed_run_does_not_send_its_reason(sealed, tmp_path):
    write(tmp_path / "source", {"file": b"file"})
    spy = sealed.call = Spy(sealed.call)

    def fail(path):
        raise ConfigurationError("about a telling path")

    with pytest.raises(ConfigurationError):
        sealed.backup(tmp_path / "source", before_read=fail)
    assert b"telling" not in spy.received
    assert b"failed" in spy.received


# --- which keys open it -----------------------------------------------------------------------------------------------


def test_without_the_key_with_another_key_or_a_public_key_nothing_opens(sealed, tmp_path):
    write(tmp_path / "source", {"file": b"file"})
    sealed.backup(tmp_path / "source")
    own = sealed.key
    for other in (None, AgentKey.generate(), PublicKey(own.public)):
        sealed.key = other
        with pytest.raises(KeyUnavailableError) as raised:
            sealed.restore(tmp_path / "target")
        assert raised.value.hint
        assert not (tmp_path / "target").exists()
    sealed.key = own
    sealed.restore(tmp_path / "target")


def test_an_unencrypted_archive_is_not_accepted_as_sealed(local_runs, tmp_path):
    write(tmp_path / "source", {"file": b"file"})
    local_runs.backup(tmp_path / "source")
    local_runs.key = AgentKey.generate()
    for use in (lambda: local_runs.restore(tmp_path / "target"), lambda: local_runs.backup(tmp_path / "source")):
        with pytest.raises(KeyUnavailableError, match="not encrypted"):
            use()


def changed(runs, apply, **options):
    point = find_point(runs.call, "latest", resource=runs.resource)
    return change_access(runs.keyed_call, point, apply, **options)


def test_a_key_that_is_added_opens_older_points_too(sealed, tmp_path):
    write(tmp_path / "source", {"file": b"first"})
    sealed.backup(tmp_path / "source")
    first = sealed.latest()
    other = AgentKey.generate()
    spy = sealed.call = Spy(sealed.call)
    changed(sealed, lambda access: access.add(PublicKey(other.public), "other"))
    assert len(spy.received) < 64 * KIB
    sealed.key = other
    for number, point in enumerate((first, "latest")):
        sealed.restore(tmp_path / f"target {number}", point)
        assert (tmp_path / f"target {number}" / "file").read_bytes() == b"first"
    # The new key can read the archive, but nothing proves to it that the archive is genuine.
    with pytest.raises(KeyUnavailableError, match="nothing proves"):
        sealed.backup(tmp_path / "source")
    changed(sealed, lambda _: None, accept=True)
    write(tmp_path / "source", {"file": b"second"})
    sealed.backup(tmp_path / "source")
    sealed.restore(tmp_path / "target")
    assert seen(tmp_path / "target") == seen(tmp_path / "source")


def test_a_removed_key_opens_old_backups_and_not_new_ones(sealed, tmp_path):
    write(tmp_path / "source", {"large": noise(6 * MIB), "small": noise(1000)})
    sealed.backup(tmp_path / "source")
    other, own = AgentKey.generate(), sealed.key
    changed(sealed, lambda access: access.add(other, "other"))
    before = sealed.latest()
    with sealed.opened() as archive:
        kept = dict(archive.sealing.keys)
    changed(sealed, lambda access: access.remove(other.fingerprint[:6]))
    write(tmp_path / "source", {"new": noise(1000, 2)})
    report, _ = sealed.backup(tmp_path / "source")
    assert report.sent_bytes < MIB
    sealed.restore(tmp_path / "own")
    assert seen(tmp_path / "own") == seen(tmp_path / "source")
    sealed.key = other
    sealed.restore(tmp_path / "old", before)
    with pytest.raises(KeyUnavailableError):
        sealed.restore(tmp_path / "new")
    call = KeyedCall(sealed.call, other)
    call.learned.keys |= kept  # a former holder may have kept them
    with (
        pytest.raises(KeyUnavailableError),
        open_archive(call, find_point(sealed.call, "latest", resource=sealed.resource), "test"),
    ):
        pass
    sealed.key = own
    with pytest.raises(ConfigurationError, match="only key"):
        changed(sealed, lambda access: access.remove(own.fingerprint))


def test_rotation_sends_nothing_again_and_old_points_stay_readable(sealed, tmp_path):
    write(tmp_path / "source", {"large": noise(9 * MIB), "small": noise(1000)})
    sealed.backup(tmp_path / "source")
    first = sealed.latest()
    changed(sealed, lambda access: access.rotate())
    os.rename(tmp_path / "source" / "large", tmp_path / "source" / "renamed")
    with (tmp_path / "source" / "renamed").open("r+b") as file:
        file.seek(5 * MIB)
        file.write(b"changed")
    report, _ = sealed.backup(tmp_path / "source")
    assert report.unchanged == 1
    for number, point in enumerate((first, "latest")):
        sealed.restore(tmp_path / f"target {number}", point)
    assert seen(tmp_path / "target 1") == seen(tmp_path / "source")
    assert (tmp_path / "target 0" / "large").read_bytes() == noise(9 * MIB)
    with sealed.opened() as archive:
        assert len(archive.sealing.keys) == 2
        assert sum(map(is_key_name, archive.object_names)) == 2


# --- a malicious store ------------------------------------------------------------------------------------------------


class Lying:
    """A store whose answers `lie` changes."""

    def __init__(self, call, lie):
        self.inner = call
        self.lie = lie

    def call(self, operation):
        return self.lie(operation, self.inner.call(operation))


def replaced(answer, data):
    return msgspec.structs.replace(answer, data=Payload(bytes(data)))


def flip(at):
    def lie(operation, answer):
        if isinstance(operation, GetChunk) and len(answer.data) > 1000:
            data = bytearray(answer.data.data)
            data[at] ^= 1
            return replaced(answer, data)
        return answer

    return lie


def cut(operation, answer):
    if isinstance(operation, GetChunk) and len(answer.data) > 1000:
        return replaced(answer, answer.data.data[:-100])
    return answer


def swapped(operation, answer):
    """Swap the first two chunks of each object."""
    if isinstance(operation, ListChunks) and len(answer.chunk_list) > 3:
        tokens = [chunk.chunk_token for chunk in answer.chunk_list]
        tokens[0], tokens[1] = tokens[1], tokens[0]
        chunks = [
            msgspec.structs.replace(chunk, chunk_token=token)
            for chunk, token in zip(answer.chunk_list, tokens, strict=True)
        ]
        return msgspec.structs.replace(answer, chunk_list=chunks)
    return answer


def without_last_chunk(operation, answer):
    if isinstance(operation, ListChunks) and len(answer.chunk_list) > 3:
        return msgspec.structs.replace(answer, chunk_list=answer.chunk_list[:-1])
    return answer


def with_damaged_head(operation, answer):
    if isinstance(operation, GetObjectMetadata):
        blob = bytearray(answer.metadata_blob.data)
        blob[len(blob) // 2] ^= 1
        return msgspec.structs.replace(answer, metadata_blob=Payload(bytes(blob)))
    return answer


@pytest.mark.parametrize(
    "lie",
    [flip(0), flip(5), flip(10), flip(30), flip(500), flip(-1), cut, swapped, without_last_chunk, with_damaged_head],
    ids=["magic", "kind", "key id", "nonce", "content", "tag", "cut", "swapped", "short", "head"],
)
def test_altered_data_from_the_store_is_detected(sealed, tmp_path, lie):
    write(tmp_path / "source", {"large": noise(9 * MIB), "small": noise(1000)})
    sealed.backup(tmp_path / "source")
    sealed.call = Lying(sealed.call, lie)
    if lie in (swapped, without_last_chunk):  # this affects the chunks of one file only, or of one object
        assert b"large" in [issue.path for issue in sealed.restore(tmp_path / "target").issues]
    else:
        with pytest.raises((ArchiveDamagedError, KeyUnavailableError)):
            sealed.restore(tmp_path / "target")
    assert not (tmp_path / "target" / "large").exists()


def test_an_old_version_of_a_content_object_is_detected(sealed, tmp_path):
    """The store returns the first version of an object instead of the second."""
    write(tmp_path / "source", {"file": noise(MIB)})
    sealed.backup(tmp_path / "source")
    first = sealed.latest()
    write(tmp_path / "source", {"file": noise(MIB, 2)})
    sealed.backup(tmp_path / "source")
    with sealed.opened(first) as old:

        class Rollback:
            inner = sealed.call

            def call(self, operation):
                if getattr(operation, "object_token", None) in tokens or hasattr(operation, "chunk_token"):
                    operation = msgspec.structs.replace(operation, storage_job_id=old.job_id)
                return self.inner.call(operation)

        with sealed.opened() as archive:
            archive._objects["content-00000002"] = msgspec.structs.replace(
                old._objects["content-00000001"], name="content-00000002"
            )
            tokens = {old._objects["content-00000001"].object_token}
            archive.call = archive.sealing._call = Rollback()
            with pytest.raises(ArchiveDamagedError, match="head is damaged, or not in its place"):
                archive.sealing.table("content-00000002")
            # An object of the same name, whose head opens, is refused as well.
            archive._objects["content-00000001"] = old._objects["content-00000001"]
            with pytest.raises(ArchiveDamagedError, match="not the one that the archive's header refers to"):
                archive.sealing.table("content-00000001")


def test_the_archive_of_another_resource_is_detected(sealed, tmp_path):
    write(tmp_path / "source", {"file": noise(1000)})
    other = Runs(sealed.call, f"{sealed.resource}-other", sealed.key)
    for runs in (sealed, other):
        runs.backup(tmp_path / "source")
    right, wrong = (find_point(sealed.call, "latest", resource=each.resource) for each in (sealed, other))

    class Swapping:
        inner = sealed.call

        def call(self, operation):
            if getattr(operation, "recovery_point_arn", None) == right.recovery_point_arn:
                operation = msgspec.structs.replace(operation, recovery_point_arn=wrong.recovery_point_arn)
            return self.inner.call(operation)

    sealed.call = Swapping()
    with pytest.raises(ArchiveDamagedError, match="another resource"):
        sealed.restore(tmp_path / "target")


def test_a_base_that_the_store_forged_is_refused(local_runs, tmp_path):
    """The store knows the public key, and makes an archive that the victim is supposed to continue."""
    victim = AgentKey.generate()
    store = AgentKey.generate()
    write(tmp_path / "bait", {"file": b"bait"})
    write(tmp_path / "source", {"file": b"secret"})
    local_runs.key = store
    local_runs.backup(tmp_path / "bait")
    changed(local_runs, lambda access: access.add(PublicKey(victim.public), "victim"))
    local_runs.key = victim
    with pytest.raises(KeyUnavailableError, match="made it up|nothing proves"):
        local_runs.backup(tmp_path / "source")


def test_no_repr_shows_a_secret(key):
    archive_key = ArchiveKey.generate()
    for thing, secrets in ((key, [key.seed]), (archive_key, [archive_key.secret, archive_key.id_secret])):
        assert all(secret.hex() not in repr(thing) and repr(secret) not in repr(thing) for secret in secrets)
