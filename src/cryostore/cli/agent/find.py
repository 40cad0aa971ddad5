"""`cryo find`: find files in recovery points."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from cryostore.cli import output
from cryostore.cli.agent_store import AgentStore, agent_store_options, open_agent_store
from cryostore.cli.exit_codes import EPILOGUE, OK, WITH_ISSUES
from cryostore.core.errors import CryostoreError

if TYPE_CHECKING:
    from cryostore.agent.archive.recovery_points import RecoveryPoint


@click.command("find", epilog=EPILOGUE)
@click.argument("pattern", metavar="PATTERN", type=click.Path(path_type=bytes))
@click.option("--point", default=None, metavar="POINT", help="Search only this recovery point, instead of all.")
@click.option("--vault", default=None, help="Search only this vault.")
@click.option("--resource", default=None, metavar="NAME", help="Search only the recovery points of this resource.")
@click.option("--newer", default=None, metavar="WHEN", help="Modified since: a date such as 2026-01-31, or 7d.")
@click.option("--larger", default=None, metavar="SIZE", help="Larger than this size: 500K, 20M, 1.5G.")
@click.option(
    "--type", "kind", default=None, type=click.Choice(list("fdlpbc")), help="File, directory, link, pipe, device."
)
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each entry.")
@agent_store_options
def command(
    pattern: bytes,
    point: str | None,
    vault: str | None,
    resource: str | None,
    newer: str | None,
    larger: str | None,
    kind: Any,
    as_json: bool,
    **place: Any,
) -> int:
    """Find the entries that match PATTERN: `*.conf` is a name in any folder, `/etc/*.conf` a path from the root.

    `*` matches any text, `?` one character, `[abc]` one of these characters. Recovery points that cannot be searched,
    because they hold no archive of `cryo backup`, are damaged, or need another key, are reported on stderr, and the
    exit code is 1; it is 2 if none could be searched.
    """
    from cryostore.agent.archive.entry_search import EntryCriteria, EntrySearch
    from cryostore.agent.archive.open_archive import open_archive
    from cryostore.agent.archive.recovery_points import find_point, list_points
    from cryostore.agent.errors import DAMAGE
    from cryostore.cli.quantities import size_bytes
    from cryostore.core.errors import KeyUnavailableError
    from cryostore.model.errors import ResourceNotFoundException

    larger_bytes = None if larger is None else size_bytes(larger)
    criteria = EntryCriteria(pattern=pattern, newer_ns=_newer_ns(newer), larger_bytes=larger_bytes, kind=kind)
    search = EntrySearch(criteria)
    searched = 0
    missed: dict[str, CryostoreError] = {}
    with open_agent_store(AgentStore(**place)) as call:
        points = [find_point(call, point, vault, resource)] if point else list_points(call, vault, resource)
        for each in output.while_read(points):
            try:
                with open_archive(call, each, "find") as archive:
                    _show_found(each, search.find(archive), as_json=as_json)
                searched += 1
            except (*DAMAGE, KeyUnavailableError, ResourceNotFoundException) as error:
                missed[each.recovery_point_arn or ""] = error
    return _report_missed(missed, searched, as_json=as_json)


def _report_missed(missed: dict[str, CryostoreError], searched: int, *, as_json: bool) -> int:
    """Report the points that could not be searched. Return the exit code; raise the first error if none could be."""
    if missed and not searched:
        raise next(iter(missed.values()))
    for arn, error in missed.items():
        fact = {"RecoveryPointArn": arn, "error": error.message} | ({"hint": error.hint} if error.hint else {})
        if as_json:
            output.tell_fact(fact)
        else:
            output.tell(f"{arn}: not searched: {error.message}")
    if not as_json:
        for hint in dict.fromkeys(error.hint for error in missed.values() if error.hint):
            output.tell(f"hint: {hint}")
    return WITH_ISSUES if missed else OK


def _show_found(point: RecoveryPoint, found: Any, *, as_json: bool) -> None:
    from cryostore.agent.errors import shown
    from cryostore.cli.agent.points import words
    from cryostore.cli.entry_facts import entry_facts, path_facts

    first = True
    for entry in output.while_read(found):
        if as_json:
            where = {"RecoveryPointArn": point.recovery_point_arn, "CreationDate": point.creation_date}
            output.say(where | path_facts(entry.path) | entry_facts(entry))
            continue
        if first:
            output.show(words(point))
        first = False
        output.show("  " + shown(entry.path) + ("/" if entry.row.is_directory else ""))


def _newer_ns(text: str | None) -> int | None:
    from cryostore.core.errors import ConfigurationError
    from cryostore.core.quantities import parse_duration
    from cryostore.core.time import parse_timestamp, wall_clock

    if text is None:
        return None
    with suppress(ValueError):
        return wall_clock() * 1_000_000 - round(parse_duration(text) * 1_000_000_000)
    try:
        return round(parse_timestamp(text) * 1000) * 1_000_000
    except ValueError:
        raise ConfigurationError(
            f"{text!a} is not a time", hint="give a date such as 2026-01-31T12:00, or a duration such as 7d"
        ) from None
