"""A keyring of one master key, in memory."""

from __future__ import annotations

from cryostore.chunks.keyring import MasterKey
from cryostore.core.errors import KeyUnavailableError


class MemoryKeyring:
    """One master key."""

    def __init__(self):
        self._key = MasterKey("master", bytes(32))

    def active(self):
        return self._key

    def key(self, key_id):
        if key_id != self._key.key_id:
            raise KeyUnavailableError("there is one key only")
        return self._key
