"""Schema migration: brings the schema of an engine to the newest version, step by step.

The steps are SQL texts, written once for all engines, in `migrations`. Their bytes never change.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from cryostore.catalog.database import Transaction
from cryostore.core.errors import ConfigurationError

STEPS = Path(__file__).parent / "migrations"
Dialect = Mapping[str, str]
"""Words of an engine, by pattern of the placeholder in a step: `{id}`, `{blob}`, `{clustered}` and the like."""


READABLE_BY = re.compile(r"^-- readable by: (\d+)$", re.MULTILINE | re.ASCII)
"""Header of a step: the oldest schema version whose programs may still use the catalog after this step."""


def migrate_to_newest(transaction: Transaction, dialect: Dialect) -> None:
    """Migrate the schema; raise ConfigurationError if a newer program made it and does not allow this one to use it.

    A newer schema that is readable by this program stays as it is: during an upgrade nodes of two versions share one
    catalog.
    """
    transaction.run("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL)")
    transaction.run(
        "CREATE TABLE IF NOT EXISTS schema_reader (version INTEGER PRIMARY KEY, readable_by INTEGER NOT NULL)"
    )
    row = transaction.row("SELECT max(version) FROM schema_version")
    version = (row and row[0]) or 0
    known = steps()
    if version > len(known):
        require_readable(transaction)
        return
    for number, text in enumerate(known[version:], start=version + 1):
        for statement in statements(text, dialect):
            transaction.run(statement)
        transaction.run("INSERT INTO schema_version (version) VALUES (:version)", version=number)
        transaction.run(
            "INSERT INTO schema_reader (version, readable_by) VALUES (:version, :readable_by)",
            version=number,
            readable_by=readable_by(number, text),
        )


def steps() -> list[str]:
    """Return the texts of all steps, oldest first."""
    return [path.read_text(encoding="utf-8") for path in sorted(STEPS.glob("*.sql"))]


def readable_by(number: int, text: str) -> int:
    """Return the oldest schema whose programs may use the catalog after this step: by default the step's own number."""
    match = READABLE_BY.search(text)
    return int(match[1]) if match else number


def require_readable(transaction: Transaction) -> None:
    """Raise ConfigurationError if the catalog has a newer schema that this program may not use."""
    row = transaction.row("SELECT max(version) FROM schema_version")
    version, known = (row and row[0]) or 0, len(steps())
    if version <= known:
        return
    # A version without a row here comes from a program that does not declare who may use its schema.
    row = transaction.row("SELECT max(readable_by) FROM schema_reader WHERE version > :known", known=known)
    if ((row and row[0]) or version) > known:
        raise ConfigurationError(
            f"the catalog has schema version {version}, this program knows versions up to {known}",
            hint="start a newer Cryostore; a catalog is never taken back to an older version",
        )


def statements(text: str, dialect: Dialect) -> list[str]:
    """Return the statements of a step in an engine's dialect."""
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("--"))
    text = "\n".join(lines)
    for pattern, words in dialect.items():
        text = re.sub(pattern, words, text)
    return [statement.strip() for statement in text.split(";\n") if statement.strip()]
