"""Key changes of a resource: adds and removes recipients of its archives, and rotates its archive key.

Recovery points never change. A change makes a new recovery point that inherits all data of the newest one and has other
key objects. The newest one also holds the keys of the older ones: a key that opens the newest opens all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

from cryostore.agent.archive.reader import Archive
from cryostore.agent.archive.recovery_points import RecoveryPoint
from cryostore.agent.backup.encryption_policy import SealedPolicy
from cryostore.agent.backup.job import OpenJob, drop_objects, open_job
from cryostore.agent.backup.listing_writer import ListingWriter
from cryostore.agent.encryption.agent_key import AgentKey, PublicKey
from cryostore.agent.encryption.archive_key import ArchiveKey
from cryostore.agent.encryption.key_objects import is_key_name, key_object_name, lock_name, wrap
from cryostore.agent.encryption.keyed_call import key_of
from cryostore.agent.encryption.sealed_archive import SealedArchive
from cryostore.agent.encryption.sealed_object import Recipient
from cryostore.agent.header import CATALOG
from cryostore.agent.small_object import store_small
from cryostore.agent.upload.digest_table import DigestTable
from cryostore.agent.upload.uploader import Uploader
from cryostore.core.digest import DIGEST_BYTES
from cryostore.core.errors import ConfigurationError, KeyUnavailableError
from cryostore.model.operation import Call


@dataclass(slots=True)
class Access:
    """The recipients of an archive and its keys. The first of `keys` seals new data; `locks` are key files by name."""

    keys: list[ArchiveKey]
    recipients: dict[str, Recipient]
    locks: dict[str, bytes] = field(default_factory=dict)
    whole: dict[str, AgentKey] = field(default_factory=dict)
    """Recipients whose whole key is at hand: keys wrapped for them carry their tag."""

    def add(self, key: PublicKey, name: str, lock: bytes = b"") -> None:
        """Add a recipient. `lock` is its key file under a passphrase, to be stored with the archive."""
        self.recipients[key.fingerprint] = Recipient(key.public, name)
        if isinstance(key, AgentKey):
            self.whole[key.fingerprint] = key
        if lock:
            self.locks[lock_name(key)] = lock

    def remove(self, fingerprint: str) -> None:
        """Remove a recipient and rotate the key, so that it cannot open new data. Raises ConfigurationError.

        `fingerprint` may be the beginning of one.
        """
        found = [each for each in self.recipients if each.startswith(fingerprint)] if fingerprint else []
        if len(found) != 1:
            raise ConfigurationError(
                f"{fingerprint!a} is not a key of this archive", hint="`cryo agent-key list` shows its keys"
            )
        if len(self.recipients) == 1:
            raise ConfigurationError("this is the only key of the archive", hint="add another key first")
        del self.recipients[found[0]]
        self.rotate()

    def rotate(self) -> None:
        """Seal new data under a new key. The ids of pieces stay the same, so nothing is sent again."""
        self.keys.insert(0, ArchiveKey.generate(self.keys[0].id_secret))


def access_of(sealing: SealedArchive | None) -> Access:
    """Return the recipients and keys of an archive. Raises ConfigurationError if it is not encrypted."""
    if sealing is None:
        raise ConfigurationError("this backup is not encrypted", hint="make a backup with --key first")
    keys = [sealing.active, *(key for key in sealing.keys.values() if key is not sealing.active)]
    return Access(keys, {PublicKey(each.public).fingerprint: each for each in sealing.head.recipients})


def change_access(call: Call, point: RecoveryPoint, apply: Callable[[Access], None], *, accept: bool = False) -> str:
    """Make a recovery point of the same data with the access that `apply` changes. Return its ARN.

    `point` is the newest one of its resource. `accept` continues an archive that the holder of this key did not start;
    without it, such an archive raises KeyUnavailableError. Raises ConfigurationError if the change is not possible.
    """
    arn = (point.resource_arn or "").split(":", 6)
    job = open_job(call, point.backup_vault_name or "Default", arn[6], {}, None, arn[5])
    try:
        with ExitStack() as stack:
            archive = stack.enter_context(closing(Archive(call, _base_of(job))))
            access = access_of(archive.sealing)
            if isinstance(own := key_of(call), AgentKey):
                access.whole[own.fingerprint] = own
            if not accept:
                _check_owned(archive)
            apply(access)
            return _commit(call, job, archive, access, arn[6], accept=accept)
    except BaseException as error:
        job.give_up(error)
        raise


def _base_of(job: OpenJob) -> str:
    if not job.base.storage_job_id:
        hint = "make another backup, then try again"
        raise ConfigurationError("the newest backup is damaged in the store", hint=hint)
    return job.base.storage_job_id


def _check_owned(archive: Archive) -> None:
    if archive.sealing and not archive.sealing.is_owned:
        raise KeyUnavailableError(
            "nothing proves that the holder of this key started this archive",
            hint="if you know that it is genuine, `cryo agent-key accept` trusts it",
        )


def _commit(call: Call, job: OpenJob, archive: Archive, access: Access, resource: str, *, accept: bool) -> str:
    pairs = [(PublicKey(each.public), each.name) for each in access.recipients.values()]
    policy = SealedPolicy(access.keys[0], resource, pairs)
    old = archive.object_checksums()
    found = {name: digest for name, digest in old.items() if not is_key_name(name)}
    upload = policy.upload(call, job.job_id, CATALOG)
    with closing(Uploader(call, DigestTable(DIGEST_BYTES))) as uploader:
        writer = ListingWriter(call, uploader, upload, archive)
        writer.copy_base()
        uploader.flush()
        upload.complete(archive.header_bytes)
    found[CATALOG] = upload.summary()
    found |= _store_keys(call, job.job_id, old, access, [each for each, _ in pairs], accept=accept)
    drop_objects(call, job.job_id, sorted(old.keys() - found.keys()))
    facts = {"kind": archive.header.kind, "catalogObject": CATALOG}
    return job.commit(found, policy.restore_metadata(facts), 0).recovery_point_arn or ""


def _store_keys(
    call: Call, job_id: str, old: dict[str, bytes], access: Access, recipients: list[PublicKey], *, accept: bool
) -> dict[str, bytes]:
    found = {}
    for recipient in recipients:
        whole = access.whole.get(recipient.fingerprint)
        for key in access.keys:
            name = key_object_name(key.key_id, recipient)
            if name in old and not (accept and whole):
                found[name] = old[name]
            else:
                found[name] = store_small(call, job_id, name, wrap(key, whole or recipient))
        if (name := lock_name(recipient)) in old and name not in access.locks:
            found[name] = old[name]
    for name, lock in access.locks.items():
        found[name] = store_small(call, job_id, name, lock)
    return found
