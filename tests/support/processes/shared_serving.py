"""Real `cryo` processes on a shared store: commands, and nodes that serve it."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import contextmanager

from support.processes.serving import CRYO, RunningServer, _address, stop


def environment(place):
    """Return the environment of a process on the store: that of this process, with the places of the store."""
    return os.environ | {"CRYO_CATALOG": place.catalog, "CRYO_BLOBS": place.blobs, "CRYO_KEYRING": place.keyring}


def cryo(place, *arguments, code=0):
    """Run a command on the store, check its exit code, and return the completed process."""
    done = subprocess.run(
        [*CRYO, *map(str, arguments)], env=environment(place), capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    return done


@contextmanager
def node(place, folder, *options, name="node", workers=1):
    """Run `cryo serve` on the store, without a directory of its own. The root access key is in `folder`."""
    log = folder / f"{name}.log"
    with log.open("a", encoding="utf-8") as log_file:
        process = subprocess.Popen(
            [*CRYO, "serve", "--listen", "127.0.0.1:0", "--workers", str(workers), *options],
            cwd=folder,
            env=environment(place),
            stdout=subprocess.PIPE,
            stderr=log_file,
            text=True,
        )
    try:
        yield RunningServer(_address(process, log), folder, log, process)
        if process.returncode != -signal.SIGKILL:
            stop(process, log)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
