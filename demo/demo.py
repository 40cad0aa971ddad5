"""Back up a real folder twice, restore both recovery points, compare, and print what it cost.

    python demo/demo.py [FOLDER]

It starts a server of its own on a temporary directory and stops it at the end; FOLDER (by default Python's standard
library) is only read. The exit code is 0 if every restored file equals its original, byte for byte.

Two faces of the server are used. Jobs are made through `Client`, one method for every operation of both APIs. Objects
go through the nine functions of `backupstorage`, which take address and access key from the usual AWS variables.

How a folder becomes objects here: one object for each file, named by its path; small files in one request, large ones
in chunks; mode, time and size in the object's metadata string, which also tells the next backup what is unchanged.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryostore import backupstorage
from cryostore.client.client import Client
from cryostore.client.settings import resolve
from cryostore.model.jobs import CommitBackupJob, DescribeBackupJob, StartBackupJob
from cryostore.model.recovery_points import DeleteRecoveryPoint
from cryostore.model.restore_jobs import CompleteRestoreJob, StartRestoreJob

VAULT = "Default"
RESOURCE_ARN = "arn:aws:cryo:local-1:000000000000:fileset:demo:folder"
ROLE_ARN = "arn:aws:iam::000000000000:role/backup-agent"
CHUNK_BYTES = 1024 * 1024
REQUESTS_IN_FLIGHT = 16
COLUMNS = "files", "MB", "files sent", "MB sent", "MB new", "MB stored", "dedup", "compression", "requests", "seconds"
STOP_SECONDS_MAX = 30
SKIPPED = ("__pycache__", "site-packages", "dist-packages")


def main() -> int:
    """The whole story, in order."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else sysconfig.get_path("stdlib"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the server is stopped then, too
    with tempfile.TemporaryDirectory(prefix="cryo-demo-") as temporary:
        place = Path(temporary)
        first, second = place / "original-1", place / "original-2"
        say(f"copying {folder}")
        shutil.copytree(folder, first, ignore=shutil.ignore_patterns(*SKIPPED), ignore_dangling_symlinks=True)
        shutil.copytree(first, second)
        say(change_some_files(second))

        with running_server(place / "data") as client:
            demo = Demo(client, place / "data" / "packs")
            point_1 = demo.back_up("first backup", first)
            point_2 = demo.back_up("second, incremental", second)
            differences = demo.restore("restore of the first", point_1, place / "restored-1", first)
            differences += demo.restore("restore of the second", point_2, place / "restored-2", second)
            say("deleting the first recovery point")
            client.call(DeleteRecoveryPoint(backup_vault_name=VAULT, recovery_point_arn=point_1))
            differences += demo.restore("second again", point_2, place / "restored-3", second)

    print_figures(demo.figures)
    for difference in differences[:20]:
        say(f"DIFFERENT: {difference}")
    say(f"{len(differences)} differences" if differences else "every restored file equals its original")
    return 1 if differences else 0


@dataclass
class Figures:
    """What one backup or restore came to."""

    name: str
    files: int = 0
    bytes: int = 0
    files_sent: int | None = None
    bytes_sent: int | None = None
    bytes_unique: int | None = None
    bytes_stored: int | None = None
    requests: int = 0
    seconds: float = 0.0


class Demo:
    """Backups and restores against one server, and the figures of each."""

    def __init__(self, client: Client, packs: Path) -> None:
        self.client = client
        self.packs = packs
        self.figures: list[Figures] = []
        self.api = CountedApi()
        self.chunks_known: set[bytes] = set()

    @contextmanager
    def measured(self, name: str) -> Iterator[Figures]:
        """Figures with seconds and requests filled in at the end."""
        figures = Figures(name)
        started, requests = time.monotonic(), self.api.requests
        yield figures
        figures.seconds = time.monotonic() - started
        figures.requests = self.api.requests - requests
        self.figures.append(figures)
        say(f"{name}: {figures.files} files, {megabytes(figures.bytes)} MB in {figures.seconds:.1f} s")

    # --- backup ------------------------------------------------------------------------------------------------------

    def back_up(self, name: str, folder: Path) -> str:
        """Make a recovery point of `folder` and answer its ARN.

        The job starts as a view of the newest recovery point of the same resource, if there is one: whatever this does
        not touch is in the new point without a request.
        """
        stored_before = disk_bytes(self.packs)
        with self.measured(name) as figures, requests_in_flight() as pool:
            job_id = self.start_backup_job()
            in_base = {found["Name"]: found.get("MetadataString") for found in self.list_objects(job_id)}
            files = {path.relative_to(folder).as_posix(): path for path in files_below(folder)}
            changed = {name: path for name, path in files.items() if in_base.get(name) != describe(path)}

            chunks = self.send_files(pool, job_id, changed)
            list(pool.map(lambda name: self.api.delete_object(job_id, name), in_base.keys() - files.keys()))
            commit = CommitBackupJob(
                backup_job_id=job_id, object_count=len(files), restore_metadata={"kind": "fileset"}
            )
            point = self.client.call(commit).recovery_point_arn
            assert point is not None
            job = self.client.call(DescribeBackupJob(backup_job_id=job_id))
            new = {digest: size for digest, size in chunks if digest not in self.chunks_known}
            self.chunks_known |= new.keys()
            figures.files, figures.bytes = len(files), job.backup_size_in_bytes or 0
            figures.files_sent, figures.bytes_sent = len(changed), job.bytes_transferred or 0
            figures.bytes_unique, figures.bytes_stored = sum(new.values()), disk_bytes(self.packs) - stored_before
        return point

    def start_backup_job(self) -> str:
        """A job that takes the latest recovery point of this resource as its base."""
        job = self.client.call(
            StartBackupJob(
                backup_vault_name=VAULT,
                resource_arn=RESOURCE_ARN,
                iam_role_arn=ROLE_ARN,
                backup_options={"IncrementalBase": "latest"},
            )
        )
        assert job.backup_job_id is not None
        return job.backup_job_id

    def send_files(self, pool: ThreadPoolExecutor, job_id: str, files: dict[str, Path]) -> list[tuple[bytes, int]]:
        """Send files as objects, many requests at a time; answers digest and size of every chunk sent."""
        small = [pool.submit(self.send_small, job_id, name, path) for name, path in files.items() if is_small(path)]
        large: dict[str, tuple[str, list[Future[tuple[bytes, int]]]]] = {}
        for name, path in files.items():
            if not is_small(path):
                upload_id = self.api.start_object(job_id, name)["UploadId"]
                count = -(-path.stat().st_size // CHUNK_BYTES)
                sent = [pool.submit(self.send_chunk, job_id, upload_id, path, index) for index in range(count)]
                large[name] = upload_id, sent
        chunks = [one.result() for one in small]
        for name, (upload_id, sent) in large.items():
            digests = [one.result() for one in sent]
            self.complete(job_id, upload_id, [digest for digest, _ in digests], describe(files[name]))
            chunks += digests
        return chunks

    def send_small(self, job_id: str, name: str, path: Path) -> tuple[bytes, int]:
        """A file of at most one chunk: one request. It is durable when the function returns."""
        data = path.read_bytes()
        digest = hashlib.sha256(data).digest()
        params = {
            "InlineChunk": data,
            "length": len(data),
            "checksum": digest.hex(),
            "checksum-algorithm": "SHA256",
            "metadata-string": describe(path),
        }
        self.api.put_object(job_id, name, params)
        return digest, len(data)

    def send_chunk(self, job_id: str, upload_id: str, path: Path, index: int) -> tuple[bytes, int]:
        """One chunk of a larger file. Chunks may arrive in any order."""
        with path.open("rb") as file:
            file.seek(index * CHUNK_BYTES)
            data = file.read(CHUNK_BYTES)
        digest = hashlib.sha256(data).digest()
        self.api.put_chunk(data, digest.hex(), "SHA256", index, job_id, len(data), upload_id)
        return digest, len(data)

    def complete(self, job_id: str, upload_id: str, digests: list[bytes], metadata: str) -> None:
        """The object's own checksum, SUMMARY, is the SHA-256 of its chunks' digests in order."""
        summary = hashlib.sha256(b"".join(digests)).hexdigest()
        self.api.notify_object_complete(summary, "SUMMARY", job_id, upload_id, {"metadata-string": metadata})

    # --- restore -----------------------------------------------------------------------------------------------------

    def restore(self, name: str, recovery_point_arn: str, target: Path, original: Path) -> list[str]:
        """Restore a recovery point into `target`; answers how that differs from `original`."""
        with self.measured(name) as figures, requests_in_flight() as pool:
            start = StartRestoreJob(recovery_point_arn=recovery_point_arn, metadata={"targetPath": str(target)})
            job_id = self.client.call(start).restore_job_id
            assert job_id is not None
            restored = [
                pool.submit(self.restore_file, job_id, found["Name"], found["ObjectToken"], target)
                for found in self.list_objects(job_id)
            ]
            sizes = [one.result() for one in restored]
            self.client.call(CompleteRestoreJob(restore_job_id=job_id, status="COMPLETED"))
            figures.files, figures.bytes = len(sizes), sum(sizes)
        return [f"{name}: {difference}" for difference in compare(original, target)]

    def restore_file(self, job_id: str, name: str, object_token: str, target: Path) -> int:
        """Write one object to its file, with mode and time; answers its size."""
        path = target / name
        if not path.resolve().is_relative_to(target.resolve()):
            raise ValueError(f"the object {name!r} would leave the target folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for chunk in self.list_chunks(job_id, object_token):
                data = self.api.get_chunk(chunk["ChunkToken"], job_id)["Data"]
                if hashlib.sha256(data).hexdigest() != chunk["Checksum"]:
                    raise ValueError(f"a chunk of {name!r} arrived damaged")
                file.write(data)
            size = file.tell()
        metadata = self.api.get_object_metadata(job_id, object_token)["MetadataString"]
        apply(path, metadata)
        return size

    # --- lists come in pages -----------------------------------------------------------------------------------------

    def list_objects(self, job_id: str) -> Iterator[dict[str, Any]]:
        """All objects of a restore job, or of a backup job in progress."""
        return self.pages("ObjectList", lambda params: self.api.list_objects(job_id, params))

    def list_chunks(self, job_id: str, object_token: str) -> Iterator[dict[str, Any]]:
        """All chunks of an object, in order."""
        return self.pages("ChunkList", lambda params: self.api.list_chunks(job_id, object_token, params))

    def pages(self, member: str, ask: Callable[[dict[str, Any]], dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Every item of a list, page by page."""
        params: dict[str, Any] = {"max-results": 100}
        while True:
            page = ask(params)
            yield from page[member]
            if "NextToken" not in page:
                return
            params["next-token"] = page["NextToken"]


class CountedApi:
    """The nine functions of `backupstorage`, counted."""

    def __init__(self) -> None:
        self.requests = 0
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function = getattr(backupstorage, name)

        def counted(*arguments: object) -> Any:
            with self._lock:
                self.requests += 1
            return function(*arguments)

        return counted


# --- the server ------------------------------------------------------------------------------------------------------


@contextmanager
def running_server(data_dir: Path) -> Iterator[Client]:
    """`cryo serve` on `data_dir`, and a client for it; also points the AWS variables of this process to it."""
    command = [str(Path(sys.executable).with_name("cryo")), "serve", "--data-dir", str(data_dir)]
    with (data_dir.parent / "server.log").open("w+", encoding="utf-8") as log:
        # In a session of its own, so that Ctrl-C reaches this program first, which then stops the server.
        server = subprocess.Popen(
            [*command, "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
        )
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            if not line.startswith("listening on "):
                log.seek(0)
                raise SystemExit(f"the server did not start:\n{log.read()}")
            say(line.strip())
            for name in [name for name in os.environ if name.startswith("AWS_")]:
                del os.environ[name]  # an AWS account of this machine's owner must not get into this
            os.environ["AWS_CONFIG_FILE"] = os.devnull
            os.environ["AWS_SHARED_CREDENTIALS_FILE"] = str(data_dir / "credentials")
            os.environ["AWS_ENDPOINT_URL"] = line.removeprefix("listening on ").strip()
            with Client.of(resolve(os.environ)) as client:
                yield client
        finally:
            server.terminate()
            try:
                server.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                server.kill()


@contextmanager
def requests_in_flight() -> Iterator[ThreadPoolExecutor]:
    """A pool of threads, each with one request on its way; on failure, what has not begun never begins."""
    pool = ThreadPoolExecutor(REQUESTS_IN_FLIGHT)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


# --- files -----------------------------------------------------------------------------------------------------------


def files_below(folder: Path) -> list[Path]:
    """Every regular file, in order."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def is_small(path: Path) -> bool:
    """Whether a file fits into a single chunk."""
    return path.stat().st_size <= CHUNK_BYTES


def describe(path: Path) -> str:
    """What is kept of a file beside its bytes."""
    facts = path.stat()
    return f"mode={facts.st_mode & 0o7777:o} mtime_ns={facts.st_mtime_ns} size={facts.st_size}"


def apply(path: Path, metadata: str) -> None:
    """Give a restored file its mode and time back."""
    facts = dict(fact.split("=") for fact in metadata.split())
    path.chmod(int(facts["mode"], 8))
    os.utime(path, ns=(int(facts["mtime_ns"]),) * 2)


def change_some_files(folder: Path) -> str:
    """A day's work on a folder: some files changed, some added, some deleted. Says what it did."""
    files = files_below(folder)
    changed, deleted, copied = files[::23], files[5::37], files[7::41]
    for number, path in enumerate(copied):
        path.with_name(f"{path.name}.copy-{number}").write_bytes(path.read_bytes())
    (folder / "added").mkdir(exist_ok=True)
    (folder / "added" / "random ü.bin").write_bytes(os.urandom(3 * CHUNK_BYTES + 1))
    (folder / "added" / "empty").touch()
    for path in changed:
        path.chmod(path.stat().st_mode | 0o200)  # the owner may write
        with path.open("r+b") as file:
            file.seek(path.stat().st_size // 2)
            file.write(b"changed\n")
    for path in set(deleted) - set(changed):
        path.unlink()
    return f"changed {len(changed)} files, added {len(copied) + 2}, deleted {len(set(deleted) - set(changed))}"


def compare(original: Path, restored: Path) -> list[str]:
    """How two folders differ: names, bytes, modes, times."""
    ours = {path.relative_to(original): path for path in files_below(original)}
    theirs = {path.relative_to(restored): path for path in files_below(restored)}
    differences = [f"{name} is in one of the two only" for name in ours.keys() ^ theirs.keys()]
    for name in ours.keys() & theirs.keys():
        if ours[name].read_bytes() != theirs[name].read_bytes():
            differences.append(f"{name} has other bytes")
        elif describe(ours[name]) != describe(theirs[name]):
            differences.append(f"{name} has another mode or time")
    return sorted(differences)


def disk_bytes(folder: Path) -> int:
    """The bytes in all files below `folder`."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


# --- what is printed -------------------------------------------------------------------------------------------------


def print_figures(all_figures: list[Figures]) -> None:
    """A table with a row for each backup and restore."""
    rows = [("", *COLUMNS)]
    for one in all_figures:
        backup = one.bytes_stored is not None
        rows.append(
            (
                one.name,
                f"{one.files}",
                megabytes(one.bytes),
                f"{one.files_sent}" if backup else "",
                megabytes(one.bytes_sent),
                megabytes(one.bytes_unique),
                megabytes(one.bytes_stored),
                ratio(one.bytes, one.bytes_unique),
                ratio(one.bytes_unique, one.bytes_stored),
                f"{one.requests}",
                f"{one.seconds:.1f}",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    say("")
    for name, *cells in rows:
        aligned = (f"{cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True))
        say("  ".join([f"{name:<{widths[0]}}", *aligned]))
    points = [one for one in all_figures if one.bytes_stored is not None]
    held, stored = sum(one.bytes for one in points), sum(one.bytes_stored or 0 for one in points)
    say(f"{len(points)} recovery points of {megabytes(held)} MB together took {megabytes(stored)} MB on disk")
    say("dedup: bytes of the recovery point for each byte that was new; compression: new bytes for each byte on disk")


def megabytes(size: int | None) -> str:
    """Millions of bytes; nothing for None."""
    return "" if size is None else f"{size / 1e6:.1f}"


def ratio(whole: int | None, part: int | None) -> str:
    """How many times larger `whole` is; nothing where there is nothing to compare."""
    return f"{whole / part:.1f}" if whole and part else ""


def say(text: str) -> None:
    """A line for the reader, at once."""
    print(text, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
