"""Chunks in the catalog: which bytes a vault holds, and where they lie."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from cryostore.catalog.database import Transaction

DIGESTS_PER_QUERY = 200


class ChunkRow(NamedTuple):
    """Where the bytes with a digest lie, and under which key they are sealed."""

    key_number: int
    pack_name: str
    pack_offset: int
    sealed_length: int
    length: int


def find(transaction: Transaction, vault_id: int, digest: bytes) -> ChunkRow | None:
    """Where the vault's bytes with this digest lie; None if it holds none."""
    row = transaction.row(
        "SELECT key_number, pack.name, pack_offset, sealed_length, length FROM chunk"
        " JOIN pack ON pack.pack_number = chunk.pack_number WHERE vault_id = :vault_id AND digest = :digest",
        vault_id=vault_id,
        digest=digest,
    )
    return ChunkRow(*row) if row else None


def known(transaction: Transaction, vault_id: int, digest: bytes) -> bool:
    """Whether the vault holds these bytes and may be trusted to keep them."""
    found = transaction.row(
        "SELECT 1 FROM chunk WHERE vault_id = :vault_id AND digest = :digest", vault_id=vault_id, digest=digest
    )
    return found is not None


def known_lengths(transaction: Transaction, vault_id: int, digests: Sequence[bytes]) -> dict[bytes, int]:
    """Of `digests` those the vault holds, with the length of their bytes."""
    found: dict[bytes, int] = {}
    for start in range(0, len(digests), DIGESTS_PER_QUERY):
        some = digests[start : start + DIGESTS_PER_QUERY]
        names = ", ".join(f":d{place}" for place in range(len(some)))
        rows = transaction.rows(
            f"SELECT digest, length FROM chunk WHERE vault_id = :vault_id AND digest IN ({names})",
            vault_id=vault_id,
            **{f"d{place}": digest for place, digest in enumerate(some)},
        )
        found.update((row[0], row[1]) for row in rows)
    return found


def insert(transaction: Transaction, vault_id: int, digest: bytes, chunk: ChunkRow, *, now_ms: int) -> None:
    """Record durable bytes. If the vault holds the same bytes elsewhere already, that place stays."""
    row = transaction.row("SELECT pack_number FROM pack WHERE name = :name", name=chunk.pack_name)
    if row is None:
        row = transaction.row(
            "INSERT INTO pack (name, open, created_ms) VALUES (:name, 1, :now_ms) RETURNING pack_number",
            name=chunk.pack_name,
            now_ms=now_ms,
        )
    transaction.run(
        "INSERT INTO chunk (vault_id, digest, key_number, pack_number, pack_offset, sealed_length, length)"
        " VALUES (:vault_id, :digest, :key_number, :pack_number, :pack_offset, :sealed_length, :length)"
        " ON CONFLICT (vault_id, digest) DO NOTHING",
        vault_id=vault_id,
        digest=digest,
        key_number=chunk.key_number,
        pack_number=row[0] if row else None,
        pack_offset=chunk.pack_offset,
        sealed_length=chunk.sealed_length,
        length=chunk.length,
    )


def vault_ids(transaction: Transaction) -> Iterator[int]:
    """The vaults that chunks are recorded for, deleted ones included."""
    vault_id = 0
    while (
        row := transaction.row("SELECT min(vault_id) FROM chunk WHERE vault_id > :vault_id", vault_id=vault_id)
    ) and row[0]:
        vault_id = row[0]
        yield vault_id


def delete_of_vault(transaction: Transaction, vault_id: int, limit: int) -> None:
    """Remove at most `limit` rows of a vault that is gone."""
    transaction.run(
        "DELETE FROM chunk WHERE vault_id = :vault_id AND digest IN"
        " (SELECT digest FROM chunk WHERE vault_id = :vault_id LIMIT :limit)",
        vault_id=vault_id,
        limit=limit,
    )
