"""`cryo agent-key`: who can open the encrypted backups of a resource."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cryostore.cli import output
from cryostore.cli.agent_key_option import key_in, note_unproved, passphrase
from cryostore.cli.agent_store import AgentStore, agent_store_options, open_agent_store
from cryostore.cli.exit_codes import EPILOGUE
from cryostore.core.errors import ConfigurationError

if TYPE_CHECKING:
    from cryostore.agent.archive.recovery_points import RecoveryPoint
    from cryostore.agent.backup.key_changes import Access
    from cryostore.model.operation import Call

ACCESS_REMAINS = (
    "Whoever had the removed key can have kept what it opened: backups made until now stay readable to them. What is "
    "backed up from now on is not."
)
JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="Say the outcome as JSON.")


def resource_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that name a resource, and the store."""
    vault = click.option("--vault", default=None, help="Look in this vault alone.")
    resource = click.option("--resource", default=None, metavar="NAME", help="Whose backups; of all, the newest.")
    optioned: Callable[..., Any] = vault(resource(JSON_OPTION(agent_store_options(command))))
    return optioned


@click.group("agent-key", epilog=EPILOGUE)
def command() -> None:
    """Look after the keys that backups are encrypted for.

    Backups are encrypted under keys of their own, and these are wrapped for each agent key that may open them. To
    change who may makes a new recovery point of the same data and sends none of it again.
    """


@command.command("list", epilog=EPILOGUE)
@resource_options
def list_keys(vault: str | None, resource: str | None, as_json: bool, **place: Any) -> None:
    """Show which keys open the newest backup of a resource."""
    from cryostore.agent.archive.open_archive import open_archive
    from cryostore.agent.backup.key_changes import access_of
    from cryostore.agent.encryption.agent_key import PublicKey

    with _newest(AgentStore(**place), vault, resource) as (call, point), open_archive(call, point, "keys") as archive:
        access = access_of(archive.sealing)
        own = archive.sealing is not None and archive.sealing.is_owned
        note_unproved(archive)
    found = [{"key": PublicKey(each.public).fingerprint, "name": each.name} for each in access.recipients.values()]
    if as_json:
        facts = {"resource": point.resource_name, "keys": found, "archive_keys": len(access.keys), "own": own}
        output.say(facts)
        return
    output.show(f"resource: {point.resource_name}")
    for each in found:
        output.show(f"{each['key']}  {each['name']}")


@command.command("add", epilog=EPILOGUE)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), required=False)
@click.option("--passphrase", "with_passphrase", is_flag=True, help="A new key under a passphrase, with the backups.")
@click.option("--name", default="", help="What people call it.")
@resource_options
def add(file: Path | None, with_passphrase: bool, name: str, **options: Any) -> None:
    """Let another key open all backups of a resource, older ones included.

    A key file or its public part; or, with --passphrase, a new key that lies with the backups: `--key @passphrase`
    opens them then without any file. Whoever runs the store can try passphrases on it: it must be a long one.
    """
    if (file is None) == (not with_passphrase):
        raise ConfigurationError("nothing says which key", hint="name a key file, its public part, or --passphrase")
    if file is not None:
        key = key_in(file)
        _change(lambda access: access.add(key, name or file.name), f"key {key.fingerprint} opens it, too", **options)
        return
    from cryostore.agent.encryption.agent_key import AgentKey
    from cryostore.agent.encryption.key_file import encode

    whole = AgentKey.generate()
    lock = encode(whole, passphrase("New passphrase: ", twice=True))
    said = f"key {whole.fingerprint} opens it, too, under its passphrase"
    _change(lambda access: access.add(whole, name or "passphrase", lock), said, **options)


@command.command("remove", epilog=EPILOGUE)
@click.argument("fingerprint", metavar="KEY")
@resource_options
def remove(fingerprint: str, **options: Any) -> None:
    """Encrypt what comes under a new key that KEY, a fingerprint or its beginning, does not open.

    Nothing can be taken back: whoever had the key can have kept what it opened.
    """
    words = f"what comes is not for key {fingerprint}"
    _change(lambda access: access.remove(fingerprint), words, ACCESS_REMAINS, **options)


@command.command("rotate", epilog=EPILOGUE)
@resource_options
def rotate(**options: Any) -> None:
    """Encrypt what comes under a new archive key, for the same keys. Nothing is sent again."""
    _change(lambda access: access.rotate(), "what comes is encrypted under a new archive key", **options)


@command.command("accept", epilog=EPILOGUE)
@resource_options
def accept(**options: Any) -> None:
    """Go on with encrypted backups that somebody else began: another of their keys, or a machine that only writes.

    Only for backups that you know for the right ones, by what is in them: somebody who knew your public key could have
    made them up, to read what you add.
    """
    _change(lambda _: None, "your key goes on with it", accept=True, **options)


@command.command("public", epilog=EPILOGUE)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("to", type=click.Path(dir_okay=False, path_type=Path))
def public(file: Path, to: Path) -> None:
    """Write the public part of a key file to a new file: enough to make backups, and not to read any."""
    from cryostore.agent.encryption.key_file import create, encode_public

    key = key_in(file)
    create(str(to), encode_public(key), 0o644)
    output.show(f"{to}: public part of key {key.fingerprint}")


@command.command("paper", epilog=EPILOGUE)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def paper(file: Path) -> None:
    """Print a key file as lines to be locked away; `cryo init-key --from-paper` reads them."""
    from cryostore.agent.encryption.agent_key import require_whole_key
    from cryostore.agent.encryption.key_paper import print_paper

    key = key_in(file)
    output.document(print_paper(require_whole_key(key)))


@command.command("lock", epilog=EPILOGUE)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("to", type=click.Path(dir_okay=False, path_type=Path))
def lock(file: Path, to: Path) -> None:
    """Write a copy of a key file that opens with a passphrase alone; the passphrase is asked for."""
    from cryostore.agent.encryption.agent_key import require_whole_key
    from cryostore.agent.encryption.key_file import create, encode

    key = key_in(file)
    create(str(to), encode(require_whole_key(key), passphrase("New passphrase: ", twice=True)))
    output.show(f"{to}: key {key.fingerprint}, under a passphrase")


@contextmanager
def _newest(place: AgentStore, vault: str | None, resource: str | None) -> Iterator[tuple[Call, RecoveryPoint]]:
    from cryostore.agent.archive.recovery_points import find_point

    if place.key is None:
        raise ConfigurationError("nothing says which key is yours", hint="give --key FILE, or CRYO_KEY_FILE")
    with open_agent_store(place) as call:
        yield call, find_point(call, "latest", vault, resource)


def _change(
    apply: Callable[[Access], None],
    said: str,
    *more: str,
    vault: str | None,
    resource: str | None,
    as_json: bool,
    accept: bool = False,
    **place: Any,
) -> None:
    from cryostore.agent.backup.key_changes import change_access

    with _newest(AgentStore(**place), vault, resource) as (call, point):
        arn = change_access(call, point, apply, accept=accept)
    if as_json:
        output.say({"RecoveryPointArn": arn, "resource": point.resource_name})
    else:
        output.show(f"recovery point {arn.rpartition(':')[2]} of {point.resource_name}: {said}", *more)
