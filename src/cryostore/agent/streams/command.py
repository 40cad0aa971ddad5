"""Command whose standard output is backed up. Its stderr is that of this process."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cryostore.agent.errors import SourceError
from cryostore.core.interrupts import interruptible

STOP_SECONDS = 5.0
SHELL = "/bin/sh"


def in_shell(text: str) -> list[str]:
    """Return the arguments that run a line of shell.

    Uses bash if it is installed, because its `pipefail` reports a failure in any part of a pipe, not only in the last.
    """
    bash = shutil.which("bash")
    return [bash, "-o", "pipefail", "-c", text] if bash else [SHELL, "-c", text]


@contextmanager
def running(arguments: Sequence[str]) -> Iterator[int]:
    """Run a command and yield the descriptor of its output, which must be read to its end.

    Raises SourceError if the command cannot be started and, at the end of the context, if it failed or was killed. If
    the context ends with an error, the command is stopped.
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
        with interruptible:
            code = process.wait()
    except BaseException:
        _stop(process)
        raise
    if code:
        raise SourceError(name, f"{_exit_text(code)}: no recovery point is made")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _exit_text(code: int) -> str:
    """Describe how a command ended. A shell exits with a code above 128 if a signal killed its command."""
    number = -code if code < 0 else code - 128
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = ""
    if code < 0:
        return f"was killed by {name or f'signal {number}'}"
    return f"exited with code {code}" + (f" ({name})" if name else "")
