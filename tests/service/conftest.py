"""The service in process, on a stopped clock."""

from __future__ import annotations

import pytest

from support.stores import SMALL, opened


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory):
    """One store for the tests of a file; each has resources of its own in it."""
    with opened(tmp_path_factory.mktemp("store") / "data") as store:
        yield store


@pytest.fixture
def api(shared_store):
    """The words over the shared store."""
    return shared_store.api()


@pytest.fixture(scope="module")
def small_store(tmp_path_factory):
    """As `shared_store`, with every limit configured down."""
    with opened(tmp_path_factory.mktemp("small") / "data", limits=SMALL) as store:
        yield store


@pytest.fixture
def small(small_store):
    """The words over the store with small limits."""
    return small_store.api()


@pytest.fixture
def store(tmp_path):
    """A store of the test's own."""
    with opened(tmp_path / "data") as store:
        yield store
