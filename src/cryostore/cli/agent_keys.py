"""Commands for agent keys, which encrypt backups: `cryo init-key` and `cryo agent-key`."""

from __future__ import annotations

import sys
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
    "The owner of the removed key may have kept the archive keys: existing backups stay readable for that key. New "
    "backups do not."
)
JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
WARNING = (
    "Without this key, or another one that was added, all backups encrypted for it are unrecoverable. Keep a copy "
    "away from this machine; `cryo agent-key paper FILE` prints one."
)


@click.command("init-key", epilog=EPILOGUE)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--passphrase", "with_passphrase", is_flag=True, help="Protect the file with a passphrase.")
@click.option("--public-to", type=click.Path(dir_okay=False, path_type=Path), help="Also write the public part there.")
@click.option("--paper", is_flag=True, help="Print the key as lines of text for safekeeping.")
@click.option("--from-paper", type=click.Path(allow_dash=True, path_type=Path), help="Read such lines; - is stdin.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def init_key(
    file: Path, with_passphrase: bool, public_to: Path | None, paper: bool, from_paper: Path | None, as_json: bool
) -> None:
    """Create a key file that only its owner can read. Never replaces a file.

    Other commands take it with --key FILE or CRYO_KEY_FILE. With only the public part, which --public-to writes, a
    machine makes backups that it cannot read. The passphrase comes from the terminal, or from the file in
    CRYO_KEY_PASSPHRASE_FILE.
    """
    from cryostore.agent.encryption.agent_key import AgentKey
    from cryostore.agent.encryption.key_file import create, decode, encode, encode_public, print_paper, read_paper

    for path in (file, public_to):
        if path is not None and path.exists():
            raise ConfigurationError(f"{path} already exists", hint="give a new file: a key is never replaced")
    secret = passphrase("New passphrase: ", twice=True) if with_passphrase else ""
    key = read_paper(_paper_lines(from_paper)) if from_paper else AgentKey.generate()
    create(str(file), encode(key, secret))
    found = decode(file.read_bytes(), lambda: secret, str(file))
    if not isinstance(found, AgentKey) or found.seed != key.seed:
        raise ConfigurationError(f"{file} does not contain the key that was written", hint="do not use it")
    if public_to is not None:
        create(str(public_to), encode_public(key), 0o644)
    if as_json:
        output.say({"file": str(file), "key": key.fingerprint, "passphrase": bool(secret)})
    else:
        output.show(f"{file}: key {key.fingerprint}")
        output.tell(WARNING)
    if paper:
        output.document(print_paper(key))


def _paper_lines(path: Path) -> bytes:
    from cryostore.core.paper import TEXT_BYTES_MAX

    try:
        if str(path) == "-":
            return sys.stdin.buffer.read(TEXT_BYTES_MAX)
        with path.open("rb") as file:
            return file.read(TEXT_BYTES_MAX)
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error


def resource_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that name a resource and the store."""
    vault = click.option("--vault", default=None, help="Search only this vault.")
    resource = click.option(
        "--resource", default=None, metavar="NAME", help="The resource; that of the newest backup by default."
    )
    optioned: Callable[..., Any] = vault(resource(JSON_OPTION(agent_store_options(command))))
    return optioned


@click.group("agent-key", epilog=EPILOGUE)
def agent_key() -> None:
    """Manage the keys that can open encrypted backups.

    Backups are encrypted under archive keys, and each archive key is wrapped for every agent key that may open it. A
    change of these keys makes a new recovery point of the same data, without sending the data again.
    """


@agent_key.command("list", epilog=EPILOGUE)
@resource_options
def list_keys(vault: str | None, resource: str | None, as_json: bool, **place: Any) -> None:
    """List the keys that open the newest backup of a resource."""
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


@agent_key.command("add", epilog=EPILOGUE)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), required=False)
@click.option("--passphrase", "with_passphrase", is_flag=True, help="Add a new key that opens with a passphrase.")
@click.option("--name", default="", help="A name for people.")
@resource_options
def add(file: Path | None, with_passphrase: bool, name: str, **options: Any) -> None:
    """Let another key open all backups of a resource, older ones included.

    FILE is a key file or its public part. With --passphrase, a new key is stored with the backups instead: then `--key
    @passphrase` opens them without any file. Use a long passphrase: the operator of the store can try to guess it.
    """
    if (file is None) == (not with_passphrase):
        raise ConfigurationError("no key is given", hint="give a key file, its public part, or --passphrase")
    if file is not None:
        key = key_in(file)
        _change(lambda access: access.add(key, name or file.name), f"key {key.fingerprint} can open it now", **options)
        return
    from cryostore.agent.encryption.agent_key import AgentKey
    from cryostore.agent.encryption.key_file import encode

    whole = AgentKey.generate()
    lock = encode(whole, passphrase("New passphrase: ", twice=True))
    said = f"key {whole.fingerprint} can open it now, with its passphrase"
    _change(lambda access: access.add(whole, name or "passphrase", lock), said, **options)


@agent_key.command("remove", epilog=EPILOGUE)
@click.argument("fingerprint", metavar="KEY")
@resource_options
def remove(fingerprint: str, **options: Any) -> None:
    """Encrypt new backups under a new archive key that KEY cannot open. KEY is a fingerprint or its beginning.

    Existing backups stay readable for that key, because its owner may have kept the old archive keys.
    """
    words = f"key {fingerprint} cannot open new backups"
    _change(lambda access: access.remove(fingerprint), words, ACCESS_REMAINS, **options)


@agent_key.command("rotate", epilog=EPILOGUE)
@resource_options
def rotate(**options: Any) -> None:
    """Encrypt new backups under a new archive key, for the same keys. Sends no data again."""
    _change(lambda access: access.rotate(), "new backups are encrypted under a new archive key", **options)


@agent_key.command("accept", epilog=EPILOGUE)
@resource_options
def accept(**options: Any) -> None:
    """Continue encrypted backups that another of their keys, or a write-only machine, started.

    Check the contents of the backups first: anybody who knows your public key could have forged them, to read the data
    that you add.
    """
    _change(lambda _: None, "your key continues it", accept=True, **options)


@agent_key.command("public", epilog=EPILOGUE)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("to", type=click.Path(dir_okay=False, path_type=Path))
def public(file: Path, to: Path) -> None:
    """Write the public part of a key file to a new file: it can make backups, but not read them."""
    from cryostore.agent.encryption.key_file import create, encode_public

    key = key_in(file)
    create(str(to), encode_public(key), 0o644)
    output.show(f"{to}: public part of key {key.fingerprint}")


@agent_key.command("paper", epilog=EPILOGUE)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def paper(file: Path) -> None:
    """Print a key file as lines of text for safekeeping; `cryo init-key --from-paper` reads them."""
    from cryostore.agent.encryption.agent_key import require_whole_key
    from cryostore.agent.encryption.key_file import print_paper

    key = key_in(file)
    output.document(print_paper(require_whole_key(key)))


@agent_key.command("lock", epilog=EPILOGUE)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("to", type=click.Path(dir_okay=False, path_type=Path))
def lock(file: Path, to: Path) -> None:
    """Write a copy of a key file that opens only with a passphrase. Asks for the passphrase."""
    from cryostore.agent.encryption.agent_key import require_whole_key
    from cryostore.agent.encryption.key_file import create, encode

    key = key_in(file)
    create(str(to), encode(require_whole_key(key), passphrase("New passphrase: ", twice=True)))
    output.show(f"{to}: key {key.fingerprint}, with a passphrase")


@contextmanager
def _newest(place: AgentStore, vault: str | None, resource: str | None) -> Iterator[tuple[Call, RecoveryPoint]]:
    from cryostore.agent.archive.recovery_points import find_point

    if place.key is None:
        raise ConfigurationError("your key is not given", hint="give it with --key FILE or CRYO_KEY_FILE")
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
