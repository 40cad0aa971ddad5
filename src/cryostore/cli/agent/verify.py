"""`cryo verify`: check whether a recovery point can be restored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cryostore.cli import output, progress
from cryostore.cli.agent_key_option import note_unproved
from cryostore.cli.agent_store import AgentStore, agent_store_options, open_agent_store
from cryostore.cli.entry_facts import say_issues
from cryostore.cli.exit_codes import EPILOGUE, OK, WITH_ISSUES
from cryostore.core.quantities import size_text

if TYPE_CHECKING:
    from cryostore.agent.report import Report
    from cryostore.agent.verification.archive_check import KnownDamage


@click.command("verify", epilog=EPILOGUE)
@click.argument("point", metavar="POINT")
@click.option("--vault", default=None, help="Look for POINT only in this vault.")
@click.option("--resource", default=None, metavar="NAME", help="Look for POINT only among those of this resource.")
@click.option("--data", is_flag=True, help="Read all data, instead of asking the store for known damage.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON lines.")
@agent_store_options
def command(point: str, vault: str | None, resource: str | None, data: bool, as_json: bool, **place: Any) -> int:
    """Check that all data of a recovery point is in the store, and list damaged files.

    Without --data, this reports only damage that a scrub, a check or a read has already found.
    """
    from cryostore.agent.archive.open_archive import open_archive
    from cryostore.agent.archive.recovery_points import find_point
    from cryostore.agent.errors import DAMAGE
    from cryostore.agent.report import Report
    from cryostore.agent.verification.archive_check import fetch_known_damage, verify_archive

    report = Report()
    with open_agent_store(AgentStore(**place)) as call:
        found = find_point(call, point, vault, resource)
        try:
            with open_archive(call, found, "verify") as archive:
                note_unproved(archive)
                report.total_bytes = archive.header.file_bytes
                damage = fetch_known_damage(call, found)
                with progress.shown(report, quiet=as_json):
                    verify_archive(archive, report, data=data, damage=damage)
                _tell_limits(damage, report, data=data)
        except DAMAGE as error:
            report.issue(b"", f"the listing of the recovery point cannot be read: {error.message}")
    say_issues(report, as_json=as_json)
    if as_json:
        output.say(facts(report))
    else:
        output.show_text(words(report))
    return WITH_ISSUES if report.issue_count else OK


def _tell_limits(damage: KnownDamage, report: Report, *, data: bool) -> None:
    """Note damage of bytes that no file needs, and a server that does not report damage, on stderr."""
    if damage.count and not report.issue_count:
        output.tell(f"note: {damage.count} damaged chunks hold no data that these files need")
    if not (damage.is_known or data):
        output.tell("note: the server does not report known damage; --data reads all data")


def words(report: Report) -> str:
    """Return the result for people."""
    lines = [f"{report.entries} entries, {report.files} files, {size_text(report.file_bytes)}"]
    if report.read_bytes:
        lines.append(f"{size_text(report.read_bytes)} read")
    lines.append(f"{report.issue_count} issues" if report.issue_count else "all is there")
    return output.paragraph(lines)


def facts(report: Report) -> dict[str, Any]:
    """Return the result for programs."""
    return {
        "type": "summary",
        "entries": report.entries,
        "files": report.files,
        "bytes": report.file_bytes,
        "read_bytes": report.read_bytes,
        "issues": report.issue_count,
    }
