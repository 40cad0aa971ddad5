"""The row that a process has in `catalog_writer`: the number of its last batch, written by the batch itself.

What it is for:

- A COMMIT without an answer is looked up, not guessed.
- A server that took over without writes that were acknowledged to this process, or is a copy of an earlier day, is
  known by it, and not gone on with: what this process remembers, keys and their numbers above all, need not be what
  such a catalog says.
- To write it makes sure that replicas have what the server shows.

Does not live here: batches, and when they run again (`postgres`).
"""

from __future__ import annotations

import time

from cryostore.catalog.postgres.failure import BehindError
from cryostore.catalog.postgres.session import Session

DAYS = 30
"""Rows of processes that have written nothing for so long, and did not end in order, are removed."""
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
"""To the microsecond: no two servers that stand in for each other were started in the same one."""
FORGET = f"DELETE FROM catalog_writer WHERE used_at < now() - interval '{DAYS} days'"
NUMBER_BATCH = (
    "INSERT INTO catalog_writer (writer_id, batch) VALUES ('{writer_id}', {batch})"
    " ON CONFLICT (writer_id) DO UPDATE SET batch = excluded.batch, used_at = now()"
)
LAST_BATCH = (
    "INSERT INTO catalog_writer (writer_id, batch) VALUES ('{writer_id}', 0)"
    " ON CONFLICT (writer_id) DO UPDATE SET used_at = now() RETURNING batch"
)
"""In READ COMMITTED: waits for whoever is writing the row, and reads what is there then. It writes, so that its own
COMMIT waits for replicas where there are any: then the batch it read of is there, too, and all else that was to be
seen before, also what a server that died had committed and its replicas did not have yet."""


class WriterRow:
    """The row of this process. One thread numbers and acknowledges batches, any may look."""

    def __init__(self, writer_id: str) -> None:
        self._writer_id = writer_id
        self.batch = 0
        """The number of the last batch that was begun."""
        self._acknowledged = 0
        self._acknowledged_at = 0.0
        self._confirmed: tuple[int, object] | None = None

    @staticmethod
    def make_table(session: Session) -> None:
        """Make the table of all writers if it is not there."""
        if session.say(HAS_TABLE).fetchone() == (None,):
            session.say(MAKE_TABLE)

    def next_batch(self) -> str:
        """Number the next batch; answers the command by which it writes its number."""
        self.batch += 1
        return NUMBER_BATCH.format(writer_id=self._writer_id, batch=self.batch)

    def acknowledge(self) -> None:
        """The last batch is committed: whoever waits for it is told so next."""
        self._acknowledged, self._acknowledged_at = self.batch, time.monotonic()

    def confirm(self, session: Session, losses: int) -> None:
        """Make sure that a server has what was acknowledged, and its replicas what it shows.

        That is so until a session is lost, of which `losses` were before this one was opened, or this one is with
        another server than the one before: then those that are lost have not been noticed yet. Raises BehindError.
        """
        seen = losses, session.say(WHICH_SERVER).fetchone()
        if self._confirmed != seen:
            self.last_batch(session)
            self._confirmed = seen

    def last_batch(self, session: Session) -> int:
        """The number of our last batch that is committed. Raises BehindError if one is not that was before."""
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
        """Remove it, at the end."""
        session.say(f"DELETE FROM catalog_writer WHERE writer_id = '{self._writer_id}'")
