"""Opaque tokens: a list returns them, and a later request sends them back (B.9).

A token is its content and a MAC over its kind, its owner and the content, keyed with a secret of the store. It cannot
be forged, altered or used with another job. The server keeps no state for it: a token stays valid across restarts,
other nodes and compaction, and ends with its owner, which every request looks up.
"""

from __future__ import annotations

import base64
import binascii
import hmac

MAC_BYTES = 16


class Tokens:
    """Makes and opens tokens with one secret."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def make(self, kind: str, owner: str, content: bytes) -> str:
        """A token of this kind that only requests for its owner may use."""
        return base64.urlsafe_b64encode(content + self._mac(kind, owner, content)).rstrip(b"=").decode()

    def open(self, kind: str, owner: str, token: str) -> bytes | None:
        """The content of a token; None if it was not made here for this kind and owner."""
        try:
            # ASCII only, and one spelling only: exactly the text that was returned is accepted.
            raw = base64.b64decode(token.encode("ascii") + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (UnicodeEncodeError, binascii.Error):
            return None
        content, mac = raw[:-MAC_BYTES], raw[-MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(kind, owner, content)):
            return None
        return content if self.make(kind, owner, content) == token else None

    def _mac(self, kind: str, owner: str, content: bytes) -> bytes:
        text = f"{kind}\0{owner}\0".encode()
        return hmac.digest(self._secret, text + content, "sha256")[:MAC_BYTES]
