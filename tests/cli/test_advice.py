"""Every error has a hint: its own, that of its class, or a pointer to the help text."""

from __future__ import annotations

import pytest

from cryostore.agent.errors import ArchiveDamagedError
from cryostore.cli import verbs as module
from cryostore.cli.verbs import advice
from cryostore.client.transport import ConnectionFailedError
from cryostore.core import errors as core_errors
from cryostore.core.errors import CryostoreError, StorageFullError, StorageUnavailableError
from cryostore.model import errors as model_errors
from cryostore.model.errors import (
    InvalidSignatureException,
    ResourceNotFoundException,
    ServiceUnavailableException,
)

COVERS = ("cli/verbs.py",)


def test_the_nearest_class_gives_the_hint():
    assert "cryo gc" in advice(StorageFullError("full"), ["backup"])
    assert "failing" in advice(StorageUnavailableError("broken"), ["backup"])
    assert "access key" in advice(InvalidSignatureException("wrong"), ["backup"]), "by the class above"
    assert "cryo doctor" in advice(ResourceNotFoundException("no vault"), ["backup"])


def test_the_cause_gives_the_hint():
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
def test_other_errors_point_to_the_help_text(arguments, hint):
    assert advice(CryostoreError("something"), arguments) == hint


def test_every_named_class_exists():
    known = vars(core_errors) | vars(model_errors)
    known |= {kind.__name__: kind for kind in (ArchiveDamagedError, ConnectionFailedError)}
    assert set(module.BY_CLASS) <= set(known)
