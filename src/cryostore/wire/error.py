"""The API's errors in responses: encoding and decoding (Backup Storage A.3, control plane 2.2).

All clients understand this one form: the name of the error in the header `x-amzn-ErrorType`, in `Code` and in `__type`,
the message under both spellings, and Content-Type exactly `application/json`. The three names are always equal, because
each SDK reads another one first.
"""

from __future__ import annotations

import inspect
from typing import Any

import msgspec

from cryostore.core.digest import Payload
from cryostore.model.errors import ERRORS, ModelError
from cryostore.model.operation import Api
from cryostore.wire.message import Response

JSON = "application/json"
DOCUMENT_BYTES_MAX = 1024 * 1024
"""The largest error that is decoded: decoded, it takes many times as much memory."""
MESSAGE_CHARACTERS_MAX = 4096


def member_names(kind: type[ModelError]) -> dict[str, str]:
    """Return the modelled members of an error except its message: wire name to attribute."""
    attributes = inspect.signature(kind).parameters.keys() - {"message", "hint"}
    return {"".join(word.title() for word in one.split("_")): one for one in sorted(attributes)}


MEMBERS = {kind: member_names(kind) for kind in ERRORS.values()}


class UnmodelledError(ModelError):
    """An error with a name that no model has, for example of a proxy. `code` is that name, or else the status."""

    def __init__(self, message: str, *, code: str, status: int) -> None:
        super().__init__(message)
        self.code = code
        self.status_received = status


def encode(error: ModelError, api: Api | None, request_id: str) -> Response:
    """Encode an error as a response. `api` is None if the request named no operation."""
    name = type(error).__name__
    status = error.status
    if api is Api.BACKUP and error.status_control is not None:
        status = error.status_control
    document = {"__type": name, "Code": name, "Message": error.message, "message": error.message, **error.members()}
    headers = [("content-type", JSON), ("x-amzn-errortype", name), ("x-amzn-requestid", request_id)]
    return Response(status, headers, Payload(msgspec.json.encode(_encodable(document))))


def decode(response: Response) -> ModelError:
    """Decode the error of a response: the modelled class if there is one, otherwise an `UnmodelledError`."""
    document = _document(response)
    name = _name(response.header("x-amzn-errortype")) or _name(document.get("Code")) or _name(document.get("__type"))
    message = document.get("Message") or document.get("message") or f"the server answered {response.status}"
    known = ERRORS.get(name)
    if known is None:
        return UnmodelledError(_short(message), code=name or str(response.status), status=response.status)
    members = {attribute: document[key] for key, attribute in MEMBERS[known].items() if key in document}
    return known(_short(message), **members)


def _short(message: object) -> str:
    return str(message)[:MESSAGE_CHARACTERS_MAX]


def _document(response: Response) -> dict[str, Any]:
    if len(response.body) > DOCUMENT_BYTES_MAX:
        return {}
    try:
        document = msgspec.json.decode(response.body.data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _name(text: object) -> str:
    """Return the bare error name: AWS may put a namespace before it (`a#Name`) or a URL after it (`Name:http`)."""
    return text.partition(":")[0].rpartition("#")[2].strip() if isinstance(text, str) else ""


def _encodable(document: dict[str, Any]) -> dict[str, Any]:
    # A message may quote input of a client; a lone surrogate in it must not make the encoding of the error fail.
    return {
        key: value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
        for key, value in document.items()
    }
