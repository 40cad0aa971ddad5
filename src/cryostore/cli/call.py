"""The store that the agent's verbs work on: a directory of this machine, or a server. The same code from there on."""

from __future__ import annotations

import gc
import hashlib
import ipaddress
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import click

from cryostore.cli import known_stores, output
from cryostore.cli.agent_key_option import key_option, passphrase, read_key
from cryostore.cli.data_dir import keyring_option
from cryostore.cli.duration import duration_seconds
from cryostore.core import interrupts
from cryostore.core.errors import ConfigurationError

if TYPE_CHECKING:
    from cryostore.model.operation import Call, Operation

Out = TypeVar("Out")

OF_A_NEW_STORE = frozenset({"lost+found", "keyring.json", "credentials", "open.lock", "in-use.lock", "catalog.lock"})
"""What may be in a directory that becomes a store: on a new disk, after a failed start, or a keyring put there."""
PLACE_OPTIONS = ("data_dir", "endpoint_url", "keyring", "key", "wait")
"""The parameters that `place_options` adds; each is a field of `Place`."""
ENDPOINTS = ("AWS_ENDPOINT_URL_BACKUPSTORAGE", "AWS_ENDPOINT_URL_BACKUP", "AWS_ENDPOINT_URL")


@dataclass(frozen=True, slots=True)
class Place:
    """What the command line says about the store."""

    data_dir: Path | None
    endpoint_url: str | None
    keyring: str | None
    key: Path | None = None
    wait: float = 0.0
    """For how many seconds a run waits for a server that answered before and is away now."""

    @property
    def server_wait(self) -> float:
        """The same; 0 for a directory, which has no server."""
        return 0.0 if self.data_dir else self.wait

    @property
    def name(self) -> str:
        """What tells this store from others on this machine."""
        if self.data_dir:
            return str(self.data_dir.absolute())
        return self.endpoint_url or next((os.environ[name] for name in ENDPOINTS if os.environ.get(name)), "")


def recommend_key(place: Place) -> None:
    """Say in one line that a server elsewhere reads what is not encrypted."""
    if place.key or place.data_dir:
        return
    host = urlsplit(place.name).hostname or ""
    try:
        is_here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_here = host in ("", "localhost") or host.endswith(".localhost")
    if not is_here:
        output.tell(f"note: {host} can read this backup; `cryo init-key` and --key FILE encrypt it here")


def state_folder() -> Path | None:
    """Where what this user's runs note for the next ones lies."""
    folder = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state")
    try:
        folder = folder.expanduser()
    except RuntimeError:  # a user without a home
        return None
    return folder / "cryostore" if folder.is_absolute() else None


def _short(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def place_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a `Place`, as `PLACE_OPTIONS` lists them; the command takes them as `**place`."""
    data_dir = click.option(
        "--data-dir",
        type=click.Path(file_okay=False, path_type=Path),
        default=None,
        envvar="CRYO_DATA_DIR",
        show_envvar=True,
        help="A store in a directory of this machine.",
    )
    endpoint_url = click.option(
        "--endpoint-url", default=None, metavar="URL", help="A server; AWS_ENDPOINT_URL says it, too."
    )
    wait = click.option(
        "--wait",
        default="5m",
        show_default=True,
        metavar="TIME",
        callback=duration_seconds,
        help="How long to wait for a server that goes away during the run: 30s, 5m; 0s: do not wait.",
    )
    optioned: Callable[..., Any] = data_dir(keyring_option()(endpoint_url(key_option(wait(command)))))
    return optioned


@contextmanager
def opened_call(place: Place, *, create: bool = False) -> Iterator[Call]:
    """The store as a `Call`, with the key that archives are sealed with. `create` makes a directory a store.

    While the context lasts, Ctrl-C, SIGTERM and SIGHUP end the run where nothing is half done.
    Raises ConfigurationError unless exactly one store is named, or if there is no such key.
    """
    if place.key is None:
        with interrupts.heeded(), _opened(place, create=create) as call:
            yield call
        return
    from cryostore.agent.keys.keyed_call import KeyedCall

    key = read_key(place.key)
    with interrupts.heeded(), _opened(place, create=create) as call:
        folder = state_folder()
        remembered = str(folder / "remembered" / _short(place.name)) if folder else ""
        yield KeyedCall(call, key, remembered, lambda: passphrase("Passphrase: "))


@contextmanager
def _opened(place: Place, *, create: bool) -> Iterator[Call]:
    _collect_seldom()
    if place.endpoint_url and place.data_dir:
        raise ConfigurationError(
            "both a directory and a server are named", hint="leave --data-dir or --endpoint-url out"
        )
    if place.data_dir:
        with _in_process(place.data_dir, place.keyring, create=create) as call:
            yield _Heeding(call)
        return
    from cryostore.client.client import Client
    from cryostore.client.outage import Outage
    from cryostore.client.retry import Retry
    from cryostore.client.settings import resolve

    try:
        with interrupts.waiting:  # a file may be a pipe that nobody writes to
            settings = resolve(os.environ, endpoint_url=place.endpoint_url)
    except ConfigurationError as error:
        if place.name:  # a server is named, and something else is missing
            raise
        raise ConfigurationError(
            error.message, hint="name a store with --data-dir DIR, or a server with --endpoint-url URL"
        ) from None
    retry = Retry(outage=Outage(place.wait, say=output.tell_over_progress))
    with Client.of(settings, retry=retry) as client, interrupts.limited(client.cut_off):
        yield client


class _Heeding:
    """A store in this process: a run that was told to end begins no more operations."""

    def __init__(self, inner: Call) -> None:
        self._inner = inner

    def call(self, operation: Operation[Out]) -> Out:
        """See Call."""
        interrupts.check()
        return self._inner.call(operation)


def open_as_many_files_as_allowed() -> None:
    """Let this process hold more open files than a shell lets it: a walk holds the folders that it is in."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _collect_seldom() -> None:
    """Look for garbage seldom: a run makes many small objects and next to no cycles, and every look costs time."""
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)


@contextmanager
def _in_process(data_dir: Path, keyring: str | None, *, create: bool) -> Iterator[Call]:
    from cryostore.core.memory import keep_buffers
    from cryostore.service import Caller
    from cryostore.service.opening.open import CATALOG, open_service

    if not create and not (data_dir / CATALOG).exists():
        raise ConfigurationError(f"{data_dir} holds no store", hint="`cryo backup --data-dir` makes one")
    mark = _mark(data_dir) if create else None
    if create and not (data_dir / CATALOG).exists():
        _refuse_among_strangers(data_dir)
        if mark is not None:
            known_stores.check(mark, data_dir)
    keep_buffers()
    service = open_service(data_dir, keyring=keyring, on_keyring_created=_tell_keyring)
    if mark is not None:
        known_stores.note(mark, data_dir)
    try:
        yield service.as_caller(Caller(access_key_id="local", root=True))
    finally:
        service.close()


def _mark(data_dir: Path) -> Path | None:
    folder = state_folder()
    return folder / "stores" / _short(str(data_dir.absolute())) if folder else None


def _refuse_among_strangers(data_dir: Path) -> None:
    """Raise ConfigurationError if something is in a directory that is to become a store: it was hardly meant."""
    from cryostore.chunks.durable_files import TEMPORARY_PREFIX

    try:
        names = {path.name for path in data_dir.iterdir() if not path.name.startswith(TEMPORARY_PREFIX)}
    except OSError:  # it is not there, or opening it will say why it cannot be used
        return
    if names - OF_A_NEW_STORE and "packs" not in names:  # of packs without a catalog opening says more
        raise ConfigurationError(
            f"{data_dir} is no store, and something is in it",
            hint="name an empty directory, or one that does not exist yet: it becomes a store",
        )


def _tell_keyring(path: Path) -> None:
    output.tell(f"made a new store; nothing in it can be read without its keys: copy {path} elsewhere")
