"""Row of this process in `catalog_writer`: the number of its last batch, written by the batch itself.

It serves three purposes:

- If a COMMIT got no answer, the engine looks up whether it happened.
- It reveals a server that lacks acknowledged writes of this process: a replica that took over too early, or a copy of
  an earlier day. The engine does not continue there, because what this process remembers, keys and their numbers above
  all, may contradict such a catalog.
- Writing it makes sure that replicas have everything that the server shows.

Not here: batches, and when they run again (`engine`).
"""

from __future__ import annotations

import time

from cryostore.catalog.postgres.failure import BehindError
from cryostore.catalog.postgres.session import Session

DAYS = 30
"""Rows of processes that have written nothing for this many days, and did not shut down in order, are removed."""
KNOWN_SECONDS = (DAYS - 1) * 24 * 60 * 60
SCHEMA_LOCK = 0x6372796F
MAKE_TABLE = f"""
    BEGIN ISOLATION LEVEL READ COMMITTED;
    SELECT pg_advisory_xact_lock({SCHEMA_LOCK});
    CREATE TABLE IF NOT EXISTS catalog_writer (
        writer_id TEXT PRIMARY KEY,
        batch BIGINT NOT NULL,
        used_at TIMESTAMPTZ NOT NULL DEFAULT now()
    ) WITH (fillfactor = 50);
    COMMIT
"""
HAS_TABLE = "SELECT to_regclass('catalog_writer')::text"
WHICH_SERVER = "SELECT pg_postmaster_start_time()::text"
"""To the microsecond: no two servers that replace each other started in the same one."""
FORGET = f"DELETE FROM catalog_writer WHERE used_at < now() - interval '{DAYS} days'"
NUMBER_BATCH = (
    "INSERT INTO catalog_writer (writer_id, batch) VALUES ('{writer_id}', {batch})"
    " ON CONFLICT (writer_id) DO UPDATE SET batch = excluded.batch, used_at = now()"
)
LAST_BATCH = (
    "INSERT INTO catalog_writer (writer_id, batch) VALUES ('{writer_id}', 0)"
    " ON CONFLICT (writer_id) DO UPDATE SET used_at = now() RETURNING batch"
)
"""Runs in READ COMMITTED: it waits for a transaction that is writing the row, and then reads the result.

It writes, so that its own COMMIT waits for the replicas, if there are any. Then they have the batch that it read, and
everything else that was visible before, including commits of a dead server that its replicas did not have yet.
"""


class WriterRow:
    """The row of this process. One thread numbers and acknowledges batches; any thread may read."""

    def __init__(self, writer_id: str) -> None:
        self._writer_id = writer_id
        self.batch = 0
        """The number of the last batch that was begun."""
        self._acknowledged = 0
        self._acknowledged_at = 0.0
        self._confirmed: tuple[int, object] | None = None

    @staticmethod
    def make_table(session: Session) -> None:
        """Create the table of all writers if it is absent."""
        if session.say(HAS_TABLE).fetchone() == (None,):
            session.say(MAKE_TABLE)

    def next_batch(self) -> str:
        """Number the next batch; return the command that writes the number."""
        self.batch += 1
        return NUMBER_BATCH.format(writer_id=self._writer_id, batch=self.batch)

    def acknowledge(self) -> None:
        """Note that the last batch is committed, just before its callers learn it."""
        self._acknowledged, self._acknowledged_at = self.batch, time.monotonic()

    def confirm(self, session: Session, losses: int) -> None:
        """Make sure that a server has what was acknowledged, and its replicas what it shows. Raises BehindError.

        The result holds until a session is lost or a session reaches another server, whose failure may not have been
        noticed yet. `losses` is how many sessions were lost before this one was opened.
        """
        seen = losses, session.say(WHICH_SERVER).fetchone()
        if self._confirmed != seen:
            self.last_batch(session)
            self._confirmed = seen

    def last_batch(self, session: Session) -> int:
        """Return the number of our last committed batch. Raises BehindError if an acknowledged one is missing."""
        known, known_at = self._acknowledged, self._acknowledged_at
        session.say("BEGIN ISOLATION LEVEL READ COMMITTED")
        row = session.say(LAST_BATCH.format(writer_id=self._writer_id)).fetchone()
        session.say("COMMIT")
        assert row is not None
        batch: int = row[0]
        is_forgotten = not batch and time.monotonic() - known_at > KNOWN_SECONDS
        if batch < known and not is_forgotten:
            raise BehindError(known - batch)
        return batch

    def remove(self, session: Session) -> None:
        """Remove the row at shutdown."""
        session.say(f"DELETE FROM catalog_writer WHERE writer_id = '{self._writer_id}'")
