"""How a PostgreSQL server and its role are set up, as far as the catalog rests on it: for whoever looks after both."""

from __future__ import annotations

from typing import NamedTuple

from cryostore.catalog.database import Transaction


class ServerSettings(NamedTuple):
    """What the server says of itself, and what this role may do in the catalog."""

    version: str
    is_flushed: int
    """Whether what is committed is on the disk before it is answered (`fsync`, `full_page_writes`)."""
    predicate_locks: int
    has_checksums: int
    sessions: int
    sessions_max: int
    may_write: int
    """Whether the role may read and change every table."""
    may_migrate: int
    """Whether it owns them, and may make more."""


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
    """What is to be said now. On PostgreSQL only."""
    row = transaction.row(FIND)
    assert row is not None
    return ServerSettings(*row)
