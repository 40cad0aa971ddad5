"""The body of a request: its declared length, its limit, its bytes, and the memory for them.

A body that breaks off is never returned. `BodyBudget` and `UnverifiedBodies` limit how many bytes of bodies one worker
holds at once.

`BodyBudget` is for senders whose signature is verified before the body. First come, first served: small bodies cannot
overtake a large one for ever. Waiting is bounded, and a waiting request holds nothing, so waiting cannot deadlock.

`UnverifiedBodies` is for bodies whose signature can be verified only once the body is complete. An access key id is no
secret, so such a body may come from anybody. Its memory grows with the bytes received, never ahead of them by more than
as much again. All such bodies share a small budget apart from the one for known senders, and the senders at one address
have a part of it. A sender has a short time, and more only for bytes that it has sent. When the budget is used up,
senders wait, except the first one: it gets the memory that it needs, so no two senders wait for each other.

Both belong to one event loop and are not thread safe. Not here: how signatures work (`wire.sigv4`), the pace of a known
sender (`http.exchange`), and the meaning of the bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

from cryostore.core.limits import KIB, MIB
from cryostore.model.errors import ModelError, NotReadableInputStreamException, ThrottlingException, invalid_argument
from cryostore.options.configuration import Configuration
from cryostore.server.http.exchange import Receive
from cryostore.wire.message import Request

BROKEN_OFF = "the request body broke off or came too slowly; send the request again"
ENCODED = "must be absent: the server takes a body without a content encoding"
STEP_BYTES_MIN = 16 * KIB
STEP_BYTES_MAX = 1 * MIB
SHARES = 2
"""The senders at one address share this fraction of the budget: one part of so many."""
NETWORK_BITS = 64
"""The prefix length of an IPv6 network that counts as one address: what one site is usually given."""
TOO_SLOW = "the body of an unverified sender came too slowly; send its hash as x-amz-content-sha256, or send it faster"


def declared_bytes(request: Request, signing_name: str) -> int | None:
    """Return the length that the request declares: Content-Length, 0 without one, None if the body is chunked.

    Raises the API's error for a wrong argument for any other framing, and for a content encoding.
    """
    headers = dict(request.headers)
    encoding = headers.get("content-encoding")
    if encoding is not None and encoding.strip().lower() not in ("", "identity"):
        raise invalid_argument(signing_name, "Content-Encoding", encoding, ENCODED)
    signed = headers.get("x-amz-content-sha256", "")
    if signed.startswith("STREAMING-"):
        raise invalid_argument(signing_name, "x-amz-content-sha256", signed, "must not be a streaming form")
    transfer = headers.get("transfer-encoding")
    if transfer is not None:
        if transfer.strip().lower() != "chunked":
            raise invalid_argument(signing_name, "Transfer-Encoding", transfer, "must be chunked")
        return None
    return int(headers.get("content-length", 0))


def too_long(signing_name: str, bytes_max: int) -> ModelError:
    """Return the API's error for a body longer than its limit."""
    return invalid_argument(signing_name, "the body", None, f"must be at most {bytes_max} bytes long")


async def read(receive: Receive, signing_name: str, bytes_max: int) -> bytes | bytearray:
    """Return the whole body.

    Raises NotReadableInputStreamException if it breaks off, and the API's error for a wrong argument as soon as it is
    longer than `bytes_max`.
    """
    whole: bytes | bytearray = b""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise NotReadableInputStreamException(BROKEN_OFF)
        piece, more = message.get("body", b""), message.get("more_body", False)
        if len(whole) + len(piece) > bytes_max:
            raise too_long(signing_name, bytes_max)
        if not whole:
            whole = piece  # most bodies come in one piece: it is not copied
        else:
            if not isinstance(whole, bytearray):
                whole = bytearray(whole)
            whole += piece
    return whole


class BodyBudget:
    """A budget of `bytes_max` bytes. A request for more than the whole budget gets the whole budget."""

    def __init__(self, bytes_max: int, *, wait_seconds_max: float) -> None:
        self.bytes_max = bytes_max
        self.free_bytes = bytes_max
        self._wait_seconds_max = wait_seconds_max
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def acquire(self, wanted_bytes: int) -> int:
        """Wait for a turn and take the bytes; returns how many to give back with `release`.

        Raises ThrottlingException if the turn does not come in time.
        """
        granted = min(wanted_bytes, self.bytes_max)
        if self._waiting or self.free_bytes < granted:
            await self._wait(granted)
        else:
            self.free_bytes -= granted
        return granted

    def take(self, more_bytes: int) -> None:
        """Count bytes that are in memory already, without waiting and beyond the budget if need be.

        Later requests wait longer for it.
        """
        self.free_bytes -= more_bytes

    def release(self, granted_bytes: int) -> None:
        """Give bytes back, and grant them to the requests next in line."""
        self.free_bytes += granted_bytes
        self._grant()

    async def _wait(self, granted: int) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (granted, turn)
        self._waiting.append(entry)
        try:
            async with asyncio.timeout(self._wait_seconds_max):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.release(granted)  # the turn came at the moment when the wait ended
            else:
                with contextlib.suppress(ValueError):  # a release meanwhile has dropped it already
                    self._waiting.remove(entry)
                self._grant()  # smaller requests behind this one may fit
            if isinstance(error, TimeoutError):
                raise ThrottlingException("too many bytes are being received at once; retry later") from None
            raise

    def _grant(self) -> None:
        while self._waiting and self._waiting[0][0] <= self.free_bytes:
            granted, turn = self._waiting.popleft()
            if turn.cancelled():
                continue
            self.free_bytes -= granted
            turn.set_result(None)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeLimit:
    """How long a sender may take: `seconds_max`, and longer for the bytes that it has sent."""

    seconds_max: float = 10.0
    bytes_per_second_min: int = 512 * KIB

    def seconds(self, received_bytes: int) -> float:
        """Return how long the sender may take in all for so many bytes."""
        return self.seconds_max + received_bytes / self.bytes_per_second_min


class UnverifiedBodies:
    """A budget of `bytes_max` bytes for the bodies of unverified senders. The first body in line may exceed it."""

    def __init__(
        self, bytes_max: int = 64 * MIB, *, wait_seconds_max: float = 20.0, time_limit: TimeLimit = TimeLimit()
    ) -> None:
        self.bytes_max = bytes_max
        self.held_bytes = 0
        self._wait_seconds_max = wait_seconds_max
        self._time_limit = time_limit
        self._reservations: dict[Reservation, None] = {}  # oldest first
        self._by_address: Counter[str] = Counter()

    @classmethod
    def of(cls, configuration: Configuration) -> UnverifiedBodies:
        """Create the budget that a configuration asks for."""
        time_limit = TimeLimit(
            seconds_max=configuration.connection.unverified_seconds_max,
            bytes_per_second_min=configuration.connection.unverified_bytes_per_second_min,
        )
        wait_seconds_max = configuration.body_wait_seconds_max
        return cls(configuration.unverified_body_bytes_max, wait_seconds_max=wait_seconds_max, time_limit=time_limit)

    def reserve(self, client: Any) -> Reservation:
        """Start a reservation for a client, given as asyncio's peer name. The caller releases it."""
        reservation = Reservation(self, sender_group(client), self._time_limit)
        self._reservations[reservation] = None
        return reservation

    async def grow(self, reservation: Reservation, more_bytes: int) -> None:
        """Take more memory for a reservation, after waiting if need be. Raises ThrottlingException."""
        if not self._may_grow(reservation, more_bytes):
            reservation.wanted_bytes, reservation.turn = more_bytes, asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(self._wait_seconds_max):
                    await reservation.turn
            except TimeoutError:
                raise ThrottlingException("too many unverified bytes are being received at once; retry later") from None
            finally:
                reservation.turn = None
        else:
            self._take(reservation, more_bytes)

    def release(self, reservation: Reservation) -> None:
        """Give back all memory of a reservation, and wake senders whose request now fits. May be repeated."""
        self._reservations.pop(reservation, None)
        self._take(reservation, -reservation.held_bytes)
        self._by_address += Counter()  # removes addresses with zero bytes
        for other in self._reservations:
            turn = other.turn
            if turn is not None and not turn.done() and self._may_grow(other, other.wanted_bytes):
                self._take(other, other.wanted_bytes)
                turn.set_result(None)

    def _may_grow(self, reservation: Reservation, more_bytes: int) -> bool:
        if reservation is next(iter(self._reservations)):
            return True
        share = self._by_address[reservation.sender_group] + more_bytes <= self.bytes_max // SHARES
        return share and self.held_bytes + more_bytes <= self.bytes_max

    def _take(self, reservation: Reservation, more_bytes: int) -> None:
        reservation.held_bytes += more_bytes
        self.held_bytes += more_bytes
        self._by_address[reservation.sender_group] += more_bytes


class Reservation:
    """The memory that one body has of the budget."""

    def __init__(self, budget: UnverifiedBodies, sender_group: str, time_limit: TimeLimit) -> None:
        self.sender_group = sender_group
        self.held_bytes = 0
        self.wanted_bytes = 0
        self.turn: asyncio.Future[None] | None = None
        self._budget = budget
        self._time_limit = time_limit

    async def read(
        self, receive: Receive, signing_name: str, bytes_max: int, declared: int | None
    ) -> bytes | bytearray:
        """Return the whole body. Raises the errors of the function `read`, and ThrottlingException."""
        longest = bytes_max if declared is None else declared
        received = 0
        spent_seconds = 0.0
        now = asyncio.get_running_loop().time

        async def next_piece() -> dict[str, Any]:
            nonlocal received, spent_seconds
            step = min(max(received, STEP_BYTES_MIN), STEP_BYTES_MAX)
            if (more := min(received + step, longest) - self.held_bytes) > 0:
                await self._budget.grow(self, more)
            began = now()
            try:
                async with asyncio.timeout(self._time_limit.seconds(received) - spent_seconds):
                    message = await receive()
            except TimeoutError:
                raise NotReadableInputStreamException(TOO_SLOW) from None
            spent_seconds += now() - began
            received += len(message.get("body", b""))
            if (more := received - self.held_bytes) > 0:
                await self._budget.grow(self, more)
            return message

        return await read(next_piece, signing_name, bytes_max)

    def release(self) -> None:
        """Give back all memory. May be repeated."""
        self._budget.release(self)


def sender_group(client: Any) -> str:
    """Return the address of a client; for IPv6, its network, since one site has many addresses."""
    host = str(client[0]) if client else ""
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(host.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
            return str(ipaddress.ip_network((int(address), NETWORK_BITS), strict=False))
    return host
