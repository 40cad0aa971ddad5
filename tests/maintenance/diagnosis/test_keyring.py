"""Checks of a keyring and of its copy."""

from __future__ import annotations

import pytest

from cryostore.chunks.keyring import open_keyring, parse_keyring_uri
from cryostore.chunks.keyring.master_keys import print_paper
from cryostore.core.errors import ConfigurationError
from cryostore.maintenance.diagnosis import ERROR, OK, WARNING
from cryostore.maintenance.diagnosis.stores import check_keyring, check_keyring_copy
from support.stores.keyrings import BOTH, OLD_ALONE, write_keyring

COVERS = ("maintenance/diagnosis/stores.py",)


@pytest.fixture
def source(tmp_path):
    """An open keyring of two keys in a file."""
    write_keyring(tmp_path / "keyring.json", BOTH)
    return open_keyring(parse_keyring_uri(str(tmp_path / "keyring.json")))


def test_a_keyring_that_other_users_may_read_fails(source, tmp_path):
    path = tmp_path / "keyring.json"
    assert check_keyring(source)[:2] == (OK, "keyring")
    assert "2 keys" in check_keyring(source).found
    path.chmod(0o640)
    with pytest.raises(ConfigurationError) as refused:
        check_keyring(source)
    assert f"chmod 600 {path}" in refused.value.hint


@pytest.mark.parametrize("encode", [lambda keys: keys.encode().decode(), print_paper])
def test_a_complete_copy(source, tmp_path, encode):
    copy = tmp_path / "copy"
    copy.write_text(encode(BOTH))
    assert check_keyring_copy(source, copy, tmp_path).level == WARNING, "the copy is on the disk of the data"
    elsewhere = type("Elsewhere", (), {"stat": lambda _: type("Status", (), {"st_dev": -1})})()
    assert check_keyring_copy(source, copy, elsewhere)[:3] == (
        OK,
        "copy of the keyring",
        f"{copy} has all 2 keys",
    )


def test_an_unusable_copy_is_an_error(source, tmp_path):
    copy = tmp_path / "copy"
    assert "cannot be read" in check_keyring_copy(source, copy, tmp_path).found
    copy.write_text("no keyring")
    assert "holds no keyring" in check_keyring_copy(source, copy, tmp_path).found
    write_keyring(copy, OLD_ALONE)
    found = check_keyring_copy(source, copy, tmp_path)
    assert (found.level, "lacks 1 of 2 keys" in found.found) == (ERROR, True)
    assert "cryo key export" in found.advice
