"""Group commit: one thread per process commits all waiting writes as one transaction.

In this module: the queue, and how a batch of units of work runs so that each succeeds or fails alone. Not here: what a
transaction is, when it is retried, and what its errors mean (`sqlite`, `postgres`).
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from cryostore.catalog.database import Answer, Transaction
from cryostore.core.errors import StorageUnavailableError

BATCH_MAX = 512


class Pending:
    """A unit of work in the queue of the writer thread."""

    __slots__ = ("answer", "done", "error", "work")

    def __init__(self, work: Callable[[Transaction], Any]) -> None:
        self.work = work
        self.answer: Any = None
        self.error: BaseException | None = None
        self.done = threading.Lock()
        self.done.acquire()


class GroupCommit:
    """The writer thread. `write_batch` commits a batch, sets the result or the error of each member, and never raises.

    Hold `closing` to read `closed` and act on it.
    """

    def __init__(self, write_batch: Callable[[list[Pending]], None]) -> None:
        self._write_batch = write_batch
        self._queue: queue.SimpleQueue[Pending | None] = queue.SimpleQueue()
        self.closed = False
        self.closing = threading.Lock()
        self._thread = threading.Thread(target=self._write_batches, name="catalog-writer", daemon=True)
        self._thread.start()

    def write(self, work: Callable[[Transaction], Answer]) -> Answer:
        """Commit `work`; return its result. Raises what it raised, or the error that failed its batch."""
        assert threading.current_thread() is not self._thread, "a unit of work asks for another"
        pending = Pending(work)
        with self.closing:
            self.check_open()
            self._queue.put(pending)
        pending.done.acquire()
        if pending.error is not None:
            raise pending.error
        answer: Answer = pending.answer
        return answer

    def check_open(self) -> None:
        """Raise StorageUnavailableError after `close`."""
        if self.closed:
            raise StorageUnavailableError("the catalog is closed")

    def waiting(self) -> int:
        """Return the number of units of work in the queue."""
        return self._queue.qsize()

    def close(self) -> bool:
        """Finish the queued work and stop; return False if another thread has already closed it."""
        with self.closing:
            if self.closed:
                return False
            self.closed = True
            self._queue.put(None)
        self._thread.join()
        return True

    def _write_batches(self) -> None:
        while (first := self._queue.get()) is not None:
            batch = [first]
            last = False
            while len(batch) < BATCH_MAX and not self._queue.empty():
                pending = self._queue.get()
                if pending is None:
                    last = True
                    break
                batch.append(pending)
            self._write_batch(batch)
            for pending in batch:
                pending.done.release()
            if last:
                return


class WritingSession(Protocol):
    """A writing connection, as `run_batch` needs it."""

    def begin(self) -> Transaction:
        """Begin a transaction."""

    def say(self, command: str) -> None:
        """Run a command that every engine knows: ROLLBACK, and those on savepoints."""

    def stands(self, error: BaseException) -> bool:
        """Whether the transaction can continue from a savepoint after this error."""

    def translate(self, error: BaseException) -> BaseException:
        """Return the error that the caller of `write` gets for this one."""


def run_batch(session: WritingSession, batch: Sequence[Pending], *, alone_may_fail: bool) -> None:
    """Begin a transaction and run the batch in it. The caller commits.

    The batch first runs as if all units of work succeeded, which is usual, and cheaper. If one fails, everything is
    rolled back and runs again with a savepoint for each, so that each succeeds or fails alone. With `alone_may_fail`
    the only member of a batch does not run again; its error is raised.
    """
    transaction = session.begin()
    try:
        for pending in batch:
            pending.answer, pending.error = pending.work(transaction), None
    except BaseException as error:
        if (alone_may_fail and len(batch) == 1) or not session.stands(error):
            raise  # no other unit of work is affected, or the engine has already rolled everything back
        session.say("ROLLBACK")
    else:
        return
    transaction = session.begin()
    for pending in batch:
        _run_in_savepoint(session, transaction, pending)


def _run_in_savepoint(session: WritingSession, transaction: Transaction, pending: Pending) -> None:
    session.say("SAVEPOINT work")
    try:
        pending.answer, pending.error = pending.work(transaction), None
        session.say("RELEASE SAVEPOINT work")
    except BaseException as error:
        pending.error = session.translate(error)
        if not session.stands(error):
            raise  # the whole batch failed, as on a full disk or an I/O error
        session.say("ROLLBACK TO SAVEPOINT work")
        session.say("RELEASE SAVEPOINT work")
