"""Transport of requests: the interface, the address of a server, and the error for a request without an answer.

The transport over TCP is in `connection`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from cryostore.core.errors import ConfigurationError, CryostoreError
from cryostore.wire.message import Request, Response

PORTS = {"http": 80, "https": 443}


class ConnectionFailedError(CryostoreError):
    """A request without an answer: no connection, a broken one, a time-out, or an answer that is not HTTP.

    It is unknown whether the server executed the request. `retryable` is False if a repetition cannot help, for example
    with a certificate that is not trusted.
    """

    def __init__(self, message: str, *, hint: str = "", retryable: bool = True) -> None:
        super().__init__(message, hint=hint)
        self.retryable = retryable


class Transport(Protocol):
    """Sends signed requests to a server and returns its answers."""

    def send(self, request: Request) -> Response:
        """Return the answer, whatever its status. Thread safe. Raises only ConnectionFailedError."""
        ...

    def close(self) -> None:
        """Close idle connections. A later `send` opens new ones."""
        ...

    def cut_off(self, seconds: float) -> None:
        """Abort all requests in flight. Each step of a later request waits at most `seconds`."""
        ...


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address of a server: only scheme, host and port."""

    scheme: str
    host: str
    port: int

    @classmethod
    def parse(cls, url: str) -> Endpoint:
        """Parse `http://host[:port]` or `https://host[:port]`.

        Raises ConfigurationError for anything else. A path is refused because it would be part of the signature.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise _not_an_endpoint() from None
        if parts.scheme not in PORTS or not parts.hostname or parts.username is not None or parts.password is not None:
            raise _not_an_endpoint()
        if parts.path not in ("", "/") or parts.query or parts.fragment:
            raise _not_an_endpoint()
        return cls(parts.scheme, parts.hostname, PORTS[parts.scheme] if port is None else port)

    @property
    def authority(self) -> str:
        """The Host header as SDKs write it: with a port only if it is not the default of the scheme."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


def _not_an_endpoint() -> ConfigurationError:
    # Does not repeat the text: it may contain a password.
    return ConfigurationError(
        "the endpoint URL is not of the form http://host:port", hint="give scheme, host and port only, without a path"
    )
