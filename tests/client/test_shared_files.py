"""Shared configuration files of AWS tools: which profile is read, and from where."""

from __future__ import annotations

import pytest

from cryostore.client.shared_files import read_profile
from cryostore.core.errors import ConfigurationError

CONFIG = """
[default]
region = eu-default
[profile work]
region = eu-work
services = local
aws_access_key_id = of-config
[profile "two words"]
region = eu-quoted
[services local]
backup =
  endpoint_url = http://127.0.0.1:1
  Other = x=y
"""
CREDENTIALS = """
[default]
aws_access_key_id = of-default
[work]
aws_access_key_id = of-credentials
"""


@pytest.fixture
def environ(tmp_path):
    (tmp_path / "config").write_text(CONFIG)
    (tmp_path / "credentials").write_text(CREDENTIALS)
    return {
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
    }


def test_the_values_of_both_files_are_joined_and_credentials_take_precedence(environ):
    found = read_profile(environ, "work")
    assert found.name == "work"
    assert dict(found.values) == {
        "region": "eu-work",
        "services": "local",
        "aws_access_key_id": "of-credentials",
    }
    assert found.credentials_file == environ["AWS_SHARED_CREDENTIALS_FILE"]


def test_the_lines_below_a_service_are_its_values(environ):
    found = read_profile(environ, "work")
    assert found.services == {"backup": {"endpoint_url": "http://127.0.0.1:1", "other": "x=y"}}


@pytest.mark.parametrize(
    ("variables", "region"),
    [
        ({}, "eu-default"),
        ({"AWS_PROFILE": "work"}, "eu-work"),
        ({"AWS_DEFAULT_PROFILE": "work"}, "eu-work"),
        ({"AWS_PROFILE": "two words", "AWS_DEFAULT_PROFILE": "work"}, "eu-quoted"),
    ],
)
def test_the_environment_names_the_profile(environ, variables, region):
    assert read_profile(environ | variables).values["region"] == region


def test_missing_files_are_empty_and_a_profile_that_is_named_must_exist(tmp_path):
    environ = {"AWS_CONFIG_FILE": str(tmp_path / "none"), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none")}
    assert dict(read_profile(environ).values) == {}
    with pytest.raises(ConfigurationError, match="'absent' is not in the AWS configuration files"):
        read_profile(environ, "absent")


def test_values_are_not_in_the_text_of_a_profile(environ):
    assert "of-credentials" not in repr(read_profile(environ, "work"))
