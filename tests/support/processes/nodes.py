"""Nodes of a shared store as real processes, which keep their addresses after a restart."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from support.processes.load_balancer import Node
from support.processes.serving import CRYO, LISTENING, stop


class Nodes:
    """`count` nodes with the store and the settings of `environment`; a context manager that ends them.

    `own` has what single nodes find in their environment besides, by their number.
    """

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        *,
        count: int,
        own: Mapping[int, Mapping[str, str]] | None = None,
    ) -> None:
        self._folder = folder
        self._environment = environment
        self._own = own or {}
        self._processes: list[subprocess.Popen[str] | None] = [None] * count
        self.places = [Node(0, 0)] * count

    def __enter__(self):
        try:
            with ThreadPoolExecutor() as pool:
                list(pool.map(self.start, range(len(self.places))))
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind, *_):
        try:
            if kind is None:
                for number in range(len(self.places)):
                    self.stop(number)
        finally:
            self._end()

    def start(self, number: int) -> None:
        """Start a node, at its former addresses if it had any, and wait until it answers."""
        place, log = self.places[number], self._log(number)
        before = log.stat().st_size if log.exists() else 0
        addresses = ["--listen", f"127.0.0.1:{place.port}", "--metrics", f"127.0.0.1:{place.watch_port}"]
        with log.open("ab") as log_file:
            self._processes[number] = subprocess.Popen(
                [*CRYO, "serve", "--workers", "1", *addresses],
                stdout=subprocess.PIPE,
                stderr=log_file,
                env={**self._environment, **self._own.get(number, {})},
                text=True,
            )
        line = self._processes[number].stdout.readline()
        assert line.startswith(f"{LISTENING}http"), f"{line!r} instead of an address: {log.read_text()}"
        lines = [json.loads(text) for text in log.read_bytes()[before:].splitlines()]
        (watch,) = [line["address"] for line in lines if line["event"] == "metrics"]
        self.places[number] = Node(_port(line.strip()), _port(watch.removesuffix("/metrics")))

    def stop(self, number: int) -> None:
        """Stop a node with SIGTERM, and wait until it has exited with 0."""
        process, self._processes[number] = self._processes[number], None
        if process is not None:
            stop(process, self._log(number))
            process.stdout.close()

    def kill(self, number: int) -> None:
        """Kill a node, as a power loss would."""
        process, self._processes[number] = self._processes[number], None
        process.kill()
        process.wait()
        process.stdout.close()

    def freeze(self, number: int) -> None:
        """Freeze a node: its connections stay open, but it sends nothing."""
        self._processes[number].send_signal(signal.SIGSTOP)

    def thaw(self, number: int) -> None:
        """Let a frozen node continue."""
        self._processes[number].send_signal(signal.SIGCONT)

    def url(self, number: int) -> str:
        """Return the URL of a node."""
        return f"http://127.0.0.1:{self.places[number].port}"

    def logged(self, number: int) -> list[dict]:
        """Return the log of a node from all its runs, without lines that a kill cut short."""
        lines = self._log(number).read_bytes().splitlines()
        return [json.loads(line) for line in lines if line.startswith(b"{") and line.endswith(b"}")]

    def _log(self, number: int) -> Path:
        return self._folder / f"node{number + 1}.log"

    def _end(self) -> None:
        for process in self._processes:
            if process is not None:
                process.kill()
                process.wait()
                process.stdout.close()


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])
