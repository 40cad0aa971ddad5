"""The store that an agent command works on: a directory of this machine, or a server.

Here are the options that name the store, and opening it as a `Call`. From there on a command does the same to either.
"""

from __future__ import annotations

import gc
import ipaddress
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import click

from cryostore.cli import output
from cryostore.cli.agent_key_option import key_option, passphrase, read_key
from cryostore.cli.quantities import duration_seconds
from cryostore.cli.user_state import file_name_of, remember_file_system, require_same_file_system, state_folder
from cryostore.core import interrupts
from cryostore.core.errors import ConfigurationError
from cryostore.core.threads import grace_period

if TYPE_CHECKING:
    from cryostore.model.operation import Call, Operation

Out = TypeVar("Out")

NAMES_IN_A_NEW_STORE = frozenset(
    {"lost+found", "keyring.json", "credentials", "open.lock", "in-use.lock", "catalog.lock"}
)
"""Names allowed in a directory that becomes a store: those of a new disk, of a failed start, and a keyring."""
AGENT_STORE_OPTIONS = ("data_dir", "endpoint_url", "keyring", "key", "wait")
"""The parameters that `agent_store_options` adds; each is a field of `AgentStore`."""
ENDPOINTS = ("AWS_ENDPOINT_URL_BACKUPSTORAGE", "AWS_ENDPOINT_URL_BACKUP", "AWS_ENDPOINT_URL")


@dataclass(frozen=True, slots=True)
class AgentStore:
    """What the command line says about the store."""

    data_dir: Path | None
    endpoint_url: str | None
    keyring: str | None
    key: Path | None = None
    wait: float = 0.0
    """For how many seconds a run waits for a server that answered before and does not now."""

    @property
    def server_wait(self) -> float:
        """The same; 0 for a directory, which has no server."""
        return 0.0 if self.data_dir else self.wait

    @property
    def name(self) -> str:
        """The directory or the URL: tells this store from others on this machine."""
        if self.data_dir:
            return str(self.data_dir.absolute())
        return self.endpoint_url or next((os.environ[name] for name in ENDPOINTS if os.environ.get(name)), "")


def recommend_key(store: AgentStore) -> None:
    """Print a note if another machine can read what this run sends, because there is no key."""
    if store.key or store.data_dir:
        return
    host = urlsplit(store.name).hostname or ""
    try:
        is_here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_here = host in ("", "localhost") or host.endswith(".localhost")
    if not is_here:
        output.tell(f"note: {host} can read this backup; `cryo init-key` and --key FILE encrypt it here")


def agent_store_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of an `AgentStore`; the command takes those of AGENT_STORE_OPTIONS."""
    data_dir = click.option(
        "--data-dir",
        type=click.Path(file_okay=False, path_type=Path),
        default=None,
        envvar="CRYO_DATA_DIR",
        show_envvar=True,
        help="A store in a directory of this machine.",
    )
    keyring = click.option(
        "--keyring",
        metavar="PLACE",
        default=None,
        envvar="CRYO_KEYRING",
        show_envvar=True,
        help="The master keys, if not in the data directory: PATH, file:PATH, env:NAME or command:PROGRAM ARGUMENT...",
    )
    endpoint_url = click.option(
        "--endpoint-url", default=None, metavar="URL", help="A server; AWS_ENDPOINT_URL names it, too."
    )
    wait = click.option(
        "--wait",
        default="5m",
        show_default=True,
        metavar="TIME",
        callback=duration_seconds,
        help="How long to wait for a server that stops answering during the run: 30s, 5m; 0s: do not wait.",
    )
    optioned: Callable[..., Any] = data_dir(keyring(endpoint_url(key_option(wait(command)))))
    return optioned


@contextmanager
def open_agent_store(store: AgentStore, *, create: bool = False) -> Iterator[Call]:
    """Open the store as a `Call`, with the key that encrypts archives. `create` makes a directory a store.

    While the context lasts, Ctrl-C, SIGTERM and SIGHUP end the run at safe points only.
    Raises ConfigurationError unless exactly one store is named, or if the key file does not exist.
    """
    if store.key is None:
        with interrupts.deferred(), _open(store, create=create) as call:
            yield call
        return
    from cryostore.agent.encryption.keyed_call import KeyedCall

    key = read_key(store.key)
    with interrupts.deferred(), _open(store, create=create) as call:
        folder = state_folder()
        remembered = str(folder / "remembered" / file_name_of(store.name)) if folder else ""
        yield KeyedCall(call, key, remembered, lambda: passphrase("Passphrase: "))


@contextmanager
def _open(store: AgentStore, *, create: bool) -> Iterator[Call]:
    _collect_garbage_seldom()
    if store.endpoint_url and store.data_dir:
        raise ConfigurationError("both a directory and a server are named", hint="drop --data-dir or --endpoint-url")
    if store.data_dir:
        with _open_directory(store.data_dir, store.keyring, create=create) as call:
            yield _InterruptibleCall(call)
        return
    from cryostore.client.client import Client
    from cryostore.client.retry import Outage, Retry
    from cryostore.client.settings import resolve

    try:
        with interrupts.interruptible:  # a credentials file may be a pipe without a writer
            settings = resolve(os.environ, endpoint_url=store.endpoint_url)
    except ConfigurationError as error:
        if store.name:  # a server is named, and another setting is missing
            raise
        raise ConfigurationError(
            error.message, hint="name a store with --data-dir DIR, or a server with --endpoint-url URL"
        ) from None
    retry = Retry(outage=Outage(store.wait, say=output.tell_over_progress))
    with Client.of(settings, retry=retry) as client, grace_period(client.cut_off):
        yield client


class _InterruptibleCall:
    """A store in this process, on which an interrupted run starts no further operation."""

    def __init__(self, inner: Call) -> None:
        self._inner = inner

    def call(self, operation: Operation[Out]) -> Out:
        """See Call."""
        interrupts.check()
        return self._inner.call(operation)


def _collect_garbage_seldom() -> None:
    """Look for reference cycles seldom: a run makes many small objects and hardly a cycle, and looking costs time."""
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)


@contextmanager
def _open_directory(data_dir: Path, keyring: str | None, *, create: bool) -> Iterator[Call]:
    from cryostore.core.process_resources import keep_buffers
    from cryostore.service import Caller
    from cryostore.service.opening.open import CATALOG, open_service

    is_there = (data_dir / CATALOG).exists()
    if not is_there and not create:
        raise ConfigurationError(f"{data_dir} holds no store", hint="`cryo backup --data-dir` makes one")
    if not is_there:
        _require_free_for_a_store(data_dir)
        require_same_file_system(data_dir)
    keep_buffers()
    service = open_service(data_dir, keyring=keyring, on_keyring_created=_tell_keyring)
    if create:
        remember_file_system(data_dir)
    try:
        yield service.as_caller(Caller(access_key_id="local", root=True))
    finally:
        service.close()


def _require_free_for_a_store(data_dir: Path) -> None:
    """Raise ConfigurationError if a directory that is to become a store holds other files: hardly the one meant."""
    from cryostore.chunks.durable_files import TEMPORARY_PREFIX

    try:
        names = {path.name for path in data_dir.iterdir() if not path.name.startswith(TEMPORARY_PREFIX)}
    except OSError:  # it does not exist, or opening the store will say why it cannot be used
        return
    if names - NAMES_IN_A_NEW_STORE and "packs" not in names:  # opening says more about packs without a catalog
        raise ConfigurationError(
            f"{data_dir} is not a store, and not empty",
            hint="name an empty directory, or one that does not exist yet: it becomes a store",
        )


def _tell_keyring(path: Path) -> None:
    output.tell(f"made a new store; nothing in it can be read without its keys: copy {path} elsewhere")
