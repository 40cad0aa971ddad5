"""The signature that a request carries: in the Authorization header, or in the query (presigned).

Checks its form only; `sigv4.verify` checks whether it is valid. The time of signing is ISO 8601 basic or an HTTP date.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache

from cryostore.core.time import SECOND_MS
from cryostore.model.errors import (
    IncompleteSignatureException,
    InvalidSignatureException,
    MissingAuthenticationTokenException,
    UnrecognizedClientException,
)
from cryostore.wire import scalar
from cryostore.wire.message import Request

ALGORITHM = "AWS4-HMAC-SHA256"
TERMINATOR = "aws4_request"
UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"
EMPTY_HASH = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
EXPIRES_SECONDS_MAX = 7 * 24 * 3600
SIGNATURE = re.compile(r"[0-9a-f]{64}", re.ASCII)
HASH = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
EXPIRES = re.compile(r"[0-9]{1,6}", re.ASCII)
QUERY_NAMES = ("X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-SignedHeaders", "X-Amz-Signature")
QUERY_OPTIONS = ("X-Amz-Expires", "X-Amz-Security-Token", "X-Amz-Content-Sha256")
SESSION_TOKENS = "session tokens are not supported: use an access key without one"
BASIC_PATTERN = re.compile(r"\d{8}T\d{6}Z", re.ASCII)
BASIC_FORMAT = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True, slots=True)
class Signature:
    """The well-formed signature of a request, not verified yet."""

    access_key_id: str
    region: str
    service: str
    timestamp: str
    """The time of signing as it was signed: ISO 8601 basic."""
    signed_at_ms: int
    signed_headers: tuple[str, ...]
    signature: str
    payload_hash: str | None
    """64 hex digits or UNSIGNED-PAYLOAD; None if the hash was signed but not sent."""
    expires_seconds: int | None = None
    """How long a presigned request is valid; None if it is not presigned."""

    @property
    def presigned(self) -> bool:
        """Whether the signature is in the query."""
        return self.expires_seconds is not None

    @property
    def scope(self) -> str:
        """The credential scope: date, region, service and terminator."""
        return f"{self.timestamp[:8]}/{self.region}/{self.service}/{TERMINATOR}"

    @property
    def needs_body(self) -> bool:
        """Whether `sigv4.verify` needs the body."""
        return self.payload_hash is None


def read_signature(request: Request) -> Signature:
    """Return the signature that a request carries.

    Raises MissingAuthenticationTokenException if there is none, IncompleteSignatureException if it is malformed,
    InvalidSignatureException for a form of signing that this server does not support, and UnrecognizedClientException
    for a session token.
    """
    headers = request.headers_named("authorization")
    presigned = "X-Amz-" in request.query and _query_members(request.query)
    if headers and presigned:
        raise IncompleteSignatureException("a request is signed in its header or in its query, not in both")
    if len(headers) > 1:
        raise IncompleteSignatureException("a request has one Authorization header")
    if headers:
        return _from_header(request, headers[0])
    if presigned:
        return _from_query(request, presigned)
    raise MissingAuthenticationTokenException("Missing Authentication Token: the request is not signed")


def _from_header(request: Request, text: str) -> Signature:
    algorithm, _, rest = text.strip().partition(" ")
    _check_algorithm(algorithm)
    parts: dict[str, str] = {}
    for part in rest.split(","):
        name, _, value = part.strip().partition("=")
        if name in parts:
            raise IncompleteSignatureException(f"the Authorization header has two {name!a}")
        parts[name] = value
    for name in ("Credential", "SignedHeaders", "Signature"):
        if not parts.get(name):
            raise IncompleteSignatureException(f"the Authorization header has no {name}")
    if request.header("x-amz-security-token") is not None:
        raise UnrecognizedClientException(SESSION_TOKENS)
    timestamp, signed_at_ms = _header_time(request)
    return _signature(
        parts["Credential"],
        timestamp,
        signed_at_ms,
        parts["SignedHeaders"],
        parts["Signature"],
        payload_hash=_header_hash(request),
    )


def _from_query(request: Request, members: dict[str, str]) -> Signature:
    for name in QUERY_NAMES:
        if not members.get(name):
            raise IncompleteSignatureException(f"the query has no {name}")
    _check_algorithm(members["X-Amz-Algorithm"])
    if "X-Amz-Security-Token" in members or request.header("x-amz-security-token") is not None:
        raise UnrecognizedClientException(SESSION_TOKENS)
    expires = members.get("X-Amz-Expires", "")
    if not EXPIRES.fullmatch(expires) or not 1 <= int(expires) <= EXPIRES_SECONDS_MAX:
        raise IncompleteSignatureException(f"X-Amz-Expires must be between 1 and {EXPIRES_SECONDS_MAX} seconds")
    payload_hash = members.get("X-Amz-Content-Sha256") or _header_hash(request) or EMPTY_HASH
    _check_hash(payload_hash)
    return _signature(
        members["X-Amz-Credential"],
        members["X-Amz-Date"],
        _parse_time("X-Amz-Date", members["X-Amz-Date"]),
        members["X-Amz-SignedHeaders"],
        members["X-Amz-Signature"],
        payload_hash=payload_hash,
        expires_seconds=int(expires),
    )


def _signature(
    credential: str,
    timestamp: str,
    signed_at_ms: int,
    signed_headers: str,
    signature: str,
    *,
    payload_hash: str | None,
    expires_seconds: int | None = None,
) -> Signature:
    parts = credential.rsplit("/", 4)
    if len(parts) != 5 or not all(parts):
        raise IncompleteSignatureException("a credential is ACCESS-KEY/DATE/REGION/SERVICE/aws4_request")
    access_key_id, date, region, service, terminator = parts
    if terminator != TERMINATOR:
        raise InvalidSignatureException(f"the credential scope must end with {TERMINATOR}, not {terminator!a}")
    if date != timestamp[:8]:
        raise InvalidSignatureException(f"the credential scope's date {date!a} is not the request's {timestamp[:8]}")
    names = tuple(signed_headers.split(";"))
    if signed_headers != signed_headers.lower() or list(names) != sorted(set(names)) or not names[0]:
        raise IncompleteSignatureException("SignedHeaders must be lower case, sorted and without repetition")
    if not SIGNATURE.fullmatch(signature):
        raise IncompleteSignatureException("the signature must be 64 lower-case hex digits")
    return Signature(
        access_key_id, region, service, timestamp, signed_at_ms, names, signature, payload_hash, expires_seconds
    )


def _check_algorithm(algorithm: str) -> None:
    if algorithm != ALGORITHM:
        raise IncompleteSignatureException(f"the algorithm must be {ALGORITHM}, not {algorithm[:40]!a}")


def _header_time(request: Request) -> tuple[str, int]:
    """Return the time of signing from `x-amz-date`, else `date`: as it was signed, and in milliseconds."""
    text = _single(request, "x-amz-date")
    if text is not None:
        return text, _parse_time("x-amz-date", text)
    date = _single(request, "date")
    if date is None:
        raise IncompleteSignatureException("the request has neither an x-amz-date nor a date header")
    try:
        milliseconds = date_header_ms(date)
    except ValueError as error:
        raise IncompleteSignatureException(f"the header date {error}") from None
    return basic_text(milliseconds), milliseconds


def _parse_time(where: str, text: str) -> int:
    try:
        return parse_basic(text)
    except ValueError as error:
        raise IncompleteSignatureException(f"{where} {error}") from None


def _header_hash(request: Request) -> str | None:
    text = _single(request, "x-amz-content-sha256")
    if text is not None:
        _check_hash(text)
    return text


def _check_hash(text: str) -> None:
    if text.startswith("STREAMING-"):
        raise InvalidSignatureException("payloads signed in pieces (aws-chunked) are not supported")
    if text != UNSIGNED_PAYLOAD and not HASH.fullmatch(text):
        raise IncompleteSignatureException(f"x-amz-content-sha256 must be 64 hex digits or {UNSIGNED_PAYLOAD}")


def _single(request: Request, name: str) -> str | None:
    values = request.headers_named(name)
    if len(values) > 1:
        raise IncompleteSignatureException(f"a request has one {name} header")
    return values[0].strip() if values else None


def _query_members(query: str) -> dict[str, str]:
    members: dict[str, str] = {}
    for pair in query.split("&"):
        key, _, value = pair.partition("=")
        if key in QUERY_NAMES or key in QUERY_OPTIONS:
            if key in members:
                raise IncompleteSignatureException(f"the query has two {key}")
            try:
                members[key] = scalar.percent_decode(value)
            except ValueError as error:
                raise IncompleteSignatureException(f"{key} {error}") from None
    return members


@lru_cache(maxsize=64)
def parse_basic(text: str) -> int:
    """Parse a text such as 20250304T050607Z to milliseconds. Raises ValueError, which names the rule."""
    if not BASIC_PATTERN.fullmatch(text):
        raise ValueError("must have the form 20250304T050607Z")
    year, month, day = int(text[:4]), int(text[4:6]), int(text[6:8])
    hour, minute, second = int(text[9:11]), int(text[11:13]), int(text[13:15])
    return int(datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()) * SECOND_MS


@lru_cache(maxsize=64)
def basic_text(milliseconds: int) -> str:
    """Format milliseconds as ISO 8601 basic, to the second."""
    return datetime.fromtimestamp(milliseconds // SECOND_MS, UTC).strftime(BASIC_FORMAT)


def date_header_ms(text: str) -> int:
    """Parse a Date header, an HTTP date or ISO 8601 basic, to milliseconds. Raises ValueError, which names the rule."""
    if BASIC_PATTERN.fullmatch(text):
        return parse_basic(text)
    try:
        moment = parsedate_to_datetime(text)
        return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()) * SECOND_MS
    except (ValueError, TypeError, IndexError, OverflowError):
        raise ValueError("must be an HTTP date or have the form 20250304T050607Z") from None
