"""`cryo mount` with the real kernel: a separate process answers its requests, from a directory and from a server."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import stat
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from cryostore.core.limits import MIB
from support.archives.agent import seen, write
from support.processes.serving import CRYO

COVERS = ("cli/agent/mount.py",)


pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/dev/fuse").exists(), reason="mounting needs root and /dev/fuse"
)
SECONDS_MAX = 60


def noise(length, seed=1):
    return random.Random(seed).randbytes(length)


class Store:
    """Runs `cryo` on one store, each time as a new process."""

    def __init__(self, arguments, environment):
        self.arguments = arguments
        self.environment = environment

    def run(self, verb, *arguments, **more):
        command = [*CRYO, verb, *self.arguments, *map(str, arguments)]
        return subprocess.run(command, env=self.environment, capture_output=True, check=True, **more).stdout

    @contextmanager
    def started(self, verb, *arguments):
        """A process in the background; terminated if it still runs at the end of the context."""
        command = [*CRYO, verb, *self.arguments, *map(str, arguments)]
        process = subprocess.Popen(command, env=self.environment, stderr=subprocess.PIPE, text=True)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
            process.communicate(timeout=SECONDS_MAX)

    @contextmanager
    def mounted(self, folder, *arguments):
        """A mount for the duration of the context. SIGTERM ends it and must leave nothing mounted."""
        folder.mkdir(exist_ok=True)
        with self.started("mount", folder, *arguments) as process:
            assert "mounted on" in process.stderr.readline()
            yield folder
            process.send_signal(signal.SIGTERM)
            output = process.stderr.read()
            process.wait(SECONDS_MAX)
        assert (process.returncode, output) == (0, "")
        assert not os.path.ismount(folder)


@pytest.fixture(params=["directory", "server"])
def place(request, tmp_path):
    if request.param == "directory":
        return over_directory(tmp_path)
    running = request.getfixturevalue("server")
    return Store([], running.environment | {"XDG_STATE_HOME": str(tmp_path / "state")})


def sparse(path):
    with open(path, "wb") as file:
        file.truncate(64 * MIB)
        file.seek(20 * MIB)
        file.write(noise(MIB, 4))


@pytest.fixture
def local_place(tmp_path):
    """As `place`, but only over a directory: for tests that do not depend on the kind of store."""
    return over_directory(tmp_path)


def over_directory(tmp_path):
    return Store(["--data-dir", str(tmp_path / "store")], environment_of(tmp_path))


def environment_of(tmp_path):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "CRYO"))}
    return kept | {"XDG_STATE_HOME": str(tmp_path / "state")}


@pytest.fixture
def source(tmp_path):
    """A tree with an entry of every kind."""
    root = tmp_path / "source"
    write(
        root,
        {
            "small": b"small",
            "empty": b"",
            "large": noise(5 * MIB),
            "folder": {"deep": {"file": b"deep"}, "none": {}},
            b"\xff\n\x1b[2J": b"name",
            "many": {f"{n:04}": f"{n}".encode() for n in range(800)},
            "link": lambda path: os.symlink(b"folder/\xfe", path),
            "fifo": os.mkfifo,
            "null": lambda path: os.mknod(path, stat.S_IFCHR | 0o640, os.makedev(259, 300_000)),
            "sparse": sparse,
        },
    )
    os.link(root / "small", root / "folder" / "same")
    os.setxattr(root / "small", "user.note", b"\0\xff")
    os.chown(root / "large", 1234, 5678)
    os.chmod(root / "small", 0o4751)
    os.utime(root / "large", ns=(1, 1_234_567_890_123_456_789))
    os.utime(root / "empty", ns=(1, -5_000_000_001))
    return root


def test_a_mounted_tree_equals_the_source(place, source, tmp_path):
    place.run("backup", source, "--resource", "tree")
    with place.mounted(tmp_path / "mount", "latest", "--resource", "tree") as root:
        assert seen(root) == seen(source)
        assert os.stat(root / "small").st_ino == os.stat(root / "folder" / "same").st_ino
        assert os.stat(root / "small").st_ino != os.stat(root / "large").st_ino
        assert os.stat(root / "sparse").st_blocks * 512 < 2 * MIB
        with (root / "sparse").open("rb") as file:
            assert 19 * MIB <= os.lseek(file.fileno(), 0, os.SEEK_DATA) <= 20 * MIB
            assert 21 * MIB <= os.lseek(file.fileno(), 20 * MIB, os.SEEK_HOLE) <= 22 * MIB
            with pytest.raises(OSError, match="No such device or address"):
                os.lseek(file.fileno(), 40 * MIB, os.SEEK_DATA)
        chance = random.Random(2)
        data = (source / "large").read_bytes()
        with (root / "large").open("rb", buffering=0) as file:
            for _ in range(30):
                offset, length = chance.randrange(len(data)), chance.randrange(300_000)
                assert os.pread(file.fileno(), length, offset) == data[offset : offset + length]
        for change in ((root / "new").touch, (root / "small").unlink, (root / "folder" / "none").rmdir):
            with pytest.raises(OSError, match="Read-only file system|Device or resource busy"):
                change()
        with pytest.raises(OSError, match="Read-only file system"):
            os.open(root / "small", os.O_WRONLY)
        shutil.copytree(root, tmp_path / "copy", symlinks=True, ignore=shutil.ignore_patterns("fifo", "null"))
    assert (tmp_path / "copy" / "large").read_bytes() == data


def test_all_points_by_resource_and_time(place, source, tmp_path):
    place.run("backup", source, "--resource", "/srv/tree")
    place.run("backup", "--stdin", "--name", "dump.sql", "--resource", "a stream", input=b"dump")
    image = tmp_path / "disk.raw"
    sparse(image)
    place.run("backup", "--device", image, "--resource", "a disk")
    write(source, {"new": b"new"})
    with place.mounted(tmp_path / "mount") as root:
        assert {"_srv_tree", "a stream", "a disk"} <= set(os.listdir(root / "resources"))
        place.run("backup", source, "--resource", "/srv/tree")
        tree = root / "resources" / "_srv_tree"
        assert (root / "resources" / "a stream" / "latest" / "dump.sql").read_bytes() == b"dump"
        disk = root / "resources" / "a disk" / "latest" / "disk.raw"
        assert hashlib.sha256(disk.read_bytes()).digest() == hashlib.sha256(image.read_bytes()).digest()
        deadline = time.monotonic() + SECONDS_MAX
        while len(os.listdir(tree)) < 3:  # the folders are listed again after some seconds
            assert time.monotonic() < deadline
        times = sorted(name for name in os.listdir(tree) if name != "latest")
        assert os.readlink(tree / "latest") == times[1]
        assert not (tree / times[0] / "new").exists()
        assert (tree / "latest" / "new").read_bytes() == b"new"
        assert (root / "latest" / "new").read_bytes() == b"new"
        for folder in ("times", "ids"):
            for name in os.listdir(root / folder):
                assert (root / folder / name).is_dir()


def test_umount_ends_the_process(local_place, source, tmp_path):
    local_place.run("backup", source, "--resource", "outside")
    folder = tmp_path / "mount"
    folder.mkdir()
    with local_place.started("mount", folder) as process:
        assert "mounted on" in process.stderr.readline()
        with (folder / "latest" / "large").open("rb") as file:
            assert file.read(10) == noise(5 * MIB)[:10]
            assert subprocess.run(["umount", folder], check=False, capture_output=True).returncode  # it is busy
        subprocess.run(["umount", folder], check=True)
        assert process.wait(SECONDS_MAX) == 0
    assert b"no open jobs, no claims" in local_place.run("jobs")


def test_sigterm_unmounts_while_files_are_open(local_place, source, tmp_path):
    local_place.run("backup", source, "--resource", "open files")
    with local_place.mounted(tmp_path / "mount", "latest") as root:
        fd = os.open(root / "large", os.O_RDONLY)
        assert os.read(fd, 10) == noise(5 * MIB)[:10]
    with pytest.raises(OSError, match="not connected|aborted|No such device"):
        os.pread(fd, 10, 4 * MIB)
    with suppress(OSError):  # no process answers the close either
        os.close(fd)


def test_a_mount_on_any_other_than_an_empty_folder_is_refused(local_place, source, tmp_path):
    local_place.run("backup", source, "--resource", "none")
    for folder in (source, tmp_path / "missing", source / "small"):
        with local_place.started("mount", folder) as process:
            assert process.wait(SECONDS_MAX) == 2
            assert process.stderr.read().startswith("error: ")


def send_all_signals(process):
    """Send all signals that end a process at the same moment."""
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCONT):
        process.send_signal(number)


def test_several_signals_at_once_end_the_process(local_place, source, tmp_path):
    local_place.run("backup", source, "--resource", "signals")
    folder = tmp_path / "mount"
    folder.mkdir()
    socket = tmp_path / "socket"
    for _ in range(3):
        for arguments in (["mount", folder], ["serve-nbd", "latest:large", "--socket", socket]):
            with local_place.started(*arguments) as process:
                assert "ends it" in process.stderr.readline()
                send_all_signals(process)
                assert process.wait(SECONDS_MAX) == 0
        assert not os.path.ismount(folder)
        assert not socket.exists()


def ignored_signals(process):
    """The signals that a process ignores."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    mask = int(status.partition("SigIgn:")[2].split()[0], 16)
    return {number for number in signal.valid_signals() if mask >> (number - 1) & 1}


def test_ignored_signals_stay_ignored(local_place, source, tmp_path):
    """As under `nohup`, and for background jobs of a shell."""
    local_place.run("backup", source, "--resource", "nohup")
    (tmp_path / "mount").mkdir()
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGHUP, signal.SIGINT)}
    try:
        for arguments in (
            ["mount", tmp_path / "mount"],
            ["serve-nbd", "latest:large", "--socket", tmp_path / "socket"],
        ):
            with local_place.started(*arguments) as process:
                assert "ends it" in process.stderr.readline()
                assert {signal.SIGHUP, signal.SIGINT} <= ignored_signals(process)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
