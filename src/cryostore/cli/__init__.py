"""The command line `cryo`: one module per command or family, imported when it is called.

Results go to stdout, everything else to stderr. Exit codes are in `exit_codes`.
"""

from __future__ import annotations

import gc
import os
import sys

from cryostore.cli.exit_codes import FAILED, INTERRUPTED, OK, WITH_ISSUES
from cryostore.cli.output import open_outputs, tell_unexpected, unwritten
from cryostore.core import interrupts

GARBAGE_THRESHOLDS = gc.get_threshold()
"""Python's defaults, for a server: it runs long and holds much."""
GARBAGE_OBJECTS_MIN = 50_000
"""Growth in objects before Python looks for cycles: at its default of 700, that takes a tenth of the start-up time."""
SWITCH_SECONDS = 0.0005
"""How long a thread that returns from a system call waits for one that computes: at Python's 5 ms, the thread that
reads the source stalls while chunks are sent."""
OWNER_BITS = 0o700
"""Permissions that the umask must not remove: the owner could not open a new store, key or state file."""


def main() -> None:
    """Run the command `cryo`, and exit with its exit code.

    A result that could not be written turns exit code 0 into 1, and changes no other. An unexpected error exits with 2:
    Python's own exit code for it, 1, would claim that the run completed with issues.
    """
    _open_standard_streams()
    os.umask(os.umask(0o077) & ~OWNER_BITS)
    outputs = open_outputs()
    gc.set_threshold(GARBAGE_OBJECTS_MIN)
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        from cryostore.cli.verbs import run  # makes most objects; here, Ctrl-C ends without a traceback

        code = run(sys.argv[1:])
        for output in outputs:
            output.ends = code == INTERRUPTED
        if unwritten() and code == OK:
            code = WITH_ISSUES
    except KeyboardInterrupt:
        code = INTERRUPTED
        for output in outputs:
            output.ends = True
    except Exception:  # noqa: BLE001 - every error is a failed run
        tell_unexpected()
        code = FAILED
    interrupts.ignore_signals()
    sys.exit(code)


def _open_standard_streams() -> None:
    """Occupy the descriptors of closed streams (`>&-`): the first file of a store could become stdout."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)  # noqa: FBT003 - it takes no name
    os.close(fd)
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115, PTH123 - to the end of the process
