"""Options of `cryo backup` for files and folders, from the command line to those of a run.

Streams and disks have options of their own, in `stream_backup`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from unicodedata import category

import click

from cryostore.cli.quantities import size_bytes
from cryostore.core.errors import ConfigurationError

if TYPE_CHECKING:
    from cryostore.agent.backup.run import BackupOptions
    from cryostore.agent.report import Report
    from cryostore.agent.source.selection import Selection

NAME_BYTES_MAX = 1024
REFUSED_CATEGORIES = ("Cc", "Cs")
"""Control characters and invalid UTF-8: the store refuses them in a name, but only after all data has been sent."""


def tree_options(
    paths: tuple[bytes, ...],
    listed: tuple[bytes, ...],
    report: Report,
    *,
    vault: str,
    resource: str | None,
    exclude: tuple[str, ...],
    exclude_file: tuple[Path, ...],
    exclude_if_present: tuple[str, ...],
    exclude_caches: bool,
    exclude_larger_than: str | None,
    one_file_system: bool,
    tags: tuple[str, ...],
    dry_run: bool,
) -> BackupOptions:
    """Return the options of a run. `paths` are from the command line, `listed` from --files-from.

    Raises ConfigurationError for a value that cannot be used. Excluded entries are counted in `report`.
    """
    from cryostore.agent.backup.run import BackupOptions
    from cryostore.agent.source.selection import literal_start, rooted

    if resource is not None and (not resource or any(category(each) in REFUSED_CATEGORIES for each in resource)):
        raise ConfigurationError(f"--resource {resource!a} is empty or contains control characters or invalid UTF-8")
    root, only = rooted(paths, listed)
    if one_file_system and only is not None and b"" in only:
        _check_one_file_system(root, (*paths, *listed))
    lines = [*map(literal_start, exclude), *(line for path in exclude_file for line in _patterns_in(path))]
    larger = None if exclude_larger_than is None else size_bytes(exclude_larger_than)
    return BackupOptions(
        root=root,
        only=only,
        vault=vault,
        resource=resource or _resource_name(root, only),
        select=_selection(root, only, lines, larger, report) if lines or larger is not None else None,
        markers=frozenset(map(os.fsencode, exclude_if_present)),
        without_caches=exclude_caches,
        one_file_system=one_file_system,
        tags=dict(tag_of(tag) for tag in tags),
        dry_run=dry_run,
    )


def _check_one_file_system(root: bytes, paths: tuple[bytes, ...]) -> None:
    """Raise ConfigurationError if a PATH lies inside another one and on another file system."""
    top = Path(os.fsdecode(root)).stat()
    for path in paths:
        if os.path.lexists(path) and os.lstat(path).st_dev != top.st_dev:
            raise ConfigurationError(
                f"{os.fsdecode(path)!a} lies inside another PATH, and --one-file-system leaves it out",
                hint="back it up separately",
            )


def stores_in(root: bytes, data_dir: Path | None) -> frozenset[bytes]:
    """Return the path of the store if it lies below `root`: a run must not read the data that it writes.

    Raises ConfigurationError if the root itself is the store.
    """
    if data_dir is None:
        return frozenset()
    top, store = Path(os.fsdecode(root)).resolve(), data_dir.resolve()
    if top == store:
        raise ConfigurationError("a folder cannot be backed up into itself", hint="give another --data-dir")
    return frozenset({os.fsencode(store.relative_to(top))}) if store.is_relative_to(top) else frozenset()


def _selection(
    root: bytes, only: frozenset[bytes] | None, lines: list[str], larger: int | None, report: Report
) -> Selection:
    from cryostore.agent.source.selection import Selection

    return Selection(root, lines, larger, report.skipped, only=only)


def _resource_name(root: bytes, only: frozenset[bytes] | None) -> str:
    names = "" if only is None or b"" in only else ":" + ",".join(sorted(map(os.fsdecode, only)))
    name = f"{os.uname().nodename}:{os.fsdecode(root)}{names}"
    if not name.isprintable() or len(name.encode()) > NAME_BYTES_MAX:
        raise ConfigurationError(
            f"the name of these paths has unprintable characters or more than {NAME_BYTES_MAX} bytes",
            hint="give a name with --resource NAME",
        )
    return name


def tag_of(text: str) -> tuple[str, str]:
    """Return key and value of a tag KEY=VALUE. Raises ConfigurationError for any other text."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigurationError(f"--tag {text!a} is not KEY=VALUE")
    return key, value


def _patterns_in(path: Path) -> list[str]:
    """Return the patterns in a file, one per line. As in git, only LF ends a line."""
    try:
        data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
        return [os.fsdecode(line.removesuffix(b"\r")) for line in data.split(b"\n")]
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error


def paths_in(file: str) -> list[bytes]:
    """Return the paths in a file, or on stdin for `-`: ended by NUL as `find -print0` writes them, otherwise by LF.

    Raises ConfigurationError if the file cannot be read or holds no path.
    """
    try:
        with click.open_file(file, "rb") as opened:
            data: bytes = opened.read()
    except OSError as error:
        raise ConfigurationError(f"cannot read {file!a}: {error.strerror}") from error
    found = [path for path in data.split(b"\0" if b"\0" in data else b"\n") if path]
    if not found:
        raise ConfigurationError(f"{file!a} contains no PATH", hint="nothing would be backed up")
    return found
