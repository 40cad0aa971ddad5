"""Rows of objects: pages of views and their cost, the order of names, and the cost of commits and deletions."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryostore.catalog.rows import chunk_lists, lineages, objects, vaults
from cryostore.catalog.rows.lineages import Segment
from cryostore.catalog.rows.objects import ObjectContent, Totals
from cryostore.core.digest import sha256
from support.catalogs.catalog_model import Thing, expected, scanned
from support.catalogs.memory_database import MemoryDatabase

NAMES = st.binary(max_size=4).map(lambda raw: raw.translate(bytes([0, 1, 0x2F, 0x61, 0x7F, 0x80, 0xFE, 0xFF]) * 32))


class Catalog:
    """A database with one vault, and lineages that the test creates."""

    def __init__(self):
        self.database = MemoryDatabase()
        self.vault = self.database.write(
            lambda t: vaults.insert(
                t, name="v", creator_request_id=None, encryption_key_arn=None, tags="{}", created_ms=0
            )
        )

    def lineage(self, parent=None):
        """Create a lineage at its first generation."""
        lineage_id = self.database.write(lambda t: lineages.insert(t, self.vault.vault_id, parent))
        return self.next(lineage_id)

    def next(self, lineage_id):
        return Segment(lineage_id, self.database.write(lambda t: lineages.take_generation(t, lineage_id)))

    def view(self, segment):
        return self.database.read(lambda t: lineages.view(t, segment))

    def put(self, segment, *names, length=1, created_ms=0):
        def work(transaction):
            for name in names:
                content = ObjectContent(created_ms, length, 0, sha256(name), 0)
                objects.put(transaction, segment, name, content)

        self.database.write(work)

    def remove(self, segment, *names):
        view = self.view(segment)
        return [self.database.write(lambda t, name=name: objects.remove(t, view, name, now_ms=0)) for name in names]

    def names(self, segment, **arguments):
        return [name for name, _, _ in self.database.read(lambda t: scanned(t, segment, **arguments))]

    def page(self, segment, **arguments):
        view = self.view(segment)
        arguments = {"start": b"", "prefix": b"", "limit": 100} | arguments
        return self.database.read(lambda t: objects.page(t, view, **arguments))

    def steps(self, work):
        """Return how many steps of SQLite's virtual machine a unit of work takes, in hundreds."""
        count = itertools.count()
        self.database.connection.set_progress_handler(lambda: next(count) and 0, 100)
        try:
            self.database.write(work)
        finally:
            self.database.connection.set_progress_handler(None, 0)
        return next(count)

    def statements(self, work):
        """Return how many statements a unit of work runs, including those that begin and end its transaction."""
        said = []
        self.database.connection.set_trace_callback(said.append)
        try:
            self.database.write(work)
        finally:
            self.database.connection.set_trace_callback(None)
        return len(said)


@pytest.fixture
def catalog():
    catalog = Catalog()
    yield catalog
    catalog.database.close()


@given(
    layers=st.lists(st.lists(st.tuples(NAMES, st.booleans()), max_size=12), min_size=1, max_size=4),
    start=NAMES, prefix=NAMES, limit=st.integers(1, 7),
    first=st.none() | st.integers(0, 5), end=st.none() | st.integers(0, 5),
)  # fmt: skip
def test_pages_of_any_view_are_the_sorted_merge_of_its_lineages(layers, start, prefix, limit, first, end):
    """Nested branches put and remove names with unusual bytes; the result is compared with a dict."""
    catalog = Catalog()
    wanted, segment, number = {}, None, 0
    for layer in layers:
        segment = catalog.lineage(segment)
        for name, removed in layer:
            number += 1
            if removed:
                assert catalog.remove(segment, name) == [wanted.pop(name, None) is not None]
            else:
                catalog.put(segment, name, length=number, created_ms=number % 6)
                wanted[name] = Thing(sha256(name), number, number % 6, 0)
    arguments = {"start": start, "prefix": prefix, "created_from_ms": first, "created_to_ms": end}
    found = catalog.database.read(lambda t: scanned(t, segment, limit=limit, **arguments))
    assert found == expected(wanted, **arguments)
    catalog.database.close()


def test_names_are_in_byte_order(catalog):
    names = [
        "",
        "A",
        "Z",
        "a",
        "aa",
        "a/b",
        "a.b",
        "ab",
        "é",
        "z",
        "ß",
        "\U0001f4be",
        "\uffff",
        "e\u0301",
        "I",
        "\u0131",
    ]
    segment = catalog.lineage()
    catalog.put(segment, *(name.encode() for name in names if name))
    wanted = sorted(name.encode() for name in names if name)
    assert catalog.names(segment) == wanted
    for name in wanted:
        assert catalog.page(segment, start=name, limit=1)[0].name == name


@pytest.mark.parametrize("prefix", [b"\xff", b"\xff\xff", b"a\xff", b"a\xff\xff", b"\x00", b"a"])
def test_a_prefix_of_the_highest_bytes_has_the_right_end(catalog, prefix):
    """No UTF-8 text ends like this, but it must work nevertheless."""
    names = [b"", b"\x00", b"\x00a", b"a", b"a\xfe", b"a\xff", b"a\xff\xff", b"a\xff\xffz", b"b", b"\xfe", b"\xff"]
    names.append(b"\xff\xff\xff")
    segment = catalog.lineage()
    catalog.put(segment, *names)
    assert catalog.names(segment, prefix=prefix) == sorted(name for name in names if name.startswith(prefix))


def test_the_start_is_inclusive_and_need_not_exist(catalog):
    segment = catalog.lineage()
    catalog.put(segment, b"p/a", b"p/b", b"q")
    both = [b"p/a", b"p/b"]
    for start, wanted in [(b"", both), (b"p/a", both), (b"p/a\0", both[1:]), (b"q", []), (b"z", [])]:
        assert catalog.names(segment, start=start, prefix=b"p/") == wanted


@pytest.mark.parametrize("limit", [1, 2, 9, 10, 11, 100])
def test_a_page_below_the_limit_is_the_last_one(catalog, limit):
    """A full page may be the last one, too: then the next one is empty."""
    segment = catalog.lineage()
    catalog.put(segment, *(b"%02d" % number for number in range(10)))
    page = catalog.page(segment, limit=limit)
    assert len(page) == min(limit, 10)


def test_a_filter_without_matches_ends(catalog):
    """It takes one page, and reads each object once."""
    segment = catalog.lineage()
    catalog.put(segment, *(b"%04d" % number for number in range(2000)), created_ms=5)
    view = catalog.view(segment)

    def work(transaction):
        arguments = {"start": b"", "prefix": b"", "limit": 100}
        assert objects.page(transaction, view, created_from_ms=6, **arguments) == []
        assert objects.page(transaction, view, created_to_ms=5, **arguments) == []

    assert catalog.steps(work) < 2 * 2000
    assert catalog.page(segment, prefix=b"x") == []
    assert len(catalog.page(segment, created_from_ms=5, created_to_ms=6)) == 100


def test_a_page_of_a_branch_that_hides_everything_ends(catalog):
    base = catalog.lineage()
    names = [b"%03d" % number for number in range(300)]
    catalog.put(base, *names)
    branch = catalog.lineage(base)
    assert all(catalog.remove(branch, *names[:-1]))
    assert catalog.names(branch) == names[-1:]
    assert catalog.names(base) == names


def test_the_cost_of_a_page_is_proportional_to_its_size(catalog):
    """A page in the middle of 20,000 objects reads only its own objects."""
    segment = catalog.lineage()
    catalog.put(segment, *(b"%06d" % number for number in range(20_000)))
    view = catalog.view(segment)
    page = {"start": b"010000", "prefix": b"01", "limit": 100}
    assert catalog.steps(lambda t: objects.page(t, view, **page)) < 100


# --- costs of a commit and of a deletion


@pytest.fixture
def large(catalog):
    """A lineage whose first generation put 20,000 objects, and whose second one changed a few."""
    first = catalog.lineage()
    catalog.put(first, *(b"%06d" % number for number in range(20_000)))
    second = catalog.next(first.lineage_id)
    catalog.put(second, b"000005", b"010000", b"new", length=10)
    catalog.remove(second, b"000007", b"019999")
    return first, second


def test_the_cost_of_totals_is_proportional_to_the_changes_of_the_job(catalog, large):
    _, second = large
    view = catalog.view(second)
    totals = []
    assert catalog.steps(lambda t: totals.append(objects.change(t, view))) < 20
    assert totals == [Totals(-1, 26)]


def test_the_cost_of_totals_of_a_branch_is_proportional_to_its_changes(catalog, large):
    _, second = large
    branch = catalog.lineage(second)
    catalog.put(branch, b"000005", b"another", length=100)
    catalog.remove(branch, b"new", b"000001")
    view = catalog.view(branch)
    totals = []
    assert catalog.steps(lambda t: totals.append(objects.change(t, view))) < 20
    assert totals == [Totals(-1, 200 - 10 - 10 - 1)]


def test_totals_of_a_branch_ask_for_many_names_at_a_time(catalog, large):
    """A commit does not run one query per name that the branch changed."""
    _, second = large
    branch = catalog.lineage(second)
    catalog.put(branch, *(b"%06d" % number for number in range(0, 20_000, 2)), length=2)
    view = catalog.view(branch)
    totals = []
    assert catalog.statements(lambda t: totals.append(objects.change(t, view))) < 40
    assert totals == [Totals(0, 2 * 10_000 - (9_999 + 10))], "one of the objects that the branch replaced had 10 bytes"


def test_the_cost_of_forgetting_is_proportional_to_the_deleted_rows(catalog, large):
    """The first generation is deleted. The second one sees all but four of its 20,000 versions."""
    first, second = large
    assert catalog.steps(lambda t: objects.forget(t, first.lineage_id, 0, second.generation, 500)) < 20
    assert len(catalog.names(second, limit=1000)) == 19_999


def test_the_cost_of_truncating_is_proportional_to_the_deleted_rows(catalog, large):
    first, _ = large
    assert catalog.steps(lambda t: objects.truncate(t, first.lineage_id, first.generation, 500)) < 20
    assert len(catalog.names(first, limit=1000)) == 20_000


@pytest.mark.parametrize("limit", [1, 2, 3, 1000])
def test_each_step_deletes_a_limited_number_of_rows(catalog, limit):
    """Parts of chunk lists count as rows."""
    segment = catalog.lineage()
    catalog.put(segment, b"a", b"b", b"c")

    def give_lists(transaction):
        for number, name in [(7, b"a"), (8, b"c")]:
            transaction.run("UPDATE object SET chunk_list_id = :number WHERE name = :name", number=number, name=name)
            for part in range(4):
                chunk_lists.insert_parts(transaction, number, [(part, part, b"")])

    def rows(transaction):
        return sum(transaction.row(f"SELECT count(*) FROM {table}")[0] for table in ("object", "chunk_list"))

    catalog.database.write(give_lists)
    left, done = 11, False
    while not done:
        done = catalog.database.write(lambda t: objects.truncate(t, segment.lineage_id, 0, limit))
        now = catalog.database.read(rows)
        assert left - limit <= now <= left
        assert now < left or done
        left = now
    assert left == 0


def test_find_by_id_and_chunks(catalog):
    segment = catalog.lineage()
    object_id = catalog.database.write(
        lambda t: objects.put(t, segment, b"a", ObjectContent(1, 2, 1, b"s" * 32, 1, "text", chunks=b"packed"))
    )
    row = catalog.database.read(lambda t: objects.by_id(t, object_id))
    assert (row.name, row.metadata_string, row.removed, row.chunk_list_id) == (b"a", "text", 0, None)
    assert catalog.database.read(lambda t: objects.packed_chunks(t, object_id)) == b"packed"
    assert catalog.database.read(lambda t: objects.by_id(t, object_id + 1)) is None
    assert catalog.database.read(lambda t: objects.packed_chunks(t, object_id + 1)) is None


def test_object_ids_are_never_reused(catalog):
    """The token of a removed object must never name another object."""
    segment = catalog.lineage()
    catalog.put(segment, b"a")
    (row,) = catalog.page(segment)
    catalog.put(segment, b"a")
    (again,) = catalog.page(segment)
    assert again.object_id > row.object_id
