"""`cryo sdk-model`: the service model of our operations for boto3 and the aws CLI."""

from __future__ import annotations

from pathlib import Path

import click

from cryostore.cli import output
from cryostore.cli.exit_codes import EPILOGUE
from cryostore.core.errors import ConfigurationError


@click.command("sdk-model", epilog=EPILOGUE)
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--extensions/--no-extensions",
    default=True,
    show_default=True,
    help="Include the operations that AWS does not have.",
)
def command(folder: Path, extensions: bool) -> None:
    """Write a botocore data folder into DIR.

    With AWS_DATA_PATH=DIR, current versions of boto3 and the aws CLI know `backupstorage`. Files of the same name are
    replaced.
    """
    from cryostore.wire.reference import sdk_model

    for name, data in sdk_model.render(extensions=extensions).items():
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        except OSError as error:
            raise ConfigurationError(f"cannot write {path}: {error.strerror}") from error
    output.show(f"AWS_DATA_PATH={folder.absolute()}")
