"""Where an access key comes from: given, environment, shared files; in this order, as with any AWS tool.

Roles, single sign-on, instance metadata and credential processes are AWS's own and are not asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from cryostore.client.shared_files import Profile
from cryostore.core.errors import ConfigurationError
from cryostore.wire.sigv4 import Credentials

ENVIRONMENT = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN")


class FoundCredentials(NamedTuple):
    """An access key, where it was found, and where another one stands that therefore does not count, if anywhere."""

    credentials: Credentials
    source: str
    unused: str = ""


def find_credentials(environ: Mapping[str, str], profile: Profile, *, profile_only: bool = False) -> FoundCredentials:
    """The access key of the environment, else of the profile; of the profile alone with `profile_only`.

    Raises ConfigurationError, which names the places that were looked at, if there is none or only half of one.
    """
    files = f"the profile {profile.name!r} of {profile.credentials_file}"
    places = [(files, profile.values)]
    if not profile_only:
        places.insert(0, ("the environment", _environment_values(environ)))
    for place, values in places:
        credentials = _credentials(place, values)
        if credentials is not None:
            others = [other for other, more in places[1:] if other != place and more.get("aws_access_key_id")]
            return FoundCredentials(credentials, place, *others)
    raise ConfigurationError(
        f"no access key in {' nor in '.join(place for place, _ in places)}",
        hint="set AWS_SHARED_CREDENTIALS_FILE to the server's DIR/credentials, or AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY",
    )


def _environment_values(environ: Mapping[str, str]) -> Mapping[str, str]:
    values = {name.lower(): environ.get(name, "") for name in ENVIRONMENT}
    return values | {"aws_session_token": values["aws_session_token"] or values["aws_security_token"]}


def _credentials(place: str, values: Mapping[str, str]) -> Credentials | None:
    access_key_id, secret = values.get("aws_access_key_id"), values.get("aws_secret_access_key")
    if not access_key_id and not secret:
        return None
    if not access_key_id or not secret:
        missing = "aws_secret_access_key" if access_key_id else "aws_access_key_id"
        raise ConfigurationError(f"{place} holds half an access key: {missing} is missing")
    return Credentials(access_key_id, secret, values.get("aws_session_token") or None)
