"""AWS Signature Version 4: `sign` and `presign` for clients, `verify` and `verify_payload` for servers.

This module has the canonical request, which is the text that both sides sign, signing keys, and the checks of
signature, date, scope and signed headers. Not here: how a request carries its signature (`signature`), secrets,
permissions.

The rules of this file:

- A request has one canonical form, made of the raw path and query. A path with `~` has a second one, for AWS.jl, which
  no other path has. A signature over anything else is refused.
- In the canonical form the path is encoded once more, except slashes. The query is decoded, encoded and sorted, so
  different encodings of one query have one signature. Superfluous spaces in header values are removed.
- `host`, the date and every `x-amz-*` header must be signed.
- Comparison takes constant time.
- A body is covered in one of three ways (`Signature.payload_hash`): by a hash that is sent, which `verify_payload`
  compares with the body; by UNSIGNED-PAYLOAD, where the operation allows it or the request is presigned; or by a hash
  that is signed without being sent, as botocore does. Then `verify` itself needs the body (`Signature.needs_body`),
  unless it finds that UNSIGNED-PAYLOAD was signed.
"""

from __future__ import annotations

import hmac
import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from urllib.parse import quote

from cryostore.core.digest import Payload, sha256
from cryostore.core.time import SECOND_MS
from cryostore.model.errors import InvalidSignatureException, invalid_argument
from cryostore.model.operation import Declaration
from cryostore.wire import scalar
from cryostore.wire.message import Headers, Request
from cryostore.wire.signature import (
    ALGORITHM,
    EMPTY_HASH,
    TERMINATOR,
    UNSIGNED_PAYLOAD,
    Signature,
    basic_text,
    read_signature,
)

__all__ = [
    "UNSIGNED_PAYLOAD",
    "Credentials",
    "Signature",
    "presign",
    "read_signature",
    "sign",
    "verify",
    "verify_payload",
]

SKEW_SECONDS = 15 * 60
NOT_SIGNED = frozenset(
    (
        *("authorization", "baggage", "connection", "expect", "keep-alive", "proxy-authenticate"),
        *("proxy-authorization", "te", "traceparent", "tracestate", "trailer", "transfer-encoding", "upgrade"),
        *("user-agent", "x-amzn-trace-id"),
    )
)
"""Headers that proxies may change: clients do not sign them."""
SPACES = re.compile("[ \t]+")
REPLACED = frozenset(("authorization", "x-amz-date", "x-amz-content-sha256", "x-amz-security-token"))


@dataclass(frozen=True, slots=True)
class Credentials:
    """An access key. Its repr hides the secret and the token."""

    access_key_id: str
    secret_access_key: str
    session_token: str | None = None

    def __repr__(self) -> str:
        return f"Credentials({self.access_key_id!r})"


# --- client ----------------------------------------------------------------------------------------------------------


def sign(
    request: Request,
    credentials: Credentials,
    *,
    region: str,
    service: str,
    now_ms: int,
    payload_hash: str | None = None,
    send_hash: bool = True,
) -> Request:
    """Return the request with a signature; an old signature is replaced, so a retry may sign again.

    `payload_hash` is the hex SHA-256 of the body or UNSIGNED-PAYLOAD; None computes it. Unless `send_hash` is false it
    is sent as a header, so that the server can refuse the request before it reads the body. The request must have a
    `host` header; without one, raises ValueError.
    """
    timestamp = basic_text(now_ms)
    payload_hash = payload_hash or (request.body or Payload()).sha256.hex()
    headers = [(name, value) for name, value in request.headers if name not in REPLACED]
    headers.append(("x-amz-date", timestamp))
    if send_hash:
        headers.append(("x-amz-content-sha256", payload_hash))
    if credentials.session_token:
        headers.append(("x-amz-security-token", credentials.session_token))
    names = _names_to_sign(headers)
    scope = f"{timestamp[:8]}/{region}/{service}/{TERMINATOR}"
    text = _request_text(request.method, _path_text(request.path), request.query, headers, names, payload_hash)
    signature = _calculate(credentials.secret_access_key, timestamp, scope, text)
    credential = f"Credential={credentials.access_key_id}/{scope}"
    authorization = f"{ALGORITHM} {credential}, SignedHeaders={';'.join(names)}, Signature={signature}"
    return replace(request, headers=[*headers, ("authorization", authorization)])


def presign(
    request: Request,
    credentials: Credentials,
    *,
    region: str,
    service: str,
    now_ms: int,
    expires_seconds: int = 3600,
    payload_hash: str | None = None,
) -> Request:
    """Return the request with a signature in its query, valid for `expires_seconds` from now.

    `payload_hash` None means an empty body. UNSIGNED-PAYLOAD or a hash goes into the query as X-Amz-Content-Sha256.
    """
    timestamp = basic_text(now_ms)
    names = _names_to_sign(request.headers)
    scope = f"{timestamp[:8]}/{region}/{service}/{TERMINATOR}"
    members = {
        "X-Amz-Algorithm": ALGORITHM,
        "X-Amz-Credential": f"{credentials.access_key_id}/{scope}",
        "X-Amz-Date": timestamp,
        "X-Amz-Expires": str(expires_seconds),
        "X-Amz-SignedHeaders": ";".join(names),
    }
    if credentials.session_token:
        members["X-Amz-Security-Token"] = credentials.session_token
    if payload_hash:
        members["X-Amz-Content-Sha256"] = payload_hash
    added = "&".join(f"{name}={scalar.percent_encode(value)}" for name, value in members.items())
    query = f"{request.query}&{added}" if request.query else added
    text = _request_text(
        request.method,
        _path_text(request.path),
        query,
        request.headers,
        names,
        payload_hash or EMPTY_HASH,
    )
    signature = _calculate(credentials.secret_access_key, timestamp, scope, text)
    return replace(request, query=f"{query}&X-Amz-Signature={signature}")


def _names_to_sign(headers: Headers) -> list[str]:
    names = sorted({name for name, _ in headers} - NOT_SIGNED)
    if "host" not in names:
        raise ValueError("cannot sign a request without a host header")
    return names


# --- server ----------------------------------------------------------------------------------------------------------


def verify(
    request: Request,
    signature: Signature,
    secret: str,
    *,
    now_ms: int,
    region: str | None = None,
    skew_seconds: int = SKEW_SECONDS,
    declaration: Declaration | None = None,
    body: Payload | None = None,
) -> str | None:
    """Check that the holder of `secret` signed this request now, for this service and region (None: any region).

    Returns the hash that the signature covers: 64 hex digits or UNSIGNED-PAYLOAD; None if that is not known yet, since
    `signature.needs_body` and `body` is not given. With `declaration`, also checks the service, and whether the
    operation may leave its payload unsigned. Raises InvalidSignatureException, which says what is wrong, and the API's
    error for a wrong argument if the signature is valid only without the path's empty and dot segments: the sender is
    genuine, but no such path is served.
    """
    _check_scope(signature, declaration, region)
    _check_time(signature, now_ms, skew_seconds * SECOND_MS)
    _check_signed_headers(request, signature)
    query = _without_signature(request.query) if signature.presigned else request.query
    if covered := _covered(request, signature, secret, request.path, query, declaration, body):
        return covered
    normalised = _normalised_path(request.path)
    if normalised != request.path and _covered(request, signature, secret, normalised, query, declaration, body):
        raise invalid_argument(signature.service, "the path", request.path, "must not have empty or dot segments")
    if signature.needs_body and body is None:
        return None
    raise InvalidSignatureException(
        "the signature does not match: check the secret access key, and that nothing on the way changes method, path, "
        "query or signed headers"
    )


def verify_payload(signature: Signature, declaration: Declaration, body: Payload) -> None:
    """Check the body against the signed hash; call it after `verify` and before the body is used.

    Raises InvalidSignatureException.
    """
    _check_unsigned(signature, declaration)
    if signature.payload_hash in (None, UNSIGNED_PAYLOAD):
        return  # if None, `verify` has compared it already
    assert signature.payload_hash is not None
    if not hmac.compare_digest(signature.payload_hash.lower(), body.sha256.hex()):
        raise InvalidSignatureException("the body does not have the SHA-256 that was signed (x-amz-content-sha256)")


def _check_scope(signature: Signature, declaration: Declaration | None, region: str | None) -> None:
    if declaration is not None:
        if signature.service != declaration.api.value:
            raise InvalidSignatureException(
                f"the credential scope's service must be {declaration.api.value}, not {signature.service!a}"
            )
        _check_unsigned(signature, declaration)
    if region is not None and signature.region != region:
        raise InvalidSignatureException(f"the credential scope's region must be {region}, not {signature.region!a}")


def _check_unsigned(signature: Signature, declaration: Declaration) -> None:
    allowed = declaration.unsigned_payload or signature.presigned
    if signature.payload_hash == UNSIGNED_PAYLOAD and not allowed:
        raise InvalidSignatureException(f"the payload of {declaration.name} must be signed")


def _check_time(signature: Signature, now_ms: int, skew_ms: int) -> None:
    # Clients search the message for these words, and then sign again.
    early = signature.signed_at_ms - now_ms > skew_ms
    expires_seconds = signature.expires_seconds
    valid_ms = skew_ms if expires_seconds is None else expires_seconds * SECOND_MS
    if early or now_ms - signature.signed_at_ms > valid_ms:
        raise InvalidSignatureException(
            f"Signature {'not yet current' if early else 'expired'}: signed at {signature.timestamp}, "
            f"the server's time is {basic_text(now_ms)}"
        )


def _check_signed_headers(request: Request, signature: Signature) -> None:
    signed = signature.signed_headers
    if "host" not in signed:
        raise InvalidSignatureException("the header host must be signed")
    present = {name for name, _ in request.headers}
    for name in present:
        if name.startswith("x-amz-") and name not in signed:
            raise InvalidSignatureException(f"the header {name} must be signed")
    if not signature.presigned and "x-amz-date" not in present and "date" not in signed:
        raise InvalidSignatureException("the header date must be signed")
    for name in signed:
        if name not in present:
            raise InvalidSignatureException(f"the signed header {name!a} is not in the request")


def _covered(
    request: Request,
    signature: Signature,
    secret: str,
    path: str,
    query: str,
    declaration: Declaration | None,
    body: Payload | None,
) -> str | None:
    """Return the payload hash for which the signature is valid; None if there is none."""
    hashes = _payload_hashes(signature, declaration, body)
    for payload_hash, spelling in itertools.product(hashes, _path_spellings(path)):
        text = _request_text(request.method, spelling, query, request.headers, signature.signed_headers, payload_hash)
        if hmac.compare_digest(_calculate(secret, signature.timestamp, signature.scope, text), signature.signature):
            return payload_hash
    return None


def _payload_hashes(signature: Signature, declaration: Declaration | None, body: Payload | None) -> list[str]:
    """Return the payload hashes that the canonical request may contain: the one that was sent, else all others."""
    if signature.payload_hash is not None:
        return [signature.payload_hash]
    hashes = [UNSIGNED_PAYLOAD] if declaration is not None and declaration.unsigned_payload else []
    if body is not None:
        hashes.append(body.sha256.hex())
    return hashes


def _without_signature(query: str) -> str:
    return "&".join(pair for pair in query.split("&") if not pair.startswith("X-Amz-Signature="))


def _calculate(secret: str, timestamp: str, scope: str, text: bytes) -> str:
    date, region, service, _ = scope.split("/")
    to_sign = f"{ALGORITHM}\n{timestamp}\n{scope}\n{sha256(text).hex()}"
    return hmac.digest(_signing_key(secret, date, region, service), to_sign.encode(), "sha256").hex()


@lru_cache(maxsize=1024)
def _signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (date, region, service, TERMINATOR):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


# --- canonical request -----------------------------------------------------------------------------------------------


def _request_text(
    method: str, path: str, query: str, headers: Headers, signed_headers: Iterable[str], payload_hash: str
) -> bytes:
    """Return the canonical request, as the bytes to hash; `path` is canonical already.

    Raises KeyError for a signed header that is absent.
    """
    names = tuple(signed_headers)
    values = _header_values(headers, names)
    lines = "".join([f"{name}:{values[name]}\n" for name in names])
    text = f"{method}\n{path}\n{_query_text(query)}\n{lines}\n{';'.join(names)}\n{payload_hash}"
    return text.encode("latin-1")


def _path_text(path: str) -> str:
    """Return the raw path, encoded once more."""
    return quote(path.encode("latin-1", "replace"), safe="/-_.~")


def _path_spellings(path: str) -> list[str]:
    """Return the raw path, encoded once more: as in the specification and, if it differs, as AWS.jl does.

    AWS.jl encodes `~` too. No two paths share a spelling: `%7E` in a raw path becomes `%257E`.
    """
    text = _path_text(path)
    return [text, text.replace("~", "%7E")] if "~" in text else [text]


def _query_text(query: str) -> str:
    """Return the query, canonical and sorted."""
    if not query:
        return ""
    pairs = []
    for pair in query.split("&"):
        key, _, value = pair.partition("=")
        pairs.append((scalar.canonical_encoding(key), scalar.canonical_encoding(value)))
    pairs.sort()
    return "&".join([f"{key}={value}" for key, value in pairs])


def _header_values(headers: Headers, names: Iterable[str]) -> dict[str, str]:
    """Return the values of the named headers without superfluous spaces; a repeated header's are joined by commas."""
    wanted = set(names)
    found: dict[str, str] = {}
    for name, value in headers:
        if name in wanted:
            # Only ASCII spaces: Python treats some Latin-1 bytes as spaces that are part of UTF-8 characters.
            bare = " ".join(value.split()) if value.isascii() else SPACES.sub(" ", value.strip(" \t"))
            found[name] = f"{found[name]},{bare}" if name in found else bare
    return found


def _normalised_path(path: str) -> str:
    """Return the path without empty and dot segments, as some signers do (A.4). Not a path to serve."""
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment and segment != ".":
            kept.append(segment)
    return "/" + "/".join(kept) + ("/" if kept and path.endswith("/") else "")
