"""New identifiers. The only module that asks the operating system for randomness on behalf of names.

Everything else gets `new_id` passed in, so that tests can count instead.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable

NewId = Callable[[], str]


def random_id() -> str:
    """An upper-case UUID, the shape of AWS Backup's own job ids (control plane 2.4)."""
    return str(uuid.uuid4()).upper()


def counting_ids(start: int = 1) -> NewId:
    """Ids that count up, in the shape of real ones: for tests and golden files."""
    numbers = itertools.count(start)
    return lambda: f"00000000-0000-4000-8000-{next(numbers):012X}"
