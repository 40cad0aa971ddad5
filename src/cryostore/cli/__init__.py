"""The command line: one file per verb, imported when the verb is asked for, so that `cryo --version` answers at once.

Data goes to stdout, everything else to stderr. Exit codes: see `EPILOGUE`.
"""

from __future__ import annotations

import gc
import os
import sys

GARBAGE_OBJECTS_MIN = 50_000
"""How many more objects there are before cycles are looked for: at 700, a tenth of the time to start goes into that."""
gc.set_threshold(GARBAGE_OBJECTS_MIN)
SWITCH_SECONDS = 0.0005
"""How long a thread that is back from a system call waits for one that computes: at 5 ms, the one that reads the source
stands still while chunks are sent."""
sys.setswitchinterval(SWITCH_SECONDS)

from cryostore.cli.verbs import FAILED, run  # noqa: E402 - what is imported is most of those objects


def main() -> None:
    """The command `cryo`. What nobody foresaw has failed, too: Python's own exit code would say that it was done."""
    try:
        code = run(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads what is printed has seen enough, and the interpreter would complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = FAILED
    except Exception:  # noqa: BLE001 - it is shown as the interpreter would
        sys.excepthook(*sys.exc_info())
        code = FAILED
    sys.exit(code)
