"""Chunks: which bytes a vault holds, and where they lie.

A chunk that is condemned or known to be damaged is not offered to writers. They store its bytes again, which makes the
row sound. A condemned chunk can still be read. The rules of condemning: `maintenance.garbage_collection.collect`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from cryostore.catalog.database import Statement, Transaction
from cryostore.catalog.rows import packs

DIGESTS_PER_QUERY = 200
COUNT_STEP = 100_000
SOUND = "condemned_ms IS NULL AND damaged_ms IS NULL"
EPOCH = "(SELECT epoch FROM collection)"
PLACED_ANEW = (
    " ON CONFLICT (vault_id, digest) DO UPDATE SET key_number = excluded.key_number,"
    " pack_number = excluded.pack_number, pack_offset = excluded.pack_offset,"
    " sealed_length = excluded.sealed_length, length = excluded.length, used_epoch = excluded.used_epoch,"
    " condemned_ms = NULL, damaged_ms = NULL"
    " WHERE chunk.condemned_ms IS NOT NULL OR chunk.damaged_ms IS NOT NULL"
)
INSERT_BY_NAME = (
    "INSERT INTO chunk (vault_id, digest, key_number, pack_number, pack_offset, sealed_length, length, used_epoch)"
    " SELECT :vault_id, :digest, :key_number, pack_number, :pack_offset, :sealed_length, :length,"
    f" {EPOCH} FROM pack WHERE name = :pack_name AND retired_ms IS NULL" + PLACED_ANEW
)


class ChunkRow(NamedTuple):
    """Where the bytes with a digest lie, and the number of the key that sealed them."""

    key_number: int
    pack_name: str
    pack_offset: int
    sealed_length: int
    length: int


class SweptChunk(NamedTuple):
    """A chunk, as the sweep of garbage collection needs it."""

    vault_id: int
    digest: bytes
    pack_number: int
    sealed_length: int
    condemned_ms: int | None
    used_epoch: int


class PlacedChunk(NamedTuple):
    """A chunk in a pack, in whatever state, as the verification of the pack needs it."""

    vault_id: int
    digest: bytes
    key_number: int
    pack_offset: int
    sealed_length: int
    length: int
    damaged_ms: int | None

    @property
    def end(self) -> int:
        """The end of its envelope."""
        return self.pack_offset + self.sealed_length


class PackedChunk(NamedTuple):
    """A sound chunk in a pack, as compaction needs it."""

    vault_id: int
    digest: bytes
    key_number: int
    pack_offset: int
    sealed_length: int
    length: int


def find(transaction: Transaction, vault_id: int, digest: bytes) -> ChunkRow | None:
    """Return where the vault's bytes with this digest lie; None if it holds none."""
    row = transaction.row(
        "SELECT key_number, pack.name, pack_offset, sealed_length, length FROM chunk"
        " JOIN pack ON pack.pack_number = chunk.pack_number WHERE vault_id = :vault_id AND digest = :digest",
        vault_id=vault_id,
        digest=digest,
    )
    return ChunkRow(*row) if row else None


def is_known(transaction: Transaction, vault_id: int, digest: bytes) -> bool:
    """Whether the vault holds these bytes and offers them. A caller that then refers to them calls `mark_used`."""
    found = transaction.row(
        f"SELECT 1 FROM chunk WHERE vault_id = :vault_id AND digest = :digest AND {SOUND}",
        vault_id=vault_id,
        digest=digest,
    )
    return found is not None


def known_in_epoch(transaction: Transaction, vault_id: int, digest: bytes) -> tuple[bool, int]:
    """Return the result of `is_known`, and the garbage collection epoch for which it holds."""
    row = transaction.row(
        "SELECT EXISTS (SELECT 1 FROM chunk"
        f" WHERE vault_id = :vault_id AND digest = :digest AND {SOUND}), epoch FROM collection",
        vault_id=vault_id,
        digest=digest,
    )
    assert row is not None
    return bool(row[0]), row[1]


def mark_used(transaction: Transaction, vault_id: int, digest: bytes) -> bool:
    """Note that a write refers to these bytes, in its own transaction: from then on the vault keeps them.

    Return False if the vault does not hold them, or has given them up: then the caller must store them again.
    """
    row = transaction.row(
        f"SELECT used_epoch = {EPOCH} FROM chunk WHERE vault_id = :vault_id AND digest = :digest AND {SOUND}",
        vault_id=vault_id,
        digest=digest,
    )
    if row is not None and not row[0]:
        transaction.run(
            f"UPDATE chunk SET used_epoch = {EPOCH} WHERE vault_id = :vault_id AND digest = :digest",
            vault_id=vault_id,
            digest=digest,
        )
    return row is not None


def known_lengths(transaction: Transaction, vault_id: int, digests: Sequence[bytes]) -> dict[bytes, int]:
    """Return the length of each of the digests that the vault holds and offers."""
    found: dict[bytes, int] = {}
    for start in range(0, len(digests), DIGESTS_PER_QUERY):
        some = digests[start : start + DIGESTS_PER_QUERY]
        names = ", ".join(f":d{place}" for place in range(len(some)))
        rows = transaction.rows(
            f"SELECT digest, length FROM chunk WHERE vault_id = :vault_id AND digest IN ({names}) AND {SOUND}",
            vault_id=vault_id,
            **{f"d{place}": digest for place, digest in enumerate(some)},
        )
        found.update((row[0], row[1]) for row in rows)
    return found


def insert(
    transaction: Transaction,
    vault_id: int,
    digest: bytes,
    chunk: ChunkRow,
    *,
    epoch: int,
    now_ms: int,
    pack_bytes: int | None = None,
) -> bool:
    """Record durable bytes that were written in `epoch` or later, and refer to them as `mark_used` does.

    `pack_bytes` is the size of their pack, if the pack does not grow. If the vault holds and offers the same bytes
    elsewhere, that location stays. Return False if the pack was given up meanwhile: then the caller must store the
    bytes again.
    """
    number = packs.number_for(transaction, chunk.pack_name, epoch=epoch, now_ms=now_ms, size_bytes=pack_bytes)
    if number is None:
        return False
    recorded = transaction.run(
        "INSERT INTO chunk (vault_id, digest, key_number, pack_number, pack_offset, sealed_length, length, used_epoch)"
        f" VALUES (:vault_id, :digest, :key_number, :number, :pack_offset, :sealed_length, :length, {EPOCH})"
        + PLACED_ANEW,
        vault_id=vault_id,
        digest=digest,
        key_number=chunk.key_number,
        number=number,
        pack_offset=chunk.pack_offset,
        sealed_length=chunk.sealed_length,
        length=chunk.length,
    )
    return recorded == 1 or mark_used(transaction, vault_id, digest)


def insert_statements(
    vault_id: int, digest: bytes, chunk: ChunkRow, *, epoch: int, now_ms: int, pack_bytes: int | None
) -> tuple[Statement, Statement]:
    """Return the statements that do what `insert` does in the normal case: one for the pack, one for the chunk.

    If the second one changes no row, another writer stored the same bytes, or the pack was given up: then call
    `insert`.
    """
    pack = packs.insert_statement(chunk.pack_name, epoch=epoch, now_ms=now_ms, size_bytes=pack_bytes)
    values = {"vault_id": vault_id, "digest": digest, **chunk._asdict()}
    return pack, Statement(INSERT_BY_NAME, values)


def vault_ids(transaction: Transaction) -> Iterator[int]:
    """Yield the vaults that have chunk rows, deleted vaults included."""
    vault_id = 0
    while (
        row := transaction.row("SELECT min(vault_id) FROM chunk WHERE vault_id > :vault_id", vault_id=vault_id)
    ) and row[0]:
        vault_id = row[0]
        yield vault_id


def delete_of_vault(transaction: Transaction, vault_id: int, limit: int) -> None:
    """Delete at most `limit` rows of a deleted vault."""
    transaction.run(
        "DELETE FROM chunk WHERE vault_id = :vault_id AND digest IN"
        " (SELECT digest FROM chunk WHERE vault_id = :vault_id LIMIT :limit)",
        vault_id=vault_id,
        limit=limit,
    )


def count_step(transaction: Transaction, after: tuple[int, bytes]) -> tuple[int, bytes] | None:
    """Return the chunk that is `COUNT_STEP` chunks after `after` in the order of `page`; None if there are fewer."""
    row = transaction.row(
        "SELECT vault_id, digest FROM chunk WHERE (vault_id, digest) > (:vault_id, :digest)"
        " ORDER BY vault_id, digest LIMIT 1 OFFSET :step",
        vault_id=after[0],
        digest=after[1],
        step=COUNT_STEP - 1,
    )
    return None if row is None else (row[0], row[1])


def page(transaction: Transaction, *, after: tuple[int, bytes], limit: int) -> list[SweptChunk]:
    """Return all chunks by vault and digest, after `after`."""
    rows = transaction.rows(
        "SELECT vault_id, digest, pack_number, sealed_length, condemned_ms, used_epoch FROM chunk"
        " WHERE (vault_id, digest) > (:vault_id, :digest) ORDER BY vault_id, digest LIMIT :limit",
        vault_id=after[0],
        digest=after[1],
        limit=limit,
    )
    return [SweptChunk(*row) for row in rows]


def condemn(transaction: Transaction, vault_id: int, digest: bytes, *, epoch: int, now_ms: int) -> bool:
    """Condemn a chunk, unless a write referred to it in `epoch` or later; return whether it did.

    A condemnation that lies in the future came from a wrong clock, and is set to now.
    """
    condemned = transaction.run(
        "UPDATE chunk SET condemned_ms = :now_ms"
        " WHERE vault_id = :vault_id AND digest = :digest AND (condemned_ms IS NULL OR condemned_ms > :now_ms)"
        " AND used_epoch < :epoch",
        vault_id=vault_id,
        digest=digest,
        epoch=epoch,
        now_ms=now_ms,
    )
    return condemned == 1


def remove(transaction: Transaction, vault_id: int, digest: bytes, *, epoch: int, before_ms: int) -> bool:
    """Delete the row of a chunk that was condemned at `before_ms` or earlier; return whether it did."""
    removed = transaction.run(
        "DELETE FROM chunk WHERE vault_id = :vault_id AND digest = :digest"
        " AND condemned_ms <= :before_ms AND used_epoch < :epoch",
        vault_id=vault_id,
        digest=digest,
        epoch=epoch,
        before_ms=before_ms,
    )
    return removed == 1


def sound_in_pack(transaction: Transaction, pack_number: int, *, from_offset: int, limit: int) -> list[PackedChunk]:
    """Return the chunks of a pack that are neither condemned nor damaged, by offset from `from_offset` on."""
    rows = transaction.rows(
        "SELECT vault_id, digest, key_number, pack_offset, sealed_length, length FROM chunk"
        f" WHERE pack_number = :pack_number AND pack_offset >= :from_offset AND {SOUND}"
        " ORDER BY pack_offset LIMIT :limit",
        pack_number=pack_number,
        from_offset=from_offset,
        limit=limit,
    )
    return [PackedChunk(*row) for row in rows]


def all_in_pack(transaction: Transaction, pack_number: int, *, from_offset: int, limit: int) -> list[PlacedChunk]:
    """Return all chunks of a pack, condemned and damaged ones included, by offset from `from_offset` on."""
    rows = transaction.rows(
        "SELECT vault_id, digest, key_number, pack_offset, sealed_length, length, damaged_ms FROM chunk"
        " WHERE pack_number = :pack_number AND pack_offset >= :from_offset ORDER BY pack_offset LIMIT :limit",
        pack_number=pack_number,
        from_offset=from_offset,
        limit=limit,
    )
    return [PlacedChunk(*row) for row in rows]


def last_end(transaction: Transaction, pack_number: int) -> int:
    """Return the end of the last envelope in a pack that a chunk points to; 0 if there is none."""
    row = transaction.row(
        "SELECT pack_offset + sealed_length FROM chunk WHERE pack_number = :pack_number"
        " ORDER BY pack_offset DESC LIMIT 1",
        pack_number=pack_number,
    )
    return int(row[0]) if row else 0


def last_end_in(transaction: Transaction, pack_name: str) -> int:
    """As `last_end`, for the pack of this name."""
    row = transaction.row("SELECT pack_number FROM pack WHERE name = :pack_name", pack_name=pack_name)
    return last_end(transaction, row[0]) if row else 0


def heal(transaction: Transaction, vault_id: int, digest: bytes, chunk: ChunkRow, *, pack_number: int) -> bool:
    """Point the row of a damaged chunk, or a new row, to a sound copy of its bytes; return whether it did.

    A row that is not marked as damaged stays unchanged. A new row counts as used now. For repair and for rebuilding the
    catalog.
    """
    saved = transaction.run(
        "INSERT INTO chunk (vault_id, digest, key_number, pack_number, pack_offset, sealed_length, length, used_epoch)"
        f" VALUES (:vault_id, :digest, :key_number, :pack_number, :pack_offset, :sealed_length, :length, {EPOCH})"
        " ON CONFLICT (vault_id, digest) DO UPDATE SET key_number = excluded.key_number,"
        " pack_number = excluded.pack_number, pack_offset = excluded.pack_offset,"
        " sealed_length = excluded.sealed_length, length = excluded.length, damaged_ms = NULL"
        " WHERE chunk.damaged_ms IS NOT NULL",
        vault_id=vault_id,
        digest=digest,
        key_number=chunk.key_number,
        pack_number=pack_number,
        pack_offset=chunk.pack_offset,
        sealed_length=chunk.sealed_length,
        length=chunk.length,
    )
    return saved == 1


def move(transaction: Transaction, chunk: PackedChunk, *, from_pack: int, to_pack: int, to_offset: int) -> bool:
    """Point a chunk's row to a copy of its envelope, if it still points to the old location; return whether it did."""
    moved = transaction.run(
        "UPDATE chunk SET pack_number = :to_pack, pack_offset = :to_offset WHERE vault_id = :vault_id"
        " AND digest = :digest AND pack_number = :from_pack AND pack_offset = :from_offset",
        vault_id=chunk.vault_id,
        digest=chunk.digest,
        from_pack=from_pack,
        from_offset=chunk.pack_offset,
        to_pack=to_pack,
        to_offset=to_offset,
    )
    return moved == 1
