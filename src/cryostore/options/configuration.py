"""What the operator may decide, in one frozen structure that is made once and handed down.

Below this file nothing of the server reads the environment. Contradictions and unsafe wishes are refused when the
structure is made, with a hint what to do instead.
"""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from cryostore.core.errors import ConfigurationError
from cryostore.core.limits import KIB, MIB, Limits
from cryostore.options.file_modes import require_own_key
from cryostore.service.settings import Settings

PORT_DEFAULT = 8734
WORKERS_MAX = 64
WORKERS_DEFAULT_MAX = 2
LOG_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
"""Each level by its name, with the number that Python's `logging` gives it."""


def workers_default() -> int:
    """Two processes, if there are processors for them: one interpreter runs on one at a time."""
    return min(WORKERS_DEFAULT_MAX, len(os.sched_getaffinity(0)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSettings:
    """The bounds of one client connection."""

    connections_max: int = 1000
    """Open connections of one worker."""
    head_seconds_max: float = 30.0
    """From the first byte of a request to the end of its head."""
    keep_alive_seconds_max: float = 75.0
    """Idleness between two requests."""
    body_idle_seconds_max: float = 30.0
    """In every such period a sender must bring `body_progress_bytes_min`."""
    body_progress_bytes_min: int = 16 * KIB
    unverified_seconds_max: float = 10.0
    """How long a body may take that must be here before its signature can be verified, and longer for what came."""
    unverified_bytes_per_second_min: int = 512 * KIB
    write_idle_seconds_max: float = 30.0
    """In every such period a reader must take something."""
    drain_bytes_max: int = 8 * MIB
    """How much of an unread body is read past after an early answer, so that the connection stays useful."""
    linger_bytes_max: int = 192 * MIB
    """How much is read past on a connection that ends, so that a client that sends first and reads then gets its
    answer: twice the longest body."""
    drain_seconds_max: float = 30.0
    """How long either may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """All of `cryo serve`. Making one raises ConfigurationError for what is impossible, contradictory or unsafe."""

    data_dir: Path | None = Path("cryo-data")
    """The store, if it is a directory; None: a shared store, which `catalog`, `blobs` and `keyring` name together."""
    catalog: str | None = field(default=None, repr=False)
    blobs: str | None = None
    keyring: str | None = None
    """Where the master keys are (`chunks.keyring.parse_keyring_uri`); None: in the data directory."""
    host: str = "127.0.0.1"
    port: int = PORT_DEFAULT
    workers: int = field(default_factory=workers_default)
    """Processes that serve; one serves in the process that was started."""
    region: str | None = None
    """The only region accepted in a signature; None: any."""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    insecure_listen: bool = False
    log_level: str = "info"
    metrics_host: str | None = None
    """Where metrics and the answers to probes are to be had; None: nowhere."""
    metrics_port: int = 0
    reserve_bytes: int = 64 * MIB
    """Kept back on the disk for deletes and garbage collection; 0: nothing."""
    limits: Limits = field(default_factory=Limits)
    connection: ConnectionSettings = field(default_factory=ConnectionSettings)
    threads: int = 32
    """Operations carried out at once in one worker."""
    body_bytes_in_flight_max: int = 192 * MIB
    """Bytes of bodies held at once in one worker."""
    unverified_body_bytes_max: int = 64 * MIB
    """Bytes of bodies held at once in one worker whose senders are not known yet; beside the others."""
    body_wait_seconds_max: float = 20.0
    """How long a body waits for its share of them."""
    shutdown_seconds_max: float = 30.0
    """How long requests under way may take once the server was told to stop."""
    drain_seconds: float = 0.0
    """How long the server goes on taking requests once it was told to stop, while its readiness says that it leaves."""
    maintenance_seconds: float = 30.0
    settings: Settings = field(default_factory=Settings)
    """How the service behaves; its reserve is `reserve_bytes`."""

    def __post_init__(self) -> None:
        self._check_store()
        _check_port(self.port)
        if not 1 <= self.workers <= WORKERS_MAX:
            raise ConfigurationError(f"--workers is {self.workers}: it must be between 1 and {WORKERS_MAX}")
        if self.threads < 1:
            raise ConfigurationError("at least one thread is needed to carry out operations")
        if self.log_level not in LOG_LEVELS:
            raise ConfigurationError(f"--log-level must be one of {', '.join(LOG_LEVELS)}")
        if self.region == "":
            raise ConfigurationError("--region is empty", hint="leave it out to accept any region")
        _check_port(self.metrics_port)
        if self.reserve_bytes < 0:
            raise ConfigurationError("--reserve is below 0")
        if self.drain_seconds < 0:
            raise ConfigurationError("drain_seconds is below 0")
        self._check_tls()
        if self.metrics_host is not None and not self.insecure_listen and not is_loopback(self.metrics_host):
            raise ConfigurationError(
                f"{self.metrics_host} can be reached from other machines, and metrics travel without TLS",
                hint="give --metrics a loopback address, or --insecure-listen if something in between encrypts",
            )

    def _check_store(self) -> None:
        if self.catalog is None and self.blobs is None:
            if self.data_dir is None:
                raise ConfigurationError(
                    "no store is named", hint="give --data-dir, or --catalog, --blobs and --keyring"
                )
            return
        if self.data_dir is not None:
            raise ConfigurationError(
                "a data directory and a shared store are named", hint="give --data-dir, or --catalog and --blobs"
            )
        if missing := [name for name in ("catalog", "blobs", "keyring") if getattr(self, name) is None]:
            raise ConfigurationError(
                f"a shared store needs --catalog, --blobs and --keyring, and {' and '.join(missing)} is not given"
            )

    def _check_tls(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigurationError(
                "--tls-cert and --tls-key belong together", hint="give both, or neither to serve without TLS"
            )
        for option, path in (("--tls-cert", self.tls_cert), ("--tls-key", self.tls_key)):
            if path is not None and not os.access(path, os.R_OK):
                raise ConfigurationError(f"{option} names a file that cannot be read: {path}")
        if self.tls_key is not None:
            require_own_key(self.tls_key, "--tls-key")
        if self.tls_cert is None and not self.insecure_listen and not is_loopback(self.host):
            raise ConfigurationError(
                f"{self.host} can be reached from other machines, and without TLS they could read what travels there",
                hint="give --tls-cert and --tls-key, or --insecure-listen if something in front of the server encrypts",
            )

    @property
    def scheme(self) -> str:
        """What an address of this server begins with."""
        return "http" if self.tls_cert is None else "https"


def parse_listen(text: str, option: str = "--listen") -> tuple[str, int]:
    """The host and port of `HOST:PORT`; an IPv6 host is in brackets. Raises ConfigurationError."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ConfigurationError(f"{option} {text}: an IPv6 address needs brackets", hint=f"{option} '[{host}]:{port}'")
    if not colon or not host or not port.isascii() or not port.isdigit():
        raise ConfigurationError(f"{option} must be HOST:PORT, not {text!r}", hint="for example 127.0.0.1:8734")
    _check_port(int(port))
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`. A name other than localhost is not trusted to stay where it is."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return (mapped or address).is_loopback
    except ValueError:
        return False


def _check_port(port: int) -> None:
    if not 0 <= port <= 65535:
        raise ConfigurationError(f"the port is {port}: it must be between 0 and 65535")


def to_json(configuration: Configuration) -> bytes:
    """The configuration as one line of JSON, to hand it to another process."""
    return msgspec.json.encode(configuration, enc_hook=str)


def from_json(line: bytes) -> Configuration:
    """The configuration that `to_json` wrote."""
    return msgspec.json.decode(line, type=Configuration, dec_hook=_decode_path)


def _decode_path(kind: type, value: Any) -> Any:
    assert kind is Path
    return Path(value)
