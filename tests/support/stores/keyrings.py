"""Keyring documents for tests, and their sources."""

from __future__ import annotations

import json
import sys

from cryostore.chunks.keyring import KeyringDocument, MasterKey
from cryostore.core.errors import KeyUnavailableError

OLD = MasterKey("old", bytes(range(32)))
NEW = MasterKey("new", bytes(range(32, 64)))
OLD_ALONE = KeyringDocument(OLD, {"old": OLD})
BOTH = KeyringDocument(NEW, {"old": OLD, "new": NEW})


def write_keyring(path, document, mode=0o600):
    """Write a keyring file, as an operator would. `document` may also be any text."""
    path.unlink(missing_ok=True)
    if isinstance(document, KeyringDocument):
        path.write_bytes(document.encode())
    else:
        path.write_text(document if isinstance(document, str) else json.dumps(document))
    path.chmod(mode)


def program(path, text):
    """Return a Python program as a command with arguments."""
    path.write_text(text)
    return [sys.executable, "-I", "-S", str(path)]


def printing(path):
    """Return a program that prints a file."""
    return ["/bin/cat", str(path)]


class ChangingKeyring:
    """A keyring whose `document` a test replaces."""

    def __init__(self, document):
        self.document = document

    def active(self):
        return self.document.active

    def key(self, key_id):
        try:
            return self.document.keys[key_id]
        except KeyError:
            raise KeyUnavailableError("not here") from None
