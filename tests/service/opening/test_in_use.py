"""The lock of a data directory: many services, or one program alone."""

from __future__ import annotations

import pytest

from cryostore.core.errors import ConfigurationError, StorageUnavailableError
from cryostore.service.opening.data_directory import InUse, sole_use

COVERS = ("service/opening/data_directory.py",)


def test_services_share_the_directory(tmp_path):
    one, two = InUse(tmp_path), InUse(tmp_path)
    one.close()
    one.close()
    with pytest.raises(ConfigurationError, match="a server or another program uses it"), sole_use(tmp_path):
        pass
    two.close()
    with sole_use(tmp_path):
        pass


def test_one_program_alone_keeps_services_out(tmp_path):
    with sole_use(tmp_path), pytest.raises(ConfigurationError, match="its catalog is being rebuilt"):
        InUse(tmp_path)
    InUse(tmp_path).close()


def test_a_directory_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(StorageUnavailableError, match="cannot be used"):
        InUse(tmp_path / "none")
