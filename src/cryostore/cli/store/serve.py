"""`cryo serve`: run the server."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from cryostore.cli import GARBAGE_THRESHOLDS, output
from cryostore.cli.exit_codes import EPILOGUE
from cryostore.cli.store.named_store import click_option, config_option
from cryostore.options.declared import OPTIONS, configuration_of
from cryostore.options.sources import merged, read_command_line, read_environment, read_file


def _options(verb: Callable[..., None]) -> Any:
    """Add every option that the command line has."""
    optioned: Any = config_option()(verb)
    for option in reversed(tuple(OPTIONS.values())):
        if option.on_command_line:
            optioned = click_option(option)(optioned)
    return optioned


@click.command("serve", epilog=EPILOGUE)
@_options
def command(config: Path | None, **texts: Any) -> None:
    """Run the server until it is told to stop.

    The first start on a data directory makes the store, the vault Default, the keyring, and DIR/credentials with the
    root access key, a shared credentials file for the AWS SDKs. Losing the keyring loses every backup. A shared store,
    named by --catalog, --blobs and --keyring, is prepared with `cryo init`; any number of servers run on it.

    Once the server answers requests, it prints its address on stdout; logs go to stderr, as JSON. SIGTERM or Ctrl-C
    starts a graceful shutdown, a second one stops at once. The file and the environment have more options.
    """
    from cryostore.server.run import serve

    gc.set_threshold(*GARBAGE_THRESHOLDS)  # a failed request may leave a cycle that holds a chunk
    file = read_file(config) if config is not None else {}
    values = merged(read_command_line(texts), read_environment(os.environ), file)
    serve(configuration_of(values), announce)


def announce(line: str) -> None:
    """Print the line on stdout, and hand it to the reader at once."""
    output.show_now(line)
