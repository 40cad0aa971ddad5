"""Records of lineages while points are deleted in any order: after every step a catalog is rebuilt from them.

The rebuilt points are compared with the committed ones, object by object.
"""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cryostore.catalog import open_catalog
from cryostore.chunks.blobs import open_blobs
from support.catalogs.catalog_model import NAMES, RESOURCES, CatalogModel
from support.services.postgres import new_database
from support.stores.service_store import on_services
from support.stores.shared_store import s3_in_environment

FEW_NAMES = NAMES[:4]
"""Few names, so that most changes replace or remove an object of an earlier point."""
CHANGES = st.lists(
    st.tuples(st.sampled_from(FEW_NAMES), st.sampled_from([1, None]), st.sampled_from([0, 0, 2])), max_size=3
)
BATCHES = st.sampled_from([0, 1, 2, 20])
POINTS_MAX = 8


class RecordsMachine(RuleBasedStateMachine):
    """Backups, branches, failures and deletions, which may be left unfinished."""

    model: CatalogModel | None = None

    def new_places(self):
        """Return an empty catalog and an empty blob store. None stands for one in memory."""
        return None, None

    @initialize(batch_rows=st.integers(1, 3), history=st.lists(CHANGES, min_size=3, max_size=6))
    def begin(self, batch_rows, history):
        """Start with some backups of one resource."""
        database, blobs = self.new_places()
        self.model = CatalogModel(batch_rows=batch_rows, database=database, blobs=blobs)
        for changes in [[(FEW_NAMES[0], 1, 0)], *history]:
            self.back_up(RESOURCES[0], "latest", changes, fails=False)

    def teardown(self):
        if self.model is not None:
            self.model.close()

    def back_up(self, resource, base, changes, *, fails):
        job = self.model.change(self.model.run(resource, base), changes)
        if fails or not (job.view or job.base):
            self.model.end(job)
        else:
            self.model.commit(job)

    @precondition(lambda self: len(self.model.points) < POINTS_MAX)
    @rule(
        data=st.data(),
        resource=st.sampled_from(RESOURCES),
        changes=CHANGES,
        fails=st.sampled_from([False] * 3 + [True]),
    )
    def a_backup(self, data, resource, changes, fails):
        base = data.draw(st.sampled_from(["latest", "latest", *self.model.live()]))
        self.back_up(resource, base, changes, fails=fails)

    @precondition(lambda self: self.model.live())
    @rule(data=st.data(), batches=BATCHES)
    def delete(self, data, batches):
        """Delete a point. Rows that no other point sees are removed at once, in part, or later."""
        self.model.delete(data.draw(st.sampled_from(self.model.live())))
        for row in self.model.deleting():
            self.model.forget(row, batches)

    @precondition(lambda self: self.model.live())
    @rule()
    def delete_the_oldest(self):
        """Delete the oldest point, as retention does."""
        self.model.delete(self.model.live()[0])

    @precondition(lambda self: self.model.retired())
    @rule(batches=BATCHES)
    def settle_a_little(self, batches):
        self.model.settle(batches)

    @rule()
    def maintain(self):
        self.model.maintain()

    @rule()
    def lose_the_catalog(self):
        """Continue with a rebuilt catalog."""
        self.model.lose_the_catalog()

    @invariant()
    def the_records_describe_the_points(self):
        if self.model is not None:
            self.model.the_records_describe_the_points()


TestRecords = RecordsMachine.TestCase
TestRecords.settings = settings(max_examples=max(30, settings.default.max_examples // 2), stateful_step_count=15)


class RecordsMachineOnServices(RecordsMachine):
    """The machine on PostgreSQL and S3. At the end the catalog is rebuilt on PostgreSQL, too."""

    def new_places(self):
        self.opened = ExitStack()
        catalog = open_catalog(self.opened.enter_context(new_database()))
        blobs = open_blobs(self.opened.enter_context(s3_in_environment()))
        self.opened.callback(blobs.close)
        return catalog, blobs

    def teardown(self):
        if self.model is not None:
            with self.opened:
                with new_database() as url:
                    self.model.the_records_describe_the_points(open_catalog(url))
                super().teardown()


TestRecordsOnServices = on_services(RecordsMachineOnServices)


def test_retention_does_not_change_the_remaining_points():
    """A name is written, is in two points, and is removed; the points are deleted, oldest first."""
    with CatalogModel() as model:
        job = model.put(model.run(), b"a", b"gone")
        points = [model.commit(job)]
        later = [[(b"b", 1, 0)], [(b"gone", None, 0)], [(b"b", None, 0), (b"c", 1, 0)]]
        points += [model.commit(model.change(model.run(), changes)) for changes in later]
        for point in points[:3]:
            model.delete(point)
            model.the_records_describe_the_points()
            model.maintain()
            model.the_records_describe_the_points()


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 2, 0, 3), (2, 0, 3, 1)])
def test_records_of_deleted_points_are_removed(order):
    """There is one record for each remaining point."""
    with CatalogModel() as model:
        points = [model.commit(model.put(model.run(), b"a", b"%d" % number)) for number in range(4)]
        for left, number in enumerate(reversed(order)):
            assert len(list(model.context.records.names("commit"))) == 4 - left
            model.delete(points[number])
            model.maintain()
