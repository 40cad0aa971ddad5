"""An option of a server: its kind of value, and the options that name a store. Loads no library.

An option `a_b` is `--a-b` on the command line, `CRYO_A_B` in the environment and `a_b` in the file; one of a table,
`limits.a_b`, is `CRYO_LIMITS_A_B` and `a_b` under `[limits]`. Not all are on the command line. A kind says how a value
is written and read, and its rule: a text on the command line or in the environment means the same as in the file. The
options are in `declared`, except those that other commands share.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryostore.core.errors import ConfigurationError
from cryostore.core.quantities import parse_duration, parse_size

TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True, slots=True)
class OptionKind:
    """A kind of value. `read` takes a value of the file or a text, and raises ValueError if it breaks the rule.

    `choices` are all allowed values, if they are few. Shells complete a value as a path if `is_path`. The command line
    has an `is_flag` option without a value.
    """

    metavar: str
    rule: str
    read: Callable[[Any], Any]
    choices: Sequence[str] = ()
    is_path: bool = False
    is_flag: bool = False


def _require_text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(value)
    return value


def text(metavar: str, rule: str) -> OptionKind:
    """A text that is not empty."""
    return OptionKind(metavar, rule, _require_text)


def path() -> OptionKind:
    """A path; a relative one starts at the working directory."""
    return OptionKind(
        "PATH",
        "a path",
        lambda value: Path(_require_text(str(value) if isinstance(value, Path) else value)),
        is_path=True,
    )


def flag() -> OptionKind:
    """True or false."""

    def read(value: Any) -> bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in TRUTH:
            return TRUTH[value.lower()]
        raise ValueError(value)

    return OptionKind("", "true or false", read, is_flag=True)


def choice(*choices: str) -> OptionKind:
    """One of a few words."""

    def read(value: Any) -> str:
        if value not in choices:
            raise ValueError(value)
        return str(value)

    return OptionKind(choices[0].upper(), f"one of {', '.join(choices)}", read, choices=choices)


def number(least: int, most: int | None = None, metavar: str = "NUMBER") -> OptionKind:
    """A whole number within bounds."""
    rule = f"a whole number from {least} to {most}" if most is not None else f"a whole number, {least} or more"

    def read(value: Any) -> int:
        whole = int(value) if isinstance(value, str) and re.fullmatch(r"[+-]?\d{1,18}", value, re.ASCII) else value
        if isinstance(whole, bool) or not isinstance(whole, int) or not _within(whole, least, most):
            raise ValueError(value)
        return whole

    return OptionKind(metavar, rule, read)


def size(least: int, most: int | None = None) -> OptionKind:
    """A number of bytes: a whole number, or a text with a unit."""
    bounds = f" from {least} to {most}" if most is not None else f", {least} or more"

    def read(value: Any) -> int:
        count = parse_size(value) if isinstance(value, str) else value
        if isinstance(count, bool) or not isinstance(count, int) or not _within(count, least, most):
            raise ValueError(value)
        return count

    return OptionKind("SIZE", f'a number of bytes{bounds}, or a text such as "64MiB"', read)


def duration(unit_seconds: float, *, least_seconds: float = 0, whole: bool = True) -> OptionKind:
    """A duration, written as a text with its unit; read as a number of `unit_seconds`, a whole one if `whole`."""

    def read(value: Any) -> float:
        if value == 0 and not isinstance(value, bool):
            value = "0s"
        if not isinstance(value, str):
            raise ValueError(value)  # noqa: TRY004 - the error of every rule
        seconds = parse_duration(value)
        if seconds < least_seconds:
            raise ValueError(value)
        return round(seconds / unit_seconds) if whole else seconds / unit_seconds

    bound = f", at least {least_seconds:g}s" if least_seconds else ""
    return OptionKind("DURATION", f'a duration such as "90s", "30m", "24h" or "30d"{bound}', read)


def address(option: str) -> OptionKind:
    """HOST:PORT, read as a host and a port."""

    def read(value: Any) -> tuple[str, int]:
        from cryostore.options.configuration import parse_listen  # noqa: PLC0415 - for servers alone, and it loads much

        return parse_listen(_require_text(value), option)

    return OptionKind("HOST:PORT", "HOST:PORT, an IPv6 host in brackets", read)


def _within(value: int, least: int, most: int | None) -> bool:
    return least <= value and (most is None or value <= most)


def read_as(kind: OptionKind, value: Any, name: str, *, source: str = "") -> Any:
    """Return the value of an option. Raises ConfigurationError with source, name, value and rule."""
    try:
        return kind.read(value)
    except ConfigurationError as error:
        raise ConfigurationError(f"{source}{error.message}", hint=error.hint) from None
    except (ValueError, TypeError):
        raise ConfigurationError(f"{source}{name} is {shown(value)}: it must be {kind.rule}") from None


def shown(value: Any) -> str:
    """Return a value for an error message: short, and without a password."""
    text = repr(value)
    text = re.sub(r"//[^/@\s]*@", "//...@", text)
    return text if len(text) <= 80 else f"{text[:77]}..."


@dataclass(frozen=True, slots=True)
class Option:
    """An option. `targets` are the fields of the configuration that it sets, such as `limits.page_items_max`."""

    key: str
    kind: OptionKind
    help: str
    unsaid: str
    """The default as text; empty if there is none."""
    targets: tuple[str, ...]
    on_command_line: bool = True

    @property
    def flag(self) -> str:
        """The name on the command line."""
        return f"--{self.key.replace('_', '-')}"

    @property
    def variable(self) -> str:
        """The name of the environment variable."""
        return f"CRYO_{self.key.replace('.', '_').upper()}"

    @property
    def table(self) -> str:
        """The table of the file that has the option; empty for the top level."""
        return self.key.rpartition(".")[0]


def main(key: str, kind: OptionKind, help_text: str, unsaid: str, *targets: str) -> Option:
    """Declare an option that the command line has as well. Without `targets` it sets the field of its own name."""
    return Option(key, kind, help_text, unsaid, targets or (key,))


def quiet(key: str, kind: OptionKind, help_text: str, unsaid: str, *targets: str) -> Option:
    """Declare an option for the file and the environment only, because few need it."""
    return Option(key, kind, help_text, unsaid, targets or (key,), on_command_line=False)


STORE = (
    main("data_dir", path(), "The store, if it is a directory of this machine; made if missing.", "./cryo-data"),
    main(
        "catalog",
        text("URL", "a URL or a path"),
        "The catalog of a shared store: postgresql://USER@HOST[,HOST...]/NAME.",
        "",
    ),
    main("blobs", text("URL", "a URL or a path"), "The blobs of a shared store: s3://BUCKET/PREFIX?endpoint=URL.", ""),
    main(
        "keyring",
        text("PLACE", "PATH, file:PATH, env:NAME or command:PROGRAM ARGUMENT..."),
        "The master keys: PATH, file:PATH, env:NAME or command:PROGRAM ARGUMENT...",
        "in the data directory",
    ),
)

STORE_KEYS = tuple(option.key for option in STORE)
