"""Concurrent actions on a catalog from many threads."""

from __future__ import annotations

from conformance.database import together
from cryostore.model.errors import (
    InvalidResourceStateException,
    JobStateConflictException,
    ResourceNotFoundException,
    ThrottlingException,
)


def outcomes(count, action):
    """Run `action(number)` in `count` threads at once; return the result of each, or the class of its error."""
    found = [None] * count

    def run(number):
        try:
            found[number] = action(number)
        except (ThrottlingException, JobStateConflictException, InvalidResourceStateException,
                ResourceNotFoundException) as error:  # fmt: skip
            found[number] = type(error)

    together(count, run)
    return found


def backed_up(model, *names):
    return model.commit(model.put(model.run(), *names))
