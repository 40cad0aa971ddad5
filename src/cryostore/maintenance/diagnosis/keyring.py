"""Checks of a keyring and of a copy of it."""

from __future__ import annotations

from pathlib import Path

from cryostore.chunks.keyring import KeyringSource
from cryostore.chunks.keyring.master_keys import DOCUMENT_BYTES_MAX, NoDocumentError, decode_text, is_paper, read_paper
from cryostore.core.errors import CryostoreError
from cryostore.maintenance.diagnosis import Diagnosis, error, ok, warning


def check_keyring(source: KeyringSource) -> Diagnosis:
    """Check an open keyring. Raises CryostoreError if it cannot be read, or if other users may read its file."""
    number = len(source.document().keys)
    return ok("keyring", f"{source.place}, {number} {'key' if number == 1 else 'keys'}")


def check_keyring_copy(source: KeyringSource, copy: Path, data_dir: Path) -> Diagnosis:
    """Check that a copy has every key of the keyring, and is not on the disk of the data."""
    about, advice = "copy of the keyring", "make a new one: `cryo key export --to FILE`"
    try:
        with copy.open("rb") as file:
            data = file.read(DOCUMENT_BYTES_MAX + 1)
        copied = read_paper(data) if is_paper(data) else decode_text(data)
    except OSError as problem:
        return error(about, f"{copy} cannot be read: {problem.strerror}", advice)
    except (NoDocumentError, CryostoreError):
        return error(about, f"{copy} holds no keyring", advice)
    keys = source.document().keys
    wrong = [name for name, key in keys.items() if name not in copied.keys or not key.is_same(copied.keys[name])]
    if wrong:
        return error(about, f"{copy} lacks {len(wrong)} of {len(keys)} keys", advice)
    if copy.stat().st_dev == data_dir.stat().st_dev:
        return warning(about, f"{copy} has all keys, but is on the disk of the data", "keep it elsewhere")
    return ok(about, f"{copy} has all {len(keys)} keys")
