"""Keyring from an environment variable: read once, and removed from the environment, so that no child inherits it."""

from __future__ import annotations

import os

from cryostore.chunks.keyring.document import KeyringDocument, NoDocumentError, decode_text
from cryostore.chunks.keyring.master_key import MasterKey
from cryostore.core.errors import ConfigurationError, KeyMissingError


class EnvironmentKeyring:
    """The keys of the keyring document in the variable `name`, as JSON or base64 of it.

    Raises ConfigurationError if the variable is not set or holds no keyring document.
    """

    def __init__(self, name: str) -> None:
        self.place = f"environment variable {name}"
        data = os.environb.pop(name.encode(), None)
        if data is None:
            raise ConfigurationError(
                f"{self.place} is not set; it should hold the keyring",
                hint="set it to the keyring document (JSON, or base64 of it) for this process alone",
            )
        try:
            self._document = decode_text(data)
        except NoDocumentError:
            raise ConfigurationError(
                f"{self.place} does not hold a keyring document",
                hint="it must be the content of a keyring file, or base64 of it, whole and unchanged",
            ) from None

    def active(self) -> MasterKey:
        """See Keyring."""
        return self._document.active

    def key(self, key_id: str) -> MasterKey:
        """See Keyring."""
        try:
            return self._document.keys[key_id]
        except KeyError:
            raise KeyMissingError(
                key_id,
                hint=f"set the {self.place} to a document that has it, and restart the server",
            ) from None

    def document(self) -> KeyringDocument:
        """See KeyringSource."""
        return self._document
