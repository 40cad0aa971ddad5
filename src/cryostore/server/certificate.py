"""The TLS certificate of a server, loaded again when its files change or somebody asks for it.

New connections get the new one; those that are open keep theirs. Files that make no pair (yet) change nothing.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from cryostore.core.errors import ConfigurationError
from cryostore.options.file_modes import require_own_key
from cryostore.server.watching.log import Log

TICKS = 10
Version = tuple[int, int, int] | None


class Certificate:
    """The files of a certificate chain and its key; None for both in a server without TLS."""

    def __init__(self, chain: Path | None, key: Path | None, log: Log) -> None:
        self.asked = False
        """Somebody asks for the files to be loaded again."""
        self._chain = chain
        self._key = key
        self._log = log
        self._seen = _versions(chain, key)

    def look_now_and_then(self, context: ssl.SSLContext | None, tick: int) -> None:
        """Load the files into `context` if they have changed, or if asked. Called ten times a second."""
        asked, self.asked = self.asked, False
        if context is None or self._chain is None or self._key is None or not (asked or tick % TICKS == 0):
            return
        versions = _versions(self._chain, self._key)
        if versions == self._seen and not asked:
            return
        self._seen = versions
        self._load(context, self._chain, self._key)

    def _load(self, context: ssl.SSLContext, chain: Path, key: Path) -> None:
        try:
            require_own_key(key, "--tls-key")
            for one in (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), context):  # a wrong pair would spoil the one in use
                one.load_cert_chain(chain, key, password=lambda: b"")  # nobody is there to be asked
        except (OSError, ConfigurationError) as error:  # an SSLError is an OSError
            message = error.message if isinstance(error, ConfigurationError) else str(error)
            hint = "the certificate of before is served; put a fitting pair in place, or send SIGHUP when it is"
            self._log.write("error", "certificate not loaded", path=str(chain), message=message, hint=hint)
        else:
            self._log.write("info", "certificate loaded", path=str(chain))


def _versions(*paths: Path | None) -> list[Version]:
    """What tells whether files are others than before; None for one that cannot be seen."""
    return [None if path is None else _version(path) for path in paths]


def _version(path: Path) -> Version:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
