"""The body of a request: its declared length, its limit, and its bytes.

Not here: memory for bodies (`requests.body_memory`), the pace of the sender (`exchange`), and the meaning of the bytes.
A body that breaks off is never returned.
"""

from __future__ import annotations

from cryostore.model.errors import ModelError, NotReadableInputStreamException, invalid_argument
from cryostore.server.http.exchange import Receive
from cryostore.wire.message import Request

BROKEN_OFF = "the request body broke off or came too slowly; send the request again"
ENCODED = "must be absent: the server takes a body without a content encoding"


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
