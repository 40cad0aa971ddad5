"""Settings and rights of a PostgreSQL server and its role, as far as the catalog depends on them.

`cryo doctor` reports them.
"""

from __future__ import annotations

from typing import NamedTuple

from cryostore.catalog.database import Transaction


class ServerSettings(NamedTuple):
    """Settings of the server, and what this role may do in the catalog."""

    version: str
    is_flushed: int
    """Whether a commit is on the disk before it is acknowledged (`fsync`, `full_page_writes`)."""
    predicate_locks: int
    has_checksums: int
    sessions: int
    sessions_max: int
    may_write: int
    """Whether the role may read and change every table."""
    may_migrate: int
    """Whether the role owns the tables and may create more."""


FIND = (
    "SELECT current_setting('server_version'),"
    " current_setting('fsync') = 'on' AND current_setting('full_page_writes') = 'on',"
    " CAST(current_setting('max_pred_locks_per_transaction') AS BIGINT),"
    " current_setting('data_checksums') = 'on',"
    " (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),"
    " CAST(current_setting('max_connections') AS BIGINT),"
    " coalesce(bool_and(has_table_privilege(oid, 'SELECT') AND has_table_privilege(oid, 'INSERT')"
    " AND has_table_privilege(oid, 'UPDATE') AND has_table_privilege(oid, 'DELETE')), false),"
    " coalesce(bool_and(pg_has_role(relowner, 'USAGE')), false)"
    " AND has_schema_privilege(CAST(current_schema() AS text), 'CREATE')"
    " FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = CAST(current_schema() AS regnamespace)"
)


def find(transaction: Transaction) -> ServerSettings:
    """Read the current settings. Works on PostgreSQL only."""
    row = transaction.row(FIND)
    assert row is not None
    return ServerSettings(*row)
