"""HAProxy in front of servers of a test, with the configuration of contrib/compose."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from support.processes.fake_process import wait_for
from support.project import ROOT

SHIPPED = ROOT / "contrib" / "compose" / "haproxy.cfg"
CHECK_EVERY = "100ms"


class Node(NamedTuple):
    """The addresses of a server: for requests and for health checks."""

    port: int
    watch_port: int


class LoadBalancer(NamedTuple):
    """A running load balancer: `url` is for clients, `watch_url` for its statistics."""

    url: str
    watch_url: str

    def sees(self, number: int, state: str) -> bool:
        """Return whether node `number`, from 1, is in a state: UP or DOWN."""
        line = f'haproxy_server_status{{proxy="nodes",server="node{number}",state="{state}"}} 1'
        return line in self._shown()

    def in_flight(self, number: int) -> int:
        """Return the number of requests in flight to node `number`."""
        start = f'haproxy_server_current_sessions{{proxy="nodes",server="node{number}"}} '
        (line,) = [line for line in self._shown() if line.startswith(start)]
        return int(line.removeprefix(start))

    def _shown(self) -> list[str]:
        with urllib.request.urlopen(f"{self.watch_url}/metrics", timeout=10) as answer:
            text: str = answer.read().decode()
        return text.splitlines()


def configuration(nodes: Sequence[Node], api: int, watch: int, *, as_shipped: bool = False) -> str:
    """Return the shipped file with other addresses, the descriptors `api` and `watch` as listeners, and quicker checks.

    And without its second tries: so no error is hidden that another load balancer would pass on. `as_shipped` changes
    addresses alone.
    """
    text = SHIPPED.read_text(encoding="utf-8")
    servers = "\n".join(
        f"    server node{number} 127.0.0.1:{node.port} port {node.watch_port}" for number, node in enumerate(nodes, 1)
    )
    addresses = (
        (r"^    bind :8734$", f"    bind fd@{api}"),
        (r"^    bind :8405$", f"    bind fd@{watch}"),
        (r"(?:^    server .*\n)+", servers + "\n"),
    )
    behaviour = (
        (r"\binter 1s\b", f"inter {CHECK_EVERY}"),
        (r"^    option redispatch 1\n    retries 3\n    retry-on .*$", "    retries 0"),
    )
    for pattern, replacement in (*addresses, *(() if as_shipped else behaviour)):
        text, found = re.subn(pattern, replacement, text, flags=re.MULTILINE)
        assert found == 1, f"{SHIPPED.name} has no {pattern}"
    return text


@contextmanager
def load_balancer(folder: Path, nodes: Sequence[Node], *, as_shipped: bool = False) -> Iterator[LoadBalancer]:
    """Start HAProxy in front of `nodes`, and wait until all are up. Skips the test where there is no HAProxy."""
    program = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if program is None:
        pytest.skip("haproxy is not here: a rolling restart behind a load balancer was not tried")
    with socket.create_server(("127.0.0.1", 0)) as api, socket.create_server(("127.0.0.1", 0)) as watch:
        text = configuration(nodes, api.fileno(), watch.fileno(), as_shipped=as_shipped)
        (folder / "haproxy.cfg").write_text(text, encoding="utf-8")
        with (folder / "haproxy.log").open("wb") as log:
            process = subprocess.Popen(
                [program, "-db", "-f", folder / "haproxy.cfg"],
                stdout=log,
                stderr=log,
                pass_fds=(api.fileno(), watch.fileno()),
            )
        urls = [f"http://127.0.0.1:{listener.getsockname()[1]}" for listener in (api, watch)]
    balancer = LoadBalancer(*urls)
    try:
        wait_for(lambda: all(balancer.sees(number, "UP") for number in range(1, len(nodes) + 1)))
        yield balancer
    finally:
        process.kill()
        process.wait()
