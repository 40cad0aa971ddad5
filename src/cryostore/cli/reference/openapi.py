"""`cryo openapi`: the OpenAPI document of what the server does."""

from __future__ import annotations

import click

from cryostore.cli import output
from cryostore.cli.exit_codes import EPILOGUE


@click.command("openapi", epilog=EPILOGUE)
def command() -> None:
    """Print the OpenAPI 3.1 document of every operation this server has."""
    from cryostore.wire.reference import openapi

    output.say(openapi.render(), indent=2)
