"""Settings of a client: the server's address, the region, and the access key.

Values that the caller does not give come from the environment and the AWS shared files, in the order that AWS tools
use: `read_profile` finds a profile and its values in `~/.aws/config` and `~/.aws/credentials`, which takes precedence.
No error repeats a line of a file, because it may be a secret. Roles, single sign-on, instance metadata and credential
processes are not supported.
"""

from __future__ import annotations

import configparser
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from cryostore.core.errors import ConfigurationError
from cryostore.wire.sigv4 import Credentials

CONFIG_FILE = "~/.aws/config"
CREDENTIALS_FILE = "~/.aws/credentials"
REGION_DEFAULT = "local-1"
SERVICES = ("backupstorage", "backup")
ENDPOINT_VARIABLES = (*(f"AWS_ENDPOINT_URL_{service.upper()}" for service in SERVICES), "AWS_ENDPOINT_URL")
REGION_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")
CREDENTIALS_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN")
FILE_VARIABLES = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "HOME",
)
ENVIRONMENT = (
    *ENDPOINT_VARIABLES,
    *REGION_VARIABLES,
    "AWS_CA_BUNDLE",
    *CREDENTIALS_VARIABLES,
    *FILE_VARIABLES,
)
"""Every environment variable that has an effect."""

_Sections = dict[str, dict[str, str]]


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """Everything that a client needs. Its text representation does not contain the secret."""

    endpoint_url: str
    region: str
    credentials: Credentials
    ca_bundle: str | None = None
    credentials_source: str = ""
    """Where the access key was found; empty if the caller gave it."""
    credentials_unused: str = ""
    """Where another access key stands that is ignored because this one takes precedence; empty if there is none."""


def resolve(
    environ: Mapping[str, str],
    *,
    endpoint_url: str | None = None,
    region: str | None = None,
    credentials: Credentials | None = None,
    profile: str | None = None,
    ca_bundle: str | None = None,
) -> ClientSettings:
    """Return the given values, completed from the environment and the shared files.

    As in boto3, an access key in the environment is ignored if `profile` is given.

    Raises ConfigurationError, with a hint, if there is no endpoint or no access key. The default region is `local-1`,
    because a server accepts any region unless its operator sets one.
    """
    values = read_profile(environ, profile)
    endpoint_url = endpoint_url or _first_set(environ, ENDPOINT_VARIABLES) or _configured_endpoint(values)
    if not endpoint_url:
        raise ConfigurationError(
            "no endpoint URL is configured", hint="set AWS_ENDPOINT_URL to the address that `cryo serve` prints"
        )
    found = _FoundCredentials(credentials, "") if credentials else None
    if found is None:
        found = _find_credentials(environ, values, profile_only=profile is not None)
    return ClientSettings(
        endpoint_url=endpoint_url,
        region=region or _first_set(environ, REGION_VARIABLES) or values.values.get("region") or REGION_DEFAULT,
        credentials=found.credentials,
        credentials_source=found.source,
        credentials_unused=found.unused,
        ca_bundle=ca_bundle or environ.get("AWS_CA_BUNDLE") or values.values.get("ca_bundle") or None,
    )


def _configured_endpoint(profile: Profile) -> str | None:
    for service in SERVICES:
        if found := profile.services.get(service, {}).get("endpoint_url"):
            return found
    return profile.values.get("endpoint_url")


def _first_set(environ: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((environ[name] for name in names if environ.get(name)), None)


# --- the access key ---------------------------------------------------------------------------------------------------


class _FoundCredentials(NamedTuple):
    """An access key, its source, and the source of another one that is ignored, if there is one."""

    credentials: Credentials
    source: str
    unused: str = ""


def _find_credentials(environ: Mapping[str, str], profile: Profile, *, profile_only: bool) -> _FoundCredentials:
    """Return the access key of the environment, otherwise of the profile; with `profile_only`, only of the profile.

    Raises ConfigurationError, which names the sources, if there is no access key or only half of one.
    """
    sources = [(f"the profile {profile.name!r} of {profile.credentials_file}", profile.values)]
    if not profile_only:
        sources.insert(0, ("the environment", _environment_values(environ)))
    for source, values in sources:
        credentials = _credentials(source, values)
        if credentials is not None:
            others = [other for other, more in sources[1:] if other != source and more.get("aws_access_key_id")]
            return _FoundCredentials(credentials, source, *others)
    raise ConfigurationError(
        f"no access key in {' nor in '.join(source for source, _ in sources)}",
        hint="set AWS_SHARED_CREDENTIALS_FILE to the server's DIR/credentials, or AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY",
    )


def _environment_values(environ: Mapping[str, str]) -> Mapping[str, str]:
    values = {name.lower(): environ.get(name, "") for name in CREDENTIALS_VARIABLES}
    return values | {"aws_session_token": values["aws_session_token"] or values["aws_security_token"]}


def _credentials(source: str, values: Mapping[str, str]) -> Credentials | None:
    access_key_id, secret = values.get("aws_access_key_id"), values.get("aws_secret_access_key")
    if not access_key_id and not secret:
        return None
    if not access_key_id or not secret:
        missing = "aws_secret_access_key" if access_key_id else "aws_access_key_id"
        raise ConfigurationError(f"{source} holds half an access key: {missing} is missing")
    return Credentials(access_key_id, secret, values.get("aws_session_token") or None)


# --- the shared files -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Profile:
    """The values of a profile from both files. `services` holds the values of its `services` section by service."""

    name: str
    values: Mapping[str, str] = field(repr=False)
    services: Mapping[str, Mapping[str, str]] = field(repr=False)
    credentials_file: str = CREDENTIALS_FILE
    """The file of its access key, unless that is in the configuration file."""


def read_profile(environ: Mapping[str, str], name: str | None = None) -> Profile:
    """Return the profile `name`, otherwise the one that the environment names, otherwise `default`.

    A missing file counts as empty. Raises ConfigurationError if a file cannot be read or parsed, or if neither file has
    the profile that was named.
    """
    asked = name or environ.get("AWS_PROFILE") or environ.get("AWS_DEFAULT_PROFILE")
    chosen = asked or "default"
    config = _qualified(_read(environ, "AWS_CONFIG_FILE", CONFIG_FILE))
    credentials = _read(environ, "AWS_SHARED_CREDENTIALS_FILE", CREDENTIALS_FILE)
    sections = [config.get(f"profile {chosen}"), credentials.get(chosen)]
    if chosen == "default":
        sections.insert(0, config.get("default"))
    found = [section for section in sections if section is not None]
    if asked and not found:
        raise ConfigurationError(
            f"the profile {asked!r} is not in the AWS configuration files",
            hint="check AWS_PROFILE, or add the profile",
        )
    values = {key: value for section in found for key, value in section.items()}
    services = config.get(f"services {values.get('services', '')}", {})
    return Profile(
        chosen,
        values,
        {service: _nested(text) for service, text in services.items()},
        environ.get("AWS_SHARED_CREDENTIALS_FILE") or CREDENTIALS_FILE,
    )


def _read(environ: Mapping[str, str], variable: str, default: str) -> _Sections:
    path = Path(environ.get(variable) or default)
    parser = configparser.RawConfigParser(default_section="", strict=False)
    try:
        parser.read_string(path.expanduser().read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except RuntimeError:  # a user without a home
        if not environ.get(variable):
            return {}
        raise ConfigurationError(
            f"{variable} is {path}, and this user has no home directory", hint="give an absolute path, or set HOME"
        ) from None
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from None
    except (configparser.Error, UnicodeDecodeError):
        raise ConfigurationError(f"{path} is not a valid AWS configuration file") from None
    return {section: dict(parser[section]) for section in parser.sections()}


def _qualified(sections: _Sections) -> _Sections:
    """Return the sections `profile NAME`, `services NAME` and `default` of the configuration file, without quotes."""
    found = {}
    for section, values in sections.items():
        try:
            words = shlex.split(section)
        except ValueError:  # an open quote
            continue
        if len(words) == 2 or words == ["default"]:
            found[" ".join(words)] = values
    return found


def _nested(text: str) -> dict[str, str]:
    """Return the indented `key = value` lines below the name of a service."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {key.strip().lower(): value.strip() for key, _, value in pairs}
