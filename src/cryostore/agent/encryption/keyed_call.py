"""A store together with the key by which its archives are read and written: a `Call` like any other."""

from __future__ import annotations

from typing import TypeVar

from cryostore.agent.encryption.agent_key import AgentKey, PublicKey
from cryostore.agent.encryption.key_file import Ask
from cryostore.agent.encryption.key_objects import ArchiveKeys
from cryostore.core.errors import ConfigurationError
from cryostore.model.operation import Call, Operation

Out = TypeVar("Out")


def _nobody() -> str:
    raise ConfigurationError("there is no key")


class KeyedCall:
    """Hands every operation on. `learned` are archive keys that newer recovery points have for older ones."""

    def __init__(self, inner: Call, key: PublicKey | None, memory_folder: str = "", ask: Ask = _nobody) -> None:
        """`memory_folder` is where a machine that only writes keeps what it remembers of its runs.

        Without a key, `ask` answers the passphrase of one that lies with the archives; the first one read sets `key`.
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
    """What a resource is called that its owner gave no name: with a key, nothing that shows host or path.

    Raises ConfigurationError without a whole key: no name can be hidden with less.
    """
    key = key_of(call)
    if not isinstance(call, KeyedCall):
        return name
    if isinstance(key, AgentKey):
        return key.opaque_name(name)
    raise ConfigurationError("only a whole key hides names", hint="say a --resource NAME that may be seen")


def key_of(call: Call) -> PublicKey | None:
    """The key that goes with a store, if one does."""
    return call.key if isinstance(call, KeyedCall) else None
