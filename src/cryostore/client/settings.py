"""Settings of a client: the server's address, the region, and the access key.

Values that the caller does not give come from the environment and the AWS shared files, in the order that AWS tools
use. Roles, single sign-on, instance metadata and credential processes are not supported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from cryostore.client import shared_files
from cryostore.client.shared_files import Profile, read_profile
from cryostore.core.errors import ConfigurationError
from cryostore.wire.sigv4 import Credentials

REGION_DEFAULT = "local-1"
SERVICES = ("backupstorage", "backup")
ENDPOINT_VARIABLES = (*(f"AWS_ENDPOINT_URL_{service.upper()}" for service in SERVICES), "AWS_ENDPOINT_URL")
REGION_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")
CREDENTIALS_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN")
ENVIRONMENT = (
    *ENDPOINT_VARIABLES,
    *REGION_VARIABLES,
    "AWS_CA_BUNDLE",
    *CREDENTIALS_VARIABLES,
    *shared_files.ENVIRONMENT,
)
"""Every environment variable that has an effect."""


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
