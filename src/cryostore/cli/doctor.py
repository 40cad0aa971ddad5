"""`cryo doctor`: check the set-up for backups, and say what to do about each fault.

The checks of this machine and of the connection to a server are here, those of a store in `maintenance.diagnosis`.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cryostore.cli import exit_codes, output
from cryostore.cli.agent_store import AgentStore, agent_store_options, open_agent_store
from cryostore.cli.exit_codes import EPILOGUE
from cryostore.cli.store.named_store import NamedStore, click_option, config_option, named_store, open_store
from cryostore.core.errors import ConfigurationError, CryostoreError
from cryostore.core.time import SECOND_MS, Clock, wall_clock
from cryostore.maintenance.diagnosis import (
    ERROR,
    OK,
    SKEW_SECONDS_NOTED,
    WARNING,
    Diagnoses,
    Diagnosis,
    error,
    failed,
    ok,
    warning,
)
from cryostore.options.option import STORE

if TYPE_CHECKING:
    from cryostore.client.client import Health
    from cryostore.client.settings import ClientSettings
    from cryostore.model.operation import Call

FUSE = Path("/dev/fuse")
FUSE_PROGRAMS = ("fusermount3", "fusermount")
CATALOG, BLOBS = (option for option in STORE if option.key in ("catalog", "blobs"))
CODES = {OK: exit_codes.OK, WARNING: exit_codes.WITH_ISSUES, ERROR: exit_codes.FAILED}
LOCAL_HOSTS = ("127.", "localhost", "::1")
SKEW_SECONDS_MAX = 15 * 60
"""The server refuses signatures whose time is further off (control plane 2.1)."""


@click.command("doctor", epilog=EPILOGUE)
@click.option("--vault", default="Default", show_default=True, help="The vault that backups go to.")
@click.option(
    "--keyring-copy",
    "copy",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    metavar="FILE",
    help="A copy of the keyring of --data-dir, to compare.",
)
@click.option("--no-write", is_flag=True, help="Write nothing: skip the trial backup job.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON for each check.")
@click_option(CATALOG)
@click_option(BLOBS)
@config_option()
@agent_store_options
def command(
    vault: str,
    copy: Path | None,
    no_write: bool,
    as_json: bool,
    catalog: str | None,
    blobs: str | None,
    config: Path | None,
    **agent_store: Any,
) -> int:
    """Check whether backups can be made and read from here; print one line for each check.

    A trial job writes a few KiB into the vault, reads them back and is aborted; it leaves no recovery point. Of a
    shared store (--catalog, --blobs and --keyring, or a configuration file) each part is checked, and that the parts
    belong together. Exits with 0 if all is well, 1 if there are warnings, 2 if there are errors.
    """
    worst = 0
    named = AgentStore(**agent_store)
    store = _shared_store(named, {"catalog": catalog, "blobs": blobs, "keyring": named.keyring}, config)
    for each in _all(named, store, vault, copy, write=not no_write):
        worst = max(worst, CODES[each.level])
        if as_json:
            output.say(each._asdict())
        else:
            output.show_text(words(each))
    return worst


def words(each: Diagnosis) -> str:
    """Return a line for people, and one below it that says what to do."""
    line = f"{each.level:<8} {each.about}: {each.found}"
    return output.paragraph([line, f"         -> {each.advice}"] if each.advice else [line])


def _shared_store(agent_store: AgentStore, texts: dict[str, str | None], config: Path | None) -> NamedStore | None:
    """Return the shared store that the options name; None if they name another kind. Raises ConfigurationError."""
    named = texts["catalog"] or texts["blobs"]
    if agent_store.endpoint_url and named:
        raise ConfigurationError("both a shared store and a server are named", hint="drop one of them")
    if agent_store.endpoint_url or (agent_store.data_dir and not named):
        return None
    if agent_store.data_dir:
        raise ConfigurationError("both a shared store and a directory are named", hint="drop one of them")
    store = named_store({"data_dir": None, **texts}, config)
    if config is not None and store.shared is None:
        raise ConfigurationError(f"{config} names no shared store", hint="for a directory: cryo doctor --data-dir DIR")
    return store if store.shared is not None else None


def _all(agent_store: AgentStore, store: NamedStore | None, vault: str, copy: Path | None, *, write: bool) -> Diagnoses:
    from cryostore.core.ids import random_id
    from cryostore.core.time import wall_clock
    from cryostore.maintenance.diagnosis.stores import check_directory, check_shared

    yield from _versions()
    yield from _fuse()
    if agent_store.key is not None:
        yield _key(agent_store)
    if store is not None and store.shared is not None:
        found = check_shared(store.shared, now_ms=wall_clock(), trial_name=random_id() if write else None)
    elif agent_store.data_dir:
        found = check_directory(agent_store.data_dir, agent_store.keyring, copy)
    else:
        found = check_server(agent_store.endpoint_url)
    usable = True
    for each in found:
        # Opening a store upgrades it, which the operator decides.
        usable = usable and each.level != ERROR and not (each.about == "schema" and each.level != OK)
        yield each
    if not usable:
        return
    try:
        with _call(agent_store, store) as call:
            yield from _store(call, vault, write=write)
    except CryostoreError as problem:
        yield failed("store", problem, "fix this first")


@contextmanager
def _call(agent_store: AgentStore, store: NamedStore | None) -> Iterator[Call]:
    if store is None:
        with open_agent_store(replace(agent_store, key=None)) as call:
            yield call
        return
    from cryostore.service import Caller

    with open_store(store) as service:
        yield service.as_caller(Caller(access_key_id="local", root=True))


def _versions() -> Diagnoses:
    from cryostore import __version__

    yield ok("versions", f"cryo {__version__}, Python {platform.python_version()}, {platform.platform(terse=True)}")


def _fuse() -> Diagnoses:
    """Check whether `cryo mount` can work. If not, backups work all the same."""
    if not FUSE.exists():
        yield ok("mount", "not possible: this system has no FUSE", "`modprobe fuse`; `cryo restore` does not need it")
    elif os.geteuid() and not any(map(shutil.which, FUSE_PROGRAMS)):
        yield ok("mount", "not possible: there is no fusermount3", "install the package fuse3")
    elif not os.access(FUSE, os.R_OK | os.W_OK):
        yield ok("mount", f"not possible: this user may not open {FUSE}", "`cryo restore` does not need it")
    else:
        yield ok("mount", "possible")


def _key(agent_store: AgentStore) -> Diagnosis:
    from cryostore.cli.agent_key_option import read_key

    try:
        read_key(agent_store.key)
    except CryostoreError as problem:
        return failed("key", problem, "name a key file with --key")
    return ok("key", f"{agent_store.key} can be used", "keep a copy elsewhere: nothing can be restored without it")


def _store(call: Call, vault: str, *, write: bool) -> Diagnoses:
    from cryostore.agent.verification.resource_status import run_trial_job
    from cryostore.cli.verbs import advice
    from cryostore.model.errors import AccessDeniedException, ModelError, ResourceNotFoundException, SignatureError
    from cryostore.model.vaults import DescribeBackupVault

    try:
        call.call(DescribeBackupVault(backup_vault_name=vault))
    except ResourceNotFoundException as problem:
        yield failed(
            "vault", problem, f"make it: aws backup create-backup-vault --backup-vault-name {vault}; or give --vault"
        )
        return
    except (SignatureError, AccessDeniedException) as problem:
        yield failed("credentials", problem, "use the access key of this server: its DIR/credentials")
        return
    except ModelError as problem:
        yield failed("server", problem, advice(problem, ["doctor"]))
        return
    yield ok("vault", f"{vault} exists, and the store answers")
    if not write:
        return
    try:
        run_trial_job(call, vault)
    except CryostoreError as problem:
        yield failed("trial", problem, advice(problem, ["doctor"]))
        return
    yield ok("trial", "written, read back, aborted")


def check_server(endpoint_url: str | None, *, now: Clock = wall_clock) -> Diagnoses:
    """Check the connection to the server; ends early where later checks could not work."""
    from cryostore.client.client import ask_health
    from cryostore.client.settings import resolve

    try:
        settings = resolve(os.environ, endpoint_url=endpoint_url)
    except CryostoreError as problem:
        yield failed("settings", problem, "give --endpoint-url, and set AWS_SHARED_CREDENTIALS_FILE")
        return
    yield _access_key(settings)
    yield from _credentials_file()
    try:
        health = ask_health(settings, clock=now)
    except CryostoreError as problem:
        yield failed("endpoint", problem, "is the server running, and is this its address?")
        return
    yield _endpoint(settings.endpoint_url, health)
    yield _clock(health, now())
    yield _encryption(settings.endpoint_url)


def _access_key(settings: ClientSettings) -> Diagnosis:
    found = f"access key {settings.credentials.access_key_id} from {settings.credentials_source}"
    if settings.credentials_unused:
        return warning(
            "credentials",
            f"{found}; it overrides the one in {settings.credentials_unused}",
            "if it is not this server's: unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN",
        )
    return ok("credentials", found)


def _endpoint(url: str, health: Health) -> Diagnosis:
    from cryostore import __version__

    if not health.is_cryostore:
        found = f"{url} answers, but not as Cryostore does (status {health.status})"
        return warning("endpoint", found, "check the address")
    if not health.version:
        return ok("endpoint", f"{url} answers as Cryostore does")
    if health.version != __version__:
        found = f"{url} is Cryostore {health.version}, this is {__version__}"
        return warning("endpoint", found, "upgrade the older one")
    return ok("endpoint", f"{url} is Cryostore {health.version}")


def _clock(health: Health, now_ms: int) -> Diagnosis:
    if health.time_ms is None:
        return warning("clock", "the server does not tell its time", "compare the clocks by hand")
    off = round((now_ms - health.time_ms) / SECOND_MS)
    found = f"this machine is {abs(off)} s {'ahead of' if off > 0 else 'behind'} the server"
    advice = "synchronize the clocks of both machines with NTP"
    if abs(off) > SKEW_SECONDS_MAX:
        return error("clock", f"{found}: requests are refused", advice)
    if abs(off) > SKEW_SECONDS_NOTED:
        return warning("clock", found, advice)
    return ok("clock", "agrees with the server's within a minute")


def _encryption(url: str) -> Diagnosis:
    host = url.partition("://")[2].strip("[")
    if url.startswith("https://"):
        return ok("connection", "encrypted (TLS)")
    if host.startswith(LOCAL_HOSTS):
        return ok("connection", "within this machine")
    return warning(
        "connection",
        "not encrypted: others on the network can read the backups",
        "use https or a tunnel, or encrypt on this machine with --key",
    )


def _credentials_file() -> Diagnoses:
    if os.environ.get("AWS_ACCESS_KEY_ID"):
        return
    path = Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials")
    try:
        path = path.expanduser()
        mode = path.stat().st_mode & 0o777
    except (OSError, RuntimeError):  # it does not exist, or this user has no home
        return
    if mode & 0o077:
        yield warning("credentials", f"{path} can be read by others (mode {mode:04o})", f"chmod 600 {path}")
