"""What a read does that meets damage: the chunk is marked, so that the next upload of its bytes heals it."""

from __future__ import annotations

import contextlib
from functools import partial

from cryostore.catalog import damage
from cryostore.catalog.chunks import ChunkRow
from cryostore.core.errors import CryostoreError, DamagedDataError, UnknownFormatError
from cryostore.service.context import Context


def mark(context: Context, vault_id: int, digest: bytes, row: ChunkRow, error: DamagedDataError) -> None:
    """Mark the chunk that could not be read at `row` for this error, if it still lies there.

    Does nothing if the catalog cannot be written, or if the bytes are not damaged but a later version's.
    """
    if isinstance(error, UnknownFormatError) or isinstance(error.__cause__, UnknownFormatError):
        return
    work = partial(damage.mark_if_there, vault_id=vault_id, digest=digest, chunk=row, now_ms=context.clock())
    with contextlib.suppress(CryostoreError):
        context.database.write(work)
