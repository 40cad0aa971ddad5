"""`cryo init`: prepare a shared store."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cryostore.cli import output
from cryostore.cli.exit_codes import EPILOGUE
from cryostore.cli.store.named_store import NamedStore, store_options
from cryostore.core.errors import ConfigurationError

if TYPE_CHECKING:
    from cryostore.service.opening.init import InitResult


@click.command("init", epilog=EPILOGUE)
@store_options("Not for this command: the first server makes a data directory.")
@click.option(
    "--credentials",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    metavar="FILE",
    help="The new file for the root access key, an AWS shared credentials file.",
)
@click.option("--region", default=None, help="The region in the store's ARNs; local-1 if left out. It is permanent.")
@click.option("--account-id", default=None, metavar="DIGITS", help="The account in the ARNs; 000000000000 if left out.")
@click.option("--upgrade", is_flag=True, help="Only upgrade the schema of a store that exists.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    store: NamedStore,
    credentials: Path | None,
    region: str | None,
    account_id: str | None,
    upgrade: bool,
    as_json: bool,
) -> None:
    """Prepare a shared store, once: its tables, the vault Default, the keyring, and the root access key.

    Then run `cryo serve` with the same --catalog, --blobs and --keyring on any number of machines. A keyring file that
    does not exist is made: losing it loses every backup. Nothing that exists is replaced; after an interruption, repeat
    the command.

    Pass secrets in the environment: PGPASSWORD or CRYO_CATALOG, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
    """
    from cryostore.service.opening.init import init

    if store.shared is None:
        raise ConfigurationError(
            "no shared store is named", hint="give --catalog, --blobs and --keyring; a data directory needs no init"
        )
    if credentials is None and not upgrade:
        raise ConfigurationError("no file is named for the root access key", hint="give --credentials FILE")

    def tell_keyring(path: Path) -> None:
        output.tell(
            f"made the keyring {path.resolve()}: LOSING IT LOSES EVERY BACKUP. Copy it now away from the data, and to"
            " each node (`cryo key export --help`)"
        )

    outcome = init(
        store.shared,
        credentials,
        region=region,
        account_id=account_id,
        upgrade=upgrade,
        on_keyring_created=tell_keyring,
    )
    output.outcome(asdict(outcome), words(outcome, credentials), as_json=as_json)


def words(outcome: InitResult, credentials: Path | None) -> str:
    """Return the result as text."""
    lines = [f"{'prepared' if outcome.made_store else 'already prepared:'} store {outcome.store_id}"]
    lines.append(f"region {outcome.region}, account {outcome.account_id}, keyring {outcome.keyring}")
    if credentials is not None:
        done = "written to" if outcome.made_credentials else "already in"
        lines.append(f"root access key {outcome.access_key_id}: {done} {credentials}")
    return output.paragraph(lines)
