"""Shared configuration files of AWS tools, read as AWS tools read them.

Finds a profile and its values in `~/.aws/config` and `~/.aws/credentials`, which takes precedence. The meaning of the
values is in `settings`. No error repeats a line of a file, because it may be a secret.
"""

from __future__ import annotations

import configparser
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryostore.core.errors import ConfigurationError

CONFIG_FILE = "~/.aws/config"
CREDENTIALS_FILE = "~/.aws/credentials"
ENVIRONMENT = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "HOME")

Sections = dict[str, dict[str, str]]


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


def _read(environ: Mapping[str, str], variable: str, default: str) -> Sections:
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


def _qualified(sections: Sections) -> Sections:
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
