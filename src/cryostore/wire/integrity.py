"""Checksums of a request's body in its headers: Content-MD5 and x-amz-checksum-*.

A wrong checksum is refused, signed or not. On an unencrypted network, a body whose hash is not signed needs a signed
checksum: nothing else shows that the body was not altered.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import zlib
from collections.abc import Callable

from cryostore.core.digest import Buffer, Payload
from cryostore.model.errors import ModelError, invalid_argument
from cryostore.model.operation import Declaration
from cryostore.wire.message import Request
from cryostore.wire.request import Head
from cryostore.wire.signature import UNSIGNED_PAYLOAD, Signature

PREFIX = "x-amz-checksum-"
NO_CHECKSUMS = frozenset(f"{PREFIX}{name}" for name in ("algorithm", "mode", "type"))
ALGORITHMS: dict[str, Callable[[Payload], bytes]] = {
    "content-md5": lambda body: hashlib.md5(body.data, usedforsecurity=False).digest(),
    f"{PREFIX}crc32": lambda body: zlib.crc32(body.data).to_bytes(4, "big"),
    f"{PREFIX}sha1": lambda body: hashlib.sha1(body.data, usedforsecurity=False).digest(),
    f"{PREFIX}sha256": lambda body: body.sha256,
}
WHOLE = frozenset(("PutObject",))
"""Operations that store something even with an empty body."""
NOT_FORGEABLE = frozenset(ALGORITHMS) - {f"{PREFIX}crc32"}
"""Checksums that an attacker cannot reproduce for an altered body."""


def check_headers(request: Request, signing_name: str, body: Payload) -> None:
    """Check the body against each checksum in the headers. Raises the API's error for a wrong argument."""
    seen = set()
    for name, value in request.headers:
        if name == "x-amz-trailer":
            raise invalid_argument(signing_name, name, value, "is not supported: send the checksum in a header")
        if name != "content-md5" and (not name.startswith(PREFIX) or name in NO_CHECKSUMS):
            continue
        if name not in ALGORITHMS:
            known = ", ".join(sorted(ALGORITHMS))
            raise invalid_argument(signing_name, name, value, f"cannot be verified here: send one of {known}, or none")
        if name in seen:
            raise invalid_argument(signing_name, name, value, "must be given once")
        seen.add(name)
        found = ALGORITHMS[name](body)
        if _decoded(value) != found:
            rule = f"is not the checksum of the body, which is {base64.b64encode(found).decode()}"
            raise invalid_argument(signing_name, name, value, rule)


def require_integrity(request: Request, signature: Signature, covered: str, head: Head, body: Payload) -> None:
    """Refuse a body that may have been altered unnoticed; `covered` is the hash that was signed.

    The query is signed, the body is not. Raises the API's error for a wrong argument.
    """
    plan = head.plan
    if covered != UNSIGNED_PAYLOAD or plan.body is None:
        return
    if head.values.get(f"{plan.body_prefix}checksum") is not None:
        return
    if any(name in NOT_FORGEABLE and name in signature.signed_headers for name, _ in request.headers):
        return
    length = head.values.get(plan.body_length or "")
    if not len(body) and (length == 0 or (length is None and head.declaration.name not in WHOLE)):
        return
    raise _unprotected(head.declaration)


def _unprotected(declaration: Declaration) -> ModelError:
    rule = (
        "has neither a signed SHA-256 nor a checksum, and without TLS it may be altered on the way: sign its hash "
        "(x-amz-content-sha256), or give a checksum in the query, or sign Content-MD5 or x-amz-checksum-sha256"
    )
    return invalid_argument(declaration.api.value, "the body", None, rule)


def _decoded(text: str) -> Buffer | None:
    try:
        return binascii.a2b_base64(text.strip(), strict_mode=True)
    except ValueError:
        return None
