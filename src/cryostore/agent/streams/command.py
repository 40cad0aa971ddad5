"""A command whose output is backed up. What it says on stderr goes where ours goes."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cryostore.agent.errors import SourceError
from cryostore.core.interrupts import waiting

STOP_SECONDS = 5.0
SHELL = "/bin/sh"


def in_shell(text: str) -> list[str]:
    """The arguments that run a line of shell.

    With bash if there is one, which can tell that any part of a pipe has failed, not only its last.
    """
    bash = shutil.which("bash")
    return [bash, "-o", "pipefail", "-c", text] if bash else [SHELL, "-c", text]


@contextmanager
def running(arguments: Sequence[str]) -> Iterator[int]:
    """The descriptor of a command's output, which must be read to its end.

    Raises SourceError if the command cannot be started, and at the end of the context if it failed or was killed. If
    the context ends with an error, the command is ended.
    """
    name = os.fsencode(shlex.join(arguments))
    try:
        process = subprocess.Popen(  # noqa: S603 - the command is what the user asked for
            arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
    except OSError as error:
        raise SourceError(name, f"cannot be run: {error.strerror}") from error
    assert process.stdout is not None
    try:
        with process.stdout:
            yield process.stdout.fileno()
        with waiting:
            code = process.wait()
    except BaseException:
        _stop(process)
        raise
    if code:
        raise SourceError(name, f"{_ending(code)}: no recovery point is made")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _ending(code: int) -> str:
    """How a command ended, in words. A shell says by a code above 128 that a signal ended what it ran."""
    number = -code if code < 0 else code - 128
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = ""
    if code < 0:
        return f"was killed by {name or f'signal {number}'}"
    return f"ended with exit code {code}" + (f" ({name})" if name else "")
