"""Every verb in broken environments: no traceback, and an exit code that matches the result of the run."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from cryostore.cli.verbs import VERBS
from support.archives.agent import write
from support.processes.serving import CRYO

OK, WITH_ISSUES, FAILED = 0, 1, 2
SECONDS_MAX = 120
NO_USER = 1_234_567
CLONE_NEWNS = 0x00020000
LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Environment:
    """A broken environment. `fails`: verbs may fail in it. `mute`: the streams that cannot be written to."""

    name: str
    variables: dict[str, str | None] = field(default_factory=dict)
    streams: dict[str, str] = field(default_factory=dict)
    prepare: Callable[[], object] = lambda: None
    fails: bool = False
    mute: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    """The program that starts `cryo`."""
    needs_root: bool = False


def close(*fds):
    for fd in fds:
        os.close(fd)


def limit(kind, number):
    resource.setrlimit(kind, (number, number))


def leave_a_deleted_directory():
    place = Path("gone")
    place.mkdir()
    os.chdir(place)
    Path("../gone").rmdir()


def hide(folder):
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", folder], check=True)


def without_proc():
    """Hide /proc in a mount namespace of this process. Python has unshare from 3.12 on."""
    if LIBC.unshare(CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare")
    hide("/proc")


SOUND = Environment("sound")
AS_NOBODY = ("setpriv", f"--reuid={NO_USER}", f"--regid={NO_USER}", "--clear-groups")
AS_NOBODY += (
    "--inh-caps=+dac_read_search",
    "--ambient-caps=+dac_read_search",
)  # the program may be in a private folder
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
ENVIRONMENTS = [
    Environment("no HOME", {"HOME": None}),
    Environment("HOME is missing", {"HOME": "/nowhere/at/all"}),
    Environment("HOME is empty", {"HOME": ""}),
    Environment("HOME is a file", {"HOME": "/dev/null", "XDG_STATE_HOME": None}),
    Environment("HOME is not UTF-8", {"HOME": "/nowhere/\udcff", "XDG_STATE_HOME": None}),
    Environment("the state folder cannot be created", {"XDG_STATE_HOME": "/dev/null/state"}),
    Environment("no user", {"HOME": None, "XDG_STATE_HOME": None}, command=AS_NOBODY, needs_root=True),
    Environment("stdin closed", prepare=partial(close, 0)),
    Environment("stdout closed", prepare=partial(close, 1), mute=("stdout",)),
    Environment("stderr closed", prepare=partial(close, 2), mute=("stderr",)),
    Environment("all streams closed", prepare=partial(close, 0, 1, 2), mute=("stdout", "stderr")),
    Environment("stdout full", streams={"stdout": "/dev/full"}, mute=("stdout",)),
    Environment("stderr full", streams={"stderr": "/dev/full"}, mute=("stderr",)),
    Environment("both full", streams={"stdout": "/dev/full", "stderr": "/dev/full"}, mute=("stdout", "stderr")),
    Environment("stdout without a reader", streams={"stdout": "pipe"}, mute=("stdout",)),
    Environment("ASCII", ASCII),
    Environment("an unknown locale", {"LC_ALL": "xx_YY.none", "LANG": "xx", "TZ": "No/Where", "TERM": "none"}),
    Environment("no variables", {name: None for name in os.environ if name not in ("PYTHONPATH", "CRYO_DATA_DIR")}),
    Environment("no PATH", {"PATH": ""}),
    Environment("TMPDIR is a file", {"TMPDIR": "/dev/null"}),
    Environment("32 open files", prepare=partial(limit, resource.RLIMIT_NOFILE, 32), fails=True),
    Environment("file size limit 0", prepare=partial(limit, resource.RLIMIT_FSIZE, 0), fails=True),
    Environment("file size limit 100 KB", prepare=partial(limit, resource.RLIMIT_FSIZE, 100_000), fails=True),
    Environment("a deleted working directory", prepare=leave_a_deleted_directory),
    Environment("umask 777", prepare=partial(os.umask, 0o777), fails=True),
    Environment("no /proc", prepare=without_proc, needs_root=True),
]

COMMANDS = [
    "check", "completion bash", "agent-key list", "agent-key public {at}/key {at}/public", "agent-key paper {at}/key",
    "backup {at}/source --resource made", "backup --stdin --name x --resource made", "ls -lR latest",
    "cat latest:file", "mount {at}/missing latest", "points", "points --json", "restore latest {at}/target",
    "restore latest {at}/target --delete", "verify latest --data", "diff latest latest", "doctor", "find *",
    "gc", "init", "init-key {at}/made", "jobs", "key list", "key export --to {at}/export", "key rotate",
    "key verify {at}/data/keyring.json", "man backup", "rebuild-catalog", "migrate", "openapi", "repair", "scrub",
    "sdk-model {at}/model", "serve-nbd --socket {at}/missing/socket latest", "serve --config {at}/missing", "status",
    "delete latest --yes",
]  # fmt: skip
FAIL_SOUND = {"agent-key list", "mount", "init", "rebuild-catalog", "migrate", "serve-nbd", "serve"}
"""The beginnings of the commands that fail in a sound environment, too, because of their arguments."""

WARNS = {("no /proc", "doctor")}
"""An environment and a command that warns there, because it cannot read what it checks."""


def fails_anywhere(command):
    return not FAIL_SOUND.isdisjoint({command, command.split()[0]})


def test_every_verb_is_run():
    assert {command.split()[0] for command in COMMANDS} == set(VERBS)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A store with a recovery point, its source, and an agent key."""
    at = tmp_path_factory.mktemp("template")
    write(at / "source", {"file": b"file", "ä": {"other": b"other"}, b"\xff\x1b[2J": b"raw"})
    for command in ("backup {at}/source --resource first", "init-key {at}/key"):
        done = carry_out(command, at, SOUND)
        assert done.code == OK, done.error
    return at


@dataclass(frozen=True)
class Done:
    code: int
    printed: str
    error: str


def carry_out(command, at, environment):
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_", "CRYO_", "XDG_", "PG")) or name == "CRYO_PYTHON"
    }
    variables |= {"CRYO_DATA_DIR": str(at / "data"), "XDG_STATE_HOME": str(at / "state")}
    for name, value in environment.variables.items():
        variables.pop(name, None)
        if value is not None:
            variables[name] = value
    arguments = [word.replace("{at}", str(at)) for word in command.split()]
    opened = {}
    for stream in ("stdout", "stderr"):
        kind = environment.streams.get(stream)
        opened[stream] = subprocess.PIPE if kind is None else unread() if kind == "pipe" else os.open(kind, os.O_WRONLY)
    command_line, stdin = [*environment.command, *CRYO, *arguments], subprocess.DEVNULL
    with subprocess.Popen(
        command_line,
        env=variables,
        cwd=at,
        stdin=stdin,
        preexec_fn=environment.prepare,  # noqa: PLW1509 - there is no other thread
        **opened,
    ) as process:
        printed, error = process.communicate(timeout=SECONDS_MAX)
    for stream in opened.values():
        if stream != subprocess.PIPE:
            os.close(stream)
    decode = partial(bytes.decode, errors="backslashreplace")
    return Done(process.returncode, decode(printed or b""), decode(error or b""))


def unread():
    reader, writer = os.pipe()
    os.close(reader)
    return writer


USUAL: dict[str, Done] = {}
"""The result of each command in a sound environment. Each runs once."""


def usual_of(command, template, tmp_path):
    if command not in USUAL:
        USUAL[command] = carry_out(command, copy_of(template, tmp_path / "usual"), SOUND)
        shutil.rmtree(tmp_path / "usual")
    return USUAL[command]


def copy_of(template, place):
    shutil.copytree(template, place, symlinks=True)
    return place


def made(at):
    """Return the number of recovery points that the verb made."""
    done = carry_out("points --json --resource made", at, SOUND)
    return len([json.loads(line) for line in done.printed.splitlines()])


def problems(command, template, tmp_path, environment):
    """Run a command in an environment; yield a line for each difference from the expected result."""
    at = copy_of(template, tmp_path / "broken")
    if environment.command:
        for path in (at, *at.rglob("*")):
            os.chown(path, NO_USER, NO_USER, follow_symlinks=False)
    done = carry_out(command, at, environment)
    if "Traceback" in done.error + done.printed or done.code not in (OK, WITH_ISSUES, FAILED):
        yield f"{command}: {done.code}: {done.error[-2000:]}"
        return
    wanted = {FAILED if fails_anywhere(command) else OK}
    if environment.mute and wanted == {OK}:
        usual = usual_of(command, template, tmp_path)
        if ("stdout" in environment.mute and usual.printed) or ("stderr" in environment.mute and usual.error):
            wanted = {WITH_ISSUES, FAILED} if command.startswith("cat") else {WITH_ISSUES}
    if (environment.name, command) in WARNS:
        wanted = {WITH_ISSUES}
    if environment.fails:
        wanted |= {WITH_ISSUES, FAILED}
    if done.code not in wanted:
        yield f"{command}: {done.code} instead of {sorted(wanted)}: {done.error or done.printed}"
    if command.startswith("backup") and (made(at) == 1) != (done.code != FAILED):
        yield f"{command}: {done.code}, and there are {made(at)} recovery points: {done.error}"
    shutil.rmtree(at)


def make_reachable(place):
    """Let other users enter a folder. pytest makes the folder of its runs private again at each start."""
    for path in (place, *place.parents[:-1]):
        if not path.stat().st_mode & 0o001:
            path.chmod(path.stat().st_mode | 0o111)


def check(template, tmp_path, environment, commands):
    if environment.needs_root and os.geteuid():
        pytest.skip("needs root")
    if environment.command and shutil.which(environment.command[0]) is None:
        pytest.skip(f"needs {environment.command[0]}")
    found = []
    for number, command in enumerate(commands):
        if environment.needs_root:
            make_reachable(tmp_path)
        place = tmp_path / str(number)
        place.mkdir()
        found += problems(command, template, place, environment)
    assert found == []


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda environment: environment.name)
def test_a_verb_in_a_broken_environment(template, tmp_path, environment):
    """Each command runs in one environment, each environment has at least one command. A stress run combines all."""
    check(template, tmp_path, environment, COMMANDS[ENVIRONMENTS.index(environment) :: len(ENVIRONMENTS)])


@pytest.mark.stress
@pytest.mark.parametrize("command", COMMANDS)
def test_a_verb_in_a_sound_environment(template, tmp_path, command):
    assert usual_of(command, template, tmp_path).code == (FAILED if fails_anywhere(command) else OK)


@pytest.mark.stress
@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda environment: environment.name)
def test_every_verb_in_a_broken_environment(template, tmp_path, environment):
    check(template, tmp_path, environment, COMMANDS)
