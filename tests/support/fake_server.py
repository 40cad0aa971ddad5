"""`cryo serve` with the fake service: `python -m support.fake_server CONFIGURATION`, as JSON; or one of its workers."""

from __future__ import annotations

import sys

from cryostore.core.errors import CryostoreError
from cryostore.options.configuration import from_json
from cryostore.server import worker
from cryostore.server.run import serve
from support.fake_service import open_fake_service

COMMAND = (sys.executable, "-m", "support.fake_server", "worker")


def main():
    if sys.argv[1] == "worker":
        del sys.argv[1]
        return worker.main(open_fake_service)
    try:
        serve(from_json(sys.argv[1].encode()), announce, open_service=open_fake_service, command=COMMAND)
    except CryostoreError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        return 2
    return 0


def announce(line):
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
