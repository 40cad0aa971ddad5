"""A `Call` with the agent key that reads and writes the archives behind it.

If a passphrase stands for the key, it opens a lock: a key file that is stored with the archive. Anybody who may write
to the store can add a lock. So the agent reads only a few, all of them small, tries the cheapest first, and limits the
total cost. It skips a malformed lock.
"""

from __future__ import annotations

from typing import TypeVar

from cryostore.agent.encryption import key_file
from cryostore.agent.encryption.agent_key import AgentKey, PublicKey
from cryostore.agent.encryption.cipher import Stretching
from cryostore.agent.encryption.key_file import Ask
from cryostore.agent.encryption.key_objects import LOCK_PREFIX, ArchiveKeys, read_small_object
from cryostore.agent.errors import DAMAGE
from cryostore.core.errors import ConfigurationError, KeyUnavailableError
from cryostore.model.objects import BackupObject
from cryostore.model.operation import Call, Operation

Out = TypeVar("Out")
LOCKS_MAX = 64
"""The most locks of an archive that are read."""
MEMORY_KIB_MAX = 2 * Stretching(b"").memory_kib
LOCK_WORK_MAX = 4 * Stretching(b"").work
"""The highest cost of one lock: a few times the cost of the locks that this version writes."""
ALL_WORK_MAX = 4 * LOCK_WORK_MAX
"""The highest cost of all locks together. All costs are in KiB, as `Stretching.work`."""


def _no_passphrase() -> str:
    raise ConfigurationError("no key was given")


class KeyedCall:
    """Passes every operation on. `learned` are archive keys found in newer recovery points, for use with older ones."""

    def __init__(self, inner: Call, key: PublicKey | None, memory_folder: str = "", ask: Ask = _no_passphrase) -> None:
        """`memory_folder` is the folder where a write-only machine keeps its run memory.

        Without a key, `ask` returns a passphrase for a lock that is stored with an archive. The first key that it opens
        becomes `key`.
        """
        self.inner = inner
        self.key = key
        self.memory_folder = memory_folder
        self.ask = ask
        self.learned = ArchiveKeys()

    def call(self, operation: Operation[Out]) -> Out:
        """See Call."""
        return self.inner.call(operation)


def resource_for(call: Call, name: str) -> str:
    """The default name of a resource. With a key, it shows neither host nor path.

    Raises ConfigurationError if there is only the public part of a key, which cannot hide the name.
    """
    key = key_of(call)
    if not isinstance(call, KeyedCall):
        return name
    if isinstance(key, AgentKey):
        return key.opaque_name(name)
    raise ConfigurationError(
        "only a whole key can hide the name of the resource", hint="give a name that may be seen: --resource NAME"
    )


def key_of(call: Call) -> PublicKey | None:
    """The agent key of a call, or None."""
    return call.key if isinstance(call, KeyedCall) else None


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
