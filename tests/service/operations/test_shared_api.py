"""The whole API on a shared store: PostgreSQL and S3.

An ordinary run executes a third of the tests, with one example of each; `make stress` executes all of them (see
`tests/service/conftest.py`).
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
    """One store for all tests; each has resources of its own in it."""
    with opened_shared(tmp_path_factory.mktemp("store"), ON_SERVICES) as store:
        yield store


@pytest.fixture
def api(shared_store):
    """The API over the shared store."""
    return shared_store.api()


@pytest.fixture(scope="module")
def small_store(tmp_path_factory):
    """As `shared_store`, with every limit lowered."""
    with opened_shared(tmp_path_factory.mktemp("small"), ON_SERVICES, limits=SMALL) as store:
        yield store


@pytest.fixture
def small(small_store):
    """The API over the store with low limits."""
    return small_store.api()
