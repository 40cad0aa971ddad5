"""`cryo openapi`: the OpenAPI document of the server's operations."""

from __future__ import annotations

import click

from cryostore.cli import output
from cryostore.cli.exit_codes import EPILOGUE


@click.command("openapi", epilog=EPILOGUE)
def command() -> None:
    """Print the OpenAPI 3.1 document of every operation of the server."""
    from cryostore.wire.reference import openapi

    output.say(openapi.render(), indent=2)
