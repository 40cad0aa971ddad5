"""The command line: one file per verb, imported when the verb is asked for, so that `cryo --version` answers at once.

Data goes to stdout, everything else to stderr. Exit codes: see `EPILOGUE`.
"""

from __future__ import annotations

import errno
import gc
import os
import sys

from cryostore.cli.output import open_output
from cryostore.core import interrupts

GARBAGE_THRESHOLDS = gc.get_threshold()
"""Python's own: for what runs long and holds much."""
GARBAGE_OBJECTS_MIN = 50_000
"""How many more objects there are before cycles are looked for: at 700, a tenth of the time to start goes into that."""
SWITCH_SECONDS = 0.0005
"""How long a thread that is back from a system call waits for one that computes: at 5 ms, the one that reads the source
stands still while chunks are sent."""
FAILED = 2
INTERRUPTED = 130


def main() -> None:
    """The command `cryo`. What nobody foresaw has failed, too: Python's own exit code would say that it was done."""
    _open_standard_streams()
    output = open_output()
    gc.set_threshold(GARBAGE_OBJECTS_MIN)
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        from cryostore.cli.verbs import run  # most of the objects; and a Ctrl-C meanwhile ends without a traceback

        code = run(sys.argv[1:])
        output.ends = code == INTERRUPTED
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = INTERRUPTED
        output.ends = True
    except BrokenPipeError:  # whoever reads what is printed has seen enough, and the interpreter would complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = FAILED
    except OSError as error:
        if error.errno == errno.ENOSPC and error.filename is None:  # of stores and targets the verbs tell themselves
            print(f"error: stdout: {error.strerror}", file=sys.stderr)
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        else:
            sys.excepthook(*sys.exc_info())
        code = FAILED
    except Exception:  # noqa: BLE001 - it is shown as the interpreter would
        sys.excepthook(*sys.exc_info())
        code = FAILED
    interrupts.ignore()
    sys.exit(code)


def _open_standard_streams() -> None:
    """Open what the caller closed (`>&-`): else the first file of a store would be stdout, and be printed into."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)  # noqa: FBT003 - it takes no name
    os.close(fd)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123 - to the end of the process
