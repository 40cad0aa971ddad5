"""New identifiers. The only module that makes random names.

Other modules get `new_id` as a parameter, so that tests can pass ids that count up.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable

NewId = Callable[[], str]


def random_id() -> str:
    """A random UUID in upper case, like the job ids of AWS Backup (control plane 2.4)."""
    return str(uuid.uuid4()).upper()


def counting_ids(start: int = 1) -> NewId:
    """Make ids that count up but look like random ones: for tests and golden files."""
    numbers = itertools.count(start)
    return lambda: f"00000000-0000-4000-8000-{next(numbers):012X}"
