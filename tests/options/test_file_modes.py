"""Files of a server that other users may write or read are refused."""

from __future__ import annotations

import pytest

from cryostore.core.errors import ConfigurationError
from cryostore.options.configuration import require_own_directory, require_own_key
from cryostore.options.sources import read_file
from support.processes.fake_process import fake_server

COVERS = ("options/configuration.py",)


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o770, 0o1777, 0o702])
def test_a_data_directory_that_others_may_write(tmp_path, mode):
    directory = tmp_path / "data"
    require_own_directory(directory)  # it will be created
    directory.mkdir(mode=0o755)
    require_own_directory(directory)
    directory.chmod(mode)
    with pytest.raises(ConfigurationError, match=f"{mode:04o}") as refused:
        require_own_directory(directory)
    assert "chmod go-w" in refused.value.hint


def test_a_file_in_it_that_others_may_write(tmp_path):
    (tmp_path / "packs").mkdir(mode=0o700)
    require_own_directory(tmp_path)
    (tmp_path / "packs").chmod(0o777)
    with pytest.raises(ConfigurationError, match="packs has mode 0777"):
        require_own_directory(tmp_path)


def test_a_server_does_not_start_on_it(tmp_path):
    directory = tmp_path / "data"
    directory.mkdir()
    directory.chmod(0o777)
    with pytest.raises(AssertionError, match="0777"), fake_server(tmp_path):
        pass


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_key_that_only_its_owner_may_read(tmp_path, mode):
    key = tmp_path / "key"
    key.touch(mode=mode)
    require_own_key(key, "--tls-key")


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o620, 0o666, 0o660])
def test_a_key_that_others_may_read(tmp_path, mode):
    key = tmp_path / "key"
    key.touch()
    key.chmod(mode)
    with pytest.raises(ConfigurationError, match=f"{mode:04o}"):
        require_own_key(key, "--tls-key")


@pytest.mark.parametrize(
    ("text", "mode", "taken"),
    [
        ('keyring = "command:fetch-keyring"', 0o644, True),
        ('keyring = "command:fetch-keyring"', 0o664, False),
        ('keyring = "command:fetch-keyring"', 0o666, False),
        ("workers = 1", 0o664, True),
        ("workers = 1", 0o666, False),
    ],
)
def test_a_configuration_file_that_others_may_write(tmp_path, text, mode, taken):
    path = tmp_path / "config.toml"
    path.write_text(text)
    path.chmod(mode)
    if taken:
        read_file(path)
    else:
        with pytest.raises(ConfigurationError, match=f"{mode:04o}"):
            read_file(path)
