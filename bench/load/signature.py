"""Signed request heads, made with the client's own signer before the clock runs."""

from __future__ import annotations

from urllib.parse import quote, urlencode

from cryostore.core.time import wall_clock
from cryostore.wire.message import Request
from cryostore.wire.sigv4 import Credentials, sign

REGION = "local-1"


class Signer:
    """Makes request heads for one service, all signed for one time. They are valid for 15 minutes."""

    def __init__(self, credentials: Credentials, host: str, service: str) -> None:
        self._credentials = credentials
        self._host = host
        self._service = service
        self._now_ms = wall_clock()

    def headers(self, method: str, path: str, query: dict[str, str], body_hash: str) -> dict[str, str]:
        """Return the signed headers. `path` is already encoded; `body_hash` is in hex."""
        request = Request(method, path, query_text(query), [("host", self._host)])
        signed = sign(
            request,
            self._credentials,
            region=REGION,
            service=self._service,
            now_ms=self._now_ms,
            payload_hash=body_hash,
        )
        return dict(signed.headers)

    def head(self, method: str, path: str, query: dict[str, str], body_hash: str, body_bytes: int) -> bytes:
        """Return a whole HTTP/1.1 request head."""
        target = f"{path}?{query_text(query)}" if query else path
        headers = self.headers(method, path, query, body_hash)
        if method != "GET":
            headers["content-length"] = str(body_bytes)
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode()


def query_text(query: dict[str, str]) -> str:
    """Return the encoded query string."""
    return urlencode(query, quote_via=quote, safe="-_.~")
