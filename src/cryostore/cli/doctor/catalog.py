"""What `cryo doctor` looks at in the catalog of a shared store: server, schema, rights, settings, clock, claims."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryostore.cli.doctor.diagnosis import Diagnoses, Diagnosis, error, failed, ok, warning
from cryostore.core.errors import CryostoreError
from cryostore.core.time import SECOND_MS

if TYPE_CHECKING:
    from cryostore.catalog.database import Database
    from cryostore.catalog.postgres.server_settings import ServerSettings

PREDICATE_LOCKS_MIN = 256
SESSIONS_SHARE_MAX = 0.8
SKEW_SECONDS_NOTED = 60


def catalog(database: Database, shown: str, *, on_server: bool, now_ms: int) -> Diagnoses:
    """Everything about an opened catalog; nothing in it is changed. `shown` names it for people."""
    if on_server:
        from cryostore.catalog.postgres import server_settings as postgres_set_up

        try:
            found = database.read(postgres_set_up.find)
        except CryostoreError as problem:
            yield failed("catalog", problem, "see what the server's log says")
            return
        yield ok("catalog", f"{shown} is PostgreSQL {found.version}")
        yield from _rights(found)
        yield from _settings(found)
    else:
        yield ok("catalog", f"{shown}, a file", "only processes of this machine can share it")
    yield _schema(database)
    yield _clock(database, now_ms)
    yield from _claims(database)


def _rights(found: ServerSettings) -> Diagnoses:
    if not found.may_write:
        advice = "GRANT ALL ON ALL TABLES IN SCHEMA public TO the role, or let it own the database"
        yield error("rights", "the role may not read and change every table", advice)
    elif not found.may_migrate:
        advice = "let it own the database and its tables: ALTER DATABASE ... OWNER TO ..., REASSIGN OWNED BY ... TO ..."
        yield warning("rights", "the role may work, and not upgrade the schema", advice)
    else:
        yield ok("rights", "the role may work, and upgrade the schema")


def _settings(found: ServerSettings) -> Diagnoses:
    about = "catalog settings"
    as_wanted = True
    if not found.is_flushed:
        as_wanted = False
        yield warning(about, "fsync or full_page_writes is off: a power cut would lose the catalog", "set both to on")
    if found.predicate_locks < PREDICATE_LOCKS_MIN:
        as_wanted = False
        advice = f"set it to {PREDICATE_LOCKS_MIN} and restart the server: else more writes have to be repeated"
        yield warning(about, f"max_pred_locks_per_transaction is {found.predicate_locks}", advice)
    if found.sessions > found.sessions_max * SESSIONS_SHARE_MAX:
        as_wanted = False
        advice = "raise max_connections: 4 for each worker of each node, one node more, and 8 for commands"
        yield warning(about, f"{found.sessions} of {found.sessions_max} connections are in use", advice)
    if as_wanted:
        advice = "" if found.has_checksums else "pg_checksums --enable, while it is stopped, lets it notice a bad disk"
        yield ok(about, "as they should be", advice)


def _schema(database: Database) -> Diagnosis:
    from cryostore.catalog import migration
    from cryostore.catalog.queries.store_copy import schema_version

    about, known = "schema", len(migration.steps())
    try:
        version = database.read(schema_version)
        database.read(migration.require_readable)
    except CryostoreError as problem:
        return failed(about, problem, "start a newer Cryostore")
    if version < known:
        found = f"version {version}, this program has {known}"
        return warning(about, found, "the first node of this version upgrades it, or `cryo init --upgrade` beforehand")
    if version > known:
        found = f"version {version}, newer than this program's {known}, and leaves room for it"
        return ok(about, found, "finish the rolling upgrade")
    return ok(about, f"version {version}")


def _clock(database: Database, now_ms: int) -> Diagnosis:
    theirs = getattr(database, "now_ms", None)
    if theirs is None:
        return ok("clock", "that of this machine")
    off = round((now_ms - theirs()) / SECOND_MS)
    if abs(off) <= SKEW_SECONDS_NOTED:
        return ok("clock", "the same as the catalog's, within a minute")
    found = f"this machine is {abs(off)} s {'ahead of' if off > 0 else 'behind'} the catalog, by which all nodes go"
    return warning("clock", found, "let both set their clocks by NTP: clients and S3 go by their own")


def _claims(database: Database) -> Diagnoses:
    from cryostore.catalog.processes import claims
    from cryostore.service.opening.open_shared import clock_of

    try:
        held = database.read(claims.held)
    except CryostoreError as problem:
        yield failed("background work", problem, "see what the server's log says")
        return
    now_ms = clock_of(database)()
    for row in held:
        if row.until_ms < now_ms:
            advice = "nothing, while servers run: the next one takes it over; `cryo jobs` shows it"
            yield ok("background work", f"{row.words} has lapsed: its process died", advice)
        else:
            yield ok("background work", row.words)
    if not held:
        yield ok("background work", "nothing is claimed")
