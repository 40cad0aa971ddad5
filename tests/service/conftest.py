"""The service in process, on a stopped clock."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.stores.in_process import SMALL, opened

ON_SERVICES = {"test_shared_api.py": 3, "test_shared_api_time.py": 1}
"""Slow test files on real services; an ordinary run executes one in so many of their tests."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Leave the other tests on real services to `make stress`, and all but the first example of each."""
    seen = set()
    for item in items:
        share = ON_SERVICES.get(item.path.name) if item.path.is_relative_to(Path(__file__).parent) else None
        if share is None:
            continue
        name = item.nodeid.partition("[")[0]
        if name in seen or len(seen) % share:
            item.add_marker(pytest.mark.stress)
        seen.add(name)


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory):
    """One store for the tests of a file; each has resources of its own in it."""
    with opened(tmp_path_factory.mktemp("store") / "data") as store:
        yield store


@pytest.fixture
def api(shared_store):
    """The API over the shared store."""
    return shared_store.api()


@pytest.fixture(scope="module")
def small_store(tmp_path_factory):
    """As `shared_store`, with every limit lowered."""
    with opened(tmp_path_factory.mktemp("small") / "data", limits=SMALL) as store:
        yield store


@pytest.fixture
def small(small_store):
    """The API over the store with low limits."""
    return small_store.api()


@pytest.fixture
def store(tmp_path):
    """A store of the test's own."""
    with opened(tmp_path / "data") as store:
        yield store
