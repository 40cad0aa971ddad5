"""Keys that lie with the archives they open, each under a passphrase.

A lock is a key file that anybody who may write to the store can have put there. So few are read, each is small, the
cheapest is tried first, and what all of them may cost is bounded. A lock that is malformed is passed over.
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
"""How many locks of an archive are read."""
MEMORY_KIB_MAX = 2 * Stretching(b"").memory_kib
LOCK_WORK_MAX = 4 * Stretching(b"").work
"""What one lock may cost: a few times what is written today."""
ALL_WORK_MAX = 4 * LOCK_WORK_MAX
"""What all locks together may cost, in KiB that are gone through."""


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
        "the passphrase opens no key of this backup", hint="repeat the command with the right one, or give a key file"
    )


def _by_cost(call: Call, job_id: str, locks: list[BackupObject]) -> list[tuple[int, bytes]]:
    """The key files of the locks that can be tried, with what each costs: the cheapest first."""
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
