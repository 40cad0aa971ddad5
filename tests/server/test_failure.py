"""What callers are told of failures that the API does not model."""

from __future__ import annotations

import pytest

from cryostore.core.errors import (
    DamagedDataError,
    KeyUnavailableError,
    StorageFullError,
    StorageUnavailableError,
)
from cryostore.model.errors import ThrottlingException
from cryostore.server.failure import modelled


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (StorageUnavailableError("secret"), "ServiceUnavailableException"),
        (StorageFullError("secret"), "ServiceUnavailableException"),
        (KeyUnavailableError("secret"), "KMSInvalidKeyUsageException"),
        (DamagedDataError("secret"), "ServiceInternalException"),
        (RuntimeError("secret"), "ServiceInternalException"),
    ],
)
def test_the_details_stay_here(error, name):
    told = modelled(error)
    assert type(told).__name__ == name
    assert "secret" not in told.message


def test_a_modelled_error_is_told_as_it_is():
    error = ThrottlingException("slowly")
    assert modelled(error) is error
