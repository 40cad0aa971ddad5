"""Group commit: the writes of one process go through one thread, which commits all that is waiting as one transaction.

Lives here: the queue, and how a batch of units of work runs so that each stands and falls alone. Does not live here:
what a transaction is, when it is tried again, and what its errors mean (`sqlite`, `postgres`).
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
    """A unit of work on its way through the writer thread."""

    __slots__ = ("answer", "done", "error", "work")

    def __init__(self, work: Callable[[Transaction], Any]) -> None:
        self.work = work
        self.answer: Any = None
        self.error: BaseException | None = None
        self.done = threading.Lock()
        self.done.acquire()


class GroupCommit:
    """The writer thread. `write_batch` commits a batch, sets the answer or the error of each, and never raises.

    `closing` is held to look at `closed` and act on it.
    """

    def __init__(self, write_batch: Callable[[list[Pending]], None]) -> None:
        self._write_batch = write_batch
        self._queue: queue.SimpleQueue[Pending | None] = queue.SimpleQueue()
        self.closed = False
        self.closing = threading.Lock()
        self._thread = threading.Thread(target=self._write_batches, name="catalog-writer", daemon=True)
        self._thread.start()

    def write(self, work: Callable[[Transaction], Answer]) -> Answer:
        """Have `work` committed; answers what it answered, raises what it raised, or what failed its batch."""
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
        """How many units of work wait for their turn."""
        return self._queue.qsize()

    def close(self) -> bool:
        """Finish what was asked for before, and stop; False if somebody else did that already."""
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
    """A connection that writes, as a batch needs it."""

    def begin(self) -> Transaction:
        """Begin a transaction."""

    def say(self, command: str) -> None:
        """Run a command that every engine knows: ROLLBACK, and those about savepoints."""

    def stands(self, error: BaseException) -> bool:
        """Whether the transaction can go on from a savepoint after this error: whether it is of one unit of work."""

    def translate(self, error: BaseException) -> BaseException:
        """The error as the caller of `write` is to see it."""


def run_batch(session: WritingSession, batch: Sequence[Pending], *, alone_may_fail: bool) -> None:
    """Begin, and run the batch, first as if all would go well: that is usual, and cheaper. To be committed after it.

    If a unit of work fails, all is taken back and run again so that each stands and falls alone. `alone_may_fail`: one
    that has nobody beside it is not run again; its error is raised.
    """
    transaction = session.begin()
    try:
        for pending in batch:
            pending.answer, pending.error = pending.work(transaction), None
    except BaseException as error:
        if (alone_may_fail and len(batch) == 1) or not session.stands(error):
            raise  # there is nobody to save from it, or the engine has taken all back
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
            raise  # the whole batch is lost, as on a full disk or an I/O error
        session.say("ROLLBACK TO SAVEPOINT work")
        session.say("RELEASE SAVEPOINT work")
