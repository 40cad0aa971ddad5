"""Actions on the model of a catalog from many threads at once."""

from __future__ import annotations

from conformance.database import together
from cryostore.model.errors import (
    InvalidResourceStateException,
    JobStateConflictException,
    ResourceNotFoundException,
    ThrottlingException,
)


def outcomes(count, action):
    """The result of `action(number)` in each of so many threads: its return value, or the class of its error."""
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
