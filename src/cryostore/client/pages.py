"""Paged lists of the API, read to their end through any `Call`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import msgspec

from cryostore.core.errors import CryostoreError
from cryostore.model.chunks import Chunk, ListChunks
from cryostore.model.objects import BackupObject, ListObjects
from cryostore.model.operation import Call, Operation, Output

Out = TypeVar("Out", bound=Output)

PAGES_MAX = 1_000_000
"""Limit beyond any real list: at 100 chunks per page, an object of 400 TB."""
EMPTY_PAGES_MAX = 10_000
"""Maximum number of empty pages in a row: a server that filters may send some."""
WAIT_SECONDS_MAX = 6 * 3600
"""Maximum total time to wait for the pages of a list."""


def pages(call: Call, operation: Operation[Out], *, monotonic: Callable[[], float] = time.monotonic) -> Iterator[Out]:
    """Yield each page of a list, from the start of `operation`. Requests a page only when it is needed.

    Raises TypeError for an operation without pages, and CryostoreError for a list that does not end: the server repeats
    a token, or the list exceeds the limits above.
    """
    name = operation.declaration.name
    items_of = _items_name(operation)
    waited = 0.0
    empty = 0
    for number in range(1, PAGES_MAX + 1):
        began = monotonic()
        page = call.call(operation)
        waited += monotonic() - began
        yield page
        token = page.next_token  # type: ignore[attr-defined] # checked by _items_name
        if not token:
            return
        if token == operation.next_token:  # type: ignore[attr-defined] # every paged operation has it
            raise CryostoreError(f"{name} returned the same NextToken twice")
        empty = 0 if getattr(page, items_of) else empty + 1
        if empty >= EMPTY_PAGES_MAX:
            raise _endless(name, f"{empty} pages in a row are empty")
        if waited > WAIT_SECONDS_MAX:
            raise _endless(name, f"{number} pages took {waited:.0f} seconds")
        operation = msgspec.structs.replace(operation, next_token=token)
    raise _endless(name, f"there are more than {PAGES_MAX} pages")


def _endless(name: str, reason: str) -> CryostoreError:
    return CryostoreError(
        f"the list of {name} does not end: {reason}", hint="is this the address of a Cryostore server?"
    )


def _items_name(operation: Operation[Any]) -> str:
    """Return the member of a page that holds the items. Raises TypeError for an operation without pages."""
    names = [member.attribute for member in operation.declaration.output_members]
    if "next_token" not in names:
        raise TypeError(f"{operation.declaration.name} does not return pages")
    names.remove("next_token")
    (name,) = names
    return name


def items(call: Call, operation: Operation[Any]) -> Iterator[Any]:
    """Yield each item of a list over all pages. See `pages`."""
    name = _items_name(operation)
    for page in pages(call, operation):
        yield from getattr(page, name)


def objects(call: Call, storage_job_id: str, *, prefix: str | None = None) -> Iterator[BackupObject]:
    """Yield every object of a restore job or running backup job, in ascending byte order of the names."""
    yield from items(call, ListObjects(storage_job_id=storage_job_id, starting_object_prefix=prefix))


def chunks(call: Call, storage_job_id: str, object_token: str) -> Iterator[Chunk]:
    """Yield every chunk of an object, in ascending index order."""
    yield from items(call, ListChunks(storage_job_id=storage_job_id, object_token=object_token))
