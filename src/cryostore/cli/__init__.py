"""The command line: one file per verb, imported when the verb is asked for, so that `cryo --version` answers at once.

Data goes to stdout, everything else to stderr. Exit codes: see `EPILOGUE`.
"""

from __future__ import annotations

import sys

from cryostore.cli.verbs import run


def main() -> None:
    """The command `cryo`."""
    sys.exit(run(sys.argv[1:]))
