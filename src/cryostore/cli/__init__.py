"""The command line: one file per verb, imported when the verb is asked for, so that `cryo --version` answers at once.

Data goes to stdout, everything else to stderr. Exit codes: see `EPILOGUE`.
"""

from __future__ import annotations

import gc
import os
import sys

from cryostore.cli.exit_codes import FAILED, INTERRUPTED, OK, WITH_ISSUES
from cryostore.cli.output import open_outputs, tell_unexpected, unwritten
from cryostore.core import interrupts

GARBAGE_THRESHOLDS = gc.get_threshold()
"""Python's own: for what runs long and holds much."""
GARBAGE_OBJECTS_MIN = 50_000
"""How many more objects there are before cycles are looked for: at 700, a tenth of the time to start goes into that."""
SWITCH_SECONDS = 0.0005
"""How long a thread that is back from a system call waits for one that computes: at 5 ms, the one that reads the source
stands still while chunks are sent."""
OWNER_BITS = 0o700
"""What a umask must not take away: else a store, a key or a note is made that its own owner cannot open."""


def main() -> None:
    """The command `cryo`.

    The exit code tells what became of the run. A result that could not be written makes 1 of a 0, and nothing else. An
    error that nobody foresaw is a failure, too: Python's own exit code for it would say that the run had issues.
    """
    _open_standard_streams()
    os.umask(os.umask(0o077) & ~OWNER_BITS)
    outputs = open_outputs()
    gc.set_threshold(GARBAGE_OBJECTS_MIN)
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        from cryostore.cli.verbs import run  # most of the objects; and a Ctrl-C meanwhile ends without a traceback

        code = run(sys.argv[1:])
        for output in outputs:
            output.ends = code == INTERRUPTED
        if unwritten() and code == OK:
            code = WITH_ISSUES
    except KeyboardInterrupt:
        code = INTERRUPTED
        for output in outputs:
            output.ends = True
    except Exception:  # noqa: BLE001 - whatever it is, the run has failed
        tell_unexpected()
        code = FAILED
    interrupts.ignore()
    sys.exit(code)


def _open_standard_streams() -> None:
    """Take the descriptors of closed streams (`>&-`): else the first file of a store would be stdout."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)  # noqa: FBT003 - it takes no name
    os.close(fd)
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115, PTH123 - to the end of the process
