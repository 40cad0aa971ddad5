"""Authorisation: which caller may do what on which vault, and the secrets of access keys.

The server verifies signatures (`cryostore.wire.signature`); here the caller is known.
"""

from __future__ import annotations

import threading

from cryostore.catalog.database import Database
from cryostore.catalog.rows import keys
from cryostore.catalog.rows.keys import AccessKeyRow
from cryostore.chunks.keyring import Keyring, unwrap
from cryostore.core.time import SECOND_MS, Clock
from cryostore.model.errors import AccessDeniedException
from cryostore.service.context import Caller
from cryostore.service.store_keyring import unwrap_current

KEY_CACHE_MS = 10 * SECOND_MS
KEYS_CACHED_MAX = 10_000


def authorise(caller: Caller, action: str, vault_name: str | None) -> None:
    """Raise AccessDeniedException unless the caller may do `action` on the vault (None: on no vault in particular)."""
    if not allows(caller, action, vault_name):
        where = f" on vault {vault_name}" if vault_name else ""
        raise AccessDeniedException(f"access key {caller.access_key_id} may not {action}{where}")


def allows(caller: Caller, action: str, vault_name: str | None) -> bool:  # noqa: ARG001 - for later rules
    """Whether the caller may do `action` on the vault. Only root callers exist so far, and they may do everything."""
    return caller.root


def access_key_context(access_key_id: str) -> bytes:
    """The associated data that binds a wrapped secret to its access key."""
    return b"access key\0" + access_key_id.encode()


class AccessKeys:
    """A cache of the callers' secrets; whether a key is still enabled is looked up every few seconds.

    The secret of an access key never changes, so it is unwrapped once, and no later request waits for the keyring.
    """

    def __init__(self, database: Database, keyring: Keyring, clock: Clock) -> None:
        self._database = database
        self._keyring = keyring
        self._clock = clock
        self._known: dict[str, tuple[int, str, Caller]] = {}
        self._lock = threading.Lock()

    def known(self, access_key_id: str) -> str | None:
        """The secret of an access key that was enabled at its latest look-up. Reads memory only."""
        found = self._in_memory(access_key_id, self._clock())
        return found[1] if found else None

    def secret(self, access_key_id: str) -> str | None:
        """The secret of an enabled access key; None if it is unknown or disabled."""
        found = self._find(access_key_id)
        return found[1] if found else None

    def caller(self, access_key_id: str) -> Caller:
        """The caller of an enabled access key. Raises AccessDeniedException if the key is unknown or disabled."""
        found = self._find(access_key_id)
        if found is None:
            raise AccessDeniedException("the access key is unknown or disabled")
        return found[2]

    def forget(self) -> None:
        """Empty the cache."""
        with self._lock:
            self._known.clear()

    def _find(self, access_key_id: str) -> tuple[int, str, Caller] | None:
        now_ms = self._clock()
        if found := self._in_memory(access_key_id, now_ms):
            return found
        kept = self._known.get(access_key_id)
        known = kept[1] if kept else None
        found = unwrap_current(
            lambda: self._database.read(lambda transaction: keys.access_key(transaction, access_key_id)),
            lambda row: self._opened(row, known, now_ms),
        )
        if found is None:
            self._known.pop(access_key_id, None)
            return None
        with self._lock:
            if len(self._known) >= KEYS_CACHED_MAX:
                self._known.clear()
            self._known[access_key_id] = found
        return found

    def _in_memory(self, access_key_id: str, now_ms: int) -> tuple[int, str, Caller] | None:
        found = self._known.get(access_key_id)
        return found if found is not None and now_ms - KEY_CACHE_MS <= found[0] <= now_ms else None

    def _opened(self, row: AccessKeyRow | None, known: str | None, now_ms: int) -> tuple[int, str, Caller] | None:
        """The cache entry of an enabled access key; `known` is its secret if it was unwrapped before."""
        if row is None or not row.enabled:
            return None
        secret = known or unwrap(self._keyring, row.wrapped, access_key_context(row.access_key_id)).decode()
        return now_ms, secret, Caller(access_key_id=row.access_key_id, root=row.root)
