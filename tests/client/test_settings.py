"""Settings of a client: endpoint, region, access key and profile, with the sources and precedence of AWS tools."""

from __future__ import annotations

import itertools

import pytest
from botocore.session import Session

from cryostore.client.settings import read_profile, resolve
from cryostore.core.errors import ConfigurationError
from cryostore.wire.sigv4 import Credentials

ENDPOINT = "http://127.0.0.1:9440"


@pytest.fixture
def files(tmp_path):
    """Writes the two shared files; returns an environment that points to them."""

    def write(credentials=None, config=None, **environment):
        for name, text in (("credentials", credentials), ("config", config)):
            if text is not None:
                (tmp_path / name).write_text(text, encoding="utf-8")
        paths = {"AWS_SHARED_CREDENTIALS_FILE": tmp_path / "credentials", "AWS_CONFIG_FILE": tmp_path / "config"}
        return {name: str(path) for name, path in paths.items()} | environment

    return write


def key_pair(name, **more):
    """The lines of a profile with this access key."""
    lines = {"aws_access_key_id": name, "aws_secret_access_key": f"secret-{name}"} | more
    return "".join(f"{key} = {value}\n" for key, value in lines.items())


def key_environment(name):
    return {"AWS_ACCESS_KEY_ID": name, "AWS_SECRET_ACCESS_KEY": f"secret-{name}"}


PLACES = ("explicit", "environment", "credentials file", "config file")


@pytest.mark.parametrize("present", [p for n in range(1, 5) for p in itertools.combinations(PLACES, n)])
def test_the_first_source_with_an_access_key_takes_precedence(files, present):
    environ = files(
        f"[default]\n{key_pair('credentials file')}" if "credentials file" in present else None,
        f"[default]\n{key_pair('config file')}" if "config file" in present else None,
        **(key_environment("environment") if "environment" in present else {}),
    )
    explicit = Credentials("explicit", "secret-explicit") if "explicit" in present else None
    found = resolve(environ, endpoint_url=ENDPOINT, credentials=explicit).credentials
    assert found == Credentials(present[0], f"secret-{present[0]}")


@pytest.mark.parametrize(
    ("environment", "profile", "expected"),
    [
        ({}, None, "default"),
        ({"AWS_PROFILE": "other"}, None, "other"),
        ({"AWS_DEFAULT_PROFILE": "other"}, None, "other"),
        ({"AWS_PROFILE": "third", "AWS_DEFAULT_PROFILE": "other"}, None, "third"),
        ({"AWS_PROFILE": "other"}, "third", "third"),
        ({"AWS_PROFILE": "other"} | key_environment("environment"), None, "environment"),
        (key_environment("environment"), "third", "third"),
    ],
)
def test_the_profile_in_use(files, environment, profile, expected):
    text = f"[default]\n{key_pair('default')}[other]\n{key_pair('other')}[third]\n{key_pair('third')}"
    assert resolve(files(text, **environment), endpoint_url=ENDPOINT, profile=profile).credentials == Credentials(
        expected, f"secret-{expected}"
    )


def test_a_profile_in_both_files(files):
    environ = files(f"[work]\n{key_pair('work')}", f"[profile work]\nregion = eu-1\nendpoint_url = {ENDPOINT}\n")
    found = resolve(environ, profile="work")
    assert (found.credentials.access_key_id, found.region, found.endpoint_url) == ("work", "eu-1", ENDPOINT)


def test_a_session_token(files):
    environ = files(**key_environment("environment"), AWS_SESSION_TOKEN="token")
    assert resolve(environ, endpoint_url=ENDPOINT).credentials.session_token == "token"
    environ = files(f"[default]\n{key_pair('file', aws_session_token='token2')}")
    assert resolve(environ, endpoint_url=ENDPOINT).credentials.session_token == "token2"


REGIONS = {
    "explicit": ("region", "eu-explicit"),
    "AWS_REGION": ("environment", "eu-aws-region"),
    "AWS_DEFAULT_REGION": ("environment", "eu-default-region"),
    "file": ("file", "eu-file"),
}


@pytest.mark.parametrize("first", range(5))
def test_the_precedence_of_regions(files, first):
    present = dict(list(REGIONS.items())[first:])
    environ = files(
        f"[default]\n{key_pair('file', **({'region': 'eu-file'} if 'file' in present else {}))}",
        **{name: value for name, (place, value) in present.items() if place == "environment"},
    )
    explicit = "eu-explicit" if "explicit" in present else None
    expected = next((value for _, value in present.values()), "local-1")
    assert resolve(environ, endpoint_url=ENDPOINT, region=explicit).region == expected


ENDPOINTS = ("explicit", "AWS_ENDPOINT_URL_BACKUPSTORAGE", "AWS_ENDPOINT_URL_BACKUP", "AWS_ENDPOINT_URL")


@pytest.mark.parametrize("first", range(7))
def test_the_precedence_of_endpoints(files, first):
    order = [*ENDPOINTS, "services backupstorage", "services backup", "profile"][first:]
    urls = {name: f"http://{number}" for number, name in enumerate(order)}
    services = "".join(
        f"{service} =\n  endpoint_url = {urls[f'services {service}']}\n"
        for service in ("backupstorage", "backup")
        if f"services {service}" in urls
    )
    config = f"[default]\nservices = mine\nendpoint_url = {urls['profile']}\n[services mine]\n{services}"
    environment = {name: url for name, url in urls.items() if name.startswith("AWS_")}
    environ = files(config=config, **key_environment("k"), **environment)
    assert resolve(environ, endpoint_url=urls.get("explicit")).endpoint_url == "http://0"


@pytest.mark.parametrize("place", ["explicit", "environment", "file"])
def test_the_precedence_of_certificate_bundles(files, place):
    environ = files(
        f"[default]\n{key_pair('file')}ca_bundle = file\n",
        **({"AWS_CA_BUNDLE": "environment"} if place != "file" else {}),
    )
    explicit = "explicit" if place == "explicit" else None
    assert resolve(environ, endpoint_url=ENDPOINT, ca_bundle=explicit).ca_bundle == place


def test_empty_variables_count_as_absent(files):
    environ = files(
        f"[default]\n{key_pair('file', region='eu-file')}",
        AWS_ACCESS_KEY_ID="",
        AWS_SECRET_ACCESS_KEY="",
        AWS_REGION="",
        AWS_PROFILE="",
        AWS_ENDPOINT_URL_BACKUP="",
        AWS_ENDPOINT_URL=ENDPOINT,
    )
    found = resolve(environ)
    assert (found.credentials.access_key_id, found.region, found.endpoint_url) == ("file", "eu-file", ENDPOINT)


def test_the_shared_files_in_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(f"[default]\n{key_pair('home')}", encoding="utf-8")
    assert resolve({"AWS_ENDPOINT_URL": ENDPOINT}).credentials.access_key_id == "home"


@pytest.mark.parametrize(
    ("environment", "options", "message"),
    [
        ({}, {"endpoint_url": ENDPOINT}, "no access key"),
        ({}, {"endpoint_url": ENDPOINT, "credentials": None, "profile": "absent"}, "profile 'absent'"),
        ({"AWS_PROFILE": "absent"}, {"endpoint_url": ENDPOINT}, "profile 'absent'"),
        ({"AWS_ACCESS_KEY_ID": "AK"}, {"endpoint_url": ENDPOINT}, "aws_secret_access_key is missing"),
        ({"AWS_SECRET_ACCESS_KEY": "s3cr3t"}, {"endpoint_url": ENDPOINT}, "aws_access_key_id is missing"),
        (key_environment("s3cr3t"), {}, "no endpoint URL"),
    ],
)
def test_a_missing_setting_is_an_error_with_a_hint(files, environment, options, message):
    with pytest.raises(ConfigurationError, match=message) as raised:
        resolve(files(**environment), **options)
    assert "s3cr3t" not in f"{raised.value} {raised.value.hint}"
    assert raised.value.hint or "half" in raised.value.message


@pytest.mark.parametrize("text", ["aws_secret_access_key = s3cr3t\n", "[default]\ns3cr3t\n", "[default\ns3cr3t = 1\n"])
def test_the_error_for_a_broken_file_names_it_and_does_not_quote_it(files, text):
    with pytest.raises(ConfigurationError, match="credentials is not a valid AWS configuration file") as raised:
        resolve(files(text), endpoint_url=ENDPOINT)
    assert "s3cr3t" not in f"{raised.value} {raised.value.__cause__}"
    assert raised.value.__suppress_context__


def test_a_binary_file_and_a_directory_are_errors(files, tmp_path):
    environ = files()
    (tmp_path / "credentials").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="credentials is not"):
        resolve(environ, endpoint_url=ENDPOINT)
    (tmp_path / "config").mkdir()
    with pytest.raises(ConfigurationError, match="cannot read .*config: "):
        resolve(environ, endpoint_url=ENDPOINT)


def test_no_text_contains_the_secret(files):
    found = resolve(files(f"[default]\n{key_pair('name')}"), endpoint_url=ENDPOINT)
    assert "secret-name" not in f"{found!r} {found}"


TRICKY = """
[default]
aws_access_key_id = A
aws_secret_access_key = %s=/+%%(x)s;#
[ profile  odd name ]
region=eu-odd
[odd name]
aws_access_key_id: B
aws_secret_access_key: two
"""


@pytest.mark.parametrize("profile", ["default", "odd name"])
def test_files_are_read_as_botocore_reads_them(files, profile, monkeypatch):
    environ = files(TRICKY, "[default]\nregion = eu-conf\n[profile 'odd name']\nregion = eu-quoted\n")
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    session = Session(profile=profile)
    theirs = session.get_credentials()
    ours = resolve(environ, endpoint_url=ENDPOINT, profile=profile)
    assert ours.credentials == Credentials(theirs.access_key, theirs.secret_key)
    assert ours.region == session.get_config_variable("region")


# --- the shared files -------------------------------------------------------------------------------------------------


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


def test_the_values_of_both_files_are_merged_and_the_credentials_file_takes_precedence(environ):
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


def test_missing_files_are_empty_and_a_named_profile_must_exist(tmp_path):
    environ = {"AWS_CONFIG_FILE": str(tmp_path / "none"), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none")}
    assert dict(read_profile(environ).values) == {}
    with pytest.raises(ConfigurationError, match="'absent' is not in the AWS configuration files"):
        read_profile(environ, "absent")


def test_the_repr_of_a_profile_has_no_values(environ):
    assert "of-credentials" not in repr(read_profile(environ, "work"))
