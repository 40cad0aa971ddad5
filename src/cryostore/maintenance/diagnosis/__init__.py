"""Checks of a store's set-up that `cryo doctor` prints: directory, keyring, catalog, blobs. Nothing is changed.

In this module: the result of one check, which says what was found, how bad it is, and what to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from cryostore.core.errors import CryostoreError

OK = "ok"
WARNING = "warning"
ERROR = "error"
SKEW_SECONDS_NOTED = 60
"""Two clocks that differ by more are a warning."""


class Diagnosis(NamedTuple):
    """The result of one check. `advice` says what to do next, and may be there even if all is well."""

    level: str
    about: str
    found: str
    advice: str = ""


Diagnoses = Iterator[Diagnosis]


def ok(about: str, found: str, advice: str = "") -> Diagnosis:
    """All is well."""
    return Diagnosis(OK, about, found, advice)


def warning(about: str, found: str, advice: str) -> Diagnosis:
    """It works, but not as well or as safely as it should."""
    return Diagnosis(WARNING, about, found, advice)


def error(about: str, found: str, advice: str) -> Diagnosis:
    """No backup can be made or read like this."""
    return Diagnosis(ERROR, about, found, advice)


def failed(about: str, problem: CryostoreError, advice: str) -> Diagnosis:
    """The check ended in an error; the hint of that error goes before `advice`."""
    return Diagnosis(ERROR, about, problem.message, problem.hint or advice)
