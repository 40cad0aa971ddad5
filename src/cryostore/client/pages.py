"""Lists that come in pages, read to their end through any `Call`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec

from cryostore.core.errors import CryostoreError
from cryostore.model.operation import Call, Operation, Output
from cryostore.model.restores import BackupObject, Chunk, ListChunks, ListObjects

Out = TypeVar("Out", bound=Output)


def pages(call: Call, operation: Operation[Out]) -> Iterator[Out]:
    """Each page of a list, from where `operation` starts; asks for a page only when it is wanted.

    Raises TypeError for an operation whose answer has no pages, and CryostoreError if the server gives one token twice
    in a row, because that would never end.
    """
    if not any(member.attribute == "next_token" for member in operation.declaration.output_members):
        raise TypeError(f"{operation.declaration.name} does not answer in pages")
    while True:
        page = call.call(operation)
        yield page
        token = page.next_token  # type: ignore[attr-defined] # checked above
        if not token:
            return
        if token == operation.next_token:  # type: ignore[attr-defined] # every paged operation has it
            raise CryostoreError(f"{operation.declaration.name} answered the same NextToken twice")
        operation = msgspec.structs.replace(operation, next_token=token)


def items(call: Call, operation: Operation[Any]) -> Iterator[Any]:
    """Each item of a list over all its pages. See `pages`."""
    (name,) = (member.attribute for member in operation.declaration.output_members if member.attribute != "next_token")
    for page in pages(call, operation):
        yield from getattr(page, name)


def objects(call: Call, storage_job_id: str, *, prefix: str | None = None) -> Iterator[BackupObject]:
    """Every object of a restore job or running backup job, in ascending byte order of the names."""
    yield from items(call, ListObjects(storage_job_id=storage_job_id, starting_object_prefix=prefix))


def chunks(call: Call, storage_job_id: str, object_token: str) -> Iterator[Chunk]:
    """Every chunk of an object, in ascending index order."""
    yield from items(call, ListChunks(storage_job_id=storage_job_id, object_token=object_token))
