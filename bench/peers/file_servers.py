"""nginx and rclone: servers that store each body in its own file, without hash, encryption or sync."""

from __future__ import annotations

import os
import secrets
import subprocess
from pathlib import Path

from bench.load.payload import Payload
from bench.load.plan import LoadPlan
from bench.machine.processes import StartError, Usage, free_port, program, stop, usage, wait_for_port

NGINX_CONFIGURATION = """\
daemon off;
{user}
worker_processes auto;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 100000000;
  client_max_body_size 0;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      root {directory}/stored;
      dav_methods PUT;
      create_full_put_path on;
    }}
  }}
}}
"""


class _FileServer:
    """A server with a URL and a file below `stored` for each body."""

    name: str
    method: str

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0
        self._paths: list[str] = []
        self._stored = Path()

    def start(self, directory: Path) -> None:
        """Start the server. Raises StartError if it is not installed or does not respond."""
        executable = program(self.name)
        if executable is None:
            raise StartError("not installed")
        directory = directory.resolve()
        self._stored = directory / "stored"
        self._stored.mkdir(parents=True)
        self._port = free_port()
        command = self._command(executable, directory)
        with (directory / "log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        wait_for_port(self._process, self._port)

    def stop(self) -> None:
        """Stop the server."""
        if self._process:
            stop(self._process)
            self._process = None

    def write_plan(self, operation: str, payload: Payload, count: int, connections: int) -> LoadPlan:
        """Return a plan with one file per body, for any operation."""
        del operation
        self._paths = [self._path() for _ in range(count)]
        head = (
            f" HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nContent-Length: {payload.body_bytes}\r\n"
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        return LoadPlan(
            port=self._port,
            connections=connections,
            heads=[f"{self.method} {path}{head}".encode() for path in self._paths],
            tails=[payload.suffix(index) for index in range(count)],
            base=payload.base,
        )

    def read_plan(self, payload: Payload, count: int, connections: int) -> LoadPlan:
        """Return a plan that reads the files of the last write plan."""
        paths = self._paths[:count]
        return LoadPlan(
            port=self._port,
            connections=connections,
            heads=[f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n\r\n".encode() for path in paths],
            tails=[payload.suffix(index) for index in range(len(paths))],
            answer_bytes=payload.body_bytes,
            repeat=True,
        )

    def forget(self) -> None:
        """Keep the files until the run is over: freed memory may go back to the host (`machine.page_cache`)."""

    def usage(self) -> Usage:
        """Return the usage of the processes of the server."""
        return usage(self._process.pid) if self._process else Usage(0.0, {})

    def _command(self, executable: str, directory: Path) -> list[str]:
        raise NotImplementedError

    def _path(self) -> str:
        raise NotImplementedError


class Nginx(_FileServer):
    """nginx as a file server: WebDAV PUT (a temporary file, then a rename), GET by sendfile."""

    name = "nginx"
    method = "PUT"

    def _command(self, executable: str, directory: Path) -> list[str]:
        user = "user root;" if os.geteuid() == 0 else ""
        configuration = directory / "nginx.conf"
        configuration.write_text(NGINX_CONFIGURATION.format(directory=directory, port=self._port, user=user))
        return [executable, "-c", str(configuration), "-p", str(directory), "-e", str(directory / "error.log")]

    def _path(self) -> str:
        name = secrets.token_hex(32)
        return f"/data/{name[:2]}/{name}"  # 256 folders, like rclone


class Rclone(_FileServer):
    """`rclone serve restic`: the storage server that restic users run, on a local folder."""

    name = "rclone"
    method = "POST"

    def _command(self, executable: str, directory: Path) -> list[str]:
        options = ["--local-no-check-updated", "--local-no-set-modtime", "--config", str(directory / "rclone.conf")]
        return [executable, "serve", "restic", "--addr", f"127.0.0.1:{self._port}", *options, str(self._stored)]

    def _path(self) -> str:
        return f"/data/{secrets.token_hex(32)}"
