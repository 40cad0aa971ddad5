"""`cryo init-key`: create a key for encrypted backups."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from cryostore.cli import output
from cryostore.cli.agent_key_option import passphrase
from cryostore.cli.exit_codes import EPILOGUE
from cryostore.core.errors import ConfigurationError

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
def command(
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
    key = read_paper(_lines(from_paper)) if from_paper else AgentKey.generate()
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


def _lines(path: Path) -> bytes:
    from cryostore.core.paper import TEXT_BYTES_MAX

    try:
        if str(path) == "-":
            return sys.stdin.buffer.read(TEXT_BYTES_MAX)
        with path.open("rb") as file:
            return file.read(TEXT_BYTES_MAX)
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
