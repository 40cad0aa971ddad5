"""Payloads of a job on their way into the store: checked once, stored first, referred to afterwards.

The order makes a write safe: bytes are durable before any row refers to them, and the transaction that refers to them
also records where they are. Shared by the operations that write chunks and objects.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import NamedTuple

from cryostore.catalog.database import FixedStatements, Transaction, UnexpectedRowCountError
from cryostore.catalog.rows import chunks, packs
from cryostore.catalog.rows.chunks import ChunkRow
from cryostore.chunks.envelope import PayloadKind
from cryostore.core.digest import Checksum, Payload
from cryostore.model.errors import IllegalArgumentException
from cryostore.service.context import Context
from cryostore.service.operations.steps import SteppedWrite


class Presence(NamedTuple):
    """Whether the vault holds a payload before it is stored, and in which epoch of garbage collection that is so."""

    held: bool
    epoch: int


class _Stored(NamedTuple):
    """A durable payload. `row` is its location if it was stored now, None if the vault held it already.

    `epoch` was current before it was stored. `pack_bytes` is the size of its pack, unless the pack still grows.
    """

    digest: bytes
    row: ChunkRow | None
    epoch: int
    pack_bytes: int | None = None


class _ChunkVanishedError(Exception):
    """Garbage collection gave up bytes that the vault held; they must be stored again. Never leaves this module."""


def check_payload(
    payload: Payload, names: tuple[str, str], length: int | None, checksum: str | None
) -> Checksum | None:
    """Check a payload against its stated length and checksum, whose member names are `names` (B.12).

    Returns the parsed checksum. Raises IllegalArgumentException with both values.
    """
    if length is not None and length != len(payload):
        raise IllegalArgumentException(f"{names[0]}: {length}, but {len(payload)} bytes were received")
    if checksum is None:
        return None
    stated = Checksum.parse(checksum)
    if stated.digest != payload.sha256:
        received = Checksum(payload.sha256, stated.form).text()
        raise IllegalArgumentException(f"{names[1]}: {checksum}, but the received bytes give {received}")
    return stated


def find_presence(transaction: Transaction, vault_id: int, payload: Payload) -> Presence:
    """Whether the vault holds a payload that is about to be stored."""
    return Presence(*chunks.known_in_epoch(transaction, vault_id, payload.sha256))


def store_payload(
    context: Context,
    vault_id: int,
    payload: Payload | None,
    refer: Callable[[Transaction], None],
    kind: PayloadKind = PayloadKind.CHUNK,
    *,
    presence: Presence | None = None,
) -> None:
    """Make a payload durable, then run `refer`, which refers to it, in the transaction that records its location.

    Does not store a payload that the vault holds; if garbage collection gives that one up before the transaction, it is
    stored after all. `refer` may run several times. An exception that it raises is raised here, and no row has changed
    then. If `refer` is a SteppedWrite, an engine may get all statements in one message. `presence` is the result of
    `find_presence`, if the caller has it already.
    """
    while True:
        stored = None if payload is None else _store(context, vault_id, payload, kind, presence)
        presence = None
        try:
            _record_and_refer(context, vault_id, stored, refer)
        except _ChunkVanishedError:
            continue
        if stored is not None and payload is not None:
            (context.tally.shared if stored.row is None else context.tally.stored)(len(payload))
        return


def _store(context: Context, vault_id: int, payload: Payload, kind: PayloadKind, presence: Presence | None) -> _Stored:
    digest = payload.sha256
    if presence is None:
        presence = context.database.read(lambda transaction: find_presence(transaction, vault_id, payload))
    if presence.held:
        return _Stored(digest, None, presence.epoch)
    key_number, key = context.keys.sealing(vault_id)
    location = context.store.put(payload, key, kind)
    row = ChunkRow(key_number, location.pack_id, location.offset, location.length, len(payload))
    return _Stored(digest, row, presence.epoch, location.pack_bytes)


def _record_and_refer(
    context: Context, vault_id: int, stored: _Stored | None, refer: Callable[[Transaction], None]
) -> None:
    """Run the transaction that records and refers. Raises _ChunkVanishedError, or an error of `refer`."""
    # The row of a pack that grows is there for all chunks but the first: its statement is not worth sending.
    in_one_message = isinstance(refer, SteppedWrite) and not context.store.packs_grow
    if in_one_message and isinstance(refer, SteppedWrite) and stored is not None and stored.row is not None:
        insertion = chunks.insert_statements(
            vault_id,
            stored.digest,
            stored.row,
            epoch=stored.epoch,
            now_ms=context.clock(),
            pack_bytes=stored.pack_bytes,
        )
        with contextlib.suppress(UnexpectedRowCountError):  # the transaction below finds out why
            context.database.write(FixedStatements([*insertion, *refer.statements()]))
            return

    def work(transaction: Transaction) -> None:
        if stored is not None and not _record(context, transaction, vault_id, stored):
            raise _ChunkVanishedError
        refer(transaction)
        if whole := context.store.take_whole():  # or the next process that opens the store scans each of these packs
            packs.close_all(transaction, whole)

    context.database.write(work)


def _record(context: Context, transaction: Transaction, vault_id: int, stored: _Stored) -> bool:
    """Record a payload's location, or that it is used again; False if its pack or chunk was given up meanwhile."""
    if stored.row is None:
        return chunks.mark_used(transaction, vault_id, stored.digest)
    return chunks.insert(
        transaction,
        vault_id,
        stored.digest,
        stored.row,
        epoch=stored.epoch,
        now_ms=context.clock(),
        pack_bytes=stored.pack_bytes,
    )
