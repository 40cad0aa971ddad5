"""A database whose transactions fail on demand, before they run or after their commit."""

from __future__ import annotations

import threading

from cryostore.core.errors import StorageUnavailableError


class FaultyDatabase:
    """Passes transactions on to `inner`, except those that `fail` names.

    `reads` and `writes` count the transactions begun so far, so that a test can walk through the faults of a request:
    run it once, then once more for each transaction it made.
    """

    def __init__(self, inner):
        self.inner = inner
        self.reads = 0
        self.writes = 0
        self._faults = {}
        self._before = None
        self.dead = False
        self._lock = threading.Lock()

    def fail(self, at=1, *, kind="write", answer_lost=False, error=None):
        """Make the `at`-th transaction from now raise `error`, instead of running or after its commit."""
        error = error or StorageUnavailableError(f"this {kind} was told to fail")
        with self._lock:
            begun = self.writes if kind == "write" else self.reads
            self._faults[kind, begun + at] = (error, answer_lost)

    def heal(self):
        """Remove all faults that have not occurred yet."""
        with self._lock:
            self._faults.clear()

    def die(self):
        """Make every transaction fail from now on, like those of a killed process."""
        self.dead = True

    @property
    def faults_left(self):
        return len(self._faults)

    def on_write(self, action):
        """Run `action()` before each write, in the calling thread. None removes it."""
        self._before = action

    def read(self, work):
        with self._lock:
            self.reads += 1
            fault = self._faults.pop(("read", self.reads), None)
        return self._run(self.inner.read, work, fault)

    def write(self, work):
        if self._before is not None:
            self._before()
        with self._lock:
            self.writes += 1
            fault = self._faults.pop(("write", self.writes), None)
        return self._run(self.inner.write, work, fault)

    def _run(self, method, work, fault):
        if self.dead:
            raise StorageUnavailableError("this process is gone")
        if fault is None:
            return method(work)
        error, answer_lost = fault
        if answer_lost:
            method(work)
        raise error

    def migrate(self):
        self.inner.migrate()

    def close(self):
        self.inner.close()
