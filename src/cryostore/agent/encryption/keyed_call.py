"""A `Call` with the agent key that reads and writes the archives behind it."""

from __future__ import annotations

from typing import TypeVar

from cryostore.agent.encryption.agent_key import AgentKey, PublicKey
from cryostore.agent.encryption.key_file import Ask
from cryostore.agent.encryption.key_objects import ArchiveKeys
from cryostore.core.errors import ConfigurationError
from cryostore.model.operation import Call, Operation

Out = TypeVar("Out")


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
