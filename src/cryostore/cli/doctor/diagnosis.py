"""What `cryo doctor` finds: one line each, how bad it is, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from cryostore.core.errors import CryostoreError

if TYPE_CHECKING:
    from cryostore.catalog.database import Database
    from cryostore.chunks.blobs import BlobStore
    from cryostore.chunks.keyring import KeyringSource

OK = "ok"
WARNING = "warning"
ERROR = "error"
CODES = {OK: 0, WARNING: 1, ERROR: 2}


class Diagnosis(NamedTuple):
    """One thing that was looked at. `advice` says what to do next, and may be there even if all is well."""

    level: str
    about: str
    found: str
    advice: str = ""


Diagnoses = Iterator[Diagnosis]


def ok(about: str, found: str, advice: str = "") -> Diagnosis:
    """As it should be."""
    return Diagnosis(OK, about, found, advice)


def warning(about: str, found: str, advice: str) -> Diagnosis:
    """Works, but not as well or as safely as it should."""
    return Diagnosis(WARNING, about, found, advice)


def error(about: str, found: str, advice: str) -> Diagnosis:
    """Backups cannot be made or read like this."""
    return Diagnosis(ERROR, about, found, advice)


def known_commits(database: Database, blobs: BlobStore, keyring: KeyringSource) -> Diagnosis:
    """Whether the catalog has all commits that are on record beside the blobs. Changes nothing."""
    from cryostore.chunks.records import Records
    from cryostore.service.records.unknown_commits import HINT, find_unknown_commits, unknown_commits_message

    about = "commits"
    try:
        count = sum(1 for _ in find_unknown_commits(database, Records(blobs, keyring)))
    except CryostoreError as problem:
        return failed(about, problem, "see above")
    return (
        error(about, unknown_commits_message(count), HINT)
        if count
        else ok(about, "the catalog has all that are on record")
    )


def failed(about: str, problem: CryostoreError, advice: str) -> Diagnosis:
    """An attempt that ended in an error, which may know better what to do."""
    return Diagnosis(ERROR, about, problem.message, problem.hint or advice)
