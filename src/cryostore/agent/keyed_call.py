"""A store together with the key by which its archives are read and written: a `Call` like any other."""

from __future__ import annotations

from typing import TypeVar

from cryostore.agent.agent_key import AgentKey, PublicKey
from cryostore.core.errors import ConfigurationError
from cryostore.model.operation import Call, Operation, Output

Out = TypeVar("Out", bound=Output)


class KeyedCall:
    """Hands every operation on. `recipients` are further keys that a new archive is sealed for."""

    def __init__(self, inner: Call, key: PublicKey, recipients: tuple[PublicKey, ...] = ()) -> None:
        self.inner = inner
        self.key = key
        self.recipients = recipients

    def call(self, operation: Operation[Out]) -> Out:
        """See Call."""
        return self.inner.call(operation)


def resource_for(call: Call, name: str) -> str:
    """What a resource is called that its owner gave no name: with a key, nothing that shows host or path.

    Raises ConfigurationError with the public part of a key alone: no name can be hidden with that.
    """
    key = key_of(call)
    if key is None:
        return name
    if isinstance(key, AgentKey):
        return key.opaque_name(name)
    raise ConfigurationError("a public key hides no names", hint="say a --resource NAME that may be seen")


def key_of(call: Call) -> PublicKey | None:
    """The key that goes with a store, if one does."""
    return call.key if isinstance(call, KeyedCall) else None
