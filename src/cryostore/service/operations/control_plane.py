"""What control-plane requests share: pages and time filters of lists, maps of strings, and idempotency.

- A page token fits only the list, and the filters, that it came from (control plane 2.3).
- Maps of strings that callers send have a limit of their size; the catalog keeps them as JSON.
- A request that starts a job with a repeated idempotency token gets the answer of the first request.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec

from cryostore.catalog.database import Transaction
from cryostore.catalog.rows import idempotency
from cryostore.core.time import milliseconds
from cryostore.model.errors import InvalidParameterValueException, ModelError
from cryostore.model.jobs import StartBackupJob
from cryostore.model.operation import Operation
from cryostore.model.restore_jobs import StartRestoreJob
from cryostore.service.context import Context

ITEMS_DEFAULT = 100
Item = TypeVar("Item")
Started = TypeVar("Started")


class Page(NamedTuple):
    """The requested page: at most `limit` items after `after`."""

    owner: str
    after: Any
    limit: int


def requested_page(context: Context, operation: Operation[Any]) -> Page:
    """Read MaxResults and NextToken. Raises InvalidParameterValueException for a token of another list."""
    arguments = msgspec.structs.asdict(operation)
    token, limit = arguments.pop("next_token"), arguments.pop("max_results")
    filters = msgspec.json.encode({name: value for name, value in sorted(arguments.items()) if value is not None})
    owner = f"{type(operation).__name__} {hashlib.sha256(filters).hexdigest()}"
    after = None
    if token:
        content = context.tokens.open("page", owner, token)
        if content is None:
            raise InvalidParameterValueException("NextToken is not one that this list, with these filters, gave out")
        after = msgspec.json.decode(content)
    return Page(owner, after, limit or ITEMS_DEFAULT)


def cut_page(
    context: Context, page: Page, items: Sequence[Item], place: Callable[[Item], Any]
) -> tuple[Sequence[Item], str | None]:
    """The items of the page, and the token of the next page, if any. `items` may hold one item more than the limit."""
    if len(items) <= page.limit:
        return items, None
    kept = items[: page.limit]
    return kept, context.tokens.make("page", page.owner, msgspec.json.encode(place(kept[-1])))


def time_conditions(
    created_after: float | None,
    created_before: float | None,
    complete_after: float | None,
    complete_before: float | None,
) -> dict[str, tuple[str, int | None]]:
    """The SQL conditions of a list's time filters, by parameter name. Times are in seconds."""
    filters = {
        "created_after": ("created_ms >= :created_after", created_after),
        "created_before": ("created_ms < :created_before", created_before),
        "complete_after": ("completed_ms >= :complete_after", complete_after),
        "complete_before": ("completed_ms < :complete_before", complete_before),
    }
    return {name: (clause, None if value is None else milliseconds(value)) for name, (clause, value) in filters.items()}


def map_bytes(name: str, texts: Mapping[str, str], wrong: type[ModelError]) -> int:
    """Size of all keys and values in bytes of UTF-8. Raises `wrong`, without any value, for invalid Unicode."""
    try:
        return sum(len(key.encode()) + len(value.encode()) for key, value in texts.items())
    except UnicodeEncodeError:
        raise wrong(f"{name}: keys and values must be valid UTF-8") from None


def check_map(name: str, texts: Mapping[str, str], bytes_max: int, wrong: type[ModelError]) -> None:
    """Raise `wrong` if the map holds invalid Unicode, or over `bytes_max` bytes in keys and values together."""
    size = map_bytes(name, texts, wrong)
    if size > bytes_max:
        raise wrong(f"{name}: {size} bytes must be at most {bytes_max}")


def parse_map(text: str) -> dict[str, str]:
    """The map that the catalog keeps as this JSON."""
    return msgspec.json.decode(text, type=dict[str, str])


def find_repeated(
    context: Context,
    transaction: Transaction,
    operation: StartBackupJob | StartRestoreJob,
    answer: str,
    find: Callable[[str], Started | None],
) -> Started | None:
    """The job that an earlier request with this idempotency token started; None for a new token.

    A new token is recorded with `answer`, the id of the job that the caller starts. `find` looks up the job of an
    earlier answer; if that job is deleted, the token counts as new. Raises InvalidParameterValueException if the token
    was used with other arguments.
    """
    if (token := operation.idempotency_token) is None:
        return None
    now_ms = context.clock()
    digest = arguments_digest(operation, "idempotency_token")
    name = type(operation).__name__
    earlier = idempotency.find(transaction, name, token, since_ms=now_ms - context.settings.idempotency_ms)
    if earlier is not None and earlier.request_digest != digest:
        raise InvalidParameterValueException("IdempotencyToken: was used before with other parameters")
    started = find(earlier.answer) if earlier is not None else None
    if started is None:
        idempotency.insert(transaction, name, token, request_digest=digest, answer=answer, now_ms=now_ms)
    return started


def arguments_digest(operation: Operation[Any], *left_out: str) -> bytes:
    """A digest of an operation's arguments without those `left_out`, the same on any server."""
    arguments = {name: value for name, value in msgspec.structs.asdict(operation).items() if name not in left_out}
    return hashlib.sha256(msgspec.json.encode(arguments, order="deterministic")).digest()
