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
from cryostore.cli.store.store_options import click_option, config_option
from cryostore.options.declared import OPTIONS, configuration_of
from cryostore.options.sources import merged, read_command_line, read_environment, read_file


def _options(verb: Callable[..., None]) -> Any:
    """Every option that the command line has."""
    optioned: Any = config_option()(verb)
    for option in reversed(tuple(OPTIONS.values())):
        if option.on_command_line:
            optioned = click_option(option)(optioned)
    return optioned


@click.command("serve", epilog=EPILOGUE)
@_options
def command(config: Path | None, **texts: Any) -> None:
    """Run the server until it is told to stop.

    On a data directory, the first start makes it, the vault Default, and DIR/credentials with the root access key, a
    shared credentials file for the AWS SDKs. It makes the keyring, too, and says so: losing that loses every backup. A
    shared store, named by --catalog, --blobs and --keyring, is prepared by `cryo init`, and any number of servers
    run on it.

    When requests are answered, one line on stdout says where; logs go to stderr, as JSON. SIGTERM or Ctrl-C lets
    requests under way finish; a second one does not. More options can be given in the file and in the environment.
    """
    from cryostore.server.run import serve

    gc.set_threshold(*GARBAGE_THRESHOLDS)  # a failure may leave a cycle that holds a chunk, and there are many failures
    file = read_file(config) if config is not None else {}
    values = merged(read_command_line(texts), read_environment(os.environ), file)
    serve(configuration_of(values), announce)


def announce(line: str) -> None:
    """Say the one line on stdout."""
    output.show_now(line)
