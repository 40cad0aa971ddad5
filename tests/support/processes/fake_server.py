"""`cryo serve` with the fake backend, or one of its workers.

The command is `python -m support.processes.fake_server CONFIGURATION`, with the configuration as JSON. The variable
YIELD_SECONDS of the environment says how long a worker leaves a connection to a less busy one.
"""

from __future__ import annotations

import os
import sys

from cryostore.core.errors import CryostoreError
from cryostore.options.configuration import from_json
from cryostore.server.http import connection_balancer
from cryostore.server.processes import worker_process
from cryostore.server.run import serve
from support.processes.fake_backend import open_fake_backend

COMMAND = (sys.executable, "-m", "support.processes.fake_server", "worker")


def main():
    if sys.argv[1] == "worker":
        del sys.argv[1]
        yield_seconds = float(os.environ.get("YIELD_SECONDS", connection_balancer.YIELD_SECONDS))
        return worker_process.main(open_fake_backend, yield_seconds=yield_seconds)
    try:
        serve(from_json(sys.argv[1].encode()), announce, open_backend=open_fake_backend, command=COMMAND)
    except CryostoreError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        return 2
    return 0


def announce(line):
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
