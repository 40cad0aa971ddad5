"""What `cryo doctor` finds: one line each, how bad it is, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from cryostore.core.errors import CryostoreError

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


def failed(about: str, problem: CryostoreError, advice: str) -> Diagnosis:
    """An attempt that ended in an error, which may know better what to do."""
    return Diagnosis(ERROR, about, problem.message, problem.hint or advice)
