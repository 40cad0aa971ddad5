"""The TLS certificate of a server, reloaded when its files change or on request.

New connections get the new certificate; open connections keep the old one. If the files are not (yet) a valid pair, the
old certificate stays in use.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from cryostore.core.errors import ConfigurationError
from cryostore.options.configuration import require_own_key
from cryostore.server.monitoring.log import Log

CHECK_TICKS = 10
"""How many ticks of a tenth of a second pass between two looks at the files."""
FileVersion = tuple[int, int, int] | None
"""Inode, modification time and size; None for a file that cannot be read."""


class Certificate:
    """The files of a certificate chain and its key; both are None in a server without TLS."""

    def __init__(self, chain: Path | None, key: Path | None, log: Log) -> None:
        self.reload_requested = False
        self._chain = chain
        self._key = key
        self._log = log
        self._loaded = _versions(chain, key)

    def reload_if_changed(self, context: ssl.SSLContext | None, tick: int) -> None:
        """Load the files into `context` if they have changed, or on request. Called ten times a second."""
        requested, self.reload_requested = self.reload_requested, False
        if context is None or self._chain is None or self._key is None or not (requested or tick % CHECK_TICKS == 0):
            return
        versions = _versions(self._chain, self._key)
        if versions == self._loaded and not requested:
            return
        self._loaded = versions
        self._load(context, self._chain, self._key)

    def _load(self, context: ssl.SSLContext, chain: Path, key: Path) -> None:
        try:
            require_own_key(key, "--tls-key")
            for one in (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), context):  # a wrong pair would spoil the one in use
                one.load_cert_chain(chain, key, password=lambda: b"")  # there is no terminal to ask for a passphrase
        except (OSError, ConfigurationError) as error:  # an SSLError is an OSError
            message = error.message if isinstance(error, ConfigurationError) else str(error)
            hint = "the old certificate stays in use; put a matching pair in place, or send SIGHUP once it is there"
            self._log.write("error", "certificate not loaded", path=str(chain), message=message, hint=hint)
        else:
            self._log.write("info", "certificate loaded", path=str(chain))


def _versions(*paths: Path | None) -> list[FileVersion]:
    return [None if path is None else _version(path) for path in paths]


def _version(path: Path) -> FileVersion:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
