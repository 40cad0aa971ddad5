"""`cryo serve`: run the server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cryostore.cli.data_dir import keyring_option
from cryostore.cli.verbs import EPILOGUE
from cryostore.core.limits import MIB
from cryostore.server.config import PORT_DEFAULT, Configuration, parse_listen, workers_default
from cryostore.server.log import LEVELS


@click.command("serve", epilog=EPILOGUE)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("cryo-data"),
    envvar="CRYO_DATA_DIR",
    show_default="./cryo-data",
    show_envvar=True,
    help="Where everything is stored; made if it is missing.",
)
@keyring_option()
@click.option("--listen", default=f"127.0.0.1:{PORT_DEFAULT}", show_default=True, help="HOST:PORT; port 0 picks one.")
@click.option(
    "--workers",
    type=int,
    default=workers_default,
    show_default="2, or 1 on one processor",
    help="Processes that share the work.",
)
@click.option("--region", default=None, help="The only region that signatures may name; any, if left out.")
@click.option("--tls-cert", type=click.Path(path_type=Path), default=None, help="Certificate chain, PEM.")
@click.option("--tls-key", type=click.Path(path_type=Path), default=None, help="Its private key, PEM.")
@click.option("--insecure-listen", is_flag=True, help="Allow other machines to connect without TLS.")
@click.option("--metrics", default=None, metavar="HOST:PORT", help="Where /metrics, /-/live and /-/ready are answered.")
@click.option(
    "--reserve",
    "reserve_mib",
    type=click.IntRange(min=0),
    default=64,
    show_default=True,
    metavar="MIB",
    help="Room kept back on the disk for deletes and garbage collection; an eighth of the disk at most.",
)
@click.option("--log-level", type=click.Choice(list(LEVELS)), default="info", show_default=True)
def command(listen: str, metrics: str | None, reserve_mib: int, **options: Any) -> None:
    """Run the server until it is told to stop.

    The first start makes the data directory, the vault Default, and DIR/credentials with the root access key, a shared
    credentials file for the AWS SDKs. It makes the keyring, too, and says so: losing that loses every backup. When
    requests are answered, one line on stdout says where; logs go to stderr, as JSON. SIGTERM or Ctrl-C lets requests
    under way finish; a second one does not.
    """
    from cryostore.server.run import serve

    host, port = parse_listen(listen)
    if metrics is not None:
        options["metrics_host"], options["metrics_port"] = parse_listen(metrics, "--metrics")
    serve(Configuration(host=host, port=port, reserve_bytes=reserve_mib * MIB, **options), announce)


def announce(line: str) -> None:
    """Say the one line on stdout."""
    print(line, flush=True)
