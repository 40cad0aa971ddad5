"""`cryo init`: prepare a shared store."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cryostore.cli import output
from cryostore.cli.exit_codes import EPILOGUE
from cryostore.cli.store.store_place import StorePlace, store_options
from cryostore.core.errors import ConfigurationError

if TYPE_CHECKING:
    from cryostore.service.opening.init import InitResult


@click.command("init", epilog=EPILOGUE)
@store_options("Not for this: a data directory is made by its first server.")
@click.option(
    "--credentials",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    metavar="FILE",
    help="Where the root access key is written, as an AWS shared credentials file; a new file.",
)
@click.option("--region", default=None, help="The region in the store's ARNs; local-1 if left out. For good.")
@click.option("--account-id", default=None, metavar="DIGITS", help="The account in them; 000000000000 if left out.")
@click.option("--upgrade", is_flag=True, help="The store must be there: only bring it up to date.")
@click.option("--json", "as_json", is_flag=True, help="Say the outcome as JSON.")
def command(
    place: StorePlace,
    credentials: Path | None,
    region: str | None,
    account_id: str | None,
    upgrade: bool,
    as_json: bool,
) -> None:
    """Prepare a shared store, once: its tables, the vault Default, the keyring, and the root access key.

    Then `cryo serve` with the same --catalog, --blobs and --keyring runs on any number of machines. The keyring is made
    if it is a file that does not exist yet: losing it loses every backup. What is there stays; broken off, do it again.

    Passwords belong into the environment: PGPASSWORD or CRYO_CATALOG, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
    """
    from cryostore.service.opening.init import init

    if place.shared is None:
        raise ConfigurationError(
            "no shared store is named", hint="give --catalog, --blobs and --keyring; a data directory needs no init"
        )
    if credentials is None and not upgrade:
        raise ConfigurationError("nothing says where the root access key goes", hint="give --credentials FILE")

    def tell_keyring(path: Path) -> None:
        output.tell(
            f"made the keyring {path.resolve()}: LOSING IT LOSES EVERY BACKUP. Copy it away from the data now, and to"
            " each node (`cryo key export --help`)"
        )

    outcome = init(
        place.shared,
        credentials,
        region=region,
        account_id=account_id,
        upgrade=upgrade,
        on_keyring_created=tell_keyring,
    )
    output.outcome(asdict(outcome), words(outcome, credentials), as_json=as_json)


def words(outcome: InitResult, credentials: Path | None) -> str:
    """The outcome for people."""
    lines = [f"{'prepared' if outcome.made_store else 'was prepared before:'} store {outcome.store_id}"]
    lines.append(f"region {outcome.region}, account {outcome.account_id}, keyring {outcome.keyring}")
    if credentials is not None:
        done = "written to" if outcome.made_credentials else "stands already in"
        lines.append(f"root access key {outcome.access_key_id}: {done} {credentials}")
    return output.paragraph(lines)
