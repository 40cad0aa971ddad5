"""`cryo key`: the master keys of a store, and the data keys of its vaults."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cryostore.cli import output
from cryostore.cli.exit_codes import EPILOGUE, OK, WITH_ISSUES
from cryostore.cli.progress import follow_progress
from cryostore.cli.store.named_store import NamedStore, open_store, store_options

if TYPE_CHECKING:
    from cryostore.chunks.keyring import KeyringDocument, KeyringSource, MasterKey
    from cryostore.maintenance.key_rotation import RotationResult
    from cryostore.maintenance.key_uses import KeyUses

KEEP_A_COPY = "keep a copy of it away from the data, and check the copy with `cryo key verify`"
JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


@click.group("key", epilog=EPILOGUE)
def command() -> None:
    """Manage the master keys, without which nothing in a store can be read.

    Master keys wrap the data keys of the vaults. The keyring holds them, never the store. No command but `export`
    shows a secret.
    """


@command.command("list", epilog=EPILOGUE)
@store_options("The store.")
@JSON_OPTION
def list_keys(store: NamedStore, as_json: bool) -> int:
    """List the master keys of the keyring, and what each one wraps.

    The active key is in use once `cryo key rotate` has begun with it. Exits with 1 if something is wrapped with a key
    that the keyring lacks.
    """
    from cryostore.chunks.keyring import KeyringSource
    from cryostore.maintenance.key_uses import count_key_uses

    with open_store(store) as service:
        found = count_key_uses(service.context)
        source = service.context.keys.keyring.source
        assert isinstance(source, KeyringSource)
        in_use = service.context.keys.keyring.active().key_id
    keys = _listed(source, found, in_use)
    if as_json:
        output.say({"keyring": source.place, "keys": keys, "records_due": found.due}, indent=2)
    else:
        output.show(f"keyring: {source.place}", *map(_line, keys))
    return WITH_ISSUES if any(not key["in_keyring"] for key in keys) else OK


@command.command("rotate", epilog=EPILOGUE)
@store_options("The store.")
@click.option("--vault", default=None, metavar="NAME", help="Give this vault a new data key instead.")
@JSON_OPTION
def rotate(store: NamedStore, vault: str | None, as_json: bool) -> int:
    """Bring a new master key into use, and wrap again with it everything that older keys wrap.

    No backup is rewritten, and servers may run meanwhile. After an interruption, repeat the command to finish. Old keys
    stay in the keyring, for copies of the catalog that need them, until `cryo key forget`.

    A new key is added to a keyring file automatically. For a keyring in a variable or from a command, first put a
    document with a new active key in place (`cryo key export --with-new-key`); then this command wraps everything with
    that key.

    With --vault, new data of that vault is sealed with a new data key; running servers use it within ten seconds.
    Existing data stays readable.
    """
    from cryostore.maintenance.key_rotation import RotationResult, rotate_master_key, rotate_vault_key

    with open_store(store) as service:
        if vault is not None:
            number = rotate_vault_key(service.context, vault)
            said = f"vault {vault} has {number} data keys"
            output.outcome({"vault": vault, "keys": number}, output.paragraph([said]), as_json=as_json)
            return OK
        outcome = RotationResult()
        follow_progress(rotate_master_key(service.context, outcome))
    output.outcome(asdict(outcome) | {"finished": outcome.is_finished}, _words(outcome), as_json=as_json)
    return OK if outcome.is_finished else WITH_ISSUES


@command.command("forget", epilog=EPILOGUE)
@store_options("The store.")
@click.argument("key_id")
@JSON_OPTION
def forget(store: NamedStore, key_id: str, as_json: bool) -> None:
    """Remove an old master key from the keyring, if nothing in this store is wrapped with it.

    Copies of the catalog from before the rotation still need it, and so does any other store with the same keyring:
    keep an export with the key for as long as these exist.
    """
    from cryostore.maintenance.key_rotation import forget_master_key

    with open_store(store) as service:
        forget_master_key(service.context, key_id)
    said = f"master key {key_id} is no longer in the keyring"
    output.outcome({"forgotten": key_id}, output.paragraph([said]), as_json=as_json)


@command.command("export", epilog=EPILOGUE)
@store_options("The store whose keyring it is.")
@click.option("--to", "target", type=click.Path(path_type=Path), default=None, help="The new file.")
@click.option(
    "--paper", is_flag=True, help="Write lines with checksums, to print on paper; to stdout unless --to is given."
)
@click.option("--with-new-key", is_flag=True, help="Add a new active key to the export; the keyring is not changed.")
@JSON_OPTION
def export(store: NamedStore, target: Path | None, paper: bool, with_new_key: bool, as_json: bool) -> None:
    """Write a copy of the keyring, to keep away from the data.

    The copy is a keyring file that only its owner can read; it is read back and compared. A person with the copy and
    the data can read every backup.
    """
    from cryostore.chunks.keyring.master_keys import print_paper
    from cryostore.core.errors import ConfigurationError
    from cryostore.core.ids import random_id

    if target is None and not paper:
        raise ConfigurationError("no file is named for the export", hint="give --to FILE, or --paper to print it")
    document = store.open_keyring().document()
    if with_new_key:
        document = document.with_new_key(random_id())
    if target is None:
        output.document(print_paper(document))
        return
    _write(target, print_paper(document).encode() if paper else document.encode(), document)
    _tell(document, target, "copy", as_json=as_json)


@command.command("import", epilog=EPILOGUE)
@store_options("The store that the keyring is for; it need not exist yet.")
@click.argument("source", type=click.Path(allow_dash=True, path_type=Path))
@JSON_OPTION
def import_keys(store: NamedStore, source: Path, as_json: bool) -> None:
    """Restore a keyring from an export: a file, or the typed lines of --paper; - is stdin.

    Makes the keyring file if it is missing. An existing file gets the keys that it lacks, and keeps its active key. No
    key is ever replaced.
    """
    from cryostore.chunks.keyring import EditableKeyring, create_keyring, open_keyring
    from cryostore.core.errors import ConfigurationError
    from cryostore.core.ids import random_id

    document = _read(source)
    path = store.keyring_uri.path
    if path is None:
        raise ConfigurationError("only a keyring in a file can be written", hint="name a file with --keyring")
    if path.exists():
        keyring = open_keyring(store.keyring_uri)
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
def verify(store: NamedStore, source: Path, as_json: bool) -> int:
    """Check whether an export could replace a lost keyring: a file, or the typed lines of --paper; - is stdin.

    Exits with 1 if the export lacks a key that something is wrapped with, or has another key with that id.
    """
    from cryostore.chunks.keyring import KeyringSource
    from cryostore.maintenance.key_uses import count_key_uses

    document = _read(source)
    with open_store(store) as service:
        needed = sorted(count_key_uses(service.context).by_key)
        keyring = service.context.keys.keyring.source
        assert isinstance(keyring, KeyringSource)
        known = keyring.document().keys
    missing = [name for name in needed if name not in document.keys]
    wrong = [name for name in needed if name in document.keys and not _agree(name, document, known)]
    if as_json:
        output.say({"needed": needed, "missing": missing, "wrong": wrong})
    else:
        complaints = [f"the export lacks master key {name}" for name in missing]
        complaints += [f"master key {name} of the export is a different key" for name in wrong]
        output.show(*complaints or [f"the export has all {len(needed)} master keys that the store needs"])
    return WITH_ISSUES if missing or wrong else OK


def _agree(name: str, document: KeyringDocument, known: Mapping[str, MasterKey]) -> bool:
    return name not in known or known[name].is_same(document.keys[name])


@command.command("create", epilog=EPILOGUE)
@click.option("--to", "target", type=click.Path(path_type=Path), required=True, help="The new file.")
@JSON_OPTION
def create(target: Path, as_json: bool) -> None:
    """Make a keyring of one new key, for a new store.

    For keyrings outside the data directory: for --keyring PATH, or as the content of the variable or the output of the
    command that --keyring names.
    """
    from cryostore.chunks.keyring import KeyringDocument
    from cryostore.core.ids import random_id

    document = KeyringDocument.of_new_key(random_id())
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
        lines = [f"master key {outcome.key_id} is in this keyring{new}, but not in use yet: these nodes lack it"]
        lines += [f"  {name}" for name in outcome.lacking]
        advice = "copy the keyring to them, restart those that read it from a variable, and repeat the command"
        return output.paragraph([*lines, f"not finished: {advice}"])
    lines = [
        f"master key {outcome.key_id} is in use{', and is new' if outcome.added else ''}",
        f"wrapped again: {done}",
    ]
    if outcome.is_finished:
        return output.paragraph([*lines, "finished: nothing is wrapped with another key"])
    left = [f"left: {number} wrapped with {key_id or 'an unknown key'}" for key_id, number in outcome.left.items()]
    due = [f"left: {outcome.due} records to write"] if outcome.due else []
    return output.paragraph(
        [*lines, *left, *due, "not finished: repeat the command with a keyring that has these keys"]
    )


def _read(path: Path) -> KeyringDocument:
    """Return the keyring in a file or on stdin. Raises ConfigurationError."""
    from cryostore.chunks.keyring.master_keys import (
        DOCUMENT_BYTES_MAX,
        NoDocumentError,
        decode_text,
        is_paper,
        read_paper,
    )
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
        raise ConfigurationError(f"{path} holds no keyring", hint="give a file that `cryo key export` wrote") from None


def _write(path: Path, data: bytes, document: KeyringDocument) -> None:
    """Write a new file, and read it back. Raises StorageUnavailableError, ConfigurationError."""
    from cryostore.chunks.durable_files import create_file, storage_errors
    from cryostore.core.errors import BlobExistsError, ConfigurationError

    try:
        with storage_errors(str(path)):
            create_file(path, data, staging=path.parent)
    except BlobExistsError:
        raise ConfigurationError(f"{path} already exists", hint="name a new file: no key is ever replaced") from None
    if not _read(path).is_same(document):
        raise ConfigurationError(f"{path} differs from what was written", hint="do not use it; check the disk")


def _tell(document: KeyringDocument, path: Path, what: str, *, as_json: bool) -> None:
    if as_json:
        output.say({"file": str(path), "active": document.active.key_id, "keys": sorted(document.keys)})
    else:
        output.show(f"{path}: {what} with {len(document.keys)} master keys, {document.active.key_id} is active")
        output.show(
            KEEP_A_COPY if what == "keyring" else "it is a secret: with it and the data, every backup can be read"
        )
