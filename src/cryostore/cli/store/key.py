"""`cryo key`: the master keys of a store, and the data keys of its vaults."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cryostore.cli import output
from cryostore.cli.exit_codes import EPILOGUE
from cryostore.cli.progress import follow_progress
from cryostore.cli.store.store_place import StorePlace, existing_store, store_options

if TYPE_CHECKING:
    from cryostore.chunks.keyring import Document, KeyringSource, MasterKey
    from cryostore.maintenance.key_rotation import RotationResult
    from cryostore.maintenance.key_uses import KeyUses

DONE = 0
WITH_ISSUES = 1
AWAY = "keep a copy of it away from the data, and read it once to see that it is one"
JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="Say the outcome as JSON.")


@click.group("key", epilog=EPILOGUE)
def command() -> None:
    """Look after the master keys, without which nothing in a store can be read.

    Master keys wrap the data keys of the vaults; the keyring holds them, and the store never does. No command shows a
    secret, but `export`, which is asked to.
    """


@command.command("list", epilog=EPILOGUE)
@store_options("The store.")
@JSON_OPTION
def list_keys(place: StorePlace, as_json: bool) -> int:
    """Show the master keys of the keyring, and what each is needed for.

    The active key is in use once `cryo key rotate` has begun with it. Ends with 1 if something is wrapped with a key
    that the keyring lacks.
    """
    from cryostore.chunks.keyring import KeyringSource
    from cryostore.maintenance.key_uses import count_key_uses

    with existing_store(place) as service:
        found = count_key_uses(service.context)
        source = service.context.keys.keyring.source
        assert isinstance(source, KeyringSource)
        in_use = service.context.keys.keyring.active().key_id
    keys = _listed(source, found, in_use)
    if as_json:
        output.say({"keyring": source.place, "keys": keys, "records_due": found.due}, indent=2)
    else:
        output.show(f"keyring: {source.place}", *map(_line, keys))
    return WITH_ISSUES if any(not key["in_keyring"] for key in keys) else DONE


@command.command("rotate", epilog=EPILOGUE)
@store_options("The store.")
@click.option("--vault", default=None, metavar="NAME", help="Give this vault a new data key instead.")
@JSON_OPTION
def rotate(place: StorePlace, vault: str | None, as_json: bool) -> int:
    """Bring a new master key into use, and wrap with it all that older ones have wrapped.

    No backup is rewritten, and servers go on meanwhile. Broken off, it is finished by doing it again. Old keys stay in
    the keyring, for copies of the catalog that need them, until `cryo key forget`.

    A keyring file gets the new key by itself. Of a keyring in a variable or from a command, the owner first puts a
    document with a new active key in place (`cryo key export --with-new-key`); then this wraps everything with that.

    With --vault, what that vault stores from now on is sealed with a new data key; running servers take it up within
    ten seconds. What is there stays readable.
    """
    from cryostore.maintenance.key_rotation import RotationResult, rotate_master_key, rotate_vault_key

    with existing_store(place) as service:
        if vault is not None:
            number = rotate_vault_key(service.context, vault)
            said = f"vault {vault} has {number} data keys"
            output.outcome({"vault": vault, "keys": number}, output.paragraph([said]), as_json=as_json)
            return DONE
        outcome = RotationResult()
        follow_progress(rotate_master_key(service.context, outcome))
    output.outcome(asdict(outcome) | {"finished": outcome.is_finished}, _words(outcome), as_json=as_json)
    return DONE if outcome.is_finished else WITH_ISSUES


@command.command("forget", epilog=EPILOGUE)
@store_options("The store.")
@click.argument("key_id")
@JSON_OPTION
def forget(place: StorePlace, key_id: str, as_json: bool) -> None:
    """Remove an old master key from the keyring, if nothing in this store is wrapped with it.

    Copies of the catalog from before the rotation need it still, and so does any other store with the same keyring:
    keep an export that has it for as long as there are such.
    """
    from cryostore.maintenance.key_rotation import forget_master_key

    with existing_store(place) as service:
        forget_master_key(service.context, key_id)
    said = f"master key {key_id} is no longer in the keyring"
    output.outcome({"forgotten": key_id}, output.paragraph([said]), as_json=as_json)


@command.command("export", epilog=EPILOGUE)
@store_options("The store whose keyring it is.")
@click.option("--to", "target", type=click.Path(path_type=Path), default=None, help="The new file.")
@click.option("--paper", is_flag=True, help="As lines with checksums, to print; to stdout, if there is no --to.")
@click.option("--with-new-key", is_flag=True, help="Add a new active key to what is exported; the keyring stays.")
@JSON_OPTION
def export(place: StorePlace, target: Path | None, paper: bool, with_new_key: bool, as_json: bool) -> None:
    """Write a copy of the keyring, to keep away from the data.

    The file can be read by its owner only, is read back and compared, and is a keyring file itself. Whoever has it and
    the data can read every backup.
    """
    from cryostore.chunks.keyring.paper import print_paper
    from cryostore.core.errors import ConfigurationError
    from cryostore.core.ids import random_id

    if target is None and not paper:
        raise ConfigurationError("nothing says where to", hint="give --to FILE, or --paper to print it")
    document = place.open_keyring().document()
    if with_new_key:
        document = document.with_new_key(random_id())
    if target is None:
        output.document(print_paper(document))
        return
    _write(target, print_paper(document).encode() if paper else document.encode(), document)
    _tell(document, target, "copy", as_json=as_json)


@command.command("import", epilog=EPILOGUE)
@store_options("The store whose keyring it is to be; it need not be there yet.")
@click.argument("source", type=click.Path(allow_dash=True, path_type=Path))
@JSON_OPTION
def import_keys(place: StorePlace, source: Path, as_json: bool) -> None:
    """Put a keyring back from an export: a file, or the lines of --paper as they were typed in; - is stdin.

    Makes the keyring file if it is missing. If it is there, it gets the keys it lacks, and its active key stays. No key
    is ever replaced.
    """
    from cryostore.chunks.keyring import EditableKeyring, create_keyring, open_keyring
    from cryostore.core.errors import ConfigurationError
    from cryostore.core.ids import random_id

    document = _read(source)
    path = place.keyring_place.path
    if path is None:
        raise ConfigurationError("only a keyring file can be written", hint="name a file with --keyring")
    if path.exists():
        keyring = open_keyring(place.keyring_place)
        assert isinstance(keyring, EditableKeyring)
        added = keyring.merge(document)
    else:
        create_keyring(path, random_id, document)
        added = list(document.keys)
    if as_json:
        output.say({"keyring": str(path), "added": added})
    else:
        output.show(f"{path}: {len(added)} keys added")


@command.command("verify", epilog=EPILOGUE)
@store_options("The store.")
@click.argument("source", type=click.Path(allow_dash=True, path_type=Path))
@JSON_OPTION
def verify(place: StorePlace, source: Path, as_json: bool) -> int:
    """Show whether an export would open the store, should its keyring be lost: a file, or typed lines; - is stdin.

    Ends with 1 if it lacks a key that something is wrapped with, or has another one of that id.
    """
    from cryostore.chunks.keyring import KeyringSource
    from cryostore.maintenance.key_uses import count_key_uses

    document = _read(source)
    with existing_store(place) as service:
        needed = sorted(count_key_uses(service.context).by_key)
        keyring = service.context.keys.keyring.source
        assert isinstance(keyring, KeyringSource)
        known = keyring.document().keys
    missing = [name for name in needed if name not in document.keys]
    wrong = [name for name in needed if name in document.keys and not _agree(name, document, known)]
    if as_json:
        output.say({"needed": needed, "missing": missing, "wrong": wrong})
    else:
        complaints = [f"it lacks master key {name}" for name in missing]
        complaints += [f"its master key {name} is another one" for name in wrong]
        output.show(*complaints or [f"it has all {len(needed)} master keys that the store needs"])
    return WITH_ISSUES if missing or wrong else DONE


def _agree(name: str, document: Document, known: Mapping[str, MasterKey]) -> bool:
    return name not in known or known[name].is_same(document.keys[name])


@command.command("create", epilog=EPILOGUE)
@click.option("--to", "target", type=click.Path(path_type=Path), required=True, help="The new file.")
@JSON_OPTION
def create(target: Path, as_json: bool) -> None:
    """Make a keyring of one new key, for a store that is still to be made.

    For keyrings that are not to lie in the data directory: for --keyring PATH, or to be put where a variable or a
    command has it from.
    """
    from cryostore.chunks.keyring import Document
    from cryostore.core.ids import random_id

    document = Document.of_new_key(random_id())
    _write(target, document.encode(), document)
    _tell(document, target, "keyring", as_json=as_json)


def _listed(source: KeyringSource, found: KeyUses, in_use: str) -> list[dict[str, Any]]:
    document = source.document()
    return [
        {
            "key_id": key_id,
            "in_keyring": key_id in document.keys,
            "active": key_id == document.active.key_id,
            "in_use": key_id == in_use,
            "wraps": dict(found.by_key.get(key_id, {})),
        }
        for key_id in sorted(document.keys.keys() | found.by_key.keys())
    ]


def _line(key: dict[str, Any]) -> str:
    states = [
        *(["active"] if key["active"] else []),
        *(["in use"] if key["in_use"] else []),
        *([] if key["in_keyring"] else ["NOT IN THE KEYRING"]),
    ]
    wraps = ", ".join(f"{number} {kind}" for kind, number in sorted(key["wraps"].items())) or "nothing"
    state = f" ({', '.join(states)})" if states else ""
    return f"{key['key_id'] or 'damaged, of an unknown key'}{state}: wraps {wraps}"


def _words(outcome: RotationResult) -> str:
    done = ", ".join(f"{number} {kind}" for kind, number in sorted(outcome.rewrapped.items())) or "nothing"
    if outcome.lacking:
        new = ", and is new" if outcome.added else ""
        lines = [f"master key {outcome.key_id} is in this keyring{new}; it is not used yet: these nodes do not hold it"]
        lines += [f"  {name}" for name in outcome.lacking]
        advice = "copy the keyring to them, restart those that read it from a variable, and repeat this"
        return output.paragraph([*lines, f"not finished: {advice}"])
    lines = [f"master key {outcome.key_id} is in use{', and is new' if outcome.added else ''}", f"wrapped anew: {done}"]
    if outcome.is_finished:
        return output.paragraph([*lines, "finished: nothing is wrapped with another key"])
    left = [f"left: {number} wrapped with {key_id or 'nobody knows what'}" for key_id, number in outcome.left.items()]
    due = [f"left: {outcome.due} records to be written"] if outcome.due else []
    return output.paragraph([*lines, *left, *due, "not finished: repeat it, with a keyring that has these keys"])


def _read(path: Path) -> Document:
    """The keyring in a file or on stdin. Raises ConfigurationError."""
    from cryostore.chunks.keyring.document import DOCUMENT_BYTES_MAX, NoDocumentError, decode_text
    from cryostore.chunks.keyring.paper import is_paper, read_paper
    from cryostore.core.errors import ConfigurationError

    try:
        if str(path) == "-":
            data = sys.stdin.buffer.read(DOCUMENT_BYTES_MAX + 1)
        else:
            with path.open("rb") as file:
                data = file.read(DOCUMENT_BYTES_MAX + 1)
        return read_paper(data) if is_paper(data) else decode_text(data)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    except NoDocumentError:
        raise ConfigurationError(f"{path} holds no keyring", hint="give what `cryo key export` wrote") from None


def _write(path: Path, data: bytes, document: Document) -> None:
    """Write a new file, and read it back. Raises StorageUnavailableError, ConfigurationError."""
    from cryostore.chunks.durable_files import create_file, storage_errors
    from cryostore.core.errors import BlobExistsError, ConfigurationError

    try:
        with storage_errors(str(path)):
            create_file(path, data, staging=path.parent)
    except BlobExistsError:
        raise ConfigurationError(f"{path} is there already", hint="name a new file: no key is ever replaced") from None
    if not _read(path).is_same(document):
        raise ConfigurationError(f"{path} does not hold what was written", hint="do not rely on it")


def _tell(document: Document, path: Path, what: str, *, as_json: bool) -> None:
    if as_json:
        output.say({"file": str(path), "active": document.active.key_id, "keys": sorted(document.keys)})
    else:
        output.show(f"{path}: {what} with {len(document.keys)} master keys, {document.active.key_id} is active")
        output.show(AWAY if what == "keyring" else "it is a secret: whoever has it and the data can read every backup")
