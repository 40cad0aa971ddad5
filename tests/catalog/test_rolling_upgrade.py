"""Rolling upgrades: nodes of two versions share a catalog whose newer schema allows the older one."""

from __future__ import annotations

import pytest

from cryostore.catalog import migration, open_catalog
from cryostore.core.errors import ConfigurationError
from cryostore.model.errors import ServiceUnavailableException
from support.stores.shared_store import ON_PATHS, ON_SERVICES, SharedStore, prepared

KNOWN = len(migration.steps())
ADDS = "ALTER TABLE vault ADD COLUMN pretended TEXT;\n"
ADDS_MORE = "CREATE TABLE pretended_too (name TEXT PRIMARY KEY);\n"


@pytest.fixture(params=[ON_PATHS, ON_SERVICES])
def place(request, tmp_path):
    """Create a store of this version."""
    with prepared(tmp_path, request.param) as place:
        yield place


@pytest.fixture
def later(monkeypatch):
    """Open a store as a program with additional steps does."""
    known = migration.steps()

    def opened(place, *further):
        with monkeypatch.context() as patch:
            patch.setattr(migration, "steps", lambda: [*known, *further])
            return SharedStore(place)

    return opened


def test_two_adjacent_versions_work_side_by_side(place, later):
    """The newer version starts first. The older one opens the same store, and both back up and restore."""
    running = SharedStore(place)
    newer = later(place, f"-- Pretended.\n-- readable by: {KNOWN}\n{ADDS}")
    older = SharedStore(place)
    try:
        for one, other in ((newer, older), (older, newer), (running, newer)):
            api = one.api()
            point = api.backup({"name": b"1"})
            assert other.api().restored(point) == {"name": b"1"}
            one.maintain()
    finally:
        for one in (running, newer, older):
            one.service.close()


def test_an_older_version_does_not_downgrade_the_schema(place, later):
    """The additions of the newer version are still there when it starts again, and are not added twice."""
    step = f"-- readable by: {KNOWN}\n{ADDS}"
    later(place, step).service.close()
    SharedStore(place).service.close()
    newer = later(place, step)
    try:
        newer.service.context.database.read(lambda transaction: transaction.rows("SELECT pretended FROM vault"))
    finally:
        newer.service.close()


@pytest.mark.parametrize(
    "further",
    [
        [f"-- readable by: {KNOWN}\n{ADDS}", f"-- readable by: {KNOWN + 1}\n{ADDS_MORE}"],
        [ADDS],
        [f"-- readable by: {KNOWN + 1}\n{ADDS}"],
        [ADDS, f"-- readable by: {KNOWN}\n{ADDS_MORE}"],
    ],
    ids=["two versions newer", "declares nothing", "only itself", "an earlier step excludes it"],
)
def test_a_version_that_is_too_old_is_refused(place, later, further):
    later(place, *further).service.close()
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=f"schema version {KNOWN + len(further)}.*up to {KNOWN}"):
            SharedStore(place)


def test_a_running_node_notices_that_it_is_too_old(place, later):
    """Two versions later it serves no more requests, not even cached content."""
    running = SharedStore(place)
    try:
        later(place, f"-- readable by: {KNOWN}\n{ADDS}").service.close()
        running.service.check_still_current()
        later(place, f"-- readable by: {KNOWN}\n{ADDS}", ADDS_MORE).service.close()
        with pytest.raises(ConfigurationError, match="up to"):
            running.service.check_still_current()
        with pytest.raises(ServiceUnavailableException):
            running.api().start_job()
    finally:
        running.service.close()


def test_each_step_declares_the_oldest_schema_that_may_use_it():
    """A step declares nothing or an earlier version, but none that a previous step has excluded."""
    least = 0
    for number, text in enumerate(migration.steps(), start=1):
        readable_by = migration.readable_by(number, text)
        assert least <= readable_by <= number
        least = readable_by


def test_a_catalog_without_a_table_of_readers(tmp_path):
    """The next opening creates the table."""
    path = tmp_path / "catalog.sqlite"
    database = open_catalog(path)
    database.write(lambda transaction: transaction.run("DROP TABLE schema_reader"))
    database.close()
    database = open_catalog(path)
    assert database.read(lambda transaction: transaction.rows("SELECT * FROM schema_reader")) == []
    database.close()
