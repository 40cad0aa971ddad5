"""Locks: key files under a passphrase that are stored with the archives they open.

Anybody who may write to the store can add a lock. So the agent reads only a few, all of them small, tries the cheapest
first, and limits the total cost. It skips a malformed lock.
"""

from __future__ import annotations

from cryostore.agent.encryption import key_file
from cryostore.agent.encryption.agent_key import AgentKey, PublicKey
from cryostore.agent.encryption.cipher import Stretching
from cryostore.agent.encryption.key_objects import LOCK_PREFIX, read_small_object
from cryostore.agent.encryption.keyed_call import KeyedCall
from cryostore.agent.errors import DAMAGE
from cryostore.core.errors import ConfigurationError, KeyUnavailableError
from cryostore.model.objects import BackupObject
from cryostore.model.operation import Call

LOCKS_MAX = 64
"""The most locks of an archive that are read."""
MEMORY_KIB_MAX = 2 * Stretching(b"").memory_kib
LOCK_WORK_MAX = 4 * Stretching(b"").work
"""The highest cost of one lock: a few times the cost of the locks that this version writes."""
ALL_WORK_MAX = 4 * LOCK_WORK_MAX
"""The highest cost of all locks together. All costs are in KiB, as `Stretching.work`."""


def key_for(call: Call, job_id: str, objects: dict[str, BackupObject]) -> PublicKey | None:
    """The agent key of `call`. If a passphrase stands for it, the key that the passphrase opens among the objects.

    Raises KeyUnavailableError if the passphrase opens no key.
    """
    if not isinstance(call, KeyedCall):
        return None
    if call.key is None:
        call.key = _unlocked(call, job_id, [entry for name, entry in objects.items() if name.startswith(LOCK_PREFIX)])
    return call.key


def _unlocked(call: KeyedCall, job_id: str, locks: list[BackupObject]) -> AgentKey:
    if not locks:
        raise KeyUnavailableError(
            "no key under a passphrase is stored with this backup", hint="`cryo agent-key add --passphrase` adds one"
        )
    passphrase = call.ask()
    files = _by_cost(call, job_id, locks)
    for number, (_, data) in enumerate(files):
        if sum(work for work, _ in files[: number + 1]) > ALL_WORK_MAX:
            break
        try:
            key = key_file.decode(data, lambda: passphrase)
        except (KeyUnavailableError, ConfigurationError, MemoryError):
            continue
        if isinstance(key, AgentKey):
            return key
    raise KeyUnavailableError(
        "the passphrase opens no key of this backup",
        hint="repeat the command with the right passphrase, or give a key file",
    )


def _by_cost(call: Call, job_id: str, locks: list[BackupObject]) -> list[tuple[int, bytes]]:
    """The cost and the key file of each lock that may be tried, the cheapest first."""
    found = []
    for entry in locks[:LOCKS_MAX]:
        try:
            data = read_small_object(call, job_id, entry)
            how = key_file.stretching_of(data)
        except (*DAMAGE, ConfigurationError):
            continue
        if how is not None and how.memory_kib <= MEMORY_KIB_MAX and how.work <= LOCK_WORK_MAX:
            found.append((how.work, data))
    return sorted(found)
