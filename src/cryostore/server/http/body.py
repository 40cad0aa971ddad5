"""The body of a request: how long it says it is, how long it may be, and its bytes.

Lives here: framing and bounds. Does not live here: the memory budget (`budget`), the sender's pace (`exchange`), and
what the bytes mean. A body that breaks off never gets past this file.
"""

from __future__ import annotations

from cryostore.model.errors import ModelError, NotReadableInputStreamException, invalid_argument
from cryostore.server.http.exchange import Receive
from cryostore.wire.message import Request

BROKEN_OFF = "the request body broke off or came too slowly; send the request again"
CODED = "must be absent: a body is sent as it is"


def declared_bytes(request: Request, signing_name: str) -> int | None:
    """How long the body is: from Content-Length, 0 without one, None if it is chunked.

    Raises the API's error for a wrong argument for any other framing, and for a body that is not sent as it is.
    """
    headers = dict(request.headers)
    coding = headers.get("content-encoding")
    if coding is not None and coding.strip().lower() not in ("", "identity"):
        raise invalid_argument(signing_name, "Content-Encoding", coding, CODED)
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
    """The API's error for a body longer than it may be."""
    return invalid_argument(signing_name, "the body", None, f"must be at most {bytes_max} bytes long")


async def read(receive: Receive, signing_name: str, bytes_max: int) -> bytes | bytearray:
    """The whole body.

    Raises NotReadableInputStreamException if it broke off, and the API's error for a wrong argument once it is longer
    than `bytes_max`.
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
            whole = piece  # nearly always all there is: not copied
        else:
            if not isinstance(whole, bytearray):
                whole = bytearray(whole)
            whole += piece
    return whole
