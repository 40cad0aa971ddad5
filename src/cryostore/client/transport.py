"""The seam between a client and whatever carries its requests: one method, `send`.

Lives here: the seam, the address of a server, and the error for requests that got no answer. The transport over TCP
is in `connection`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from cryostore.core.errors import ConfigurationError, CryostoreError
from cryostore.wire.message import Request, Response

PORTS = {"http": 80, "https": 443}


class ConnectionFailedError(CryostoreError):
    """A request got no answer: no connection, one that broke, a timeout, or something that is not HTTP.

    Whether the server carried the request out is unknown. `retryable` is False where a repetition cannot help, such as
    a certificate that is not trusted.
    """

    def __init__(self, message: str, *, hint: str = "", retryable: bool = True) -> None:
        super().__init__(message, hint=hint)
        self.retryable = retryable


class Transport(Protocol):
    """Carries a signed request to a server and brings its answer back."""

    def send(self, request: Request) -> Response:
        """The answer, whatever its status. Safe from several threads at once; raises ConnectionFailedError only."""
        ...

    def close(self) -> None:
        """Let go of idle connections. A later `send` opens new ones."""
        ...

    def cut_off(self, seconds: float) -> None:
        """End all requests that are under way; any later one waits no longer than this for each step of it."""
        ...


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address of a server: scheme, host and port, and nothing else."""

    scheme: str
    host: str
    port: int

    @classmethod
    def parse(cls, url: str) -> Endpoint:
        """Read `http://host[:port]` or `https://host[:port]`.

        Raises ConfigurationError for anything else; a path is refused because it would be part of what is signed.
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
        """The Host header, as SDKs write it: the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


def _not_an_endpoint() -> ConfigurationError:
    # The text is not repeated: it may hold a password.
    return ConfigurationError(
        "the endpoint URL is not of the form http://host:port", hint="give scheme, host and port only, without a path"
    )
