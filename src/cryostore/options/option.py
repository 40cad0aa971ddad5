"""An option of a server, and the options that name a store, which other commands share. Loads no library.

An option `a_b` is `--a-b` on the command line, `CRYO_A_B` in the environment and `a_b` in the file; one of a table,
`limits.a_b`, is `CRYO_LIMITS_A_B` and `a_b` under `[limits]`. Not all are on the command line. The
other options are in `declared`.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryostore.options.kinds import OptionKind, path, text


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
