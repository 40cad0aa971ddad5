"""Time-dependent behaviour of the API on a shared store: PostgreSQL and S3. See `test_shared_api.py`."""

from __future__ import annotations

import pytest

from conformance import api as conformance
from support.stores.shared_store import ON_SERVICES, missing_services, opened_shared

if missing := missing_services():
    pytest.skip(missing, allow_module_level=True)

globals().update(conformance.classes_to_test(conformance.WITH_TIME))


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory):
    """One store for all tests; each has resources of its own in it."""
    with opened_shared(tmp_path_factory.mktemp("store"), ON_SERVICES) as store:
        yield store


@pytest.fixture
def api(shared_store):
    """The API over the shared store."""
    return shared_store.api()
