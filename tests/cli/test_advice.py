"""Every error says what to do next: itself, or by its class, or where to read on."""

from __future__ import annotations

import pytest

from cryostore.agent.errors import ArchiveDamagedError
from cryostore.cli import advice as module
from cryostore.cli.advice import advice
from cryostore.client.transport import ConnectionFailedError
from cryostore.core import errors as core_errors
from cryostore.core.errors import CryostoreError, StorageFullError, StorageUnavailableError
from cryostore.model import errors as model_errors
from cryostore.model.errors import (
    InvalidSignatureException,
    ResourceNotFoundException,
    ServiceUnavailableException,
)


def test_the_class_knows_and_the_nearest_knows_best():
    assert "cryo gc" in advice(StorageFullError("full"), ["backup"])
    assert "failing" in advice(StorageUnavailableError("broken"), ["backup"])
    assert "access key" in advice(InvalidSignatureException("wrong"), ["backup"]), "by the class above"
    assert "cryo doctor" in advice(ResourceNotFoundException("no vault"), ["backup"])


def test_what_stood_in_the_way_knows_better_than_what_it_became():
    error = ServiceUnavailableException("the storage is full; retry later")
    assert "server" in advice(error, ["backup"])
    error.__cause__ = StorageFullError("full")
    assert advice(error, ["backup"]) == advice(StorageFullError("full"), ["backup"])
    error.__cause__ = OSError("of no class that is known")
    assert "server" in advice(error, ["backup"])


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["backup", "x"], "cryo backup --help lists the options"),
        (["--json", "backup"], "cryo backup --help lists the options"),
        ([], "cryo --help lists the options"),
    ],
)
def test_others_are_told_where_to_read_on(arguments, hint):
    assert advice(CryostoreError("something"), arguments) == hint


def test_every_class_named_is_there():
    known = vars(core_errors) | vars(model_errors)
    known |= {kind.__name__: kind for kind in (ArchiveDamagedError, ConnectionFailedError)}
    assert set(module.BY_CLASS) <= set(known)
