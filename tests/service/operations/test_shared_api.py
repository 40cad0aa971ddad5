"""The whole API on a shared store: PostgreSQL and S3.

A third of the tests is made each time, with one example of each; all of them by `make stress` (see `conftest.py`).
"""

from __future__ import annotations

import pytest

from conformance import api as conformance
from support.stores.in_process import SMALL
from support.stores.shared_store import ON_SERVICES, missing_services, opened_shared

if missing := missing_services():
    pytest.skip(missing, allow_module_level=True)

globals().update(conformance.classes_to_test(conformance.EVERYWHERE))


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory):
    """One store for all of them; each test has resources of its own in it."""
    with opened_shared(tmp_path_factory.mktemp("store"), ON_SERVICES) as store:
        yield store


@pytest.fixture
def api(shared_store):
    """The words over it."""
    return shared_store.api()


@pytest.fixture(scope="module")
def small_store(tmp_path_factory):
    """As `shared_store`, with every limit configured down."""
    with opened_shared(tmp_path_factory.mktemp("small"), ON_SERVICES, limits=SMALL) as store:
        yield store


@pytest.fixture
def small(small_store):
    """The words over the store with small limits."""
    return small_store.api()
