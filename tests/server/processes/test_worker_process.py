"""A worker process and its line to the supervisor."""

from __future__ import annotations

import socket
import subprocess
import sys

import msgspec

from cryostore.options.configuration import Configuration, to_json
from cryostore.server.processes.worker_process import StartReport
from support.processes.fake_process import environment, wait_for
from support.requests.raw_http import put_object, to_bytes

END_SECONDS_MAX = 20


class ChildWorker:
    """A worker process with a listening socket, started as the supervisor starts it."""

    def __init__(self, data_dir, **settings):
        configuration = Configuration(data_dir=data_dir, port=0, **settings)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.address = listener.getsockname()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "support.processes.fake_server", "worker", str(listener.fileno())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=(listener.fileno(),),
                env=environment(),
            )
        self.tell(to_json(configuration) + b"\n")

    def tell(self, line):
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def report(self):
        return msgspec.json.decode(self.process.stdout.readline(), type=StartReport)

    def end(self):
        return self.process.wait(END_SECONDS_MAX)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def test_a_worker_reports_that_it_is_ready_and_stops_on_request(tmp_path):
    with ChildWorker(tmp_path) as child:
        assert child.report() == StartReport(ready=True)
        child.tell(b"stop\n")
        child.tell(b"stop\n")
        assert child.end() == 0
        assert (tmp_path / "closed").exists()


def test_a_worker_whose_supervisor_is_gone_exits_at_once(tmp_path):
    with ChildWorker(tmp_path) as child, socket.socket() as busy:
        child.report()
        busy.connect(child.address)
        busy.sendall(to_bytes(put_object("slow", b"abc")))
        wait_for((tmp_path / "slow").exists)
        child.process.stdin.close()
        assert child.end() == 1
        assert not (tmp_path / "closed").exists()


def test_a_worker_that_cannot_open_its_backend_reports_why(tmp_path):
    with ChildWorker(tmp_path / "missing") as child:
        assert child.report() == StartReport(
            ready=False, message=f"{tmp_path}/missing is no directory", hint="make one"
        )
        assert child.end() == 2
