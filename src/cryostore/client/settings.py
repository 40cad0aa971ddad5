"""Which server to talk to and as whom: what the caller gives, completed from environment and shared files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cryostore.client import credentials as access_keys
from cryostore.client import shared_files
from cryostore.client.shared_files import Profile, read_profile
from cryostore.core.errors import ConfigurationError
from cryostore.wire.sigv4 import Credentials

REGION_DEFAULT = "local-1"
SERVICES = ("backupstorage", "backup")
ENDPOINT_ENVIRONMENT = (*(f"AWS_ENDPOINT_URL_{service.upper()}" for service in SERVICES), "AWS_ENDPOINT_URL")
REGION_ENVIRONMENT = ("AWS_REGION", "AWS_DEFAULT_REGION")
ENVIRONMENT = (
    *ENDPOINT_ENVIRONMENT,
    *REGION_ENVIRONMENT,
    "AWS_CA_BUNDLE",
    *access_keys.ENVIRONMENT,
    *shared_files.ENVIRONMENT,
)
"""Every environment variable that has a say."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All a client needs to know. The secret is in no text this prints."""

    endpoint_url: str
    region: str
    credentials: Credentials
    ca_bundle: str | None = None
    credentials_source: str = ""
    """Where the access key was found; empty if it was given."""
    credentials_unused: str = ""
    """Where another access key stands that does not count, because this one comes first."""


def resolve(
    environ: Mapping[str, str],
    *,
    endpoint_url: str | None = None,
    region: str | None = None,
    credentials: Credentials | None = None,
    profile: str | None = None,
    ca_bundle: str | None = None,
) -> Settings:
    """Complete what is given.

    As in boto3, an access key in the environment does not count once `profile` is named here.

    Raises ConfigurationError, with a hint, if the endpoint or the access key is nowhere. The region is `local-1` unless
    something says otherwise, because a server accepts any unless its operator pins one.
    """
    values = read_profile(environ, profile)
    endpoint_url = endpoint_url or _first(environ, ENDPOINT_ENVIRONMENT) or _configured_endpoint(values)
    if not endpoint_url:
        raise ConfigurationError(
            "no endpoint URL is configured", hint="set AWS_ENDPOINT_URL to the address that `cryo serve` prints"
        )
    found = access_keys.FoundCredentials(credentials, "") if credentials else None
    if found is None:
        found = access_keys.find_credentials(environ, values, profile_only=profile is not None)
    return Settings(
        endpoint_url=endpoint_url,
        region=region or _first(environ, REGION_ENVIRONMENT) or values.values.get("region") or REGION_DEFAULT,
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


def _first(environ: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((environ[name] for name in names if environ.get(name)), None)
