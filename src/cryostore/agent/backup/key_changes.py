"""Who may open the archives of a resource: recipients listed, added and removed, keys rotated.

A recovery point never changes; a new one is made that inherits all data of the newest and has other key objects. What
older ones need is wrapped in the newest as well, so that whoever opens that opens them, too.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

from cryostore.agent.archive.reader import Archive
from cryostore.agent.archive.recovery_points import RecoveryPoint
from cryostore.agent.backup.catalog_writer import CatalogWriter
from cryostore.agent.backup.job import BackupJob, drop_objects, open_job
from cryostore.agent.backup.policy import Sealed
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
    """Who an archive is sealed for, and its keys; the first of `keys` seals what comes. `locks` are key files."""

    keys: list[ArchiveKey]
    recipients: dict[str, Recipient]
    locks: dict[str, bytes] = field(default_factory=dict)
    whole: dict[str, AgentKey] = field(default_factory=dict)
    """Recipients whose whole key is here: what is wrapped for them carries their tag."""

    def add(self, key: PublicKey, name: str, lock: bytes = b"") -> None:
        """Let a key open everything; `lock` is its file under a passphrase, to lie with the archive."""
        self.recipients[key.fingerprint] = Recipient(key.public, name)
        if isinstance(key, AgentKey):
            self.whole[key.fingerprint] = key
        if lock:
            self.locks[lock_name(key)] = lock

    def remove(self, fingerprint: str) -> None:
        """Seal what comes under a new key that this one cannot open. Raises ConfigurationError."""
        found = [each for each in self.recipients if each.startswith(fingerprint)] if fingerprint else []
        if len(found) != 1:
            raise ConfigurationError(
                f"{fingerprint!a} is no key of this archive", hint="`cryo agent-key list` shows them"
            )
        if len(self.recipients) == 1:
            raise ConfigurationError("this is the only key of the archive", hint="add another one first")
        del self.recipients[found[0]]
        self.rotate()

    def rotate(self) -> None:
        """Seal what comes under a new key. Pieces are known as before, so that nothing is sent again."""
        self.keys.insert(0, ArchiveKey.generate(self.keys[0].id_secret))


def access_of(sealing: SealedArchive | None) -> Access:
    """Who an archive is sealed for. Raises ConfigurationError if it is not sealed."""
    if sealing is None:
        raise ConfigurationError("this backup is not encrypted", hint="back up with --key once")
    keys = [sealing.active, *(key for key in sealing.keys.values() if key is not sealing.active)]
    return Access(keys, {PublicKey(each.public).fingerprint: each for each in sealing.head.recipients})


def change(call: Call, point: RecoveryPoint, apply: Callable[[Access], None], *, accept: bool = False) -> str:
    """Make a recovery point of the same data with other access; answers its ARN. `point` is the newest of its resource.

    `accept` goes on with an archive that the key's holder has not begun. Raises KeyUnavailableError otherwise, and
    ConfigurationError for what cannot be changed.
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


def _base_of(job: BackupJob) -> str:
    if not job.base.storage_job_id:
        hint = "make another one, then try again"
        raise ConfigurationError("the newest backup is damaged in the store", hint=hint)
    return job.base.storage_job_id


def _check_owned(archive: Archive) -> None:
    if archive.sealing and not archive.sealing.is_owned:
        raise KeyUnavailableError(
            "nothing proves that this key's holder began this archive",
            hint="`cryo agent-key accept` trusts it, if you know it for the right one",
        )


def _commit(call: Call, job: BackupJob, archive: Archive, access: Access, resource: str, *, accept: bool) -> str:
    pairs = [(PublicKey(each.public), each.name) for each in access.recipients.values()]
    secrecy = Sealed(access.keys[0], resource, pairs)
    old = archive.object_checksums()
    found = {name: digest for name, digest in old.items() if not is_key_name(name)}
    upload = secrecy.upload(call, job.job_id, CATALOG)
    with closing(Uploader(call, DigestTable(DIGEST_BYTES))) as uploader:
        writer = CatalogWriter(call, uploader, upload, archive)
        writer.renew()
        uploader.flush()
        upload.complete(archive.header_bytes)
    found[CATALOG] = upload.summary()
    found |= _store_keys(call, job.job_id, old, access, [each for each, _ in pairs], accept=accept)
    drop_objects(call, job.job_id, sorted(old.keys() - found.keys()))
    facts = {"kind": archive.header.kind, "catalogObject": CATALOG}
    return job.commit(found, secrecy.restore_metadata(facts), 0).recovery_point_arn or ""


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
