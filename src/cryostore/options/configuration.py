"""Configuration of a server: one frozen structure, made once and passed on.

No other part of the server reads the environment. A contradictory or unsafe configuration is refused when the structure
is made, with a hint. Here, too: permission checks of files that a server trusts, which are its data directory, its TLS
key and its configuration file.
"""

from __future__ import annotations

import ipaddress
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from cryostore.core.errors import ConfigurationError
from cryostore.core.limits import KIB, MIB, Limits
from cryostore.service.settings import Settings

PORT_DEFAULT = 8734
WORKERS_MAX = 64
WORKERS_DEFAULT_MAX = 2
LOG_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
"""Each level by its name, with the number that Python's `logging` gives it."""
OTHERS_WRITE = 0o002
GROUP_AND_OTHERS_WRITE = 0o022
ALL_BUT_OWNER = 0o077
NOT_GROUP_READ = 0o037


def workers_default() -> int:
    """Return two processes if there are two processors: one Python interpreter uses one processor at a time."""
    return min(WORKERS_DEFAULT_MAX, len(os.sched_getaffinity(0)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSettings:
    """Limits of one client connection."""

    connections_max: int = 1000
    """Open connections of one worker."""
    head_seconds_max: float = 30.0
    """From the first byte of a request to the end of its head."""
    keep_alive_seconds_max: float = 75.0
    """Idle time between two requests."""
    body_idle_seconds_max: float = 30.0
    """In every such period a client must send `body_progress_bytes_min`."""
    body_progress_bytes_min: int = 16 * KIB
    unverified_seconds_max: float = 10.0
    """Time for a body whose signature can only be verified with it, besides the time that
    `unverified_bytes_per_second_min` grants for the bytes received."""
    unverified_bytes_per_second_min: int = 512 * KIB
    write_idle_seconds_max: float = 30.0
    """In every such period a client must read something."""
    drain_bytes_max: int = 8 * MIB
    """Bytes of an unread body that are discarded after an early answer, so that the connection can be reused."""
    linger_bytes_max: int = 192 * MIB
    """Bytes that are discarded on a connection that closes, so that a client that reads only after sending gets its
    answer: twice the longest body."""
    drain_seconds_max: float = 30.0
    """Time limit of either."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """The configuration of `cryo serve`.

    Making one raises ConfigurationError for values that are impossible, contradictory or unsafe.
    """

    data_dir: Path | None = Path("cryo-data")
    """The directory of the store; None for a shared store, which `catalog`, `blobs` and `keyring` name together."""
    catalog: str | None = field(default=None, repr=False)
    blobs: str | None = None
    keyring: str | None = None
    """Place of the master keys (`chunks.keyring.parse_keyring_uri`); None: in the data directory."""
    host: str = "127.0.0.1"
    port: int = PORT_DEFAULT
    workers: int = field(default_factory=workers_default)
    """Number of worker processes; 1: the started process is the worker."""
    region: str | None = None
    """The only region accepted in a signature; None for any."""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    insecure_listen: bool = False
    log_level: str = "info"
    metrics_host: str | None = None
    """Address of metrics and probes; None for none."""
    metrics_port: int = 0
    reserve_bytes: int = 64 * MIB
    """Disk space reserved for deletes and garbage collection; 0 for none."""
    limits: Limits = field(default_factory=Limits)
    connection: ConnectionSettings = field(default_factory=ConnectionSettings)
    threads: int = 32
    """Concurrent operations of one worker."""
    body_bytes_in_flight_max: int = 192 * MIB
    """Bytes of request bodies in memory of one worker."""
    unverified_body_bytes_max: int = 64 * MIB
    """Bytes of request bodies in memory of one worker that are not authenticated yet; in addition to the others."""
    body_wait_seconds_max: float = 20.0
    """How long a body waits for memory."""
    shutdown_seconds_max: float = 30.0
    """Time for requests in flight during a graceful shutdown."""
    drain_seconds: float = 0.0
    """How long the server accepts requests after it is told to stop, while its readiness probe fails."""
    maintenance_seconds: float = 30.0
    settings: Settings = field(default_factory=Settings)
    """Settings of the service, except for its reserve, which is `reserve_bytes`."""

    def __post_init__(self) -> None:
        self._check_store()
        _check_port(self.port)
        if not 1 <= self.workers <= WORKERS_MAX:
            raise ConfigurationError(f"--workers is {self.workers}: it must be between 1 and {WORKERS_MAX}")
        if self.threads < 1:
            raise ConfigurationError("threads must be at least 1")
        if self.log_level not in LOG_LEVELS:
            raise ConfigurationError(f"--log-level must be one of {', '.join(LOG_LEVELS)}")
        if self.region == "":
            raise ConfigurationError("--region is empty", hint="leave it out to accept any region")
        _check_port(self.metrics_port)
        if self.reserve_bytes < 0:
            raise ConfigurationError("--reserve is negative")
        if self.drain_seconds < 0:
            raise ConfigurationError("--drain is negative")
        self._check_tls()
        if self.metrics_host is not None and not self.insecure_listen and not is_loopback(self.metrics_host):
            raise ConfigurationError(
                f"{self.metrics_host} can be reached from other machines, and metrics are sent without TLS",
                hint="give --metrics a loopback address, or --insecure-listen if a proxy or tunnel encrypts",
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
                "both a data directory and a shared store are named", hint="give --data-dir, or --catalog and --blobs"
            )
        if missing := [name for name in ("catalog", "blobs", "keyring") if getattr(self, name) is None]:
            raise ConfigurationError(
                f"a shared store needs --catalog, --blobs and --keyring, but {' and '.join(missing)} is not given"
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
                f"{self.host} can be reached from other machines, and without TLS the connections are not encrypted",
                hint="give --tls-cert and --tls-key, or --insecure-listen if a proxy in front of the server encrypts",
            )

    @property
    def scheme(self) -> str:
        """The scheme of the server's address: http or https."""
        return "http" if self.tls_cert is None else "https"


def parse_listen(text: str, option: str = "--listen") -> tuple[str, int]:
    """Return host and port of `HOST:PORT`; an IPv6 host is in brackets. Raises ConfigurationError."""
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
    """Return whether only this machine can reach `host`. Of names only localhost is trusted to stay local."""
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
    """Return the configuration as one line of JSON, to pass it to another process."""
    return msgspec.json.encode(configuration, enc_hook=str)


def from_json(line: bytes) -> Configuration:
    """Return the configuration that `to_json` wrote."""
    return msgspec.json.decode(line, type=Configuration, dec_hook=_decode_path)


def _decode_path(kind: type, value: Any) -> Any:
    assert kind is Path
    return Path(value)


def require_own_directory(data_dir: Path) -> None:
    """Raise ConfigurationError if other users could add or replace files in a data directory that exists."""
    if not data_dir.is_dir():
        return
    try:
        paths = [data_dir, *(Path(entry.path) for entry in os.scandir(data_dir) if not entry.is_symlink())]
        for path in paths:
            _refuse(path, path.stat().st_mode, GROUP_AND_OTHERS_WRITE, "other users may write to it", "go-w")
    except OSError as error:
        raise ConfigurationError(f"{data_dir} cannot be read: {error.strerror}") from error


def require_own_key(path: Path, option: str) -> None:
    """Raise ConfigurationError if other users may read a private key.

    The group may read a key of root, because distributions share keys that way.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise ConfigurationError(f"{option} names a file that cannot be read: {path}: {error.strerror}") from error
    forbidden = ALL_BUT_OWNER if status.st_uid else NOT_GROUP_READ
    _refuse(path, status.st_mode, forbidden, f"other users may read or replace the key of {option}", "go-rwx")


def require_own_configuration(path: Path, mode: int, *, names_command: bool) -> None:
    """Raise ConfigurationError if other users may write a configuration file: the server would obey them."""
    forbidden = GROUP_AND_OTHERS_WRITE if names_command else OTHERS_WRITE
    content = "names a command" if names_command else "configures a server"
    _refuse(path, mode, forbidden, f"it {content}, and other users may write to it", "go-w")


def _refuse(path: Path, mode: int, forbidden: int, why: str, change: str) -> None:
    mode = stat.S_IMODE(mode)
    if mode & forbidden:
        raise ConfigurationError(f"{path} has mode {mode:04o}: {why}", hint=f"chmod {change} {path}")
