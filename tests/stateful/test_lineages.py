"""Lineages and their pruning compared with a dict of dicts, for any order of jobs, failures and deletions.

The rules are here. Their effects, and the invariants after each, are in `support.catalogs.catalog_model`.
"""

from __future__ import annotations

from contextlib import ExitStack

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cryostore.catalog import open_catalog
from support.catalogs.catalog_model import NAMES, RESOURCES, CatalogModel, expected, scanned
from support.services.postgres import new_database
from support.stores.service_store import on_services

BYTES = st.sampled_from([b"", *NAMES, b"a\x00", b"zz", b"\xff\xff\xff"])
BATCHES = st.sampled_from([0, 1, 2, 20])
CHANGES = st.lists(
    st.tuples(st.sampled_from(NAMES), st.sampled_from([0, 3, 5, None]), st.sampled_from([0, 0, 0, 1, 4])),
    min_size=1,
    max_size=6,
)
JOBS_MAX, POINTS_MAX = 5, 8


class LineagesMachine(RuleBasedStateMachine):
    """The model: the views of every live point and every running job."""

    model: CatalogModel | None = None

    def new_database(self):
        """Return an empty catalog, or None for one in memory."""

    @initialize(batch_rows=st.integers(1, 3), history=st.lists(CHANGES, max_size=4))
    def begin(self, batch_rows, history):
        """Start with some backups of one resource."""
        self.model = CatalogModel(batch_rows=batch_rows, database=self.new_database())
        for changes in history:
            self.whole(RESOURCES[0], "latest", changes, 0)

    def teardown(self):
        if self.model is not None:
            self.model.close()

    def whole(self, resource, base, changes, how):
        job = self.model.change(self.model.run(resource, base), changes)
        if how < 3 and (job.view or job.base):
            return self.model.commit(job, checked=how == 0)
        return self.model.end(job, "stop" if how == 3 else "give up")

    # --- jobs

    @precondition(lambda self: len(self.model.points) < POINTS_MAX)
    @rule(data=st.data(), resource=st.sampled_from(RESOURCES), changes=CHANGES, how=st.integers(0, 5))
    def a_whole_job(self, data, resource, changes, how):
        """Run a complete job, committed or not, unless another one of the resource runs."""
        if not any(job.resource == resource for job in self.model.open_jobs("RUNNING", "ABORTING")):
            base = data.draw(st.sampled_from(["latest", "latest", *self.model.live()]))
            self.whole(resource, base, changes, how)

    @precondition(lambda self: len(self.model.open_jobs()) < JOBS_MAX and len(self.model.points) < POINTS_MAX)
    @rule(data=st.data(), resource=st.sampled_from(RESOURCES), at_once=st.booleans())
    def start(self, data, resource, at_once):
        """Start a job, which waits for its first request unless `at_once`."""
        job = self.model.start(resource, data.draw(st.sampled_from(["latest", "none", *self.model.live()])))
        if at_once:
            self.model.touch(job)

    @precondition(lambda self: self.model.open_jobs("CREATED", "PENDING"))
    @rule(data=st.data())
    def touch(self, data):
        self.model.touch(data.draw(st.sampled_from(self.model.open_jobs("CREATED", "PENDING"))))

    @precondition(lambda self: self.model.open_jobs("RUNNING"))
    @rule(data=st.data(), changes=CHANGES)
    def change(self, data, changes):
        self.model.change(data.draw(st.sampled_from(self.model.open_jobs("RUNNING"))), changes)

    @precondition(lambda self: self.model.open_jobs("RUNNING"))
    @rule(data=st.data(), checked=st.booleans())
    def commit(self, data, checked):
        self.model.commit(data.draw(st.sampled_from(self.model.open_jobs("RUNNING"))), checked=checked)

    @precondition(lambda self: self.model.open_jobs())
    @rule(data=st.data(), how=st.sampled_from(["stop", "give up"]))
    def end_without_a_point(self, data, how):
        self.model.end(data.draw(st.sampled_from(self.model.open_jobs())), how)

    @precondition(lambda self: any(job.ended for job in self.model.jobs.values()))
    @rule(data=st.data())
    def ended_jobs_stay_ended(self, data):
        self.model.stays_ended(data.draw(st.sampled_from([job for job in self.model.jobs.values() if job.ended])))

    # --- points

    @precondition(lambda self: self.model.live())
    @rule(data=st.data(), batches=BATCHES)
    def delete(self, data, batches):
        """Delete a point. Rows that no other point sees are removed at once, in part, or later."""
        self.model.delete(data.draw(st.sampled_from(self.model.live())))
        for row in self.model.deleting():
            self.model.forget(row, batches)

    @precondition(lambda self: self.model.live())
    @rule(data=st.data())
    def restore(self, data):
        self.model.restore(data.draw(st.sampled_from(self.model.live())))

    # --- background tasks, in small steps

    @precondition(lambda self: self.model.dirty())
    @rule(data=st.data(), batches=BATCHES)
    def clean_a_little(self, data, batches):
        self.model.clean(data.draw(st.sampled_from(self.model.dirty())), batches)

    @precondition(lambda self: self.model.deleting())
    @rule(data=st.data(), batches=BATCHES)
    def forget_a_little(self, data, batches):
        self.model.forget(data.draw(st.sampled_from(self.model.deleting())), batches)

    @precondition(lambda self: self.model.retired())
    @rule(batches=BATCHES)
    def settle_a_little(self, batches):
        self.model.settle(batches)

    @rule(hours=st.sampled_from([0, 0, 2, 9]))
    def maintain(self, hours):
        self.model.maintain(hours)

    @rule()
    def lose_the_catalog(self):
        """Rebuild the catalog: every live point comes back from its records."""
        self.model.lose_the_catalog()

    # --- invariants

    @rule(
        data=st.data(), start=BYTES, prefix=BYTES, limit=st.integers(1, 10), first=st.integers(0, 400),
        window=st.integers(0, 400), filters=st.integers(0, 3),
    )  # fmt: skip
    def pages_with_filters(self, data, start, prefix, limit, first, window, filters):
        """Prefix, start and times select the right objects of a view, with any page size, in byte order."""
        seers = [(point.view, self.model.point_row(point).segment) for point in self.model.live()]
        seers += [(job.view, self.model.row(job).segment) for job in self.model.open_jobs("RUNNING")]
        if not seers:
            return
        view, segment = data.draw(st.sampled_from(seers))
        arguments = {"start": start, "prefix": prefix}
        first += min((thing.created_ms for thing in view.values()), default=0)
        if filters & 1:
            arguments["created_from_ms"] = first
        if filters & 2:
            arguments["created_to_ms"] = first + window
        found = self.model.database.read(lambda transaction: scanned(transaction, segment, limit=limit, **arguments))
        assert found == expected(view, **arguments)

    @invariant()
    def every_live_point_is_whole(self):
        """A recovery point has exactly the objects of its job at the commit, whatever was deleted since."""
        if self.model is not None:
            self.model.every_live_point_is_whole()

    @invariant()
    def every_running_job_sees_its_base_and_its_changes(self):
        """A job's view is that of its base with the job's own changes, whatever other jobs and deletions do."""
        if self.model is not None:
            self.model.every_running_job_sees_its_base_and_its_changes()

    @invariant()
    def versions_of_a_name_never_overlap(self):
        """No generation sees two versions of one name in its own lineage."""
        if self.model is not None:
            self.model.versions_of_a_name_never_overlap()


TestLineages = LineagesMachine.TestCase
TestLineages.settings = settings(max_examples=max(100, settings.default.max_examples), stateful_step_count=40)


class LineagesMachineOnPostgres(LineagesMachine):
    """The machine on PostgreSQL."""

    def new_database(self):
        self.opened = ExitStack()
        return open_catalog(self.opened.enter_context(new_database()))

    def teardown(self):
        if self.model is not None:
            with self.opened:
                super().teardown()


TestLineagesOnPostgres = on_services(LineagesMachineOnPostgres)
