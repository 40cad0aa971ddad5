"""Pages and time filters of control-plane lists (control plane 2.3).

A page token fits only the list, and the filters, that it came from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec

from cryostore.core.time import milliseconds
from cryostore.model.errors import InvalidParameterValueException
from cryostore.model.operation import Operation
from cryostore.service.context import Context

ITEMS_DEFAULT = 100
Item = TypeVar("Item")


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
