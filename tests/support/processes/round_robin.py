"""A load balancer without health checks: each new connection goes to the next node that accepts it."""

from __future__ import annotations

import itertools
import socket

from support.faults.tcp_proxy import TcpProxy


class RoundRobin(TcpProxy):
    """Passes connections on to the addresses that `places` returns, in turn; those that refuse are skipped.

    What is under way when a node dies is torn: nothing is asked again on a client's behalf.
    """

    def __init__(self, places):
        super().__init__("127.0.0.1", 0)
        self._places = places
        self._turns = itertools.count()

    @property
    def url(self):
        """Return the URL for clients."""
        return f"http://127.0.0.1:{self.port}"

    def dial(self):
        places = self._places()
        first = next(self._turns)
        for offset in range(len(places) - 1):
            try:
                return socket.create_connection(places[(first + offset) % len(places)])
            except OSError:
                continue
        return socket.create_connection(places[(first - 1) % len(places)])
