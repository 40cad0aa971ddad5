"""Which secrecy a run has: by the key that goes with the store, and by the base that the run starts from."""

from __future__ import annotations

from cryostore.agent.archive.reader import Archive
from cryostore.agent.backup.damaged_base import content_numbers
from cryostore.agent.backup.job import BackupJob, summaries
from cryostore.agent.backup.policy import Plain, Sealed
from cryostore.agent.backup.remembered_base import RememberedBase
from cryostore.agent.backup.run_memory import memory_path
from cryostore.agent.backup.write_only import OneWay
from cryostore.agent.encryption.agent_key import AgentKey, PublicKey
from cryostore.agent.encryption.archive_key import ArchiveKey
from cryostore.agent.encryption.keyed_call import KeyedCall
from cryostore.core.errors import ConfigurationError, KeyUnavailableError
from cryostore.model.operation import Call


def remembered_base(call: Call, job: BackupJob, vault: str, resource: str) -> RememberedBase | None:
    """The base of a run that cannot read it; None for a run that can. Raises ConfigurationError without a folder."""
    if not isinstance(call, KeyedCall) or call.key is None or isinstance(call.key, AgentKey):
        return None
    if not call.memory_folder:
        raise ConfigurationError("there is no folder to remember this run in", hint="set XDG_STATE_HOME, or HOME")
    old = summaries(call, job.base.storage_job_id) if job.base.storage_job_id else {}
    path = memory_path(call.memory_folder, vault, resource)
    return RememberedBase(path, job.base.base_recovery_point_arn, old, content_numbers(job.damaged))


def secrecy_for(call: Call, resource: str, base: Archive | RememberedBase | None, job_id: str) -> Plain:
    """What a run of this resource does, by the key that goes with `call` and by what its base is.

    Raises KeyUnavailableError if the base is sealed under a key that cannot be trusted with new data.
    """
    if not isinstance(call, KeyedCall):
        return Plain()
    key = call.key
    if key is None:
        raise ConfigurationError("a passphrase alone begins no archive", hint="begin it with a key file")
    if isinstance(base, RememberedBase):
        return OneWay(key, resource, base)
    if base is not None and base.sealing is not None:
        sealing = base.sealing
        if sealing.head.resource != resource:
            raise KeyUnavailableError(f"the store gave the archive of another resource as the base of {resource!a}")
        if not sealing.is_owned:
            raise KeyUnavailableError(
                "nothing proves that this key's holder began this archive: the store could have made it up",
                hint="`cryo agent-key accept` trusts it, if you know it for the right one; or say another --resource",
            )
        recipients = [(PublicKey(each.public), each.name) for each in sealing.head.recipients]
        return Sealed(sealing.active, resource, recipients)
    if not isinstance(key, AgentKey):
        raise ConfigurationError("a public key writes files and folders alone", hint="give a whole key for streams")
    return Sealed(ArchiveKey.first(key.archive_seed, resource, job_id), resource, [(key, key.fingerprint)])
