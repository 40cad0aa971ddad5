"""Claims of processes that stall, crash, lose responses and have wrong clocks, compared with a small model.

At most one process holds the claim, no write of a fenced process is ever committed, and all committed writes are
in the order of the fencing tokens.
"""

from __future__ import annotations

import dataclasses

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cryostore.catalog.processes import claims
from cryostore.catalog.processes.claims import ClaimHeldError, ClaimLostError
from cryostore.core.errors import StorageUnavailableError
from cryostore.core.time import HOUR_MS, SECOND_MS
from cryostore.maintenance.claims import claimed
from support.catalogs.catalog_model import catalog_context
from support.catalogs.memory_database import MemoryDatabase
from support.faults.faulty_database import FaultyDatabase

WORK = "work"
PROCESSES = 3
WHO = st.sampled_from(range(PROCESSES))


class StopError(Exception):
    """The reason why a piece of work is aborted."""


class Worker:
    """A process with a clock that may be wrong, and with the claim that it believes to hold."""

    def __init__(self, machine):
        self.machine = machine
        self.wrong_ms = 0
        self.database = FaultyDatabase(machine.database)
        self.open()

    def open(self):
        """Restart the process without its claim; operations in flight are lost."""
        self.database.die()
        self.database = FaultyDatabase(self.machine.database)
        self.context = dataclasses.replace(
            self.machine.context, database=self.database, clock=lambda: self.machine.now_ms + self.wrong_ms
        )
        self.block = self.claim = None


class ClaimsMachine(RuleBasedStateMachine):
    """`fence` is the token of the last claim; `held` is False once that claim was released."""

    @initialize()
    def begin(self):
        self.database = MemoryDatabase()
        self.context = catalog_context(self.database)
        self.now_ms = 1_700_000_000_000
        self.database.write(lambda t: t.run("CREATE TABLE done (place INTEGER PRIMARY KEY AUTOINCREMENT, fence INT)"))
        self.workers = [Worker(self) for _ in range(PROCESSES)]
        self.fence, self.held = 0, False
        self.done = []

    # --- operations of processes

    def row(self):
        return self.database.read(lambda t: claims.find(t, WORK))

    def take(self, worker):
        """Let a process without a claim take it."""
        row, now_ms = self.row(), worker.context.clock()
        lease_ms = worker.context.settings.claim_lease_ms
        block = claimed(worker.context, WORK)
        try:
            worker.claim = block.__enter__()
        except ClaimHeldError:
            assert self.held
            assert now_ms <= row.until_ms <= now_ms + 2 * lease_ms
        except StorageUnavailableError:
            if self.row().fencing_token > self.fence:  # the response was lost
                self.fence, self.held = self.fence + 1, True
        else:
            assert not self.held or not now_ms <= row.until_ms <= now_ms + 2 * lease_ms
            worker.block = block
            self.fence, self.held = self.fence + 1, True
            assert worker.claim._fencing_token == self.fence

    @precondition(lambda self: any(worker.claim is None for worker in self.workers))
    @rule(data=st.data())
    def claim(self, data):
        self.take(data.draw(st.sampled_from([worker for worker in self.workers if worker.claim is None])))

    def holds(self, worker):
        return self.held and worker.claim._fencing_token == self.fence

    def do(self, worker, work):
        """Run a transaction, which succeeds if the process holds the claim. Return whether it succeeded."""
        try:
            work()
        except ClaimLostError:
            assert not self.holds(worker)
            worker.block.__exit__(StopError, StopError(), None)
            worker.claim = None
        except StorageUnavailableError:
            pass
        else:
            return True
        return False

    def write(self, worker):
        def work(transaction):
            transaction.run("INSERT INTO done (fence) VALUES (:fence)", fence=worker.claim._fencing_token)

        before = self.holds(worker)
        if self.do(worker, lambda: worker.claim.context.database.write(work)):
            assert before
            assert self.holds(worker)
        return before

    @precondition(lambda self: any(worker.claim for worker in self.workers))
    @rule(data=st.data(), steps=st.integers(1, 3))
    def work(self, data, steps):
        worker = data.draw(st.sampled_from([worker for worker in self.workers if worker.claim]))
        for _ in range(steps):
            if worker.claim:
                worker.claim.doing = "at work"
                self.write(worker)

    @precondition(lambda self: any(worker.claim for worker in self.workers))
    @rule(data=st.data(), stall_ms=st.sampled_from([0, SECOND_MS, HOUR_MS]), at=st.integers(1, 2))
    def stall(self, data, stall_ms, at):
        """Stall a process in the middle of a write, before or after its renewal, while another one continues."""
        worker = data.draw(st.sampled_from([worker for worker in self.workers if worker.claim]))
        others = [other for other in self.workers if other is not worker]
        other = data.draw(st.sampled_from(others))
        calls = []

        def pause():
            calls.append(1)
            if len(calls) == at:
                self.now_ms += stall_ms
                if other.claim is None:
                    self.take(other)
                if other.claim is not None:
                    self.write(other)

        worker.database.on_write(pause)

        def work(transaction):
            transaction.run("INSERT INTO done (fence) VALUES (:fence)", fence=worker.claim._fencing_token)

        if self.do(worker, lambda: worker.claim.context.database.write(work)):
            assert self.holds(worker)
        worker.database.on_write(None)

    @precondition(lambda self: any(worker.claim for worker in self.workers))
    @rule(data=st.data(), finished=st.booleans())
    def end(self, data, finished):
        worker = data.draw(st.sampled_from([worker for worker in self.workers if worker.claim]))
        before, holds = self.row(), self.holds(worker)
        try:
            worker.block.__exit__(*((None,) * 3 if finished else (StopError, StopError(), None)))
        except ClaimLostError:
            assert finished
            assert not holds
        except (StorageUnavailableError, StopError):
            pass
        worker.claim = None
        after = self.row()
        if holds:
            self.held = after.holder is not None
        else:
            assert after == before, "a fenced process changes nothing"
        assert (after.finished_ms != before.finished_ms) <= (finished and holds)

    # --- faults

    @rule(data=st.data())
    def die(self, data):
        worker = data.draw(st.sampled_from(self.workers))
        worker.open()

    @rule(milliseconds=st.sampled_from([1, 10 * SECOND_MS, 60 * SECOND_MS, 121 * SECOND_MS, HOUR_MS]))
    def time_passes(self, milliseconds):
        self.now_ms += milliseconds

    @rule(who=WHO, wrong_ms=st.sampled_from([0, 0, 30 * SECOND_MS, -30 * SECOND_MS, 5 * HOUR_MS, -5 * HOUR_MS]))
    def a_clock_goes_wrong(self, who, wrong_ms):
        """Seconds are the allowed difference between two machines; hours are a database whose time was set."""
        self.workers[who].wrong_ms = wrong_ms

    @rule(who=WHO, at=st.integers(1, 2), answer_lost=st.booleans())
    def will_fail(self, who, at, answer_lost):
        self.workers[who].database.fail(at, answer_lost=answer_lost)

    def teardown(self):
        for worker in self.workers:
            worker.open()

    # --- invariants

    @invariant()
    def at_most_one_can_write(self):
        able = []
        for worker in self.workers:
            if worker.claim is not None:
                try:
                    self.database.write(worker.claim.hold)
                except ClaimLostError:
                    continue
                able.append(worker)
        assert len(able) <= 1
        assert all(self.holds(worker) for worker in able)

    @invariant()
    def writes_are_in_order(self):
        """No token is written after a later one."""
        fences = [fence for (fence,) in self.database.read(lambda t: t.rows("SELECT fence FROM done ORDER BY place"))]
        assert fences == sorted(fences)
        assert all(fence <= self.fence for fence in fences)
        assert fences[: len(self.done)] == self.done
        assert set(fences[len(self.done) :]) <= {self.fence - 1, self.fence}
        self.done = fences
        row = self.row()
        assert row.fencing_token == self.fence
        assert (row.holder is not None) == self.held


TestClaims = ClaimsMachine.TestCase
