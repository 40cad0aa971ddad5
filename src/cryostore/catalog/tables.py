"""Tables of the catalog as data: columns, keys, order and identity columns, for copying a catalog row by row.

In this module: one declaration of every table, the statements that are the same for all tables, and how another catalog
continues to count where this one stopped. A test compares the declarations with the schema of each engine, so that a
new table cannot be forgotten. Not here: what a row means (one file per noun).

A number of an identity column is never given out twice, even after its row is gone, because records, tokens and
envelopes still name it. Counting needs no engine-specific SQL: it inserts an empty row and either rolls the transaction
back or deletes the row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from cryostore.catalog.database import Row, Transaction

VALUES_PER_STATEMENT = 5_000
"""Below the limit of every engine. With more values, parsing the statement costs more than a round trip."""


class Table(NamedTuple):
    """A table whose rows belong to the store.

    `key` are the columns that identify a row. `number` is the identity column, if there is one: it never gives out a
    number twice. `link` refers to an earlier row of the same table.
    """

    name: str
    key: tuple[str, ...]
    others: tuple[str, ...]
    number: str | None = None
    link: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns, those of the key first."""
        return self.key + self.others

    def key_of(self, row: Row) -> Row:
        """Return the key of a row."""
        return row[: len(self.key)]


def _numbered(name: str, number: str, others: str, link: str | None = None) -> Table:
    return Table(name, (number,), tuple(others.split()), number, link)


def _keyed(name: str, key: str, others: str) -> Table:
    return Table(name, tuple(key.split()), tuple(others.split()))


TABLES = (
    _numbered("vault", "vault_id", "name creator_request_id encryption_key_arn tags created_ms"),
    _numbered("vault_key", "key_number", "key_id vault_id wrapped created_ms"),
    _keyed("secret", "name", "wrapped"),
    _keyed("access_key", "access_key_id", "wrapped root enabled created_ms"),
    _numbered(
        "lineage",
        "lineage_id",
        "vault_id parent_lineage_id parent_generation next_generation tip_generation dirty_generation retired",
        link="parent_lineage_id",
    ),
    _keyed(
        "backup_job",
        "job_id",
        "vault_id point_id resource_arn resource_type resource_name role_arn state status_message message_category"
        " created_ms initiated_ms start_by_ms complete_by_ms completed_ms active_ms lifecycle options base_selection"
        " base_point_id lineage_id generation revision bytes_transferred size_bytes commit_digest",
    ),
    _keyed(
        "recovery_point",
        "point_id",
        "vault_id job_id lineage_id generation resource_arn resource_type resource_name role_arn status status_message"
        " created_ms initiated_ms completed_ms last_restore_ms size_bytes object_count lifecycle restore_metadata tags",
    ),
    _keyed(
        "restore_job",
        "job_id",
        "point_id vault_id lineage_id generation resource_arn resource_type role_arn status status_message metadata"
        " created_ms completed_ms active_ms point_created_ms size_bytes created_resource_arn completion_digest",
    ),
    _numbered(
        "object",
        "object_id",
        "lineage_id name from_generation to_generation removed created_ms length chunk_count summary summary_form"
        " metadata_string metadata_digest metadata_length metadata_form chunk_list_id chunks",
    ),
    _keyed("chunk_list", "chunk_list_id part", "first_index chunks"),
    _numbered(
        "upload",
        "upload_number",
        "upload_id job_id name throw_on_duplicate created_ms chunk_count completion_digest",
    ),
    _keyed("upload_chunk", "upload_number chunk_index", "length form digest"),
    _numbered("pack", "pack_number", "name open created_ms retired_ms dropped_epoch verified_ms size_bytes"),
    _keyed(
        "chunk",
        "vault_id digest",
        "key_number pack_number pack_offset sealed_length length condemned_ms damaged_ms used_epoch",
    ),
    _keyed("collection", "epoch", "unknown_commits"),
    _keyed("idempotency", "operation token", "request_digest answer created_ms"),
    _keyed("record", "noun number generation", "changes recorded parts entries gone previous"),
)
"""Every table whose rows belong to the store. A row only refers to rows of tables that come before its own."""

NOT_OF_THE_STORE = {
    "claim": "which process does which work now: none works on a copy",
    "node": "which processes serve now: none serves a copy",
    "schema_version": "each catalog has its own schema version",
    "schema_reader": "as above: and which programs may use it",
    "catalog_writer": "PostgreSQL's: which batches of its writers are committed",
}
"""The other tables, and why they are not copied."""
NOBODYS_VAULT = 0
"""Id of a vault that exists only within one transaction, for rows that must refer to a vault.

Real ids begin above it.
"""
EMPTY_ROWS: dict[str, dict[str, Any]] = {
    "vault": {"name": "", "tags": "{}", "created_ms": 0},
    "vault_key": {"key_id": b"", "vault_id": NOBODYS_VAULT, "wrapped": b"", "created_ms": 0},
    "lineage": {"vault_id": NOBODYS_VAULT, "next_generation": 0, "tip_generation": 0, "retired": 0},
    "object": {
        "lineage_id": 0,
        "name": b"",
        "from_generation": 0,
        "to_generation": 0,
        "removed": 0,
        "created_ms": 0,
        "length": 0,
        "chunk_count": 0,
        "summary_form": 0,
    },
    "upload": {
        "upload_id": "",
        "job_id": "",
        "name": b"",
        "throw_on_duplicate": 0,
        "created_ms": 0,
        "chunk_count": 0,
    },
    "pack": {"name": "", "open": 0, "created_ms": 0},
}
"""By table: the values of an empty row, which no table contains otherwise."""


class CountedTo(Exception):  # noqa: N818 - no error: it carries an answer out of a transaction that is to be taken back
    """The result of `count_to`: the highest number that a table has given out."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def page(transaction: Transaction, table: Table, after: Row | None, limit: int) -> list[Row]:
    """Return rows in the order of their keys, after the key `after`; from the first one if that is None."""
    behind, values = _behind(table, after)
    return transaction.rows(
        f"SELECT {', '.join(table.columns)} FROM {table.name}{behind} ORDER BY {', '.join(table.key)} LIMIT :limit",
        limit=limit,
        **values,
    )


def insert(transaction: Transaction, table: Table, rows: Sequence[Row]) -> None:
    """Insert complete rows."""
    per_statement = VALUES_PER_STATEMENT // len(table.columns)
    for start in range(0, len(rows), per_statement):
        some = [_named(f"r{place}_", row) for place, row in enumerate(rows[start : start + per_statement])]
        places = ", ".join(f"({_places(values)})" for values in some)
        merged = {name: value for values in some for name, value in values.items()}
        transaction.run(f"INSERT INTO {table.name} ({', '.join(table.columns)}) VALUES {places}", **merged)


def replace(transaction: Transaction, table: Table, row: Row) -> None:
    """Overwrite the row that has the same key."""
    values = _named("v", row)
    pairs = [f"{column} = :v{place}" for place, column in enumerate(table.columns)]
    key, others = pairs[: len(table.key)], pairs[len(table.key) :]
    transaction.run(f"UPDATE {table.name} SET {', '.join(others)} WHERE {' AND '.join(key)}", **values)


def unlink(transaction: Transaction, table: Table, key: Row) -> None:
    """Set the link of the row with this key to NULL."""
    pairs = [f"{column} = :v{place}" for place, column in enumerate(table.key)]
    transaction.run(f"UPDATE {table.name} SET {table.link} = NULL WHERE {' AND '.join(pairs)}", **_named("v", key))


def delete(transaction: Transaction, table: Table, key: Row) -> None:
    """Delete the row with this key."""
    pairs = [f"{column} = :v{place}" for place, column in enumerate(table.key)]
    transaction.run(f"DELETE FROM {table.name} WHERE {' AND '.join(pairs)}", **_named("v", key))


def clear(transaction: Transaction, table: Table) -> None:
    """Delete all rows. No row may refer to them."""
    transaction.run(f"DELETE FROM {table.name}")


def step(transaction: Transaction, table: Table, after: Row | None, rows: int) -> Row | None:
    """Return the key of the row that is `rows` rows after the key `after`; None if there are fewer."""
    names = ", ".join(table.key)
    behind, values = _behind(table, after)
    return transaction.row(
        f"SELECT {names} FROM {table.name}{behind} ORDER BY {names} LIMIT 1 OFFSET :skipped", skipped=rows - 1, **values
    )


def count_behind(transaction: Transaction, table: Table, after: Row | None) -> int:
    """Return how many rows follow the key `after`; how many there are if that is None."""
    behind, values = _behind(table, after)
    row = transaction.row(f"SELECT count(*) FROM {table.name}{behind}", **values)
    return int(row[0]) if row else 0


def _behind(table: Table, after: Row | None) -> tuple[str, dict[str, object]]:
    if after is None:
        return "", {}
    values = _named("k", after)
    return f" WHERE ({', '.join(table.key)}) > ({_places(values)})", values


def _named(prefix: str, row: Row) -> dict[str, object]:
    return {f"{prefix}{place}": value for place, value in enumerate(row)}


def _places(values: dict[str, object]) -> str:
    return ", ".join(f":{name}" for name in values)


def count_to(transaction: Transaction, table: Table) -> None:
    """Raise CountedTo with the highest number that was given out, or a higher one.

    It raises so that the transaction is rolled back and no row remains.
    """
    if EMPTY_ROWS[table.name].get("vault_id") == NOBODYS_VAULT:
        _insert_values(transaction, "vault", {"vault_id": NOBODYS_VAULT, **EMPTY_ROWS["vault"]})
    columns, places = _written(EMPTY_ROWS[table.name])
    row = transaction.row(
        f"INSERT INTO {table.name} ({columns}) VALUES ({places}) RETURNING {table.number}", **EMPTY_ROWS[table.name]
    )
    assert row is not None
    raise CountedTo(int(row[0]) - 1)


def count_from(transaction: Transaction, table: Table, number: int) -> None:
    """Give out no number up to `number` any more. May be repeated."""
    if number < 1 or table.number is None:
        return
    found = transaction.row(f"SELECT 1 FROM {table.name} WHERE {table.number} = :number", number=number)
    if found is None:
        of_nobody = EMPTY_ROWS[table.name].get("vault_id") == NOBODYS_VAULT
        if of_nobody:
            _insert_values(transaction, "vault", {"vault_id": NOBODYS_VAULT, **EMPTY_ROWS["vault"]})
        _insert_values(transaction, table.name, {table.number: number, **EMPTY_ROWS[table.name]})
        transaction.run(f"DELETE FROM {table.name} WHERE {table.number} = :number", number=number)
        if of_nobody:
            transaction.run("DELETE FROM vault WHERE vault_id = :vault_id", vault_id=NOBODYS_VAULT)
    transaction.pass_number(table.name, table.number, number)


def highest_number(transaction: Transaction, table: Table) -> int:
    """Return the highest number of any row, 0 if there is none."""
    row = transaction.row(f"SELECT max({table.number}) FROM {table.name}")
    return int(row[0] or 0) if row else 0


def _insert_values(transaction: Transaction, table: str, values: dict[str, Any]) -> None:
    columns, places = _written(values)
    transaction.run(f"INSERT INTO {table} ({columns}) VALUES ({places})", **values)


def _written(values: dict[str, Any]) -> tuple[str, str]:
    return ", ".join(values), ", ".join(f":{name}" for name in values)
