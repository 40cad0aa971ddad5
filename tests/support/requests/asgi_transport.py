"""A client transport that calls an ASGI application directly: all of HTTP except the socket."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from cryostore.core.digest import Payload
from cryostore.wire.message import Request, Response

ANSWER_SECONDS_MAX = 60


class AsgiTransport:
    """Runs the application in an event loop in its own thread. `send` may be called from any other thread."""

    def __init__(self, application: Any) -> None:
        self._application = application
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="asgi")
        self._thread.start()

    def send(self, request: Request) -> Response:
        """Return the response of the application, or raise its error."""
        return asyncio.run_coroutine_threadsafe(self._exchange(request), self._loop).result(ANSWER_SECONDS_MAX)

    def close(self) -> None:
        """Stop the event loop. May be called twice."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def _exchange(self, request: Request) -> Response:
        body = bytes(request.body.data) if request.body else b""
        headers = [*request.headers, ("content-length", str(len(body)))] if body else request.headers
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": "http",
            "path": request.path,
            "raw_path": request.path.encode("latin-1"),
            "query_string": request.query.encode("latin-1"),
            "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        received = [{"type": "http.request", "body": body, "more_body": False}]
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return received.pop(0) if received else {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self._application(scope, receive, send)
        start, *parts = sent
        answer_headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in start["headers"]]
        return Response(start["status"], answer_headers, Payload(b"".join(part.get("body", b"") for part in parts)))
