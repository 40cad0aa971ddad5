"""Checks of the catalog of a shared store: server, schema, permissions, settings, clock, claims, commits."""

from __future__ import annotations

from cryostore.catalog import migration
from cryostore.catalog.database import Database
from cryostore.catalog.postgres.server import ServerSettings, find_settings
from cryostore.catalog.processes import claims
from cryostore.catalog.queries.store_copy import schema_version
from cryostore.chunks.blobs import BlobStore
from cryostore.chunks.keyring import KeyringSource
from cryostore.chunks.records import Records
from cryostore.core.errors import CryostoreError
from cryostore.core.time import SECOND_MS
from cryostore.maintenance.diagnosis import SKEW_SECONDS_NOTED, Diagnoses, Diagnosis, error, failed, ok, warning
from cryostore.service.opening.open_shared import clock_of
from cryostore.service.unknown_commits import HINT, find_unknown_commits, unknown_commits_message

PREDICATE_LOCKS_MIN = 256
SESSIONS_SHARE_MAX = 0.8


def check_catalog(database: Database, shown: str, *, on_server: bool, now_ms: int) -> Diagnoses:
    """Check an open catalog, which people know as `shown`. `now_ms` is the time of this machine."""
    if on_server:
        try:
            found = database.read(find_settings)
        except CryostoreError as problem:
            yield failed("catalog", problem, "see the server's log")
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
        advice = "GRANT ALL ON ALL TABLES IN SCHEMA public TO the role, or make it the owner of the database"
        yield error("rights", "the role may not read and change every table", advice)
    elif not found.may_migrate:
        advice = "make it the owner of all: ALTER DATABASE ... OWNER TO ..., REASSIGN OWNED BY ... TO ..."
        yield warning("rights", "the role may read and write, but not upgrade the schema", advice)
    else:
        yield ok("rights", "the role may read, write and upgrade the schema")


def _settings(found: ServerSettings) -> Diagnoses:
    about = "catalog settings"
    as_recommended = True
    if not found.is_flushed:
        as_recommended = False
        yield warning(about, "fsync or full_page_writes is off: a power cut would lose the catalog", "set both to on")
    if found.predicate_locks < PREDICATE_LOCKS_MIN:
        as_recommended = False
        advice = f"set it to {PREDICATE_LOCKS_MIN} and restart the server, so that fewer writes have to be retried"
        yield warning(about, f"max_pred_locks_per_transaction is {found.predicate_locks}", advice)
    if found.sessions > found.sessions_max * SESSIONS_SHARE_MAX:
        as_recommended = False
        advice = "raise max_connections: 4 for each worker of each node, for one node more, and 8 for commands"
        yield warning(about, f"{found.sessions} of {found.sessions_max} connections are in use", advice)
    if as_recommended:
        advice = "while the server is stopped, pg_checksums --enable lets it notice a bad disk"
        yield ok(about, "as recommended", "" if found.has_checksums else advice)


def _schema(database: Database) -> Diagnosis:
    about, known = "schema", len(migration.steps())
    try:
        version = database.read(schema_version)
        database.read(migration.require_readable)
    except CryostoreError as problem:
        return failed(about, problem, "start a newer Cryostore")
    if version < known:
        found = f"version {version}; this program has {known}"
        return warning(about, found, "the first node of this version upgrades it, or `cryo init --upgrade` before")
    if version > known:
        found = f"version {version}; newer than this program's {known}, but compatible"
        return ok(about, found, "finish the rolling upgrade")
    return ok(about, f"version {version}")


def _clock(database: Database, now_ms: int) -> Diagnosis:
    catalog_now_ms = getattr(database, "now_ms", None)
    if catalog_now_ms is None:
        return ok("clock", "that of this machine")
    off = round((now_ms - catalog_now_ms()) / SECOND_MS)
    if abs(off) <= SKEW_SECONDS_NOTED:
        return ok("clock", "agrees with the catalog's within a minute")
    found = f"this machine is {abs(off)} s {'ahead of' if off > 0 else 'behind'} the catalog, whose clock all nodes use"
    return warning("clock", found, "synchronize both clocks with NTP: clients and S3 use their own")


def _claims(database: Database) -> Diagnoses:
    try:
        held = database.read(claims.held)
    except CryostoreError as problem:
        yield failed("background work", problem, "see the server's log")
        return
    now_ms = clock_of(database)()
    for row in held:
        if row.until_ms < now_ms:
            advice = "nothing to do while servers run: the next one takes it over; `cryo jobs` shows it"
            yield ok("background work", f"{row.words} has expired: its process died", advice)
        else:
            yield ok("background work", row.words)
    if not held:
        yield ok("background work", "nothing is claimed")


def check_commits(database: Database, blobs: BlobStore, keyring: KeyringSource) -> Diagnosis:
    """Check that the catalog has every commit that is on record beside the blobs."""
    about = "commits"
    try:
        count = sum(1 for _ in find_unknown_commits(database, Records(blobs, keyring)))
    except CryostoreError as problem:
        return failed(about, problem, "see the other checks")
    return (
        error(about, unknown_commits_message(count), HINT)
        if count
        else ok(about, "the catalog has every commit on record")
    )
