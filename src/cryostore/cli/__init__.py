"""The command line: one file per verb, imported when the verb is asked for, so that `cryo --version` answers at once.

Data goes to stdout, everything else to stderr. Exit codes: see `EPILOGUE`.
"""

from __future__ import annotations

import os
import sys

from cryostore.cli.verbs import FAILED, run


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
