"""A key that lies with the archives it opens, under a passphrase: for who has nothing but that."""

from __future__ import annotations

from cryostore.agent import key_file
from cryostore.agent.agent_key import AgentKey, PublicKey
from cryostore.agent.archive_keys import object_bytes
from cryostore.agent.key_object import LOCK_PREFIX
from cryostore.agent.keyed_call import KeyedCall
from cryostore.core.errors import KeyUnavailableError
from cryostore.model.operation import Call
from cryostore.model.restores import BackupObject


def key_for(call: Call, job_id: str, objects: dict[str, BackupObject]) -> PublicKey | None:
    """The key that goes with `call`; if that is a passphrase, the key that it opens among an archive's objects.

    Raises KeyUnavailableError if it opens none.
    """
    if not isinstance(call, KeyedCall):
        return None
    if call.key is None:
        call.key = _unlocked(call, job_id, [entry for name, entry in objects.items() if name.startswith(LOCK_PREFIX)])
    return call.key


def _unlocked(call: KeyedCall, job_id: str, locks: list[BackupObject]) -> AgentKey:
    if not locks:
        raise KeyUnavailableError(
            "no key under a passphrase lies with this backup", hint="`cryo agent-key add --passphrase` puts one there"
        )
    passphrase = call.ask()
    for entry in locks:
        try:
            key = key_file.decode(object_bytes(call, job_id, entry), lambda: passphrase, f"object {entry.name}")
        except KeyUnavailableError:
            continue
        if isinstance(key, AgentKey):
            return key
    raise KeyUnavailableError(
        "the passphrase opens no key of this backup", hint="repeat the command with the right one, or give a key file"
    )
