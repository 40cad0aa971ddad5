"""Demo of `cryo`: back up a real folder, change it, back it up again, restore both states, compare, print the cost.

    python demo/demo.py [FOLDER]

It starts its own server on a temporary directory and stops it at the end. FOLDER (by default Python's standard library)
is only read: the demo works on a copy. The exit code is 0 if everything restored equals what was backed up: names,
bytes, modes, owners, times, links and extended attributes.

Each command is shown as a user would type it, with its output.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryostore.client.client import Client
from cryostore.client.settings import resolve
from cryostore.model.recovery_points import DeleteRecoveryPoint, ListRecoveryPointsByBackupVault

VAULT = "Default"
COLUMNS = "files", "MB", "MB stored", "seconds"
STOP_SECONDS_MAX = 30
MOUNT_SECONDS_MAX = 10
SETTLE_SECONDS = 2.5
"""The next run reads a file again that has just been written, because its time alone cannot reveal a later change."""
LINES_SHOWN = 12
SKIPPED = ("__pycache__", "site-packages", "dist-packages")
CRYO = str(Path(sys.executable).with_name("cryo"))

State = dict[str, tuple[Any, ...]]


def main() -> int:
    """Run the demo. Returns the exit code."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else sysconfig.get_path("stdlib"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that SIGTERM stops the server too
    with tempfile.TemporaryDirectory(prefix="cryo-demo-") as temporary:
        place = Path(temporary)
        with running_server(place / "data"):
            say(f"copying {folder}")
            shutil.copytree(
                folder, place / "files", symlinks=True, ignore=shutil.ignore_patterns(*SKIPPED), dirs_exist_ok=True
            )
            add_odd_files(place / "files")
            time.sleep(SETTLE_SECONDS)
            demo = Demo(place)
            differences = demo.story()
    print_figures(demo.figures)
    for difference in differences[:20]:
        say(f"DIFFERENT: {difference}")
    say(f"{len(differences)} differences" if differences else "everything restored equals what was backed up")
    return 1 if differences else 0


@dataclass
class Figures:
    """The files, bytes and seconds of one run."""

    name: str
    files: int
    bytes: int
    seconds: float
    bytes_stored: int | None = None


class Demo:
    """Runs `cryo` in a folder that contains `files`, and records the figures of each run."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.files = place / "files"
        self.figures: list[Figures] = []

    def story(self) -> list[str]:
        """Back up and restore two states of the folder. Returns the differences of the restored files."""
        first = state_of(self.files)
        self.back_up("first backup")
        self.back_up("second, nothing changed")
        say(f"\na day's work: {change_some_files(self.files)}")
        second = state_of(self.files)
        time.sleep(SETTLE_SECONDS)
        self.back_up("third, incremental")

        self.cryo("points")
        newest, *_, oldest = self.point_ids()
        self.cryo("diff", oldest, newest, shown=LINES_SHOWN)
        self.cryo("ls", "-l", "latest:added")
        differences = self.look_into_mount(second)

        differences += self.restore("restore of the first", oldest, "restored-1", first)
        differences += self.restore("restore of the third", "latest", "restored-2", second)
        say("\nin the restored folder, a file is spoilt and one is lost; a restore writes only these")
        spoil(self.place / "restored-2")
        differences += self.restore("restore in place", "latest", "restored-2", second)

        self.delete_first(oldest)
        self.cryo("verify", "latest", "--data")
        self.cryo("status", "--max-age", "26h")
        return differences

    def back_up(self, name: str) -> None:
        """Make a recovery point."""
        stored_before = disk_bytes(self.place / "data" / "packs")
        seconds = self.cryo("backup", "files")
        stored = disk_bytes(self.place / "data" / "packs") - stored_before
        self.figures.append(Figures(name, *counted(state_of(self.files)), seconds, stored))

    def restore(self, name: str, point: str, target: str, expected: State) -> list[str]:
        """Restore a recovery point. Returns how it differs from the state that was backed up."""
        seconds = self.cryo("restore", point, target)
        found = state_of(self.place / target)
        self.figures.append(Figures(name, *counted(found), seconds))
        return [f"{name}: {difference}" for difference in compare(expected, found)]

    def cryo(self, *arguments: str, shown: int | None = None) -> float:
        """Run a command and show it with its output. Returns the seconds it took. A failure ends the demo."""
        say(f"\n$ cryo {shlex.join(arguments)}")
        started = time.monotonic()
        done = subprocess.run(
            [CRYO, *arguments], cwd=self.place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        seconds = time.monotonic() - started
        lines = done.stdout.splitlines()
        for line in lines[:shown]:
            say(f"  {line}")
        if shown is not None and len(lines) > shown:
            say(f"  ... {len(lines) - shown} more lines")
        if done.returncode:
            raise SystemExit(f"cryo {arguments[0]} ended with {done.returncode}")
        return seconds

    def point_ids(self) -> list[str]:
        """Return the ids of all recovery points, newest first, as `cryo points` shows them."""
        done = subprocess.run([CRYO, "points"], capture_output=True, text=True, check=True)
        return [line.split()[0] for line in done.stdout.splitlines()]

    def look_into_mount(self, expected: State) -> list[str]:
        """Mount the newest recovery point and read it as a folder, if this machine allows it."""
        folder = self.place / "mounted"
        folder.mkdir()
        say("\n$ cryo mount mounted latest")
        with (self.place / "mount.log").open("w+", encoding="utf-8") as log:
            process = subprocess.Popen(
                [CRYO, "mount", str(folder), "latest"], stdout=log, stderr=log, start_new_session=True
            )
            try:
                root = mounted_root(process, folder)
                if root is None:
                    log.seek(0)
                    say(f"  skipped: {log.readline().strip()}")
                    return []
                found = state_of(root)
                say(f"  {counted(found)[0]} files can be read there")
                return [f"mount: {difference}" for difference in compare(expected, found)]
            finally:
                stop(process)

    def delete_first(self, oldest: str) -> None:
        """Delete the oldest recovery point through the AWS Backup API; an AWS SDK does the same as this client."""
        say("\nby the AWS Backup API: ListRecoveryPointsByBackupVault, DeleteRecoveryPoint")
        with Client.of(resolve(os.environ)) as client:
            listed = client.call(ListRecoveryPointsByBackupVault(backup_vault_name=VAULT)).recovery_points
            arn = next(each.recovery_point_arn for each in listed if oldest in (each.recovery_point_arn or ""))
            client.call(DeleteRecoveryPoint(backup_vault_name=VAULT, recovery_point_arn=arn or ""))
        say(f"  deleted {arn}; the others stay complete")


# --- processes -------------------------------------------------------------------------------------------------------


@contextmanager
def running_server(data_dir: Path) -> Iterator[None]:
    """Run `cryo serve` on `data_dir`, and point this process and its children to it."""
    say(f"$ cryo serve --data-dir {data_dir.name} &")
    command = [CRYO, "serve", "--data-dir", str(data_dir), "--listen", "127.0.0.1:0"]
    with (data_dir.parent / "server.log").open("w+", encoding="utf-8") as log:
        # In a session of its own: Ctrl-C must reach this program, which then stops the server.
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True)
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            if not line.startswith("listening on "):
                log.seek(0)
                raise SystemExit(f"the server did not start:\n{log.read()}")
            say(line.strip())
            for name in [name for name in os.environ if name.startswith(("AWS_", "CRYO_"))]:
                del os.environ[name]  # settings of this machine must not influence the demo
            os.environ["AWS_CONFIG_FILE"] = os.devnull
            os.environ["AWS_SHARED_CREDENTIALS_FILE"] = str(data_dir / "credentials")
            os.environ["AWS_ENDPOINT_URL"] = line.removeprefix("listening on ").strip()
            os.environ["XDG_STATE_HOME"] = str(data_dir.parent / "state")
            yield
        finally:
            stop(server)


def stop(process: subprocess.Popen[Any]) -> None:
    """Stop a process by SIGTERM, and by SIGKILL if it does not end in time."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def mounted_root(process: subprocess.Popen[Any], folder: Path) -> Path | None:
    """Wait for the mount. Returns the folder of the recovery point; None if the process ends."""
    deadline = time.monotonic() + MOUNT_SECONDS_MAX
    while process.poll() is None and time.monotonic() < deadline:
        if folder.is_mount():
            return folder
        time.sleep(0.05)
    return None


# --- files -----------------------------------------------------------------------------------------------------------


def add_odd_files(folder: Path) -> None:
    """Add files that a simple copy loses: a sparse file, a hard link, a symlink, an attribute, a name not in UTF-8."""
    odd = folder / "odd"
    odd.mkdir()
    with (odd / "sparse").open("wb") as file:
        file.truncate(16 * 1024 * 1024)
        file.seek(8 * 1024 * 1024)
        file.write(b"in the middle")
    (odd / "one").write_text("one file, two names\n", encoding="utf-8")
    os.link(odd / "one", odd / "two")
    (odd / "to one").symlink_to("one")
    (Path(os.fsdecode(os.fsencode(odd) + b"/latin-1 \xfc"))).touch(0o600)
    with suppress(OSError):  # not every file system has attributes
        os.setxattr(odd / "one", "user.colour", b"blue")


def change_some_files(folder: Path) -> str:
    """Change, add and delete some files and rename a folder. Returns a description of the changes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    changed, deleted = files[::23], set(files[5::37]) - set(files[::23])
    for path in changed:
        path.chmod(path.stat().st_mode | 0o200)  # so that the owner can write
        with path.open("r+b") as file:
            file.seek(path.stat().st_size // 2)
            file.write(b"changed\n")
    for path in deleted:
        path.unlink()
    (folder / "added").mkdir(exist_ok=True)
    (folder / "added" / "random ü.bin").write_bytes(os.urandom(3 * 1024 * 1024 + 1))
    (folder / "added" / "empty").touch()
    (folder / "odd").rename(folder / "odd, renamed")
    return f"changed {len(changed)} files, added 2, deleted {len(deleted)}, renamed a folder"


def spoil(folder: Path) -> None:
    """Append to the largest file, and delete another."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    largest = max(files, key=lambda path: path.stat().st_size)
    with largest.open("ab") as file:
        file.write(b"spoilt")
    next(path for path in files if path != largest).unlink()


def state_of(folder: Path) -> State:
    """Return the state of everything below a folder by path: kind, mode, owner, time, links, attributes, bytes."""
    found: State = {}
    names: dict[tuple[int, int], str] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        name = str(path.relative_to(folder))
        content: object = None
        if stat.S_ISLNK(status.st_mode):
            content = str(path.readlink())
        elif stat.S_ISREG(status.st_mode):
            content = status.st_size, digest_of(path), names.setdefault((status.st_dev, status.st_ino), name)
        attributes = {one: os.getxattr(path, one, follow_symlinks=False) for one in attribute_names(path)}
        found[name] = status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, attributes, content
    return found


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def attribute_names(path: Path) -> list[str]:
    """Return the names of the extended attributes of a file; none if the file system has no attributes."""
    try:
        return sorted(os.listxattr(path, follow_symlinks=False))
    except OSError:
        return []


def counted(state: State) -> tuple[int, int]:
    """Return the number of files and their bytes."""
    sizes = [facts[-1][0] for facts in state.values() if stat.S_ISREG(facts[0])]
    return len(sizes), sum(sizes)


def compare(expected: State, found: State) -> list[str]:
    """Return the differences of two states."""
    differences = [f"{name!a} is in only one of the two" for name in expected.keys() ^ found.keys()]
    both = [name for name in expected.keys() & found.keys() if expected[name] != found[name]]
    differences += [f"{name!a}: {expected[name]} and {found[name]}" for name in both]
    return sorted(differences)


def disk_bytes(folder: Path) -> int:
    """Return the bytes of all files below `folder`."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


# --- what is printed -------------------------------------------------------------------------------------------------


def print_figures(all_figures: list[Figures]) -> None:
    """Print a table with a row for each backup and restore."""
    rows = [("", *COLUMNS)]
    for one in all_figures:
        stored = "" if one.bytes_stored is None else megabytes(one.bytes_stored)
        rows.append((one.name, f"{one.files}", megabytes(one.bytes), stored, f"{one.seconds:.1f}"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    say("")
    for name, *cells in rows:
        aligned = (f"{cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True))
        say("  ".join([f"{name:<{widths[0]}}", *aligned]))
    backups = [one for one in all_figures if one.bytes_stored is not None]
    held, stored_bytes = sum(one.bytes for one in backups), sum(one.bytes_stored or 0 for one in backups)
    say(f"{len(backups)} recovery points of {megabytes(held)} MB together took {megabytes(stored_bytes)} MB on disk")


def megabytes(size: int) -> str:
    """Format a number of bytes in MB (10^6 bytes)."""
    return f"{size / 1e6:.1f}"


def say(text: str) -> None:
    """Print a line at once; characters that are not valid UTF-8 are escaped."""
    print(text.encode("utf-8", "backslashreplace").decode(), flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
